/* SPDX-License-Identifier: Apache-2.0
 *
 * Attention to keys and values that are kept from one call to the next: what generation does for
 * each new token. An item is a token and a key-value head, with all query heads that share it: one
 * worker from start to end, so its bits depend neither on the threads nor on the other tokens.
 */
#include "cpu/attention.h"

#include <math.h>
#include <string.h>

#include "cpu/blas.h"
#include "cpu/exp.h"
#include "cpu/kernels.h"
#include "cpu/split.h"
#include "src/base/err.h"

struct job {
    const struct tr_cpu *cpu;
    const struct tr_op_attention_cached *op;
};

/* Some query heads of a token, and the tile of keys they are at. */
struct tile {
    const struct tr_op_attention_cached *op;
    int64_t heads, key, keys, columns; /* columns: keys, up to a multiple of TR_LANES */
    const float *q, *k, *v;
    float *o, *scores; /* (heads, head_dim), (heads, TR_KEY_TILE) */
    float max[TR_QUERY_TILE], sum[TR_QUERY_TILE];
};

static void keep_rows(void *arg, int64_t begin, int64_t end, int worker)
{
    const struct tr_op_attention_cached *op = ((const struct job *)arg)->op;
    int64_t width = op->kv_heads * op->head_dim;

    (void)worker;
    for (int64_t t = begin; t < end; t++) {
        size_t bytes = (size_t)width * sizeof(float);

        memcpy((float *)op->k_cache + op->row[t] * width, (const float *)op->k + t * width, bytes);
        memcpy((float *)op->v_cache + op->row[t] * width, (const float *)op->v + t * width, bytes);
    }
}

static void scores(const struct tr_cpu *cpu, struct tile *t)
{
    const struct tr_op_attention_cached *op = t->op;

    tr_blas_gemm(cpu->blas, &(struct tr_gemm){.rows = t->heads,
                                              .cols = t->keys,
                                              .k = op->head_dim,
                                              .a = t->q,
                                              .lda = op->head_dim,
                                              .b = t->k + t->key * op->kv_heads * op->head_dim,
                                              .ldb = op->kv_heads * op->head_dim,
                                              .b_trans = 1,
                                              .c = t->scores,
                                              .ldc = TR_KEY_TILE});
    t->columns = (t->keys + TR_LANES - 1) / TR_LANES * TR_LANES;
    for (int64_t h = 0; h < t->heads; h++)
        for (int64_t c = t->keys; c < t->columns; c++)
            t->scores[h * TR_KEY_TILE + c] = -INFINITY;
}

/* Scores into probabilities; what is summed so far shrinks as the maximum grows. */
static void fold(const struct tr_cpu_kernels *k, struct tile *t)
{
    for (int64_t h = 0; h < t->heads; h++) {
        float *s = t->scores + h * TR_KEY_TILE;
        float max = k->attention_max(s, t->max[h], t->columns);
        float shrink = tr_exp((t->max[h] - max) * t->op->scale);

        t->sum[h] = t->sum[h] * shrink + k->attention_exp(s, max, t->op->scale, t->columns);
        t->max[h] = max;
        if (shrink != 1.0f)
            k->attention_scale(t->o + h * t->op->head_dim, shrink, t->op->head_dim);
    }
}

static void add_values(const struct tr_cpu *cpu, const struct tile *t)
{
    const struct tr_op_attention_cached *op = t->op;

    tr_blas_gemm(cpu->blas, &(struct tr_gemm){.rows = t->heads,
                                              .cols = op->head_dim,
                                              .k = t->keys,
                                              .a = t->scores,
                                              .lda = TR_KEY_TILE,
                                              .b = t->v + t->key * op->kv_heads * op->head_dim,
                                              .ldb = op->kv_heads * op->head_dim,
                                              .c = t->o,
                                              .ldc = op->head_dim,
                                              .beta = 1});
}

/* The rows [begin, end) of the cache. */
static void attend(const struct tr_cpu *cpu, struct tile *t, int64_t begin, int64_t end)
{
    int64_t d = t->op->head_dim;

    memset(t->o, 0, (size_t)(t->heads * d) * sizeof(float));
    for (int64_t h = 0; h < t->heads; h++) {
        t->max[h] = -INFINITY;
        t->sum[h] = 0;
    }
    for (t->key = begin; t->key < end; t->key += TR_KEY_TILE) {
        t->keys = tr_min64(TR_KEY_TILE, end - t->key);
        scores(cpu, t);
        fold(cpu->kernels, t);
        add_values(cpu, t);
    }
    for (int64_t h = 0; h < t->heads; h++)
        cpu->kernels->attention_scale(t->o + h * d, 1.0f / t->sum[h], d);
}

static void attend_items(void *arg, int64_t begin, int64_t end, int worker)
{
    const struct job *j = arg;
    const struct tr_op_attention_cached *op = j->op;
    int64_t group = op->heads / op->kv_heads, d = op->head_dim;
    struct tile t = {.op = op, .scores = tr_cpu_scratch(j->cpu, worker)};

    for (int64_t item = begin; item < end; item++) {
        int64_t token = item / op->kv_heads, kv = item % op->kv_heads, last = op->row[token];
        int64_t first = op->first[token], most = last + 1 - op->window;

        first = op->window && most > first ? most : first;
        t.k = (const float *)op->k_cache + kv * d;
        t.v = (const float *)op->v_cache + kv * d;
        for (int64_t h = 0; h < group; h += TR_QUERY_TILE) {
            int64_t at = (token * op->heads + kv * group + h) * d;

            t.heads = tr_min64(TR_QUERY_TILE, group - h);
            t.q = (const float *)op->q + at;
            t.o = (float *)op->o + at;
            attend(j->cpu, &t, first, last + 1);
        }
    }
}

int tr_cpu_attention_cached(const struct tr_cpu *cpu, const struct tr_op_attention_cached *op)
{
    struct job j = {cpu, op};

    if (op->heads <= 0 || op->kv_heads <= 0 || op->heads % op->kv_heads)
        return tr_error(-EINVAL, "attention: %lld heads are not a multiple of %lld key-value heads",
                        (long long)op->heads, (long long)op->kv_heads);
    tr_pool_run(cpu->pool, op->n, 1, keep_rows, &j);
    if (op->o)
        tr_pool_run(cpu->pool, op->n * op->kv_heads, 1, attend_items, &j);
    return 0;
}
