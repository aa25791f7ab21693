/* SPDX-License-Identifier: Apache-2.0
 *
 * SGD with momentum bit for bit by device.h's order of arithmetic, and three steps of it against
 * the sums written out in double: the direction of a step is the sum of all gradients so far, each
 * times the momentum to the power of its age.
 */
#include <math.h>

#include "tests/kernelcheck/update.h"

static float element(const struct tr_op_update *op, int64_t i, float x)
{
    float g = check_update_gradient(op, i);

    if (op->weight_decay != 0)
        x = x * (1.0f - op->lr * op->weight_decay);
    op->m[i] = fmaf(op->beta1, op->m[i], g);
    return fmaf(-op->lr, op->m[i], x);
}

static void three_steps(struct check *c, struct tr_op_update op)
{
    while (check_case(c, "three steps")) {
        enum { N = 29 };
        float *w = check_inout(c, TR_F32, N, CHECK_NORMAL);
        double want[N], power = op.beta1, sum[3] = {1 + power + power * power, 1 + power, 1};

        op.w = w;
        op.n = N;
        op.m = check_scratch(c, N * 4);
        for (int i = 0; i < N; i++)
            want[i] = w[i];
        for (int step = 0; step < 3; step++) {
            op.g = check_input(c, TR_F32, N, CHECK_NORMAL);
            check_run(c, TR_OP_MOMENTUM, &op);
            for (int i = 0; i < N; i++)
                want[i] -= (double)op.lr * sum[step] * op.g[i];
        }
        check_close(c, "steps", TR_F32, w, want, N);
    }
}

void check_momentum(struct check *c)
{
    struct update_check u = {TR_OP_MOMENTUM, NULL, element, {.unscale = 1, .coefficient = 1}};
    struct tr_op_update *s = &u.settings;

    s->lr = 0.003f;
    s->beta1 = 0.9f;
    check_update_all(c, &u);
    s->rounding = TR_ROUND_STOCHASTIC;
    check_update_all(c, &u);
    s->state_dtype = TR_BF16;
    check_update_all(c, &u);
    s->state_dtype = TR_8BIT;
    check_update_all(c, &u);
    if (check_bench_on(c))
        return;
    s->rounding = TR_ROUND_NEAREST;
    check_update_all(c, &u);
    s->state_dtype = TR_F32;
    three_steps(c, *s);
    s->weight_decay = 0.1f;
    s->clip_value = 0.5f;
    s->coefficient = 0.7f;
    s->unscale = 1.0f / 3;
    check_update_all(c, &u);
}
