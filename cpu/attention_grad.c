/* SPDX-License-Identifier: Apache-2.0
 *
 * Attention backward: probabilities are made again from the kept lse, tile by tile; with
 * delta = rowsum(d_o * o): ds = p * (dp - delta) * scale, dv += p^T d_o, dk += ds^T q, dq += ds k.
 * Order of every sum: dk and dv of a key tile over the group's heads, then query tiles; dq of a
 * query tile over key tiles. There are two ways to walk with that same order, hence with the same
 * bits: one worker does a (document, key-value head) whole, or, where that leaves workers idle, key
 * tiles and query tiles are items of their own and scores are made twice.
 */
#include "cpu/attention.h"

#include <string.h>

#include "cpu/blas.h"
#include "cpu/kernels.h"
#include "cpu/split.h"

enum { WANT_Q = 1, WANT_KV = 2 };

_Static_assert(2 * TR_QUERY_TILE * TR_KEY_TILE * sizeof(float) <= TR_CPU_SCRATCH_F32,
               "two tiles of scores in scratch");

/* c (rows, head_dim) += a b, or a^T b for the sums of keys. */
static void product(const struct tr_attention_tile *t, const float *a, const float *b, float *c,
                    int to_keys)
{
    const struct tr_op_attention *op = t->op;
    int64_t query_ld = op->heads * op->head_dim, key_ld = op->kv_heads * op->head_dim;

    tr_blas_gemm(t->cpu->blas, &(struct tr_gemm){.rows = to_keys ? t->keys : t->queries,
                                                 .cols = op->head_dim,
                                                 .k = to_keys ? t->queries : t->keys,
                                                 .a = a,
                                                 .lda = TR_KEY_TILE,
                                                 .a_trans = to_keys,
                                                 .b = b,
                                                 .ldb = to_keys ? query_ld : key_ld,
                                                 .c = c,
                                                 .ldc = to_keys ? key_ld : query_ld,
                                                 .beta = 1});
}

/* scores becomes p, ds becomes the gradient of the scores. */
static void score_gradients(const struct tr_attention_tile *t)
{
    const struct tr_op_attention *op = t->op;
    int64_t kv = tr_attention_kv_head(t);

    tr_attention_scores(t);
    tr_blas_gemm(t->cpu->blas,
                 &(struct tr_gemm){.rows = t->queries,
                                   .cols = t->keys,
                                   .k = op->head_dim,
                                   .a = tr_attention_at(t, op->d_o, op->heads, t->head, t->query),
                                   .lda = op->heads * op->head_dim,
                                   .b = tr_attention_at(t, op->v, op->kv_heads, kv, t->key),
                                   .ldb = op->kv_heads * op->head_dim,
                                   .b_trans = 1,
                                   .c = t->ds,
                                   .ldc = TR_KEY_TILE});
    for (int64_t r = 0; r < t->queries; r++) {
        int64_t at = (t->doc + t->query + r) * op->heads + t->head;
        struct tr_attention_row row = {op->scale, op->lse[at], op->delta[at]};

        t->cpu->kernels->attention_grad(t->scores + r * TR_KEY_TILE, t->ds + r * TR_KEY_TILE, &row,
                                        tr_attention_columns(t));
    }
}

static void add_tile(struct tr_attention_tile *t, int64_t key, int want)
{
    const struct tr_op_attention *op = t->op;
    int64_t kv = tr_attention_kv_head(t);

    tr_attention_tile_keys(t, key);
    score_gradients(t);
    if (want & WANT_KV) {
        product(t, t->scores, tr_attention_at(t, op->d_o, op->heads, t->head, t->query),
                tr_attention_at(t, op->dv, op->kv_heads, kv, key), 1);
        product(t, t->ds, tr_attention_at(t, op->q, op->heads, t->head, t->query),
                tr_attention_at(t, op->dk, op->kv_heads, kv, key), 1);
    }
    if (want & WANT_Q)
        product(t, t->ds, tr_attention_at(t, op->k, op->kv_heads, kv, key),
                tr_attention_at(t, op->dq, op->heads, t->head, t->query), 0);
}

/* Every tile adds to its results, so they start from zero. heads: how many and which; tokens:
 * from and to. */
static void zero_rows(const struct tr_attention_tile *t, float *tensor, const int64_t heads[2],
                      const int64_t tokens[2])
{
    for (int64_t i = tokens[0]; i < tokens[1]; i++)
        memset(tr_attention_at(t, tensor, heads[0], heads[1], i), 0,
               (size_t)t->op->head_dim * sizeof(float));
}

/* dk and dv of the key tile at key of head kv; with WANT_Q also this tile's part of dq. */
static void grad_keys(struct tr_attention_tile *t, int64_t kv, int64_t key, int want)
{
    const struct tr_op_attention *op = t->op;
    int64_t group = op->heads / op->kv_heads, end = tr_attention_end_query(t, key);
    int64_t tokens[2] = {key, tr_min64(key + TR_KEY_TILE, t->length)};

    zero_rows(t, op->dk, (int64_t[2]){op->kv_heads, kv}, tokens);
    zero_rows(t, op->dv, (int64_t[2]){op->kv_heads, kv}, tokens);
    for (t->head = kv * group; t->head < (kv + 1) * group; t->head++)
        for (int64_t query = key; query < end; query += TR_QUERY_TILE) {
            tr_attention_tile_queries(t, query);
            add_tile(t, key, want);
        }
}

/* dq of the query tile and head that are set. */
static void grad_queries(struct tr_attention_tile *t)
{
    int64_t end = t->query + t->queries;

    zero_rows(t, t->op->dq, (int64_t[2]){t->op->heads, t->head}, (int64_t[2]){t->query, end});
    for (int64_t key = tr_attention_first_key(t); key < end; key += TR_KEY_TILE)
        add_tile(t, key, WANT_Q);
}

/* All gradients of a document's key-value head and its group of query heads. */
static void grad_document(struct tr_attention_tile *t, int64_t kv)
{
    const struct tr_op_attention *op = t->op;
    int64_t group = op->heads / op->kv_heads;

    for (int64_t h = kv * group; h < (kv + 1) * group; h++)
        zero_rows(t, op->dq, (int64_t[2]){op->heads, h}, (int64_t[2]){0, t->length});
    for (int64_t key = 0; key < t->length; key += TR_KEY_TILE)
        grad_keys(t, kv, key, WANT_Q | WANT_KV);
}

static struct tr_attention_tile tile_of_worker(const struct tr_attention_job *j, int worker)
{
    float *scratch = tr_cpu_scratch(j->cpu, worker);

    return (struct tr_attention_tile){
        .cpu = j->cpu, .op = j->op, .scores = scratch, .ds = scratch + TR_QUERY_TILE * TR_KEY_TILE};
}

static void whole_items(void *arg, int64_t begin, int64_t end, int worker)
{
    const struct tr_attention_job *j = arg;
    struct tr_attention_tile t = tile_of_worker(j, worker);
    int64_t item = 0;

    for (int32_t d = 0; d < j->op->docs.n; d++) {
        tr_attention_tile_doc(&t, d);
        for (int64_t kv = 0; kv < j->op->kv_heads; kv++, item++)
            if (tr_attention_has(j, item, begin, end))
                grad_document(&t, kv);
    }
}

static void key_items(void *arg, int64_t begin, int64_t end, int worker)
{
    const struct tr_attention_job *j = arg;
    struct tr_attention_tile t = tile_of_worker(j, worker);
    int64_t item = 0;

    for (int32_t d = 0; d < j->op->docs.n; d++) {
        tr_attention_tile_doc(&t, d);
        for (int64_t key = 0; key < t.length; key += TR_KEY_TILE)
            for (int64_t kv = 0; kv < j->op->kv_heads; kv++, item++)
                if (tr_attention_has(j, item, begin, end))
                    grad_keys(&t, kv, key, WANT_KV);
    }
}

static void query_items(void *arg, int64_t begin, int64_t end, int worker)
{
    const struct tr_attention_job *j = arg;
    struct tr_attention_tile t = tile_of_worker(j, worker);
    int64_t item = 0;

    for (int32_t d = 0; d < j->op->docs.n; d++) {
        tr_attention_tile_doc(&t, d);
        for (int64_t query = 0; query < t.length; query += TR_QUERY_TILE) {
            tr_attention_tile_queries(&t, query);
            for (t.head = 0; t.head < j->op->heads; t.head++, item++)
                if (tr_attention_has(j, item, begin, end))
                    grad_queries(&t);
        }
    }
}

static void sum_delta(void *arg, int64_t begin, int64_t end, int worker)
{
    const struct tr_attention_job *j = arg;
    const struct tr_op_attention *op = j->op;
    const float *d_o = op->d_o, *o = op->o;
    int64_t d = op->head_dim;

    (void)worker;
    for (int64_t i = begin; i < end; i++)
        op->delta[i] = j->cpu->kernels->attention_dot(d_o + i * d, o + i * d, d);
}

/* Whether whole documents keep the workers busy: the slower way does 7 products instead of 5. */
static int whole_is_faster(const struct tr_attention_job *j)
{
    const struct tr_ranges *docs = &j->op->docs;
    double *load = tr_cpu_scratch(j->cpu, 0), total = 0, most = 0;
    int64_t item = 0, threads = tr_pool_threads(j->cpu->pool);

    memset(load, 0, (size_t)threads * sizeof(double));
    for (int32_t d = 0; d < docs->n; d++) {
        double length = docs->start[d + 1] - docs->start[d], window = (double)j->op->window;
        double cost = length * (window > 0 && window < length / 2 ? window : length / 2);

        for (int64_t kv = 0; kv < j->op->kv_heads; kv++, item++) {
            load[item % threads] += cost;
            total += cost;
            if (load[item % threads] > most)
                most = load[item % threads];
        }
    }
    return most * (double)threads <= total * 1.4;
}

int tr_cpu_attention_grad(const struct tr_cpu *cpu, const struct tr_op_attention *op)
{
    struct tr_attention_job j = tr_attention_job(cpu, op);
    int ret = tr_attention_check(op);

    if (ret)
        return ret;
    tr_pool_run(cpu->pool, op->n * op->heads, tr_split_grain(op->head_dim), sum_delta, &j);
    if (whole_is_faster(&j)) {
        tr_pool_run(cpu->pool, j.shares, 1, whole_items, &j);
    } else {
        tr_pool_run(cpu->pool, j.shares, 1, key_items, &j);
        tr_pool_run(cpu->pool, j.shares, 1, query_items, &j);
    }
    return 0;
}
