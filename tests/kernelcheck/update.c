/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/kernelcheck/update.h"

#include <math.h>
#include <string.h>

#include "src/base/philox.h"
#include "tests/kernelcheck/code8.h"
#include "tests/kernelcheck/variant.h"

#define MOST  40001        /* elements of a case whose state is not f32 */
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

/* How many values an element has beside its weight. */
static int state_of(enum tr_op_kind kind)
{
    return kind == TR_OP_ADAMW ? 2 : kind == TR_OP_MOMENTUM || kind == TR_OP_ADAM_MINI;
}

/* Bytes of m or v: where v is not one value of an element, the room drawn for it. */
static size_t bytes_of(const struct update_check *u, const struct tr_op_update *op, int v)
{
    return tr_state_bytes(v && state_of(u->kind) < 2 ? TR_F32 : op->state_dtype, (uint64_t)op->n);
}

/* Copies of w, m and v, which the op writes. */
static void open_state(struct check *c, const struct update_check *u, struct tr_op_update *op,
                       const struct tr_op_update *from)
{
    size_t bytes = (size_t)from->n * tr_dtype_size(from->dtype);
    size_t m = bytes_of(u, from, 0), v = bytes_of(u, from, 1);

    *op = *from;
    op->w = memcpy(check_bytes(c, bytes), from->w, bytes);
    op->m = memcpy(check_bytes(c, m), from->m, m);
    op->v = memcpy(check_bytes(c, v), from->v, v);
    check_update_copy_master(c, op, from);
}

static void store_stochastic(const struct tr_op_update *op, void *to, int64_t i, uint32_t name,
                             float x)
{
    uint64_t index = (uint64_t)(op->first + i);
    struct tr_philox r = tr_philox_round(index, op->step, op->seed, name);

    ((uint16_t *)to)[i] = tr_f32_bf16_stochastic(x, tr_philox_half(r, index));
}

static void widen(const struct tr_op_update *op, float *to, const void *state, enum tr_code8 kind)
{
    if (op->state_dtype == TR_8BIT)
        check_code8_load(to, state, op->n, kind);
    for (int64_t i = 0; op->state_dtype == TR_BF16 && i < op->n; i++)
        to[i] = tr_bf16_f32(((const uint16_t *)state)[i]);
}

static void round_state(const struct tr_op_update *op, void *state, const float *x,
                        enum tr_code8 kind)
{
    uint32_t name = op->name ^ (kind == TR_CODE8_SIGNED ? TR_PHILOX_M : TR_PHILOX_V);

    if (op->state_dtype == TR_8BIT)
        check_code8_store(&(struct check_code8){op, name, kind}, state, x, op->n);
    for (int64_t i = 0; op->state_dtype == TR_BF16 && i < op->n; i++)
        store_stochastic(op, state, i, name, x[i]);
}

/* The op with its state in f32; op itself where it is. */
static struct tr_op_update widened(const struct update_check *u, const struct tr_op_update *op)
{
    static float m[MOST], v[MOST];
    struct tr_op_update wide = *op;

    if (op->state_dtype == TR_F32)
        return wide;
    widen(op, m, op->m, TR_CODE8_SIGNED);
    if (state_of(u->kind) > 1)
        widen(op, v, op->v, TR_CODE8_SQUARES);
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
    }
    if (wide.m != op->m)
        round_state(op, op->m, wide.m, TR_CODE8_SIGNED);
    if (wide.v != op->v)
        round_state(op, op->v, wide.v, TR_CODE8_SQUARES);
}

/* The range cut at an odd place, but between blocks of either kind, as pieces of a tensor would be.
 */
static void run_split(struct check *c, const struct update_check *u, const struct tr_op_update *op)
{
    struct tr_op_update part = *op;
    int64_t block = op->block * (op->state_dtype == TR_8BIT ? TR_CODE8_BLOCK : 1);

    part.n = op->n / 3 / block * block;
    check_run(c, u->kind, &part);
    part.first += part.n;
    part.w = (char *)op->w + (size_t)part.n * tr_dtype_size(op->dtype);
    part.g += part.n;
    check_update_shift_master(&part, part.n);
    part.m = (float *)((char *)op->m + tr_state_bytes(op->state_dtype, (uint64_t)part.n));
    part.v = u->kind == TR_OP_ADAM_MINI
                 ? op->v + part.n / op->block
                 : (float *)((char *)op->v + tr_state_bytes(op->state_dtype, (uint64_t)part.n));
    part.n = op->n - part.n;
    check_run(c, u->kind, &part);
}

static void judge_bytes(struct check *c, const char *what, const void *got, const void *want,
                        size_t bytes)
{
    const uint8_t *g = got, *w = want;
    size_t i = 0;

    while (i < bytes && g[i] == w[i])
        i++;
    check_true(c, i == bytes, "%s: byte %zu of %zu is %u, want %u", what, i, bytes,
               i < bytes ? g[i] : 0, i < bytes ? w[i] : 0);
}

static void judge(struct check *c, const struct update_check *u, const struct tr_op_update *got,
                  const struct tr_op_update *want)
{
    check_update_judge(c, got, want);
    judge_bytes(c, "m", got->m, want->m, bytes_of(u, got, 0));
    judge_bytes(c, "v", got->v, want->v, bytes_of(u, got, 1));
}

/* A buffer with x in the op's type of state. */
static float *narrowed(struct check *c, const struct tr_op_update *op, float *x, int64_t n,
                       enum tr_code8 kind)
{
    size_t bytes = tr_state_bytes(op->state_dtype, (uint64_t)n);
    void *to = op->state_dtype == TR_F32 ? x : check_bytes(c, bytes);
    struct tr_op_update narrow = *op;

    narrow.n = n;
    if (to != x)
        round_state(&narrow, to, x, kind);
    return to;
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
    op.g = g;
    op.dtype = dtype;
    op.n = n;
    if (op.master_kind)
        check_update_draw_master(c, &op);
    op.block = one_block ? n + !n : op.block + !op.block;
    op.first = op.state_dtype == TR_8BIT ? FIRST / TR_CODE8_BLOCK * TR_CODE8_BLOCK : FIRST;
    op.step = 0x100000007u;
    op.seed = 42;
    op.name = 0x9e3779b9;
    op.m = narrowed(c, &op, check_inout(c, TR_F32, (size_t)n, CHECK_NORMAL), n, TR_CODE8_SIGNED);
    op.v = state_of(u->kind) > 1 ? narrowed(c, &op, v, n, TR_CODE8_SQUARES) : v;
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

        open_state(c, u, &want, &from);
        check_update_reference(u, &want);
        do {
            open_state(c, u, &got, &from);
            check_run(c, u->kind, &got);
            judge(c, u, &got, &want);
        } while (check_variant(c));
        open_state(c, u, &got, &from);
        run_split(c, u, &got);
        judge(c, u, &got, &want);
        if (s->rounding && dtype == TR_BF16 &&
            !s->master_kind) { /* another seed, another step: other bits */
            open_state(c, u, &got, &from);
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
        double state = 2.0 * state_of(u->kind) * (double)tr_state_bytes(op.state_dtype, 256) / 256;
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
