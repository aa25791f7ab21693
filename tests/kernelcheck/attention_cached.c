/* SPDX-License-Identifier: Apache-2.0
 *
 * Attention to a cache against the textbook in double: grouped queries, windows, sequences of all
 * lengths that lie anywhere in the cache. Rows that are not the tokens' own keep their bits, and a
 * token has the same bits alone as among others.
 */
#include <math.h>
#include <string.h>

#include "tests/kernelcheck/variant.h"

#define MOST 6

struct shape {
    int64_t heads, kv_heads, head_dim, window;
    int32_t n, first[MOST], row[MOST];
};

/* The cache is as long as this in every case. */
#define ROWS 700

static size_t width(const struct tr_op_attention_cached *op)
{
    return (size_t)(op->kv_heads * op->head_dim);
}

static double dot(const struct tr_op_attention_cached *op, const void *a, size_t i, const void *b,
                  size_t j)
{
    double sum = 0;

    for (size_t d = 0; d < (size_t)op->head_dim; d++)
        sum += (double)tr_load_f32(a, op->dtype, i + d) * tr_load_f32(b, op->dtype, j + d);
    return sum;
}

/* One token and head, from a cache that has the new rows. */
static void reference(const struct tr_op_attention_cached *op, int64_t t, int64_t h, double *o)
{
    int64_t first = op->first[t], last = op->row[t], d = op->head_dim;
    int64_t kv = h / (op->heads / op->kv_heads), q = (t * op->heads + h) * d;
    double p[ROWS], max = -INFINITY, sum = 0;

    first = op->window && last + 1 - op->window > first ? last + 1 - op->window : first;
    for (int64_t j = first; j <= last; j++) {
        p[j] = dot(op, op->q, (size_t)q, op->k_cache, (size_t)((j * op->kv_heads + kv) * d)) *
               op->scale;
        max = p[j] > max ? p[j] : max;
    }
    for (int64_t j = first; j <= last; j++)
        sum += p[j] = exp(p[j] - max);
    for (int64_t j = first; j <= last; j++)
        for (int64_t i = 0; i < d; i++)
            o[q + i] +=
                p[j] / sum *
                tr_load_f32(op->v_cache, op->dtype, (size_t)((j * op->kv_heads + kv) * d + i));
}

/* What the cache must hold afterwards, into `wanted`. */
static void keep(const struct tr_op_attention_cached *op, const void *rows, void *wanted)
{
    size_t bytes = width(op) * tr_dtype_size(op->dtype);

    for (int64_t t = 0; t < op->n; t++)
        memcpy((char *)wanted + (size_t)op->row[t] * bytes, (const char *)rows + (size_t)t * bytes,
               bytes);
}

static void *copy(struct check *c, const struct tr_op_attention_cached *op, const void *cache)
{
    size_t bytes = ROWS * width(op) * tr_dtype_size(op->dtype);

    return memcpy(check_bytes(c, bytes), cache, bytes);
}

static const int32_t *ints(struct check *c, const int32_t *from, int32_t n)
{
    int32_t *to = check_bytes(c, (size_t)n * 4);

    memcpy(to, from, (size_t)n * 4);
    check_freeze(c);
    return to;
}

static struct tr_op_attention_cached open_case(struct check *c, enum tr_dtype dtype,
                                               const struct shape *s)
{
    struct tr_op_attention_cached op = {.dtype = dtype,
                                        .n = s->n,
                                        .heads = s->heads,
                                        .kv_heads = s->kv_heads,
                                        .head_dim = s->head_dim,
                                        .window = s->window,
                                        .scale = 1 / sqrtf((float)s->head_dim)};
    size_t n = (size_t)s->n;

    op.q = check_input(c, dtype, n * (size_t)(s->heads * s->head_dim), CHECK_NORMAL);
    op.k = check_input(c, dtype, n * width(&op), CHECK_NORMAL);
    op.v = check_input(c, dtype, n * width(&op), CHECK_NORMAL);
    op.first = ints(c, s->first, s->n);
    op.row = ints(c, s->row, s->n);
    c->compute = dtype;
    return op;
}

/* The last token again, without its neighbours, in the cache that it met. */
static void alone(struct check *c, const struct tr_op_attention_cached *op, const void *k_cache,
                  const void *v_cache)
{
    size_t size = tr_dtype_size(op->dtype), last = (size_t)op->n - 1;
    size_t row = (size_t)(op->heads * op->head_dim), elements = ROWS * width(op);
    struct tr_op_attention_cached one = *op;

    one.n = 1;
    one.q = (const char *)op->q + last * row * size;
    one.k = (const char *)op->k + last * width(op) * size;
    one.v = (const char *)op->v + last * width(op) * size;
    one.first = ints(c, op->first + last, 1);
    one.row = ints(c, op->row + last, 1);
    one.k_cache = copy(c, op, k_cache);
    one.v_cache = copy(c, op, v_cache);
    one.o = check_output(c, op->dtype, row);
    check_run(c, TR_OP_ATTENTION_CACHED, &one);
    check_equal(c, "o alone", op->dtype, one.o, (char *)op->o + last * row * size, row);
    check_equal(c, "k_cache alone", op->dtype, one.k_cache, k_cache, elements);
    check_equal(c, "v_cache alone", op->dtype, one.v_cache, v_cache, elements);
}

/* No output asked for: rows are kept all the same. */
static void only_keep(struct check *c, const struct tr_op_attention_cached *op, const void *before,
                      const void *k_wanted, const void *v_wanted)
{
    struct tr_op_attention_cached other = *op;

    other.o = NULL;
    other.k_cache = copy(c, op, before);
    other.v_cache = copy(c, op, before);
    check_run(c, TR_OP_ATTENTION_CACHED, &other);
    check_equal(c, "k_cache only", op->dtype, other.k_cache, k_wanted, ROWS * width(op));
    check_equal(c, "v_cache only", op->dtype, other.v_cache, v_wanted, ROWS * width(op));
}

static void one(struct check *c, enum tr_dtype dtype, const struct shape *s)
{
    while (check_case(c, "%s n=%d heads=%d/%d head_dim=%d window=%d rows [%d, %d]",
                      tr_dtype_name(dtype), s->n, (int)s->heads, (int)s->kv_heads, (int)s->head_dim,
                      (int)s->window, s->first[s->n - 1], s->row[s->n - 1])) {
        struct tr_op_attention_cached op = open_case(c, dtype, s);
        size_t elements = ROWS * width(&op), out = (size_t)(op.n * op.heads * op.head_dim);
        const void *before = check_input(c, dtype, elements, CHECK_NORMAL);
        void *k = copy(c, &op, before), *v = copy(c, &op, before);
        double *want = check_scratch(c, out * 8);
        struct tr_op_attention_cached kept = op;

        keep(&op, op.k, k);
        keep(&op, op.v, v);
        kept.k_cache = k;
        kept.v_cache = v;
        for (int64_t t = 0; t < op.n; t++)
            for (int64_t h = 0; h < op.heads; h++)
                reference(&kept, t, h, want);
        do {
            op.k_cache = copy(c, &op, before);
            op.v_cache = copy(c, &op, before);
            op.o = check_output(c, dtype, out);
            check_run(c, TR_OP_ATTENTION_CACHED, &op);
            check_close(c, "o", dtype, op.o, want, out);
            check_equal(c, "k_cache", dtype, op.k_cache, k, elements);
            check_equal(c, "v_cache", dtype, op.v_cache, v, elements);
        } while (check_variant(c));
        alone(c, &op, k, v);
        only_keep(c, &op, before, k, v);
    }
}

static void check_dtype(struct check *c, enum tr_dtype dtype)
{
    static const struct shape all[] = {
        {1, 1, 1, 0, 1, {0}, {0}},
        {2, 1, 7, 0, 3, {0, 5, 20}, {0, 10, 52}},
        {4, 2, 32, 0, 2, {300, 17}, {399, 40}},
        {6, 2, 20, 5, 3, {64, 0, 200}, {70, 3, 300}},
        {4, 4, 64, 40, 2, {0, 100}, {40, 138}},
        {8, 1, 128, 0, 3, {0, 257, 514}, {256, 513, 540}},
        {2, 1, 256, 1, 2, {0, 9}, {8, 9}},
        {3, 1, 33, 0, 4, {10, 10, 10, 50}, {10, 11, 12, 60}}, /* a sequence of three new tokens */
        {130, 1, 8, 0, 2, {1, 40}, {30, 99}},
    };

    for (size_t i = 0; i < sizeof(all) / sizeof(all[0]); i++)
        one(c, dtype, &all[i]);
}

void check_attention_cached(struct check *c)
{
    for (enum tr_dtype d = TR_F32; d < TR_DTYPES; d++)
        if (check_computes(c, d))
            check_dtype(c, d);
}
