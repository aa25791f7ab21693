/* SPDX-License-Identifier: Apache-2.0
 *
 * Cross-entropy over one and three vocabulary slices against double, with tokens that have no
 * target and tokens of scale 0 (exact zeros), the gradient in place and apart in the dtype that the
 * head's products take; exp itself against double over its whole range; the same bits in every
 * variant, and for a token wherever it lies in the call.
 */
#include <math.h>
#include <string.h>

#include "cpu/kernels.h"
#include "tests/kernelcheck/variant.h"

struct logits {
    int64_t n, vocabulary, slices;
    enum tr_dtype dtype;    /* of the gradient */
    int in_place;           /* the gradient over the logits */
    const float *values;    /* (n, vocabulary) */
    const int32_t *targets; /* (n) */
    const float *scale;     /* (n) */
};

struct result {
    float *max, *sum, *target_logit, *lse, *nll; /* (n) */
    char *grad;                                  /* (n, vocabulary) dtype */
};

static struct result open_result(struct check *c, const struct logits *l)
{
    size_t n = (size_t)l->n;

    return (struct result){
        check_output(c, TR_F32, n), check_output(c, TR_F32, n),
        check_output(c, TR_F32, n), check_output(c, TR_F32, n),
        check_output(c, TR_F32, n), check_output(c, l->dtype, n * (size_t)l->vocabulary)};
}

/* A dense copy of columns [row0, row0 + rows), as the head's matmul would leave it. */
static float *cut_slice(struct check *c, const struct tr_op_xent *op, const struct logits *l)
{
    float *slice = check_output(c, TR_F32, (size_t)(op->n * op->rows));

    for (int64_t t = 0; t < op->n; t++)
        memcpy(slice + t * op->rows, l->values + t * l->vocabulary + op->row0,
               (size_t)op->rows * 4);
    return slice;
}

static void run_grad(struct check *c, struct tr_op_xent *op, const struct logits *l, char *grad)
{
    size_t size = tr_dtype_size(l->dtype), row = (size_t)op->rows * size;

    op->dtype = l->dtype;
    if (l->in_place) {
        op->dlogits = op->logits;
    } else {
        check_freeze(c);
        op->dlogits = check_output(c, l->dtype, (size_t)(op->n * op->rows));
    }
    check_run(c, TR_OP_XENT_GRAD, op);
    for (int64_t t = 0; t < op->n; t++)
        memcpy(grad + (size_t)(t * l->vocabulary + op->row0) * size,
               (char *)op->dlogits + (size_t)t * row, row);
}

/* All slices: forward, loss, gradient. */
static void run(struct check *c, const struct logits *l, const struct result *r)
{
    int64_t width = (l->vocabulary + l->slices - 1) / l->slices;
    struct tr_op_xent op = {.n = l->n, .targets = l->targets, .max = r->max, .sum = r->sum};

    op.target_logit = r->target_logit;
    op.lse = r->lse;
    op.nll = r->nll;
    op.scale = l->scale;
    for (int pass = 0; pass < 2; pass++) {
        for (op.row0 = 0; op.row0 < l->vocabulary; op.row0 += width) {
            op.rows = op.row0 + width > l->vocabulary ? l->vocabulary - op.row0 : width;
            op.first = op.row0 == 0;
            op.logits = cut_slice(c, &op, l);
            if (pass) {
                run_grad(c, &op, l, r->grad);
            } else {
                check_freeze(c);
                check_run(c, TR_OP_XENT, &op);
            }
        }
        if (pass == 0)
            check_run(c, TR_OP_XENT_LOSS, &op);
    }
}

/* Beside the target a gradient is a probability, most of them far below any absolute error that the
 * target's may have: each is to be right as it is. */
static int is_share(enum tr_dtype dtype, double got, double want)
{
    static const double unit[TR_DTYPES] = {0, 0x1p-8, 0x1p-11};
    static const double least[TR_DTYPES] = {1e-37, 1e-37, 0x1p-25};

    return fabs(got - want) <= (2e-5 + unit[dtype]) * fabs(want) + least[dtype];
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
            float got = tr_load_f32(r->grad, l->dtype, (size_t)(t * v + i));

            grad[t * v + i] = (exp(x[i] - lse[t]) - (i == l->targets[t])) * l->scale[t];
            if (i != l->targets[t])
                check_true(c, is_share(l->dtype, got, grad[t * v + i]),
                           "token %d, %d: %.9g, not %.9g", (int)t, (int)i, (double)got,
                           grad[t * v + i]);
            if (l->scale[t] == 0)
                check_true(c, tr_f32_bits(got) == 0, "token %d: not zero", (int)t);
        }
    }
    check_close(c, "lse", TR_F32, r->lse, lse, (size_t)l->n);
    check_close(c, "nll", TR_F32, r->nll, nll, (size_t)l->n);
    check_close(c, "grad", l->dtype, r->grad, grad, (size_t)(l->n * v));
}

static struct logits draw(struct check *c, int64_t n, int64_t vocabulary)
{
    float *values = check_inout(c, TR_F32, (size_t)(n * vocabulary), CHECK_NORMAL);
    struct logits l = {.n = n, .vocabulary = vocabulary, .slices = 1, .values = values};
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

static void compare(struct check *c, const struct logits *l, const struct result *got,
                    const struct result *want)
{
    size_t n = (size_t)l->n;

    check_equal(c, "max", TR_F32, got->max, want->max, n);
    check_equal(c, "sum", TR_F32, got->sum, want->sum, n);
    check_equal(c, "target_logit", TR_F32, got->target_logit, want->target_logit, n);
    check_equal(c, "lse", TR_F32, got->lse, want->lse, n);
    check_equal(c, "nll", TR_F32, got->nll, want->nll, n);
    check_equal(c, "grad", l->dtype, got->grad, want->grad, n * (size_t)l->vocabulary);
}

/* The first third of the tokens and the rest, each as calls of their own. */
static void in_parts(struct check *c, const struct logits *l, const struct result *want)
{
    struct result all = open_result(c, l), own = all;
    struct logits part = *l;

    part.n = l->n / 3;
    run(c, &part, &own);
    part.values += part.n * l->vocabulary;
    part.targets += part.n;
    part.scale += part.n;
    own.max += part.n;
    own.sum += part.n;
    own.target_logit += part.n;
    own.lse += part.n;
    own.nll += part.n;
    own.grad += (size_t)(part.n * l->vocabulary) * tr_dtype_size(l->dtype);
    part.n = l->n - part.n;
    run(c, &part, &own);
    compare(c, l, &all, want);
}

static void one(struct check *c, const struct logits *shape)
{
    while (check_case(c, "%s n=%d vocabulary=%d slices=%d%s", tr_dtype_name(shape->dtype),
                      (int)shape->n, (int)shape->vocabulary, (int)shape->slices,
                      shape->in_place ? " in place" : "")) {
        struct logits l = draw(c, shape->n, shape->vocabulary);

        l.slices = shape->slices;
        l.dtype = shape->dtype;
        l.in_place = shape->in_place;
        struct result r = open_result(c, &l), other;
        run(c, &l, &r);
        judge(c, &l, &r);
        while (check_variant(c)) {
            other = open_result(c, &l);
            run(c, &l, &other);
            compare(c, &l, &other, &r);
        }
        in_parts(c, &l, &r);
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
        check_close(c, "exp", TR_F32, x, want, (size_t)n);
        float ends[4] = {-INFINITY, INFINITY, NAN, 0};
        c->cpu->kernels->xent_grad(ends, 0, 1, 4);
        check_true(c, ends[0] == 0 && isinf(ends[1]) && isnan(ends[2]) && ends[3] == 1,
                   "exp of -inf, inf, NaN, 0: %g %g %g %g", (double)ends[0], (double)ends[1],
                   (double)ends[2], (double)ends[3]);
    }
}

static void bench(struct check *c, enum tr_dtype dtype, int64_t n, int64_t rows)
{
    while (check_case(c, "%s n=%d rows=%d", tr_dtype_name(dtype), (int)n, (int)rows)) {
        struct logits l = draw(c, n, rows);
        struct result r = open_result(c, &l);
        struct tr_op_xent op = {.n = l.n, .rows = l.vocabulary, .first = 1, .dtype = dtype};
        double bytes = (double)(l.n * l.vocabulary);

        op.max = r.max;
        op.targets = l.targets;
        op.sum = r.sum;
        op.target_logit = r.target_logit;
        op.scale = r.max; /* any value but 0 */
        op.lse = r.max;
        op.logits = (float *)l.values;
        op.dlogits = check_output(c, dtype, (size_t)(n * rows));
        CHECK_BENCH(c, bytes * 4, 0) check_run(c, TR_OP_XENT, &op);
        CHECK_BENCH(c, bytes * (double)(4 + tr_dtype_size(dtype)), 0)
        check_run(c, TR_OP_XENT_GRAD, &op);
    }
}

void check_xent(struct check *c)
{
    static const int64_t shapes[][3] = {{1, 1, 1}, {5, 37, 1}, {9, 100, 3}, {33, 1031, 3}};

    if (!c->device)
        exponential(c);
    for (enum tr_dtype d = TR_F32; d < TR_DTYPES; d++) {
        if (!check_computes(c, d))
            continue;
        for (size_t i = 0; i < 4; i++)
            for (int in_place = 0; in_place <= (d == TR_F32); in_place++)
                one(c, &(struct logits){.n = shapes[i][0],
                                        .vocabulary = shapes[i][1],
                                        .slices = shapes[i][2],
                                        .dtype = d,
                                        .in_place = in_place});
        if (check_bench_on(c))
            bench(c, d, c->device ? 4096 : 256, 8192);
    }
}
