/* SPDX-License-Identifier: Apache-2.0
 *
 * Attention forward and backward against the textbook in double: grouped queries, windows,
 * documents of all lengths around the tiles, any head_dim. The same bits for any threads (which
 * changes the way the backward pass walks), on any tier, and for a document alone or among others.
 */
#include <math.h>
#include <string.h>

#include "tests/kernelcheck/variant.h"

struct shape {
    int64_t heads, kv_heads, head_dim, window;
    int32_t docs, start[5];
};

struct wanted {
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
    const float *qs = op->q, *ks = op->k, *vs = op->v, *d_o = op->d_o;
    double max = -INFINITY, sum = 0, delta = 0;

    for (int64_t j = first; j <= t; j++) {
        p[j] = dot(qs + q, ks + (j * op->kv_heads + kv) * d, d) * op->scale;
        max = p[j] > max ? p[j] : max;
    }
    for (int64_t j = first; j <= t; j++)
        sum += p[j] = exp(p[j] - max);
    w->lse[t * op->heads + h] = max + log(sum);
    for (int64_t j = first; j <= t; j++) {
        int64_t k = (j * op->kv_heads + kv) * d;
        p[j] /= sum;
        delta += p[j] * dot(d_o + q, vs + k, d);
        for (int64_t i = 0; i < d; i++)
            w->o[q + i] += p[j] * vs[k + i];
    }
    for (int64_t j = first; j <= t; j++) {
        int64_t k = (j * op->kv_heads + kv) * d;
        double ds = p[j] * (dot(d_o + q, vs + k, d) - delta) * op->scale;
        for (int64_t i = 0; i < d; i++) {
            w->dv[k + i] += p[j] * d_o[q + i];
            w->dk[k + i] += ds * qs[q + i];
            w->dq[q + i] += ds * ks[k + i];
        }
    }
}

static struct wanted reference(struct check *c, const struct tr_op_attention *op)
{
    size_t q = query_elements(op) * 8, k = key_elements(op) * 8;
    struct wanted w = {check_scratch(c, q), check_scratch(c, (size_t)(op->n * op->heads) * 8),
                       check_scratch(c, q), check_scratch(c, k), check_scratch(c, k)};
    double *p = check_scratch(c, (size_t)op->n * 8);

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

    op->o = check_output(c, TR_F32, q);
    op->lse = check_output(c, TR_F32, rows);
    op->delta = check_output(c, TR_F32, rows);
    op->dq = check_output(c, TR_F32, q);
    op->dk = check_output(c, TR_F32, k);
    op->dv = check_output(c, TR_F32, k);
}

static void run(struct check *c, const struct tr_cpu *cpu, const struct tr_op_attention *op)
{
    check_ok(c, tr_cpu_attention(cpu, op));
    check_ok(c, tr_cpu_attention_grad(cpu, op));
}

static void same_bits(struct check *c, const struct tr_op_attention *op)
{
    size_t q = query_elements(op), k = key_elements(op);
    const struct tr_cpu *cpu;

    for (int v = 0; (cpu = check_variant(c, v)); v++) {
        struct tr_op_attention other = *op;

        open_outputs(c, &other);
        run(c, cpu, &other);
        check_equal(c, "o", TR_F32, other.o, op->o, q);
        check_equal(c, "dq", TR_F32, other.dq, op->dq, q);
        check_equal(c, "dk", TR_F32, other.dk, op->dk, k);
        check_equal(c, "dv", TR_F32, other.dv, op->dv, k);
    }
}

/* The last document alone. */
static void alone(struct check *c, const struct tr_op_attention *op)
{
    int32_t begin = op->docs.start[op->docs.n - 1], own[2] = {0, (int32_t)op->n - begin};
    int64_t q = begin * op->heads * op->head_dim, k = begin * op->kv_heads * op->head_dim;
    struct tr_op_attention last = *op;

    last.n = own[1];
    last.docs = (struct tr_ranges){1, own};
    last.q = (const float *)op->q + q;
    last.d_o = (const float *)op->d_o + q;
    last.k = (const float *)op->k + k;
    last.v = (const float *)op->v + k;
    open_outputs(c, &last);
    run(c, c->cpu, &last);
    check_equal(c, "o alone", TR_F32, last.o, (const float *)op->o + q, query_elements(&last));
    check_equal(c, "dq alone", TR_F32, last.dq, (const float *)op->dq + q, query_elements(&last));
    check_equal(c, "dk alone", TR_F32, last.dk, (const float *)op->dk + k, key_elements(&last));
    check_equal(c, "dv alone", TR_F32, last.dv, (const float *)op->dv + k, key_elements(&last));
}

static struct tr_op_attention open_case(struct check *c, const struct shape *s)
{
    struct tr_op_attention op = {
        .heads = s->heads, .kv_heads = s->kv_heads, .n = s->start[s->docs]};

    op.head_dim = s->head_dim;
    op.window = s->window;
    op.scale = 1 / sqrtf((float)s->head_dim);
    op.docs = (struct tr_ranges){s->docs, s->start};
    op.q = check_input(c, TR_F32, query_elements(&op), CHECK_NORMAL);
    op.k = check_input(c, TR_F32, key_elements(&op), CHECK_NORMAL);
    op.v = check_input(c, TR_F32, key_elements(&op), CHECK_NORMAL);
    op.d_o = check_input(c, TR_F32, query_elements(&op), CHECK_NORMAL);
    open_outputs(c, &op);
    return op;
}

static void one(struct check *c, const struct shape *s)
{
    while (check_case(c, "n=%d docs=%d heads=%d/%d head_dim=%d window=%d", s->start[s->docs],
                      s->docs, (int)s->heads, (int)s->kv_heads, (int)s->head_dim, (int)s->window)) {
        struct tr_op_attention op = open_case(c, s);
        struct wanted want = reference(c, &op);

        run(c, c->cpu, &op);
        check_close(c, "o", op.o, want.o, query_elements(&op));
        check_close(c, "lse", op.lse, want.lse, (size_t)(op.n * op.heads));
        /* A window of one key has p = 1 and no gradient but rounding. */
        const char *row = op.window == 1 ? "cancelled" : "grad";
        check_close_as(c, row, "dq", op.dq, want.dq, query_elements(&op));
        check_close_as(c, row, "dk", op.dk, want.dk, key_elements(&op));
        check_close(c, "dv", op.dv, want.dv, key_elements(&op));
        same_bits(c, &op);
        alone(c, &op);
    }
}

/* A key out of a query's sight must not matter, one in its sight must: the edge of the window. */
static void window_edge(struct check *c)
{
    while (check_case(c, "window edge")) {
        struct tr_op_attention op = open_case(c, &(struct shape){1, 1, 16, 70, 1, {0, 300}});
        float *k = memcpy(check_bytes(c, key_elements(&op) * 4), op.k, key_elements(&op) * 4);
        float *first = memcpy(check_scratch(c, 64), op.o, 64), *row = (float *)op.o + 250 * 16;

        op.k = k;
        check_ok(c, tr_cpu_attention(c->cpu, &op));
        memcpy(first, row, 64);
        k[(250 - 70) * 16] += 1;
        check_ok(c, tr_cpu_attention(c->cpu, &op));
        check_true(c, !check_differs(first, row, 64), "the key before the window is seen");
        k[(250 - 69) * 16] += 1;
        check_ok(c, tr_cpu_attention(c->cpu, &op));
        check_true(c, check_differs(first, row, 64), "the window's first key is not seen");
    }
}

static void bench(struct check *c, const struct shape *s)
{
    while (check_case(c, "n=%d docs=%d heads=%d/%d head_dim=%d", s->start[s->docs], s->docs,
                      (int)s->heads, (int)s->kv_heads, (int)s->head_dim)) {
        struct tr_op_attention op = open_case(c, s);
        double length = (double)op.n / s->docs;
        double flops = 2 * (double)op.n * length * (double)(op.heads * op.head_dim);

        check_ok(c, tr_cpu_attention(c->cpu, &op));
        CHECK_BENCH(c, 0, flops) tr_cpu_attention(c->cpu, &op);
        CHECK_BENCH(c, 0, flops * 2.5) tr_cpu_attention_grad(c->cpu, &op);
    }
}

void check_attention(struct check *c)
{
    one(c, &(struct shape){1, 1, 1, 0, 1, {0, 1}});
    one(c, &(struct shape){2, 1, 7, 0, 3, {0, 1, 18, 83}});
    one(c, &(struct shape){4, 2, 32, 0, 2, {0, 129, 386}});
    one(c, &(struct shape){1, 1, 64, 0, 1, {0, 301}});
    one(c, &(struct shape){6, 2, 20, 5, 2, {0, 64, 200}});
    one(c, &(struct shape){2, 2, 48, 100, 1, {0, 600}});
    one(c, &(struct shape){3, 1, 33, 130, 4, {0, 128, 129, 192, 450}});
    one(c, &(struct shape){2, 1, 256, 1, 1, {0, 70}});
    window_edge(c);
    if (check_bench_on(c)) {
        bench(c, &(struct shape){32, 4, 64, 0, 4, {0, 256, 512, 768, 1024}});
        bench(c, &(struct shape){32, 4, 64, 0, 1, {0, 2048}});
        bench(c, &(struct shape){8, 1, 128, 0, 1, {0, 2048}});
    }
}
