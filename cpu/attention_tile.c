/* SPDX-License-Identifier: Apache-2.0
 *
 * The geometry of attention's tiles, and their scores. Forward and backward pass go through the
 * same calls with the same shapes, so the backward pass meets the very scores whose lse was kept.
 */
#include "cpu/attention.h"

#include <math.h>

#include "cpu/blas.h"
#include "cpu/kernels.h"
#include "cpu/split.h"
#include "src/base/err.h"

void tr_attention_tile_doc(struct tr_attention_tile *t, int32_t d)
{
    const struct tr_ranges *docs = &t->op->docs;

    t->doc = docs->start[d];
    t->length = docs->start[d + 1] - docs->start[d];
}

void tr_attention_tile_queries(struct tr_attention_tile *t, int64_t query)
{
    t->query = query;
    t->queries = tr_min64(TR_QUERY_TILE, t->length - query);
}

void tr_attention_tile_keys(struct tr_attention_tile *t, int64_t key)
{
    t->key = key;
    t->keys = tr_min64(TR_KEY_TILE, t->query + t->queries - key);
}

int64_t tr_attention_first_key(const struct tr_attention_tile *t)
{
    int64_t window = t->op->window, first = window ? t->query - window + 1 : 0;

    return first > 0 ? first / TR_KEY_TILE * TR_KEY_TILE : 0;
}

int64_t tr_attention_end_query(const struct tr_attention_tile *t, int64_t key)
{
    int64_t last_key = tr_min64(key + TR_KEY_TILE, t->length) - 1;

    return t->op->window ? tr_min64(last_key + t->op->window, t->length) : t->length;
}

int64_t tr_attention_columns(const struct tr_attention_tile *t)
{
    return (t->keys + TR_LANES - 1) / TR_LANES * TR_LANES;
}

/* The row's keys are [begin, end) of the tile: all else is masked, the padding of the last vector
 * included, so that row kernels need no tails. */
static void mask(const struct tr_attention_tile *t, int64_t row, float *s)
{
    int64_t query = t->query + row, window = t->op->window;
    int64_t begin = window ? query - window + 1 - t->key : 0;
    int64_t end = query + 1 - t->key, columns = tr_attention_columns(t);

    end = tr_min64(end < 0 ? 0 : end, t->keys);
    for (int64_t c = 0; c < tr_min64(begin, columns); c++)
        s[c] = -INFINITY;
    for (int64_t c = end; c < columns; c++)
        s[c] = -INFINITY;
}

void tr_attention_scores(const struct tr_attention_tile *t)
{
    const struct tr_op_attention *op = t->op;

    tr_blas_gemm(t->cpu->blas,
                 &(struct tr_gemm){
                     .rows = t->queries,
                     .cols = t->keys,
                     .k = op->head_dim,
                     .a = tr_attention_at(t, op->q, op->heads, t->head, t->query),
                     .lda = op->heads * op->head_dim,
                     .b = tr_attention_at(t, op->k, op->kv_heads, tr_attention_kv_head(t), t->key),
                     .ldb = op->kv_heads * op->head_dim,
                     .b_trans = 1,
                     .c = t->scores,
                     .ldc = TR_KEY_TILE});
    for (int64_t r = 0; r < t->queries; r++)
        mask(t, r, t->scores + r * TR_KEY_TILE);
}

int tr_attention_check(const struct tr_op_attention *op)
{
    if (op->heads <= 0 || op->kv_heads <= 0 || op->heads % op->kv_heads)
        return tr_error(-EINVAL, "attention: %lld heads are not a multiple of %lld key-value heads",
                        (long long)op->heads, (long long)op->kv_heads);
    return 0;
}
