/* SPDX-License-Identifier: Apache-2.0
 *
 * Cross-entropy over one and three vocabulary slices against double, with tokens that have no
 * target and tokens of scale 0 (exact zeros); exp itself against double over its whole range; the
 * same bits on every tier and thread count.
 */
#include <math.h>
#include <string.h>

#include "cpu/kernels.h"
#include "tests/kernelcheck/variant.h"

struct logits {
    int64_t n, vocabulary;
    const float *values;    /* (n, vocabulary) */
    const int32_t *targets; /* (n) */
    const float *scale;     /* (n) */
};

struct result {
    float *max, *sum, *target_logit, *lse, *nll; /* (n) */
    float *grad;                                 /* (n, vocabulary) */
};

static struct result open_result(struct check *c, const struct logits *l)
{
    size_t n = (size_t)l->n;

    return (struct result){
        check_output(c, TR_F32, n), check_output(c, TR_F32, n),
        check_output(c, TR_F32, n), check_output(c, TR_F32, n),
        check_output(c, TR_F32, n), check_output(c, TR_F32, n * (size_t)l->vocabulary)};
}

/* Columns [row0, row0 + rows) of all, into or out of a dense slice. */
static void move_slice(const struct tr_op_xent *op, float *all, int64_t vocabulary, int out)
{
    for (int64_t t = 0; t < op->n; t++) {
        float *in_all = all + t * vocabulary + op->row0, *in_slice = op->logits + t * op->rows;

        memcpy(out ? in_all : in_slice, out ? in_slice : in_all, (size_t)op->rows * 4);
    }
}

static void run(struct check *c, const struct tr_cpu *cpu, const struct logits *l,
                const struct result *r, int64_t slices)
{
    int64_t width = (l->vocabulary + slices - 1) / slices;
    struct tr_op_xent op = {.n = l->n, .targets = l->targets, .max = r->max, .sum = r->sum};

    op.target_logit = r->target_logit;
    op.lse = r->lse;
    op.nll = r->nll;
    op.scale = l->scale;
    for (int pass = 0; pass < 2; pass++) {
        for (op.row0 = 0; op.row0 < l->vocabulary; op.row0 += width) {
            op.rows = op.row0 + width > l->vocabulary ? l->vocabulary - op.row0 : width;
            op.first = op.row0 == 0;
            op.logits = check_output(c, TR_F32, (size_t)(l->n * op.rows));
            move_slice(&op, (float *)l->values, l->vocabulary, 0);
            op.dlogits = op.logits;
            check_ok(c, pass ? tr_cpu_xent_grad(cpu, &op) : tr_cpu_xent(cpu, &op));
            if (pass)
                move_slice(&op, r->grad, l->vocabulary, 1);
        }
        if (pass == 0)
            check_ok(c, tr_cpu_xent_loss(cpu, &op));
    }
}

static void judge(struct check *c, const struct logits *l, const struct result *r)
{
    int64_t v = l->vocabulary;
    double *lse = check_scratch(c, (size_t)l->n * 8), *nll = check_scratch(c, (size_t)l->n * 8);
    double *grad = check_scratch(c, (size_t)(l->n * v) * 8);

    for (int64_t t = 0; t < l->n; t++) {
        const float *x = l->values + t * v;
        double max = -INFINITY, sum = 0;

        for (int64_t i = 0; i < v; i++)
            max = x[i] > max ? x[i] : max;
        for (int64_t i = 0; i < v; i++)
            sum += exp(x[i] - max);
        lse[t] = max + log(sum);
        nll[t] = l->targets[t] < 0 ? 0 : lse[t] - x[l->targets[t]];
        for (int64_t i = 0; i < v; i++) {
            grad[t * v + i] = (exp(x[i] - lse[t]) - (i == l->targets[t])) * l->scale[t];
            if (l->scale[t] == 0)
                check_true(c, tr_f32_bits(r->grad[t * v + i]) == 0, "token %d: not zero", (int)t);
        }
    }
    check_close(c, "lse", r->lse, lse, (size_t)l->n);
    check_close(c, "nll", r->nll, nll, (size_t)l->n);
    check_close(c, "grad", r->grad, grad, (size_t)(l->n * v));
}

static struct logits draw(struct check *c, int64_t n, int64_t vocabulary)
{
    float *values = check_inout(c, TR_F32, (size_t)(n * vocabulary), CHECK_NORMAL);
    struct logits l = {.n = n, .vocabulary = vocabulary, .values = values};
    int32_t *targets;
    float *scale;

    for (int64_t i = 0; i < n * vocabulary; i++)
        values[i] *= 5;
    check_freeze(c);
    targets = check_bytes(c, (size_t)n * 4);
    for (int64_t t = 0; t < n; t++)
        targets[t] = t % 4 == 3 ? -1 : (int32_t)check_random_below(c, vocabulary);
    check_freeze(c);
    scale = check_bytes(c, (size_t)n * 4);
    for (int64_t t = 0; t < n; t++)
        scale[t] = targets[t] < 0 ? 0 : (float)check_random_unit(c) + 0.1f;
    check_freeze(c);
    l.targets = targets;
    l.scale = scale;
    return l;
}

static void one(struct check *c, int64_t n, int64_t vocabulary, int64_t slices)
{
    while (check_case(c, "n=%d vocabulary=%d slices=%d", (int)n, (int)vocabulary, (int)slices)) {
        struct logits l = draw(c, n, vocabulary);
        struct result r = open_result(c, &l), other;
        const struct tr_cpu *cpu;

        run(c, c->cpu, &l, &r, slices);
        judge(c, &l, &r);
        for (int v = 0; (cpu = check_variant(c, v)); v++) {
            other = open_result(c, &l);
            run(c, cpu, &l, &other, slices);
            check_equal(c, "lse", TR_F32, other.lse, r.lse, (size_t)n);
            check_equal(c, "nll", TR_F32, other.nll, r.nll, (size_t)n);
            check_equal(c, "grad", TR_F32, other.grad, r.grad, (size_t)(n * vocabulary));
        }
    }
}

static void exponential(struct check *c)
{
    while (check_case(c, "exp")) {
        int64_t n = 100003;
        float *x = check_inout(c, TR_F32, (size_t)n, CHECK_UNIFORM);
        double *want = check_scratch(c, (size_t)n * 8);

        for (int64_t i = 0; i < n; i++) {
            x[i] = i % 2 ? x[i] * 105 : x[i];
            want[i] = exp(x[i]);
        }
        c->cpu->kernels->xent_grad(x, 0, 1, n);
        check_close(c, "exp", x, want, (size_t)n);
        float ends[4] = {-INFINITY, INFINITY, NAN, 0};
        c->cpu->kernels->xent_grad(ends, 0, 1, 4);
        check_true(c, ends[0] == 0 && isinf(ends[1]) && isnan(ends[2]) && ends[3] == 1,
                   "exp of -inf, inf, NaN, 0: %g %g %g %g", (double)ends[0], (double)ends[1],
                   (double)ends[2], (double)ends[3]);
    }
}

static void bench(struct check *c)
{
    while (check_case(c, "n=256 rows=8192")) {
        struct logits l = draw(c, 256, 8192);
        struct result r = open_result(c, &l);
        struct tr_op_xent op = {.n = l.n, .rows = l.vocabulary, .first = 1, .max = r.max};
        double bytes = (double)(l.n * l.vocabulary) * 4;

        op.targets = l.targets;
        op.sum = r.sum;
        op.target_logit = r.target_logit;
        op.scale = r.max; /* any value but 0 */
        op.lse = r.max;
        op.dlogits = op.logits = memcpy(r.grad, l.values, (size_t)bytes);
        CHECK_BENCH(c, bytes, 0) tr_cpu_xent(c->cpu, &op);
        CHECK_BENCH(c, bytes * 2, 0) tr_cpu_xent_grad(c->cpu, &op);
    }
}

void check_xent(struct check *c)
{
    exponential(c);
    one(c, 1, 1, 1);
    one(c, 5, 37, 1);
    one(c, 9, 100, 3);
    one(c, 33, 1031, 3);
    if (check_bench_on(c))
        bench(c);
}
