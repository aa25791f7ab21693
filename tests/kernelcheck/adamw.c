/* SPDX-License-Identifier: Apache-2.0
 *
 * AdamW bit for bit by device.h's order of arithmetic; and against the textbook in double, where
 * the state is kept over steps.
 */
#include <math.h>
#include <string.h>

#include "tests/kernelcheck/update.h"

static float element(const struct tr_op_update *op, int64_t i, float x)
{
    float g = check_update_gradient(op, i), *m = op->m + i, *v = op->v + i;

    if (op->weight_decay != 0)
        x = x * (1.0f - op->lr * op->weight_decay);
    *m = fmaf(1.0f - op->beta1, g - *m, *m);
    float rest = (1.0f - op->beta2) * g, kept = op->beta2 * *v;
    *v = fmaf(rest, g, kept);
    float root = sqrtf(*v), denom = root / op->sqrt_bias2;
    denom = denom + op->eps;
    float ratio = *m / denom;
    return fmaf(-op->step_size, ratio, x);
}

struct textbook {
    double w, m, v;
};

static void textbook_step(struct textbook *t, const struct tr_op_update *op, double g, int step)
{
    t->w -= (double)op->lr * op->weight_decay * t->w;
    t->m = op->beta1 * t->m + (1 - (double)op->beta1) * g;
    t->v = op->beta2 * t->v + (1 - (double)op->beta2) * g * g;
    double m = t->m / (1 - pow(op->beta1, step)), v = t->v / (1 - pow(op->beta2, step));
    t->w -= op->lr * m / (sqrt(v) + op->eps);
}

static void twenty_steps(struct check *c, const struct tr_op_update *settings)
{
    while (check_case(c, "twenty steps")) {
        enum { N = 37 };
        float *w = check_inout(c, TR_F32, N, CHECK_NORMAL);
        struct tr_op_update op = *settings;
        struct textbook t[N];
        double want[N];

        op.w = w;
        op.n = N;
        op.m = check_scratch(c, N * 4);
        op.v = check_scratch(c, N * 4);
        for (int i = 0; i < N; i++)
            t[i] = (struct textbook){.w = w[i]};
        for (int step = 1; step <= 20; step++) {
            op.g = check_input(c, TR_F32, N, CHECK_NORMAL);
            op.step_size = (float)(op.lr / (1 - pow(op.beta1, step)));
            op.sqrt_bias2 = (float)sqrt(1 - pow(op.beta2, step));
            check_run(c, TR_OP_ADAMW, &op);
            for (int i = 0; i < N; i++)
                textbook_step(&t[i], &op, op.g[i], step);
        }
        for (int i = 0; i < N; i++)
            want[i] = t[i].w;
        check_close(c, "steps", TR_F32, w, want, N);
    }
}

void check_adamw(struct check *c)
{
    struct update_check u = {TR_OP_ADAMW, NULL, element, {.unscale = 1, .coefficient = 1}};
    struct tr_op_update *s = &u.settings;

    s->lr = 1e-3f;
    s->beta1 = 0.9f;
    s->beta2 = 0.95f;
    s->eps = 1e-8f;
    s->step_size = 1e-3f / 0.19f;
    s->sqrt_bias2 = 0.3122499f;
    check_update_all(c, &u);
    s->rounding = TR_ROUND_STOCHASTIC;
    check_update_all(c, &u);
    if (check_bench_on(c))
        return;
    s->weight_decay = 0.1f;
    s->clip_value = 0.5f;
    s->coefficient = 0.7f;
    s->unscale = 1.0f / 3;
    check_update_all(c, &u);
    s->rounding = TR_ROUND_NEAREST;
    s->coefficient = s->unscale = 1;
    s->clip_value = 0;
    twenty_steps(c, s);
}
