/* SPDX-License-Identifier: Apache-2.0
 *
 * Attention forward, flash style: causal, grouped-query, windowed, inside documents. A query tile
 * walks over the key tiles that it sees with a running maximum and sum per row; only tiles of
 * scores exist, in the worker's scratch. Work items are (document, query tile, head); an item is
 * done by one worker from start to end, so its bits do not depend on the threads. Products are BLAS
 * calls on tiles; softmax rows are kernels.
 */
#include "cpu/attention.h"

#include <math.h>
#include <string.h>

#include "cpu/blas.h"
#include "cpu/exp.h"
#include "cpu/kernels.h"

/* Running softmax of the rows of a query tile. */
struct rows {
    float max[TR_QUERY_TILE], sum[TR_QUERY_TILE];
};

/* Row kernels in plain C: the definition of those in cpu/attention_simd.h. NaN scores are passed
 * over by the maximum and come out through the sum. */
static float row_max(const float *s, float max, int64_t n)
{
    for (int64_t i = 0; i < n; i++)
        max = s[i] > max ? s[i] : max;
    return max;
}

static float row_exp(float *s, float max, float scale, int64_t n)
{
    float lanes[TR_LANES] = {0};

    for (int64_t i = 0; i < n; i++) {
        s[i] = tr_exp((s[i] - max) * scale);
        lanes[i % TR_LANES] += s[i];
    }
    return tr_lanes_sum(lanes);
}

static void row_grad(float *s, float *ds, const struct tr_attention_row *row, int64_t n)
{
    for (int64_t i = 0; i < n; i++) {
        s[i] = tr_exp(s[i] * row->scale - row->lse);
        ds[i] = s[i] * (ds[i] - row->delta) * row->scale;
    }
}

static void row_scale(float *x, float by, int64_t n)
{
    for (int64_t i = 0; i < n; i++)
        x[i] *= by;
}

static float row_dot(const float *a, const float *b, int64_t n)
{
    float lanes[TR_LANES] = {0};

    for (int64_t i = 0; i < n; i++)
        lanes[i % TR_LANES] += a[i] * b[i];
    return tr_lanes_sum(lanes);
}

void tr_attention_init_c(struct tr_cpu_kernels *k)
{
    k->attention_max = row_max;
    k->attention_exp = row_exp;
    k->attention_grad = row_grad;
    k->attention_scale = row_scale;
    k->attention_dot = row_dot;
}

/* One row's scores into probabilities; its output so far shrinks as the maximum grows. */
static void fold_row(const struct tr_attention_tile *t, struct rows *rows, int64_t r)
{
    const struct tr_op_attention *op = t->op;
    const struct tr_cpu_kernels *k = t->cpu->kernels;
    int64_t columns = tr_attention_columns(t), begin = t->query + r - op->window + 1;
    float *s = t->scores + r * TR_KEY_TILE, *o;

    if (t->key > t->query + r || (op->window && begin >= t->key + t->keys)) {
        memset(s, 0, (size_t)columns * sizeof(float)); /* the row sees none of these keys */
        return;
    }
    float max = k->attention_max(s, rows->max[r], columns);
    float shrink = tr_exp((rows->max[r] - max) * op->scale);

    rows->sum[r] = rows->sum[r] * shrink + k->attention_exp(s, max, op->scale, columns);
    rows->max[r] = max;
    o = tr_attention_at(t, op->o, op->heads, t->head, t->query + r);
    if (shrink != 1.0f)
        k->attention_scale(o, shrink, op->head_dim);
}

/* o += p v */
static void add_values(const struct tr_attention_tile *t)
{
    const struct tr_op_attention *op = t->op;

    tr_blas_gemm(t->cpu->blas,
                 &(struct tr_gemm){
                     .rows = t->queries,
                     .cols = op->head_dim,
                     .k = t->keys,
                     .a = t->scores,
                     .lda = TR_KEY_TILE,
                     .b = tr_attention_at(t, op->v, op->kv_heads, tr_attention_kv_head(t), t->key),
                     .ldb = op->kv_heads * op->head_dim,
                     .c = tr_attention_at(t, op->o, op->heads, t->head, t->query),
                     .ldc = op->heads * op->head_dim,
                     .beta = 1});
}

/* One item: the output and lse of the query tile and head that are set. */
static void attend(struct tr_attention_tile *t)
{
    const struct tr_op_attention *op = t->op;
    struct rows rows;

    for (int64_t r = 0; r < t->queries; r++) {
        rows.max[r] = -INFINITY;
        rows.sum[r] = 0;
        memset(tr_attention_at(t, op->o, op->heads, t->head, t->query + r), 0,
               (size_t)op->head_dim * sizeof(float));
    }
    for (int64_t key = tr_attention_first_key(t); key < t->query + t->queries; key += TR_KEY_TILE) {
        tr_attention_tile_keys(t, key);
        tr_attention_scores(t);
        for (int64_t r = 0; r < t->queries; r++)
            fold_row(t, &rows, r);
        add_values(t);
    }
    for (int64_t r = 0; r < t->queries; r++) {
        float *o = tr_attention_at(t, op->o, op->heads, t->head, t->query + r);

        t->cpu->kernels->attention_scale(o, 1.0f / rows.sum[r], op->head_dim);
        op->lse[(t->doc + t->query + r) * op->heads + t->head] =
            rows.max[r] * op->scale + logf(rows.sum[r]);
    }
}

static void attend_items(void *arg, int64_t begin, int64_t end, int worker)
{
    const struct tr_attention_job *j = arg;
    struct tr_attention_tile t = {.cpu = j->cpu, .op = j->op};
    int64_t item = 0;

    t.scores = tr_cpu_scratch(j->cpu, worker);
    for (int32_t d = 0; d < j->op->docs.n; d++) {
        tr_attention_tile_doc(&t, d);
        for (int64_t query = 0; query < t.length; query += TR_QUERY_TILE) {
            tr_attention_tile_queries(&t, query);
            for (t.head = 0; t.head < j->op->heads; t.head++, item++)
                if (tr_attention_has(j, item, begin, end))
                    attend(&t);
        }
    }
}

int tr_cpu_attention(const struct tr_cpu *cpu, const struct tr_op_attention *op)
{
    struct tr_attention_job j = tr_attention_job(cpu, op);
    int ret = tr_attention_check(op);

    if (!ret)
        tr_pool_run(cpu->pool, j.shares, 1, attend_items, &j);
    return ret;
}
