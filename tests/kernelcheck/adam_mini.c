/* SPDX-License-Identifier: Apache-2.0
 *
 * Adam-mini bit for bit by device.h's order of arithmetic, for blocks of one element, shorter and
 * longer than a piece, and of a whole tensor; and two steps of a matrix of four rows against
 * numbers that were worked out in double, block by head, by row and as a whole.
 */
#include <math.h>
#include <string.h>

#include "tests/kernelcheck/update.h"

static double sum_piece(const struct tr_op_update *op, int64_t begin, int64_t n)
{
    double lanes[16] = {0};

    for (int64_t i = 0; i < n; i++)
        lanes[i % 16] += pow(check_update_gradient(op, begin + i), 2);
    for (int half = 8; half; half /= 2)
        for (int j = 0; j < half; j++)
            lanes[j] += lanes[j + half];
    return lanes[0];
}

static void second_moments(const struct tr_op_update *op)
{
    for (int64_t b = 0; b < op->n / op->block; b++) {
        double sum = 0;

        for (int64_t at = 0; at < op->block; at += 1024)
            sum += sum_piece(op, b * op->block + at, op->block - at < 1024 ? op->block - at : 1024);
        float mean = (float)(sum / (double)op->block), kept = op->beta2 * op->v[b];
        op->v[b] = fmaf(1.0f - op->beta2, mean, kept);
    }
}

static float element(const struct tr_op_update *op, int64_t i, float x)
{
    float g = check_update_gradient(op, i), root = sqrtf(op->v[i / op->block]);
    float denom = root / op->sqrt_bias2;

    denom = denom + op->eps;
    float scale = op->step_size / denom;
    if (op->weight_decay != 0)
        x = x * (1.0f - op->lr * op->weight_decay);
    op->m[i] = fmaf(1.0f - op->beta1, g - op->m[i], op->m[i]);
    return fmaf(-scale, op->m[i], x);
}

struct vector {
    const char *name;
    int64_t block;
    float decay;
    int row; /* which of W is compared */
    double want[4], v1, v2;
};

static const struct vector vectors[] = {
    {"head", 8, 0, 0, {.0986986195, -.201183297, .301916891, .397065621}, 4.375e-7, 6.870625e-7},
    {"head", 8, 0, 3, {.499458446, .599785112, -.699673333, .799346667}, 2.0625e-5, 2.9979375e-5},
    {"row", 4, 0, 0, {.0989152199, -.200928816, .301517298, .397646071}, 7.5e-7, 0},
    {"row", 4, 0, 1, {.498975566, -.601201757, .700341478, .801720557}, 1.25e-7, 0},
    {"row", 4, .1f, 0, {.0988952574, -.200888745, .301457191, .397566221}, 7.5e-7, 0},
    {"all",
     16,
     0,
     0,
     {.0997282803, -.200242966, .300394496, .399393879},
     1.053125e-5,
     1.53332188e-5},
};

static const float weights[16] = {.1f,  -.2f, .3f,  .4f, .5f, -.6f, .7f,  .8f,
                                  -.1f, .2f,  -.3f, .4f, .5f, .6f,  -.7f, .8f};
static const float gradients[2][16] = {
    {.01f, .02f, -.03f, .04f, 0, .01f, 0, -.02f, .1f, -.2f, .3f, .1f, .05f, 0, -.05f, .1f},
    {.02f, -.01f, .01f, 0, .03f, 0, -.01f, .02f, -.1f, .1f, 0, .2f, 0, .05f, .05f, -.1f}};

/* Without the bias, of which f32's 1 - .999 has 1.3e-5 too little and the correction as well. */
static void expect_moment(struct check *c, const struct tr_op_update *op, int64_t block,
                          double want)
{
    double step = (double)op->step;
    float got = (float)(op->v[block] / (1 - pow(op->beta2, step)));

    want /= 1 - pow(.999, step);
    check_close(c, "moment", TR_F32, &got, &want, 1);
}

static void worked_out(struct check *c, const struct vector *v)
{
    while (check_case(c, "by %s, decay %g, row %d", v->name, (double)v->decay, v->row)) {
        struct tr_op_update op = {.n = 16, .block = v->block, .unscale = 1, .coefficient = 1};
        int64_t b = v->row * 4 / v->block;
        float *w = op.w = memcpy(check_bytes(c, sizeof(weights)), weights, sizeof(weights));

        op.m = check_scratch(c, sizeof(weights));
        op.v = check_scratch(c, sizeof(weights));
        op.lr = 1e-3f;
        op.weight_decay = v->decay;
        op.beta1 = .9f;
        op.beta2 = .999f;
        op.eps = 1e-8f;
        for (int step = 1; step <= 2; step++) {
            op.g = memcpy(check_bytes(c, sizeof(weights)), gradients[step - 1], sizeof(weights));
            op.step_size = (float)(1e-3 / (1 - pow(op.beta1, step)));
            op.sqrt_bias2 = (float)sqrt(1 - pow(op.beta2, step));
            op.step = (uint64_t)step;
            check_run(c, TR_OP_ADAM_MINI, &op);
            if (step == 1 || v->v2 > 0)
                expect_moment(c, &op, b, step == 1 ? v->v1 : v->v2);
        }
        check_close(c, "w", TR_F32, w + (size_t)v->row * 4, v->want, 4);
    }
}

void check_adam_mini(struct check *c)
{
    static const int64_t blocks[] = {24, 1, 1500, 0};
    struct update_check u = {TR_OP_ADAM_MINI, second_moments, element, {.unscale = 1}};
    struct tr_op_update *s = &u.settings;

    s->coefficient = 1;
    s->lr = 1e-3f;
    s->beta1 = 0.9f;
    s->beta2 = 0.95f;
    s->eps = 1e-8f;
    s->step_size = 1e-3f / 0.19f;
    s->sqrt_bias2 = 0.3122499f;
    for (size_t i = 0; i < sizeof(blocks) / sizeof(blocks[0]); i++) {
        s->block = check_bench_on(c) ? 4096 : blocks[i];
        s->rounding = i % 2 ? TR_ROUND_NEAREST : TR_ROUND_STOCHASTIC;
        check_update_all(c, &u);
        s->rounding = i % 2 ? TR_ROUND_STOCHASTIC : TR_ROUND_NEAREST;
        s->weight_decay = i < 2 ? 0.1f : 0;
        s->clip_value = i < 2 ? 0.5f : 0;
        check_update_all(c, &u);
        s->state_dtype = TR_BF16;
        check_update_all(c, &u);
        s->state_dtype = TR_8BIT;
        check_update_all(c, &u);
        s->state_dtype = TR_F32;
        if (check_bench_on(c))
            return;
    }
    for (size_t i = 0; i < sizeof(vectors) / sizeof(vectors[0]); i++)
        worked_out(c, &vectors[i]);
}
