/* SPDX-License-Identifier: Apache-2.0
 *
 * AdamW bit for bit by device.h's order of arithmetic; and against the textbook in double, where
 * the state is kept over steps. Of state in bf16 and in 8 bits the second moments must rise and
 * fall on average as they do in exact arithmetic; rounded to nearest they would not, which the same
 * test catches. Twenty steps in 8 bits end near the textbook's; where bytes lose a bit they do not.
 */
#include <math.h>
#include <string.h>

#include "tests/kernelcheck/code8.h"
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

#define WIDE 1024 /* elements: four blocks */

/* Ways to get state in 8 bits wrong. */
enum spoilt { SOUND, SWAPPED, SHORTENED, SPOILT };

/* After a step: blocks take each other's scales, or second moments lose the last bit of bytes. */
static void spoil(const struct tr_op_update *op, enum spoilt how)
{
    uint8_t *v = (uint8_t *)op->v, scale[4];

    for (int b = 0; how == SWAPPED && b < WIDE / 256; b += 2) {
        memcpy(scale, v + (size_t)b * 260, 4);
        memcpy(v + (size_t)b * 260, v + (size_t)(b + 1) * 260, 4);
        memcpy(v + (size_t)(b + 1) * 260, scale, 4);
    }
    for (int i = 0; how == SHORTENED && i < WIDE; i++)
        v[i / 256 * 260 + 4 + i % 256] &= 0xfe;
}

/* Gradients of elements that differ by four decades, and of blocks that differ by two more. */
static float *draw_wide(struct check *c)
{
    float *g = check_inout(c, TR_F32, WIDE, CHECK_NORMAL);

    for (int i = 0; i < WIDE; i++)
        g[i] *= (float)pow(10, -(i * 7 % 41) / 10.0 - i / 256 % 2 * 2.0);
    return g;
}

/* How far twenty steps end from the textbook's, as a share of the way it went. */
static double distance(struct check *c, const struct tr_op_update *settings, enum spoilt how)
{
    static struct textbook t[WIDE];
    float *w = check_inout(c, TR_F32, WIDE, CHECK_NORMAL), from[WIDE];
    struct tr_op_update op = *settings;
    double off = 0, way = 0;

    memcpy(from, w, sizeof(from));
    op.w = w;
    op.n = WIDE;
    op.m = check_scratch(c, tr_state_bytes(op.state_dtype, WIDE));
    op.v = check_scratch(c, tr_state_bytes(op.state_dtype, WIDE));
    for (int i = 0; i < WIDE; i++)
        t[i] = (struct textbook){.w = w[i]};
    for (op.step = 1; op.step <= 20; op.step++) {
        op.g = draw_wide(c);
        op.step_size = (float)(op.lr / (1 - pow(op.beta1, (double)op.step)));
        op.sqrt_bias2 = (float)sqrt(1 - pow(op.beta2, (double)op.step));
        check_run(c, TR_OP_ADAMW, &op);
        spoil(&op, how);
        for (int i = 0; i < WIDE; i++)
            textbook_step(&t[i], &op, op.g[i], (int)op.step);
    }
    for (int i = 0; i < WIDE; i++) {
        off += (w[i] - t[i].w) * (w[i] - t[i].w);
        way += (from[i] - t[i].w) * (from[i] - t[i].w);
    }
    return sqrt(off / way);
}

/* 0.05 of it where all is well, 0.10 where a bit is lost. */
static void steps_in_8_bits(struct check *c, struct tr_op_update settings)
{
    settings.state_dtype = TR_8BIT;
    for (int how = SOUND; how < SPOILT; how++)
        while (check_case(c, "twenty steps in 8 bits, way %d", how)) {
            double d = distance(c, &settings, (enum spoilt)how);

            check_true(c, isfinite(d) && (d < 0.07) == (how == SOUND),
                       "way %d: off by %.4f of the way", how, d);
        }
}

#define MANY 2048

/* Without the first of each 256, which is there to be the largest. */
static double mean_of(const struct tr_op_update *op)
{
    static float v[MANY];
    double sum = 0;

    if (op->state_dtype == TR_8BIT)
        check_code8_load(v, op->v, MANY, TR_CODE8_SQUARES);
    for (int i = 0; i < MANY; i++)
        if (i % 256)
            sum += op->state_dtype == TR_8BIT ? v[i] : tr_bf16_f32(((uint16_t *)op->v)[i]);
    return sum / (MANY - MANY / 256);
}

/* Of one element a step moves v by a spacing with some probability: after as many steps as v
 * remembers about 0.05 of it in bf16, 0.25 in 8 bits, and so 5 standard errors of the mean. */
static int as_exact(const struct tr_op_update *op, double v, double exact)
{
    return fabs(v - exact) < 5 * (op->state_dtype == TR_8BIT ? 0.25 : 0.05) * exact / sqrt(MANY);
}

/* A step of v to nearest; in 8 bits beside a `top` that is exact. */
static float to_nearest(const struct tr_op_update *op, float v, float top)
{
    float by;

    if (op->state_dtype == TR_BF16)
        return tr_bf16_f32(tr_f32_bf16(v));
    top = tr_code8_scale(tr_f32_bits(top), &by);
    return tr_code8_value(tr_code8_round(v * by, 0x8000, TR_CODE8_SQUARES), TR_CODE8_SQUARES) * top;
}

/* A thousand steps of gradient 1, then of 0.1, and always 3 in the first of each 256: what v
 * becomes with stochastic rounding, and what it would become to nearest. */
static void moments_fall(struct check *c, const struct tr_op_update *settings)
{
    static const double exact[2] = {0.632305, 0.238819};

    while (check_case(c, "second moments in %s", tr_dtype_name(settings->state_dtype))) {
        struct tr_op_update op = *settings;
        float nearest = 0, top = 0;

        op.n = MANY;
        op.w = check_scratch(c, MANY * 4);
        op.m = check_scratch(c, tr_state_bytes(op.state_dtype, MANY));
        op.v = check_scratch(c, tr_state_bytes(op.state_dtype, MANY));
        op.beta2 = .999f;
        for (int half = 0; half < 2; half++) {
            float *g = check_bytes(c, MANY * 4), one = half ? .1f : 1;

            for (int i = 0; i < MANY; i++)
                g[i] = i % 256 ? one : 3;
            check_freeze(c);
            op.g = g;
            for (int i = 0; i < 1000; i++, op.step++) {
                check_run(c, TR_OP_ADAMW, &op);
                top = .999f * top + .001f * 9;
                nearest = to_nearest(&op, .999f * nearest + .001f * one * one, top);
            }
            check_true(c, as_exact(&op, mean_of(&op), exact[half]), "v is %.5f, not %.5f",
                       mean_of(&op), exact[half]);
        }
        check_true(c, !as_exact(&op, nearest, exact[1]), "to nearest passes with %.5f",
                   (double)nearest);
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
    s->state_dtype = TR_BF16;
    check_update_all(c, &u);
    s->state_dtype = TR_8BIT;
    check_update_all(c, &u);
    if (check_bench_on(c))
        return;
    s->rounding = TR_ROUND_NEAREST;
    check_update_all(c, &u);
    s->rounding = TR_ROUND_STOCHASTIC;
    for (int eight = 0; eight < 2 && !check_small(c); eight++) {
        s->state_dtype = eight ? TR_8BIT : TR_BF16;
        moments_fall(c, s);
    }
    s->state_dtype = TR_F32;
    s->weight_decay = 0.1f;
    s->clip_value = 0.5f;
    s->coefficient = 0.7f;
    s->unscale = 1.0f / 3;
    check_update_all(c, &u);
    s->rounding = TR_ROUND_NEAREST;
    s->coefficient = s->unscale = 1;
    s->clip_value = 0;
    twenty_steps(c, s);
    steps_in_8_bits(c, *s);
}
