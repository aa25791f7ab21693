/* SPDX-License-Identifier: Apache-2.0
 *
 * Attention forward and backward against the textbook in double: grouped queries, windows,
 * documents of all lengths around the tiles, any head_dim. The same bits in every variant (threads
 * change the way the cpu's backward pass walks), and for a document alone or among others.
 */
#include <math.h>
#include <string.h>

#include "tests/kernelcheck/variant.h"

struct shape {
    int64_t heads, kv_heads, head_dim, window;
    int32_t docs, start[5];
};

/* Inputs widened, and what is wanted of them. */
struct wanted {
    const float *q, *k, *v, *d_o;
    double *o, *lse, *dq, *dk, *dv;
};

static size_t query_elements(const struct tr_op_attention *op)
{
    return (size_t)(op->n * op->heads * op->head_dim);
}

static size_t key_elements(const struct tr_op_attention *op)
{
    return (size_t)(op->n * op->kv_heads * op->head_dim);
}

static double dot(const float *a, const float *b, int64_t n)
{
    double sum = 0;

    for (int64_t i = 0; i < n; i++)
        sum += (double)a[i] * b[i];
    return sum;
}

/* One query: keys [first, t] of its document, probabilities in p. */
static void reference_query(const struct tr_op_attention *op, const struct wanted *w,
                            const int64_t query[3], double *p)
{
    int64_t t = query[0], h = query[1], first = query[2], d = op->head_dim;
    int64_t kv = h / (op->heads / op->kv_heads), q = (t * op->heads + h) * d;
    double max = -INFINITY, sum = 0, delta = 0;

    for (int64_t j = first; j <= t; j++) {
        p[j] = dot(w->q + q, w->k + (j * op->kv_heads + kv) * d, d) * op->scale;
        max = p[j] > max ? p[j] : max;
    }
    for (int64_t j = first; j <= t; j++)
        sum += p[j] = exp(p[j] - max);
    w->lse[t * op->heads + h] = max + log(sum);
    for (int64_t j = first; j <= t; j++) {
        int64_t k = (j * op->kv_heads + kv) * d;
        p[j] /= sum;
        delta += p[j] * dot(w->d_o + q, w->v + k, d);
        for (int64_t i = 0; i < d; i++)
            w->o[q + i] += p[j] * w->v[k + i];
    }
    for (int64_t j = first; j <= t; j++) {
        int64_t k = (j * op->kv_heads + kv) * d;
        double ds = p[j] * (dot(w->d_o + q, w->v + k, d) - delta) * op->scale;
        for (int64_t i = 0; i < d; i++) {
            w->dv[k + i] += p[j] * w->d_o[q + i];
            w->dk[k + i] += ds * w->q[q + i];
            w->dq[q + i] += ds * w->k[k + i];
        }
    }
}

static const float *widen(struct check *c, enum tr_dtype dtype, const void *x, size_t n)
{
    float *wide = check_scratch(c, n * 4);

    for (size_t i = 0; i < n; i++)
        wide[i] = tr_load_f32(x, dtype, i);
    return wide;
}

static struct wanted reference(struct check *c, const struct tr_op_attention *op)
{
    size_t q = query_elements(op), k = key_elements(op);
    struct wanted w = {.q = widen(c, op->dtype, op->q, q), .k = widen(c, op->dtype, op->k, k)};
    double *p = check_scratch(c, (size_t)op->n * 8);

    w.v = widen(c, op->dtype, op->v, k);
    w.d_o = widen(c, op->dtype, op->d_o, q);
    w.o = check_scratch(c, q * 8);
    w.lse = check_scratch(c, (size_t)(op->n * op->heads) * 8);
    w.dq = check_scratch(c, q * 8);
    w.dk = check_scratch(c, k * 8);
    w.dv = check_scratch(c, k * 8);
    for (int32_t doc = 0; doc < op->docs.n; doc++)
        for (int64_t t = op->docs.start[doc]; t < op->docs.start[doc + 1]; t++)
            for (int64_t h = 0; h < op->heads; h++) {
                int64_t first = op->window ? t - op->window + 1 : 0;
                if (first < op->docs.start[doc])
                    first = op->docs.start[doc];
                reference_query(op, &w, (int64_t[3]){t, h, first}, p);
            }
    return w;
}

static void open_outputs(struct check *c, struct tr_op_attention *op)
{
    size_t q = query_elements(op), k = key_elements(op), rows = (size_t)(op->n * op->heads);

    op->o = check_output(c, op->dtype, q);
    op->lse = check_output(c, TR_F32, rows);
    op->delta = check_output(c, TR_F32, rows);
    op->dq = check_output(c, op->dtype, q);
    op->dk = check_output(c, op->dtype, k);
    op->dv = check_output(c, op->dtype, k);
}

/* The documents, in the op's words for the host and for a device. */
static void set_docs(struct check *c, struct tr_op_attention *op, struct tr_ranges docs)
{
    int32_t *first, *end;

    first = check_bytes(c, (size_t)op->n * 4);
    for (int32_t d = 0; d < docs.n; d++)
        for (int32_t t = docs.start[d]; t < docs.start[d + 1]; t++)
            first[t] = docs.start[d];
    check_freeze(c);
    end = check_bytes(c, (size_t)op->n * 4);
    for (int32_t d = 0; d < docs.n; d++)
        for (int32_t t = docs.start[d]; t < docs.start[d + 1]; t++)
            end[t] = docs.start[d + 1];
    check_freeze(c);
    op->docs = docs;
    op->doc_first = first;
    op->doc_end = end;
}

static void run(struct check *c, const struct tr_op_attention *op)
{
    check_run(c, TR_OP_ATTENTION, op);
    check_run(c, TR_OP_ATTENTION_GRAD, op);
}

static void same_bits(struct check *c, const struct tr_op_attention *op)
{
    size_t q = query_elements(op), k = key_elements(op);

    while (check_variant(c)) {
        struct tr_op_attention other = *op;

        open_outputs(c, &other);
        run(c, &other);
        check_equal(c, "o", op->dtype, other.o, op->o, q);
        check_equal(c, "lse", TR_F32, other.lse, op->lse, (size_t)(op->n * op->heads));
        check_equal(c, "dq", op->dtype, other.dq, op->dq, q);
        check_equal(c, "dk", op->dtype, other.dk, op->dk, k);
        check_equal(c, "dv", op->dtype, other.dv, op->dv, k);
    }
}

/* The last document alone. */
static void alone(struct check *c, const struct tr_op_attention *op)
{
    int32_t begin = op->docs.start[op->docs.n - 1], own[2] = {0, (int32_t)op->n - begin};
    size_t size = tr_dtype_size(op->dtype), row = (size_t)(begin * op->heads);
    size_t q = row * (size_t)op->head_dim * size;
    size_t k = (size_t)(begin * op->kv_heads * op->head_dim) * size;
    struct tr_op_attention last = *op;

    last.n = own[1];
    set_docs(c, &last, (struct tr_ranges){1, own});
    last.q = (const char *)op->q + q;
    last.d_o = (const char *)op->d_o + q;
    last.k = (const char *)op->k + k;
    last.v = (const char *)op->v + k;
    open_outputs(c, &last);
    run(c, &last);
    check_equal(c, "o alone", op->dtype, last.o, (char *)op->o + q, query_elements(&last));
    check_equal(c, "lse alone", TR_F32, last.lse, op->lse + row, (size_t)(last.n * last.heads));
    check_equal(c, "dq alone", op->dtype, last.dq, (char *)op->dq + q, query_elements(&last));
    check_equal(c, "dk alone", op->dtype, last.dk, (char *)op->dk + k, key_elements(&last));
    check_equal(c, "dv alone", op->dtype, last.dv, (char *)op->dv + k, key_elements(&last));
}

static struct tr_op_attention open_case(struct check *c, enum tr_dtype dtype, const struct shape *s)
{
    struct tr_op_attention op = {
        .dtype = dtype, .heads = s->heads, .kv_heads = s->kv_heads, .n = s->start[s->docs]};

    op.head_dim = s->head_dim;
    op.window = s->window;
    op.scale = 1 / sqrtf((float)s->head_dim);
    set_docs(c, &op, (struct tr_ranges){s->docs, s->start});
    op.q = check_input(c, dtype, query_elements(&op), CHECK_NORMAL);
    op.k = check_input(c, dtype, key_elements(&op), CHECK_NORMAL);
    op.v = check_input(c, dtype, key_elements(&op), CHECK_NORMAL);
    op.d_o = check_input(c, dtype, query_elements(&op), CHECK_NORMAL);
    open_outputs(c, &op);
    c->compute = dtype;
    return op;
}

static void one(struct check *c, enum tr_dtype dtype, const struct shape *s)
{
    while (check_case(c, "%s n=%d docs=%d heads=%d/%d head_dim=%d window=%d", tr_dtype_name(dtype),
                      s->start[s->docs], s->docs, (int)s->heads, (int)s->kv_heads, (int)s->head_dim,
                      (int)s->window)) {
        struct tr_op_attention op = open_case(c, dtype, s);
        struct wanted want = reference(c, &op);

        run(c, &op);
        check_close(c, "o", dtype, op.o, want.o, query_elements(&op));
        check_close(c, "lse", TR_F32, op.lse, want.lse, (size_t)(op.n * op.heads));
        /* A window of one key has p = 1 and no gradient but rounding. */
        int cancelled = op.window == 1;
        check_close(c, cancelled ? "cancelled dq" : "grad dq", dtype, op.dq, want.dq,
                    query_elements(&op));
        check_close(c, cancelled ? "cancelled dk" : "grad dk", dtype, op.dk, want.dk,
                    key_elements(&op));
        check_close(c, "grad dv", dtype, op.dv, want.dv, key_elements(&op));
        same_bits(c, &op);
        alone(c, &op);
    }
}

/*
 * A key out of a query's sight must not matter, one in its sight must: the edge of the window. A
 * key equal to the query draws its attention whatever the draw, where one of a fixed value can be
 * rounded away.
 */
static void window_edge(struct check *c, enum tr_dtype dtype)
{
    while (check_case(c, "%s window edge", tr_dtype_name(dtype))) {
        struct tr_op_attention op = open_case(c, dtype, &(struct shape){1, 1, 16, 70, 1, {0, 200}});
        size_t size = tr_dtype_size(dtype), bytes = key_elements(&op) * size, row = 16 * size;
        char *k = memcpy(check_bytes(c, bytes), op.k, bytes), *seen = (char *)op.o + 150 * row;
        const char *query = (const char *)op.q + 150 * row;
        char *first = check_scratch(c, row);

        op.k = k;
        check_run(c, TR_OP_ATTENTION, &op);
        memcpy(first, seen, row);
        memcpy(k + (150 - 70) * row, query, row);
        check_run(c, TR_OP_ATTENTION, &op);
        check_true(c, !check_differs(first, seen, row), "the key before the window is seen");
        memcpy(k + (150 - 69) * row, query, row);
        check_run(c, TR_OP_ATTENTION, &op);
        check_true(c, check_differs(first, seen, row), "the window's first key is not seen");
    }
}

static void bench(struct check *c, enum tr_dtype dtype, const struct shape *s)
{
    while (check_case(c, "%s n=%d docs=%d heads=%d/%d head_dim=%d", tr_dtype_name(dtype),
                      s->start[s->docs], s->docs, (int)s->heads, (int)s->kv_heads,
                      (int)s->head_dim)) {
        struct tr_op_attention op = open_case(c, dtype, s);
        double length = (double)op.n / s->docs;
        double flops = 2 * (double)op.n * length * (double)(op.heads * op.head_dim);

        check_run(c, TR_OP_ATTENTION, &op);
        CHECK_BENCH(c, 0, flops) check_run(c, TR_OP_ATTENTION, &op);
        CHECK_BENCH(c, 0, flops * 2.5) check_run(c, TR_OP_ATTENTION_GRAD, &op);
    }
}

static void bench_all(struct check *c, enum tr_dtype dtype)
{
    bench(c, dtype, &(struct shape){32, 4, 64, 0, 4, {0, 256, 512, 768, 1024}});
    bench(c, dtype, &(struct shape){32, 4, 64, 0, 1, {0, 2048}});
    bench(c, dtype, &(struct shape){8, 1, 128, 0, 1, {0, 2048}});
    if (c->device) {
        bench(c, dtype, &(struct shape){32, 8, 128, 0, 1, {0, 4096}});
        bench(c, dtype, &(struct shape){32, 32, 128, 0, 4, {0, 2048, 4096, 6144, 8192}});
    }
}

static void check_dtype(struct check *c, enum tr_dtype dtype)
{
    static const struct shape all[] = {
        {1, 1, 1, 0, 1, {0, 1}},
        {2, 1, 7, 0, 3, {0, 1, 18, 83}},
        {4, 2, 32, 0, 2, {0, 129, 386}},
        {1, 1, 64, 0, 1, {0, 301}},
        {6, 2, 20, 5, 2, {0, 64, 200}},
        {2, 2, 48, 100, 1, {0, 600}},
        {2, 1, 256, 1, 1, {0, 70}},
        {3, 1, 33, 130, 4, {0, 128, 129, 192, 450}},
        {2, 1, 128, 0, 2, {0, 130, 201}},
        {2, 2, 80, 77, 2, {0, 65, 230}},
        {2, 1, 64, 0, 4, {0, 3, 20, 37, 90}},
        {2, 1, 256, 0, 2, {0, 65, 130}},
        {7, 1, 64, 0, 2, {0, 33, 70}},
        {8, 1, 96, 0, 1, {0, 66}},
    };
    static const struct shape small[] = {
        {1, 1, 1, 0, 1, {0, 1}},
        {2, 1, 7, 0, 3, {0, 1, 18, 83}},
        {4, 2, 32, 0, 2, {0, 67, 132}},
        {1, 1, 64, 0, 1, {0, 131}},
        {3, 1, 20, 5, 2, {0, 64, 90}},
        {2, 1, 128, 1, 1, {0, 40}},
        {2, 2, 80, 33, 2, {0, 65, 80}},
        {1, 1, 96, 0, 2, {0, 33, 66}},
        {2, 1, 64, 0, 4, {0, 3, 20, 37, 70}},
        {8, 1, 32, 0, 1, {0, 40}},
    };
    const struct shape *shapes = check_small(c) ? small : all;
    size_t n = check_small(c) ? sizeof(small) / sizeof(small[0]) : sizeof(all) / sizeof(all[0]);

    for (size_t i = 0; i < n; i++)
        one(c, dtype, &shapes[i]);
    window_edge(c, dtype);
    if (check_bench_on(c))
        bench_all(c, dtype);
}

void check_attention(struct check *c)
{
    for (enum tr_dtype d = TR_F32; d < TR_DTYPES; d++)
        if (check_computes(c, d))
            check_dtype(c, d);
}
