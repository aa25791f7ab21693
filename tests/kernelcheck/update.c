/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/kernelcheck/update.h"

#include <math.h>
#include <string.h>

#include "src/base/philox.h"
#include "tests/kernelcheck/variant.h"

#define MOST  40001        /* elements of a case whose state is bf16 */
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

float check_update_load(const struct tr_op_update *op, int64_t i)
{
    if (op->master_kind == TR_MASTER_SPLIT)
        return tr_master_join(((const uint16_t *)op->w)[i], ((const int16_t *)op->master)[i]);
    if (op->master_kind == TR_MASTER_F32)
        return ((const float *)op->master)[i];
    return tr_load_f32(op->w, op->dtype, (size_t)i);
}

static void store(const struct tr_op_update *op, int64_t i, float x)
{
    uint16_t *w = op->w;
    int16_t rest = 0;

    if (op->master_kind && op->dtype == TR_BF16)
        w[i] = tr_master_split(x, &rest);
    else
        tr_store_f32(op->w, op->dtype, (size_t)i, x);
    if (op->master_kind == TR_MASTER_SPLIT)
        ((int16_t *)op->master)[i] = rest;
    if (op->master_kind == TR_MASTER_F32)
        ((float *)op->master)[i] = x;
}

static size_t master_bytes(const struct tr_op_update *op)
{
    return (size_t)op->n * (op->master_kind == TR_MASTER_F32 ? 4 : 2);
}

void check_update_draw_master(struct check *c, struct tr_op_update *op)
{
    int16_t *rest = check_inout(c, TR_BF16, (size_t)op->n, CHECK_NORMAL);

    op->master = rest;
    for (int64_t i = 0; i < op->n; i++)
        rest[i] = (int16_t)check_random(c);
    if (op->master_kind == TR_MASTER_F32)
        op->master = check_inout(c, TR_F32, (size_t)op->n, CHECK_NORMAL);
}

void check_update_copy_master(struct check *c, struct tr_op_update *op,
                              const struct tr_op_update *from)
{
    if (op->master_kind)
        op->master = memcpy(check_bytes(c, master_bytes(op)), from->master, master_bytes(op));
}

void check_update_shift_master(struct tr_op_update *op, int64_t n)
{
    if (op->master_kind)
        op->master = (char *)op->master + n * (op->master_kind == TR_MASTER_F32 ? 4 : 2);
}

/* Which NaN comes out is not said, and its two halves may be any. */
static void forget_nan(const struct tr_op_update *op)
{
    for (int64_t i = 0; i < op->n; i++)
        if (isnan(check_update_load(op, i)))
            store(op, i, 0);
}

void check_update_judge(struct check *c, const struct tr_op_update *got,
                        const struct tr_op_update *want)
{
    if (want->master_kind) {
        forget_nan(got);
        forget_nan(want);
        check_true(c, !check_differs(got->master, want->master, master_bytes(want)),
                   "masters differ");
    }
    check_equal(c, "w", got->dtype, got->w, want->w, (size_t)got->n);
}

/* Copies of w, m and v, which the op writes. */
static void open_state(struct check *c, struct tr_op_update *op, const struct tr_op_update *from)
{
    size_t n = (size_t)from->n, bytes = n * tr_dtype_size(from->dtype);

    *op = *from;
    op->w = memcpy(check_bytes(c, bytes), from->w, bytes);
    op->m = memcpy(check_bytes(c, n * 4), from->m, n * 4);
    op->v = memcpy(check_bytes(c, n * 4), from->v, n * 4);
    check_update_copy_master(c, op, from);
}

/* How many values an element has beside its weight. */
static int state_of(enum tr_op_kind kind)
{
    return kind == TR_OP_ADAMW ? 2 : kind == TR_OP_MOMENTUM || kind == TR_OP_ADAM_MINI;
}

static void store_stochastic(const struct tr_op_update *op, void *to, int64_t i, uint32_t name,
                             float x)
{
    uint64_t index = (uint64_t)(op->first + i);
    struct tr_philox r = tr_philox_round(index, op->step, op->seed, name);

    ((uint16_t *)to)[i] = tr_f32_bf16_stochastic(x, tr_philox_half(r, index));
}

/* The op with its bf16 state in f32; op itself where the state is f32. */
static struct tr_op_update widened(const struct update_check *u, const struct tr_op_update *op)
{
    static float m[MOST], v[MOST];
    struct tr_op_update wide = *op;

    if (op->state_dtype == TR_F32)
        return wide;
    for (int64_t i = 0; i < op->n; i++) {
        m[i] = tr_bf16_f32(((const uint16_t *)op->m)[i]);
        v[i] = state_of(u->kind) > 1 ? tr_bf16_f32(((const uint16_t *)op->v)[i]) : 0;
    }
    wide.m = m;
    wide.v = state_of(u->kind) > 1 ? v : op->v;
    return wide;
}

const char *check_update_way(const struct tr_op_update *op)
{
    static const char *const masters[] = {
        [TR_MASTER_SPLIT] = "split master", [TR_MASTER_F32] = "f32 master"};

    if (op->master_kind)
        return masters[op->master_kind];
    return op->rounding ? "stochastic" : "nearest";
}

void check_update_reference(const struct update_check *u, const struct tr_op_update *op)
{
    struct tr_op_update wide = widened(u, op);

    if (u->prepare)
        u->prepare(&wide);
    for (int64_t i = 0; i < op->n; i++) {
        float x = u->element(&wide, i, check_update_load(op, i));

        store(op, i, x);
        if (op->rounding == TR_ROUND_STOCHASTIC && op->dtype == TR_BF16 && !op->master_kind)
            store_stochastic(op, op->w, i, op->name, x);
        if (op->state_dtype == TR_BF16)
            store_stochastic(op, op->m, i, op->name ^ TR_PHILOX_M, wide.m[i]);
        if (op->state_dtype == TR_BF16 && state_of(u->kind) > 1)
            store_stochastic(op, op->v, i, op->name ^ TR_PHILOX_V, wide.v[i]);
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
    check_update_shift_master(&part, part.n);
    part.m = (float *)((char *)op->m + (size_t)part.n * tr_dtype_size(op->state_dtype));
    part.v = u->kind == TR_OP_ADAM_MINI
                 ? op->v + part.n / op->block
                 : (float *)((char *)op->v + (size_t)part.n * tr_dtype_size(op->state_dtype));
    part.n = op->n - part.n;
    check_run(c, u->kind, &part);
}

static void judge(struct check *c, const struct tr_op_update *got, const struct tr_op_update *want)
{
    check_update_judge(c, got, want);
    /* v of Adam-mini is f32, and shorter: what is behind it is compared as any number. */
    check_equal(c, "m", got->state_dtype, got->m, want->m, (size_t)got->n);
    check_equal(c, "v", got->state_dtype, got->v, want->v, (size_t)got->n);
}

/* To bf16 in place. */
static void narrow(float *x, int64_t n)
{
    for (int64_t i = 0; i < n; i++) {
        uint16_t low = tr_f32_bf16(x[i]);

        memcpy((char *)x + i * 2, &low, 2);
    }
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
    if (op.state_dtype == TR_BF16)
        narrow(op.m, n);
    if (op.state_dtype == TR_BF16 && state_of(u->kind) > 1)
        narrow(op.v, n);
    op.dtype = dtype;
    op.n = n;
    if (op.master_kind)
        check_update_draw_master(c, &op);
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
    while (check_case(c, "%s %s state %s n=%d block=%d decay=%g clip=%g coefficient=%g",
                      tr_dtype_name(dtype), check_update_way(s), tr_dtype_name(s->state_dtype),
                      (int)n, (int)s->block, (double)s->weight_decay, (double)s->clip_value,
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
        if (s->rounding && dtype == TR_BF16 &&
            !s->master_kind) { /* another seed, another step: other bits */
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

    while (check_case(c, "%s %s state %s n=%dM", tr_dtype_name(dtype),
                      check_update_way(&u->settings), tr_dtype_name(u->settings.state_dtype),
                      (int)(n >> 20))) {
        struct tr_op_update op = draw(c, u, dtype, n);
        double state = 2.0 * state_of(u->kind) * (double)tr_dtype_size(op.state_dtype);
        double master = op.master_kind ? 2.0 * (double)master_bytes(&op) : 0;

        CHECK_BENCH(c, (double)op.n * (4 + state + 2 * (double)tr_dtype_size(dtype)) + master, 0)
        check_run(c, u->kind, &op);
    }
}

static void check_masters(struct check *c, const struct update_check *u)
{
    static const int64_t sizes[] = {0, 13, 41, 5003};
    struct update_check with = *u;

    for (enum tr_master k = TR_MASTER_SPLIT; k < TR_MASTER_KINDS; k++) {
        with.settings.master_kind = k;
        for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]) && !check_bench_on(c); i++)
            check_update(c, &with, TR_BF16, sizes[i]);
        if (check_bench_on(c))
            bench(c, &with, TR_BF16);
    }
    for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]) && !check_bench_on(c); i++)
        check_update(c, &with, TR_F16, sizes[i]);
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
    if (u->settings.rounding == TR_ROUND_NEAREST)
        check_masters(c, u);
}
