/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/train/spy.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "src/base/err.h"

struct spy_twin {
    struct spy_twin *next;
    uint32_t name;
    int64_t first, n;
    float *w, *m, *v, *factor;
    double *sums;
};

static float value_of(const struct tr_op_update *op, int64_t i)
{
    if (op->master_kind == TR_MASTER_SPLIT)
        return tr_master_join(((const uint16_t *)op->w)[i], ((const int16_t *)op->master)[i]);
    if (op->master_kind == TR_MASTER_F32)
        return ((const float *)op->master)[i];
    return tr_load_f32(op->w, op->dtype, (size_t)i);
}

static float *copy_of(const float *from, int64_t n)
{
    float *to = calloc((size_t)n + 1, sizeof(*to));

    return from && to ? memcpy(to, from, (size_t)n * sizeof(*to)) : to;
}

/* How many values m and v have. */
static int64_t count_m(const struct tr_op *op)
{
    int adalomo = op->kind >= TR_OP_ADALOMO_SUM && op->kind <= TR_OP_ADALOMO;

    if (adalomo)
        return op->update.factored ? op->update.n / op->update.block : 0;
    return op->kind == TR_OP_SGD ? 0 : op->update.n;
}

static int64_t count_v(const struct tr_op *op)
{
    switch (op->kind) {
    case TR_OP_ADAMW:
        return op->update.n;
    case TR_OP_ADAM_MINI:
        return op->update.n / op->update.block;
    case TR_OP_ADALOMO_SUM:
    case TR_OP_ADALOMO_FACTOR:
    case TR_OP_ADALOMO:
        return op->update.v ? op->update.block : 0;
    default:
        return 0;
    }
}

static float *values_of(const struct tr_op_update *op)
{
    float *x = calloc((size_t)op->n + 1, sizeof(*x));

    for (int64_t i = 0; i < op->n; i++)
        x[i] = value_of(op, i);
    return x;
}

/* The op as if its weights were f32 and without a master. */
static struct tr_op plain(const struct tr_op *op, float *w, float *m, float *v)
{
    struct tr_op p = *op;

    p.update.w = w;
    p.update.m = m;
    p.update.v = v;
    p.update.dtype = TR_F32;
    p.update.rounding = TR_ROUND_NEAREST;
    p.update.master_kind = TR_MASTER_NONE;
    p.update.master = NULL;
    return p;
}

static int run_now(struct spy *s, const struct tr_op *op)
{
    int r = s->inner->ops->run(s->inner, TR_STREAM_COMPUTE, op);

    return r < 0 ? r : s->inner->ops->sync(s->inner, TR_STREAM_COMPUTE);
}

static void forget(const struct tr_op_update *op)
{
    for (int64_t i = 0; i < op->n; i++)
        if (op->master_kind == TR_MASTER_SPLIT)
            ((int16_t *)op->master)[i] = 0;
        else if (op->master_kind == TR_MASTER_F32)
            ((float *)op->master)[i] = tr_load_f32(op->w, op->dtype, (size_t)i);
}

/* Of a value that goes up or down to a bf16 neighbour: the product of its distances from both. */
static double variance_of(float x)
{
    double low = tr_bits_f32(tr_f32_bits(x) & 0xffff0000);
    double high = tr_bits_f32((tr_f32_bits(x) & 0xffff0000) + 0x10000);

    return fabs(((double)x - low) * (high - (double)x));
}

static void add_shares(struct spy_share *sum, const struct tr_op_update *op, const float *was,
                       const uint16_t *seen, const float *wanted)
{
    for (int64_t i = 0; i < op->n; i++) {
        double want = (double)wanted[i] - (double)was[i];

        sum->wanted2 += want * want;
        sum->noise2 += want * want * variance_of(wanted[i]);
        sum->stored += want * ((double)value_of(op, i) - (double)was[i]);
        sum->seen += want * ((double)tr_bf16_f32(((const uint16_t *)op->w)[i]) -
                             (double)tr_bf16_f32(seen[i]));
    }
}

static int look_at_share(struct spy *s, const struct tr_op *op)
{
    const struct tr_op_update *u = &op->update;
    float *was = values_of(u), *wanted = values_of(u);
    float *m = copy_of(u->m, count_m(op)), *v = copy_of(u->v, count_v(op));
    uint16_t *seen = malloc((size_t)u->n * 2 + 1);
    struct tr_op p = plain(op, wanted, m, v);
    int r;

    memcpy(seen, u->w, (size_t)u->n * 2);
    r = run_now(s, &p);
    if (r == 0)
        r = run_now(s, op);
    if (r == 0 && s->forget)
        forget(u);
    if (r == 0 && u->step <= s->steps)
        add_shares(&s->share[u->step - 1], u, was, seen, wanted);
    free(was);
    free(wanted);
    free(m);
    free(v);
    free(seen);
    return r;
}

static struct spy_twin *twin_of(struct spy *s, const struct tr_op *op)
{
    const struct tr_op_update *u = &op->update;
    struct spy_twin *t = s->twins;

    while (t && (t->sums || t->name != u->name || t->first != u->first))
        t = t->next;
    if (t)
        return t;
    t = calloc(1, sizeof(*t));
    t->next = s->twins;
    t->name = u->name;
    t->first = u->first;
    t->n = u->n;
    t->w = values_of(u);
    t->m = copy_of(u->m, count_m(op));
    t->v = copy_of(u->v, count_v(op));
    return s->twins = t;
}

/* What AdaLomo keeps between its ops, and c, are of the whole tensor. */
static struct spy_twin *whole_of(struct spy *s, const struct tr_op *op)
{
    struct tr_op_update u = op->update;
    struct spy_twin *t = s->twins;

    while (t && (!t->sums || t->name != u.name))
        t = t->next;
    if (t)
        return t;
    t = calloc(1, sizeof(*t));
    t->next = s->twins;
    t->name = u.name;
    t->sums = calloc((size_t)(32 + 32 * u.block), sizeof(*t->sums));
    t->factor = calloc((size_t)u.block + 3, sizeof(*t->factor));
    t->v = copy_of(NULL, u.block);
    return s->twins = t;
}

static void compare(struct spy *s, const struct tr_op_update *op, const float *twin)
{
    for (int64_t i = 0; i < op->n; i++) {
        uint32_t bits = tr_f32_bits(twin[i]);
        int16_t rest;

        uint16_t w = tr_master_split(twin[i], &rest);

        if (op->dtype == TR_F16)
            w = tr_f32_f16(twin[i]);
        s->wrong += tr_f32_bits(value_of(op, i)) != bits || ((const uint16_t *)op->w)[i] != w;
    }
    s->compared += op->n;
}

static int look_at_twin(struct spy *s, const struct tr_op *op)
{
    int adalomo = op->kind >= TR_OP_ADALOMO_SUM && op->kind <= TR_OP_ADALOMO;
    struct spy_twin *t = op->kind == TR_OP_ADALOMO_FACTOR ? NULL : twin_of(s, op);
    struct spy_twin *whole = adalomo ? whole_of(s, op) : NULL;
    struct tr_op p = plain(op, t ? t->w : NULL, t ? t->m : NULL, adalomo ? whole->v : t->v);
    int r;

    if (t && t->n != op->update.n) /* two parts of a tensor say that they are one */
        return tr_error(-ERANGE, "an update of %lld elements, then of %lld, at %lld of a tensor",
                        (long long)t->n, (long long)op->update.n, (long long)op->update.first);
    if (adalomo) {
        p.update.sums = whole->sums;
        p.update.factor = whole->factor;
    }
    r = run_now(s, &p);
    if (r == 0)
        r = run_now(s, op);
    if (r == 0 && s->forget && t && op->kind != TR_OP_ADALOMO_SUM)
        forget(&op->update);
    if (r == 0 && t && op->kind != TR_OP_ADALOMO_SUM)
        compare(s, &op->update, t->w);
    return r;
}

static int spy_run(struct tr_device *d, enum tr_stream stream, const struct tr_op *op)
{
    struct spy *s = (struct spy *)d;
    int sums = op->kind == TR_OP_ADALOMO_SUM || op->kind == TR_OP_ADALOMO_FACTOR, r;

    if (op->kind < TR_OP_SGD || op->kind > TR_OP_ADALOMO || (sums && s->task == SPY_SHARES))
        return s->inner->ops->run(s->inner, stream, op);
    if ((r = s->inner->ops->sync(s->inner, TR_STREAM_COMPUTE)) < 0)
        return r;
    return s->task == SPY_TWINS ? look_at_twin(s, op) : look_at_share(s, op);
}

static int spy_sync(struct tr_device *d, enum tr_stream stream)
{
    struct spy *s = (struct spy *)d;

    return s->inner->ops->sync(s->inner, stream);
}

static int spy_copy_in(struct tr_device *d, enum tr_stream stream, void *to, const void *host,
                       size_t n)
{
    struct spy *s = (struct spy *)d;

    return s->inner->ops->copy_in(s->inner, stream, to, host, n);
}

static int spy_fill(struct tr_device *d, enum tr_stream stream, void *to, int byte, size_t n)
{
    struct spy *s = (struct spy *)d;

    return s->inner->ops->fill(s->inner, stream, to, byte, n);
}

void spy_open(struct spy *s, struct tr_run *run, enum spy_task task, uint64_t steps)
{
    memset(s, 0, sizeof(*s));
    s->ops = (struct tr_device_ops){
        .run = spy_run, .sync = spy_sync, .copy_in = spy_copy_in, .fill = spy_fill};
    s->base.ops = &s->ops;
    s->inner = run->device;
    s->task = task;
    s->steps = steps;
    s->share = calloc(steps, sizeof(*s->share));
    run->pass.device = &s->base;
}

void spy_close(struct spy *s)
{
    while (s->twins) {
        struct spy_twin *t = s->twins;

        s->twins = t->next;
        free(t->w);
        free(t->m);
        free(t->v);
        free(t->factor);
        free(t->sums);
        free(t);
    }
    free(s->share);
    s->share = NULL;
}

double spy_mean(const struct spy *s, int seen)
{
    double sum = 0;
    uint64_t n = 0;

    for (uint64_t i = 0; i < s->steps; i++)
        if (s->share[i].wanted2 > 0) {
            sum += (seen ? s->share[i].seen : s->share[i].stored) / s->share[i].wanted2;
            n++;
        }
    return n ? sum / (double)n : 0;
}

double spy_error(const struct spy *s)
{
    double sum = 0;
    uint64_t n = 0;

    for (uint64_t i = 0; i < s->steps; i++)
        if (s->share[i].wanted2 > 0) {
            sum += s->share[i].noise2 / (s->share[i].wanted2 * s->share[i].wanted2);
            n++;
        }
    return n ? sqrt(sum) / (double)n : 0;
}
