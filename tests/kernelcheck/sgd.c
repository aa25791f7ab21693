/* SPDX-License-Identifier: Apache-2.0
 *
 * LOMO's update bit for bit by device.h's order of arithmetic; LOMO's published numbers; and
 * whether stochastic rounding realises on average the update that was wanted, with rounding to
 * nearest as the counter-example that the same test must catch.
 */
#include <math.h>
#include <string.h>

#include "tests/kernelcheck/update.h"

static float element(const struct tr_op_update *op, int64_t i, float x)
{
    float g = check_update_gradient(op, i);

    if (op->weight_decay != 0)
        x = x * (1.0f - op->lr * op->weight_decay);
    return fmaf(-op->lr, g, x);
}

struct vector {
    const char *name;
    float decay, clip_value, clip_norm;
    double want[4];
};

/* P = [[1, -2], [.5, .25]], gradients A and a second tensor B, lr 0.03; norm over both. */
static const struct vector vectors[] = {
    {"plain", 0, 0, 0, {.991, -1.988, .5, .214}},
    {"decay .1", .1f, 0, 0, {.988, -1.982, .4985, .21325}},
    {"value clip .5", 0, .5f, 0, {.991, -1.988, .5, .235}},
    {"norm clip 1", 0, 0, 1, {.996583648, -1.99544486, .5, .236334592}},
    {"value then norm", 0, .5f, 1, {.996583648, -1.99544486, .5, .24430608}},
};

/* The norm is that of the gradient before the value clip. */
static float coefficient(struct check *c, const float *a, float clip_norm)
{
    static const float b_values[3] = {2, -1, .5f};
    float *b = memcpy(check_bytes(c, sizeof(b_values)), b_values, sizeof(b_values));
    double *sums = check_bytes(c, 2 * sizeof(double)), norm;

    check_run(c, TR_OP_SUMSQ, &(struct tr_op_sumsq){a, 4, &sums[0]});
    check_run(c, TR_OP_SUMSQ, &(struct tr_op_sumsq){b, 3, &sums[1]});
    norm = sqrt(sums[0] + sums[1]);
    check_true(c, fabs(norm - 2.63438797) < 1e-7, "norm %g", norm);
    return clip_norm > 0 ? (float)fmin(1, clip_norm / (norm + 1e-6)) : 1;
}

static void published(struct check *c, const struct vector *v)
{
    while (check_case(c, "LOMO %s", v->name)) {
        static const float start[4] = {1, -2, .5f, .25f}, gradient[4] = {.3f, -.4f, 0, 1.2f};
        float *w = memcpy(check_bytes(c, sizeof(start)), start, sizeof(start));
        float *a = memcpy(check_bytes(c, sizeof(gradient)), gradient, sizeof(gradient));
        struct tr_op_update op = {.w = w, .g = a, .n = 4, .unscale = 1, .lr = .03f};

        op.weight_decay = v->decay;
        op.clip_value = v->clip_value;
        op.coefficient = coefficient(c, a, v->clip_norm);
        check_run(c, TR_OP_SGD, &op);
        check_close(c, "published w", TR_F32, w, v->want, 4);
    }
}

/* The share of the wanted update that bf16 weights make real, over many elements. */
static double realised(struct check *c, enum tr_rounding rounding, float step)
{
    int64_t n = 1 << 16;
    uint16_t *w = check_bytes(c, (size_t)n * 2);
    float *g = check_bytes(c, (size_t)n * 4);
    struct tr_op_update op = {.w = w, .dtype = TR_BF16, .g = g, .n = n, .rounding = rounding};
    double sum = 0;

    for (int64_t i = 0; i < n; i++) {
        w[i] = tr_f32_bf16(1 + 0.5f * (float)check_random_unit(c));
        sum -= tr_bf16_f32(w[i]);
        g[i] = -step;
    }
    op.unscale = op.coefficient = op.lr = 1;
    op.seed = 7;
    op.step = 1;
    check_run(c, TR_OP_SGD, &op);
    for (int64_t i = 0; i < n; i++)
        sum += tr_bf16_f32(w[i]);
    return sum / (double)n / step;
}

/* Five standard errors: an element moves by one spacing, 2^-7, with probability p. */
static int unbiased(double share, float step)
{
    double p = (double)step * 128, error = sqrt(p * (1 - p) / 65536) / p;

    return fabs(share - 1) <= 5 * error;
}

static void statistics(struct check *c, float step)
{
    while (check_case(c, "realised update, step %g", (double)step)) {
        double stochastic = realised(c, TR_ROUND_STOCHASTIC, step);
        double nearest = realised(c, TR_ROUND_NEAREST, step);

        check_true(c, unbiased(stochastic, step), "stochastic rounding realises %.4f", stochastic);
        check_true(c, !unbiased(nearest, step), "nearest passes as unbiased with %.4f", nearest);
    }
}

/* Twenty steps of a split master and of f32 weights: the same bits. Whoever forgets the remainders
 * (`forget`) must be seen. */
static int split_equals_f32(struct check *c, int forget)
{
    int64_t n = 5003, same = 0;
    uint16_t *w = check_bytes(c, (size_t)n * 2);
    int16_t *rest = check_bytes(c, (size_t)n * 2);
    float *g = check_bytes(c, (size_t)n * 4), *x = check_bytes(c, (size_t)n * 4);
    struct tr_op_update op = {.g = g, .n = n, .unscale = 1, .coefficient = 1, .lr = 0.003f};
    struct tr_op_update split = op;

    for (int64_t i = 0; i < n; i++) {
        x[i] = 1 + (float)check_random_unit(c);
        g[i] = (float)check_random_unit(c) - 0.5f;
        w[i] = tr_master_split(x[i], &rest[i]);
    }
    op.w = x;
    split.w = w;
    split.dtype = TR_BF16;
    split.master_kind = TR_MASTER_SPLIT;
    split.master = rest;
    for (int step = 0; step < 20; step++) {
        check_run(c, TR_OP_SGD, &op);
        check_run(c, TR_OP_SGD, &split);
        if (forget)
            memset(rest, 0, (size_t)n * 2);
    }
    for (int64_t i = 0; i < n; i++)
        same += tr_f32_bits(tr_master_join(w[i], rest[i])) == tr_f32_bits(x[i]);
    return same == n;
}

static void master(struct check *c)
{
    while (check_case(c, "split master, 20 steps")) {
        check_true(c, split_equals_f32(c, 0), "a split master is not the f32 one");
        check_true(c, !split_equals_f32(c, 1), "forgotten remainders pass");
    }
}

void check_sgd(struct check *c)
{
    struct update_check u = {
        TR_OP_SGD, NULL, element, {.unscale = 1, .coefficient = 1, .lr = 0.003f}};

    check_update_all(c, &u);
    u.settings.rounding = TR_ROUND_STOCHASTIC;
    check_update_all(c, &u);
    if (check_bench_on(c))
        return;
    u.settings.unscale = 1.0f / 3;
    u.settings.clip_value = 0.2f;
    u.settings.weight_decay = 0.1f;
    u.settings.coefficient = 0.379594665f;
    check_update_all(c, &u);
    for (size_t i = 0; i < sizeof(vectors) / sizeof(vectors[0]); i++)
        published(c, &vectors[i]);
    statistics(c, 0x1p-11f);
    statistics(c, 0.003f);
    master(c);
}
