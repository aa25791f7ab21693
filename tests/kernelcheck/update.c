/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/kernelcheck/update.h"

#include <math.h>
#include <string.h>

#include "src/base/philox.h"
#include "tests/kernelcheck/variant.h"

#define FIRST 0x7fffffffdu /* in the middle of a group of eight, near a carry of the counter */

float check_update_gradient(const struct tr_op_update *op, int64_t i)
{
    float g = op->g[i] * op->unscale;

    if (op->clip_value > 0 && g > op->clip_value)
        g = op->clip_value;
    if (op->clip_value > 0 && g < -op->clip_value)
        g = -op->clip_value;
    return g * op->coefficient;
}

/* Copies of w, m and v, which the op writes. */
static void open_state(struct check *c, struct tr_op_update *op, const struct tr_op_update *from)
{
    size_t n = (size_t)from->n, bytes = n * tr_dtype_size(from->dtype);

    *op = *from;
    op->w = memcpy(check_bytes(c, bytes), from->w, bytes);
    op->m = memcpy(check_bytes(c, n * 4), from->m, n * 4);
    op->v = memcpy(check_bytes(c, n * 4), from->v, n * 4);
}

void check_update_reference(const struct update_check *u, const struct tr_op_update *op)
{
    if (u->prepare)
        u->prepare(op);
    for (int64_t i = 0; i < op->n; i++) {
        float x = u->element(op, i, tr_load_f32(op->w, op->dtype, (size_t)i));
        uint64_t index = (uint64_t)(op->first + i);
        struct tr_philox r = tr_philox_round(index, op->step, op->seed, op->name);

        tr_store_f32(op->w, op->dtype, (size_t)i, x);
        if (op->rounding == TR_ROUND_STOCHASTIC && op->dtype == TR_BF16)
            ((uint16_t *)op->w)[i] = tr_f32_bf16_stochastic(x, tr_philox_half(r, index));
    }
}

/* The range cut at an odd place, but between blocks, as pieces of a tensor would be. */
static void run_split(struct check *c, const struct update_check *u, const struct tr_op_update *op)
{
    struct tr_op_update part = *op;

    part.n = op->n / 3 / op->block * op->block;
    check_run(c, u->kind, &part);
    part.first += part.n;
    part.w = (char *)op->w + (size_t)part.n * tr_dtype_size(op->dtype);
    part.g += part.n;
    part.m += part.n;
    part.v += part.n / op->block;
    part.n = op->n - part.n;
    check_run(c, u->kind, &part);
}

static void judge(struct check *c, const struct tr_op_update *got, const struct tr_op_update *want)
{
    check_equal(c, "w", got->dtype, got->w, want->w, (size_t)got->n);
    check_equal(c, "m", TR_F32, got->m, want->m, (size_t)got->n);
    check_equal(c, "v", TR_F32, got->v, want->v, (size_t)got->n);
}

static struct tr_op_update draw(struct check *c, const struct update_check *u, enum tr_dtype dtype,
                                int64_t n)
{
    struct tr_op_update op = u->settings;
    int one_block = u->settings.block == 0 && u->kind == TR_OP_ADAM_MINI;
    float *v = check_inout(c, TR_F32, (size_t)n, CHECK_NORMAL);
    float *g = check_inout(c, TR_F32, (size_t)n, CHECK_NORMAL);

    for (int64_t i = 0; i < n; i++)
        v[i] *= v[i];
    if (n > 40 && !one_block && !check_bench_on(c)) { /* NaN would be all that is seen */
        if (u->kind != TR_OP_ADAM_MINI) /* of two factors that are NaN, whose sign remains? */
            g[3] = NAN;
        g[17] = INFINITY;
        g[18] = -INFINITY;
        g[39] = 0x1p-149f;
    }
    check_freeze(c);
    op.w = check_inout(c, dtype, (size_t)n, CHECK_NORMAL);
    op.m = check_inout(c, TR_F32, (size_t)n, CHECK_NORMAL);
    op.g = g;
    op.v = v;
    op.dtype = dtype;
    op.n = n;
    op.block = one_block ? n + !n : op.block + !op.block;
    op.first = FIRST;
    op.step = 0x100000007u;
    op.seed = 42;
    op.name = 0x9e3779b9;
    return op;
}

void check_update(struct check *c, const struct update_check *u, enum tr_dtype dtype, int64_t n)
{
    const struct tr_op_update *s = &u->settings;

    if (s->block > 1)
        n = n / s->block * s->block;
    while (check_case(c, "%s %s n=%d block=%d decay=%g clip=%g coefficient=%g",
                      tr_dtype_name(dtype), s->rounding ? "stochastic" : "nearest", (int)n,
                      (int)s->block, (double)s->weight_decay, (double)s->clip_value,
                      (double)s->coefficient)) {
        struct tr_op_update from = draw(c, u, dtype, n), want, got;

        open_state(c, &want, &from);
        check_update_reference(u, &want);
        do {
            open_state(c, &got, &from);
            check_run(c, u->kind, &got);
            judge(c, &got, &want);
        } while (check_variant(c));
        open_state(c, &got, &from);
        run_split(c, u, &got);
        judge(c, &got, &want);
        if (s->rounding && dtype == TR_BF16) { /* another seed, another step: other bits */
            open_state(c, &got, &from);
            got.step++;
            check_run(c, u->kind, &got);
            check_true(c, n < 16 || check_differs(got.w, want.w, (size_t)n * 2), "step is ignored");
        }
    }
}

static void bench(struct check *c, const struct update_check *u, enum tr_dtype dtype)
{
    int64_t n = (c->device ? 32 : 4) << 20;

    while (check_case(c, "%s %s n=%dM", tr_dtype_name(dtype),
                      u->settings.rounding ? "stochastic" : "nearest", (int)(n >> 20))) {
        struct tr_op_update op = draw(c, u, dtype, n);
        double state = u->kind == TR_OP_ADAMW ? 16 : u->kind == TR_OP_SGD ? 0 : 8;

        CHECK_BENCH(c, (double)op.n * (4 + state + 2 * (double)tr_dtype_size(dtype)), 0)
        check_run(c, u->kind, &op);
    }
}

void check_update_all(struct check *c, const struct update_check *u)
{
    static const int64_t sizes[] = {0, 1, 13, 41, 5003, 40001};

    for (enum tr_dtype d = TR_F32; d < TR_DTYPES; d++) {
        if (u->settings.rounding == TR_ROUND_STOCHASTIC && d == TR_F16)
            continue;
        for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]) && !check_bench_on(c); i++)
            check_update(c, u, d, sizes[i]);
        if (check_bench_on(c))
            bench(c, u, d);
    }
}
