/* SPDX-License-Identifier: Apache-2.0
 *
 * Cross-entropy over slices against the cpu device: state, loss and gradient; infinite logits, NaN,
 * tokens without target; the gradient in place and in 16 bits; a row alone has the same bits.
 */
#include "tests/cuda/elementwise/harness.h"

#include <math.h>
#include <string.h>

struct xent_case {
    int64_t n, vocab, slice;
};

static const struct xent_case cases[] = {{1, 1, 1},      {4, 7, 3},       {9, 300, 300},
                                         {6, 1000, 333}, {3, 9000, 5003}, {2, 40000, 40000}};

struct state {
    float *max, *sum, *target_logit, *lse, *nll;
};

static struct state make_state(int64_t n)
{
    struct state s;

    for (float **p = &s.max; p <= &s.nll; p++)
        *p = make(TR_F32, (size_t)n, 1);
    return s;
}

static void use_state(struct tr_op_xent *x, const struct state *s)
{
    x->max = s->max;
    x->sum = s->sum;
    x->target_logit = s->target_logit;
    x->lse = s->lse;
    x->nll = s->nll;
}

/* A slice's logits as the matmul would leave them: (n, rows). */
static float *slice_of(const float *logits, const struct xent_case *c, const struct tr_op_xent *x)
{
    float *slice = make_poison(TR_F32, (size_t)(c->n * x->rows));

    for (int64_t t = 0; t < c->n; t++)
        memcpy(slice + t * x->rows, logits + t * c->vocab + x->row0,
               (size_t)x->rows * sizeof(float));
    return slice;
}

static float *random_logits(const struct xent_case *c)
{
    float *logits = make(TR_F32, (size_t)(c->n * c->vocab), 5);

    if (c->n > 3) {
        for (int64_t i = 0; i < c->vocab / 2 + 1; i++)
            logits[i] = -INFINITY; /* a slice of nothing else, then numbers */
        logits[c->vocab + c->vocab / 2] = NAN;
        logits[2 * c->vocab] = -INFINITY;
        logits[3 * c->vocab] = 1e30f;
    }
    return logits;
}

static void fold(const struct xent_case *c, const float *logits, struct tr_op op,
                 void (*run)(const struct tr_op *op))
{
    for (int64_t row0 = 0; row0 < c->vocab; row0 += c->slice) {
        op.xent.row0 = row0;
        op.xent.rows = c->vocab - row0 < c->slice ? c->vocab - row0 : c->slice;
        op.xent.first = row0 == 0;
        op.xent.logits = slice_of(logits, c, &op.xent);
        run(&op);
    }
    op.kind = TR_OP_XENT_LOSS;
    run(&op);
}

/* In double: with tens of thousands of terms the cpu device's sum is the less exact of the two.
 * What is no number is the cpu device's word: a first slice of nothing but -infinity spoils the
 * row. */
static float *exact_sums(const struct xent_case *c, const float *logits, const struct state *want)
{
    float *sums = make_poison(TR_F32, (size_t)c->n);

    for (int64_t t = 0; t < c->n; t++) {
        double sum = 0;

        for (int64_t i = 0; i < c->vocab; i++)
            sum += exp((double)logits[t * c->vocab + i] - (double)want->max[t]);
        sums[t] = isnan(want->sum[t]) ? NAN : (float)sum;
    }
    return sums;
}

static void expect_state(const struct xent_case *c, const float *logits, const struct state *got,
                         const struct state *want)
{
    struct nearness near = {TR_F32, 1e-6, 4e-6};
    size_t n = (size_t)c->n;

    expect_bits("max", got->max, want->max, n * sizeof(float));
    expect_near("sum", near, got->sum, exact_sums(c, logits, want), n);
    expect_bits("target logit", got->target_logit, want->target_logit, n * sizeof(float));
    expect_near("lse", near, got->lse, want->lse, n);
    expect_near("nll", near, got->nll, want->nll, n);
}

/* The last slice's gradient of token t alone. */
static void expect_alone(const struct tr_op *op, int64_t t)
{
    struct tr_op one = *op;
    size_t rows = (size_t)op->xent.rows, size = tr_dtype_size(op->xent.dtype);

    harness_shift(1);
    one.xent.n = 1;
    one.xent.logits = make_copy(TR_F32, op->xent.logits + t * op->xent.rows, rows);
    one.xent.dlogits = make_poison(op->xent.dtype, rows);
    harness_shift(0);
    one.xent.targets += t;
    one.xent.lse += t;
    one.xent.scale += t;
    run_cuda(&one);
    expect_bits("gradient of a row alone", one.xent.dlogits,
                (const char *)op->xent.dlogits + (size_t)t * rows * size, rows * size);
}

static void gradients(const struct xent_case *c, const float *logits, struct tr_op op)
{
    size_t n;

    op.kind = TR_OP_XENT_GRAD;
    op.xent.row0 = (c->vocab - 1) / c->slice * c->slice;
    op.xent.rows = c->vocab - op.xent.row0;
    n = (size_t)(c->n * op.xent.rows);
    struct tr_op wide = op;
    wide.xent.logits = wide.xent.dlogits = slice_of(logits, c, &op.xent);
    run_cpu(&wide);
    for (int d = 0; d < TR_DTYPES; d++) {
        op.xent.dtype = (enum tr_dtype)d;
        op.xent.logits = slice_of(logits, c, &op.xent);
        op.xent.dlogits = make_poison((enum tr_dtype)d, n);
        run_cuda(&op);
        expect_near("gradient", (struct nearness){(enum tr_dtype)d, 1e-5, 1e-6}, op.xent.dlogits,
                    wide.xent.dlogits, n);
        expect_alone(&op, c->n - 1);
        if (d != TR_F32)
            continue;
        struct tr_op in = op;
        in.xent.logits = in.xent.dlogits = slice_of(logits, c, &op.xent);
        run_cuda(&in);
        expect_bits("gradient in place", in.xent.dlogits, op.xent.dlogits, n * sizeof(float));
    }
}

/* Token t's state alone, elsewhere in memory. */
static void fold_alone(const struct xent_case *c, const float *logits, const struct tr_op *op,
                       int64_t t)
{
    struct xent_case one = {1, c->vocab, c->slice};
    struct state s = make_state(1);
    struct tr_op alone = *op;

    use_state(&alone.xent, &s);
    alone.xent.n = 1;
    alone.xent.targets += t;
    harness_shift(3);
    fold(&one, logits + t * c->vocab, alone, run_cuda);
    harness_shift(0);
    expect_bits("sum of a row alone", s.sum, op->xent.sum + t, sizeof(float));
    expect_bits("loss of a row alone", s.nll, op->xent.nll + t, sizeof(float));
}

static void xent_one(const struct xent_case *c)
{
    struct tr_op op = {TR_OP_XENT, .xent = {.n = c->n}};
    struct state got = make_state(c->n), want = make_state(c->n);
    float *logits = random_logits(c), *scale = make(TR_F32, (size_t)c->n, 1);
    int32_t *targets = make_ints((size_t)c->n, 0, (int32_t)c->vocab);

    if (c->n > 4)
        targets[c->n - 2] = -1, scale[c->n - 2] = 0;
    op.xent.targets = targets;
    op.xent.scale = scale;
    use_state(&op.xent, &want);
    fold(c, logits, op, run_cpu);
    use_state(&op.xent, &got);
    fold(c, logits, op, run_cuda);
    expect_state(c, logits, &got, &want);
    fold_alone(c, logits, &op, c->n - 1);
    /* Both gradients from one lse: its last bits are not theirs to answer for. */
    op.xent.lse = want.lse;
    gradients(c, logits, op);
}

static void test_xent(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT(cases); i++)
        xent_one(&cases[i]);
}

/* Rows of nothing but -infinity have no softmax. */
static void test_nowhere(void **state)
{
    struct xent_case c = {2, 20, 20};
    struct tr_op op = {TR_OP_XENT, .xent = {.n = 2}};
    struct state got = make_state(2), want = make_state(2);
    float *logits = make(TR_F32, 40, 1);

    (void)state;
    for (int i = 0; i < 20; i++)
        logits[i] = -INFINITY;
    op.xent.targets = make_ints(2, 0, 20);
    use_state(&op.xent, &want);
    fold(&c, logits, op, run_cpu);
    use_state(&op.xent, &got);
    fold(&c, logits, op, run_cuda);
    assert_true(isnan(want.sum[0]) && isnan(got.sum[0]));
    expect_state(&c, logits, &got, &want);
}

const struct CMUnitTest xent_tests[] = {HARNESS_TEST(test_xent), HARNESS_TEST(test_nowhere)};
const size_t xent_count = COUNT(xent_tests);
