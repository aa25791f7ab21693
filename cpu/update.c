/* SPDX-License-Identifier: Apache-2.0
 *
 * Blocks of TR_BLOCK elements pass through a buffer on the stack: storage to f32, the optimizer's
 * kernel, f32 to storage. f32 weights, and f32 masters, are updated where they lie.
 */
#include "cpu/update.h"

#include <string.h>

#include "cpu/kernels.h"
#include "cpu/split.h"
#include "src/base/err.h"
#include "src/base/philox.h"

struct job {
    const struct tr_cpu_kernels *k;
    const struct tr_op_update *op;
    tr_update_kernel *kernel;
    int state;
};

/* Elements [begin, begin + n) of an array of 16 bits, to be rounded with random numbers of its own.
 */
struct target {
    void *to;
    uint32_t name;
};

/* Random numbers come in groups of eight elements; a block may begin inside one. */
static void store_stochastic(const struct job *j, const struct target *t, int64_t begin,
                             const float *x, int64_t n)
{
    struct tr_op_update named = *j->op;
    uint16_t random[TR_BLOCK + 16];
    uint64_t first = (uint64_t)(j->op->first + begin), group = first / 8;
    int64_t groups = (int64_t)((first + (uint64_t)n + 7) / 8 - group);

    named.name = t->name;
    j->k->random(random, group, groups, &named);
    j->k->to_bf16_stochastic((uint16_t *)t->to + begin, x, random + first % 8, n);
}

/* Where the state of elements [begin, begin + n) is: in place, or widened into the buffers. */
static void load_state(const struct job *j, int64_t begin, int64_t n,
                       struct tr_update_values *values)
{
    const struct tr_op_update *op = j->op;

    if (op->state_dtype == TR_F32) {
        values->m = j->state > 0 ? op->m + begin : NULL;
        values->v = j->state > 1 ? op->v + begin : NULL;
        return;
    }
    if (j->state > 0)
        j->k->to_f32[TR_BF16](values->m, (uint16_t *)op->m + begin, n);
    if (j->state > 1)
        j->k->to_f32[TR_BF16](values->v, (uint16_t *)op->v + begin, n);
}

static void store_state(const struct job *j, int64_t begin, int64_t n,
                        const struct tr_update_values *values)
{
    const struct tr_op_update *op = j->op;
    struct target m = {op->m, op->name ^ TR_PHILOX_M}, v = {op->v, op->name ^ TR_PHILOX_V};

    if (op->state_dtype == TR_F32)
        return;
    if (j->state > 0)
        store_stochastic(j, &m, begin, values->m, n);
    if (j->state > 1)
        store_stochastic(j, &v, begin, values->v, n);
}

void tr_update_load(const struct tr_cpu_kernels *k, const struct tr_op_update *op, int64_t begin,
                    float *x, int64_t n)
{
    const char *w = (const char *)op->w + (size_t)begin * tr_dtype_size(op->dtype);

    if (op->master_kind == TR_MASTER_SPLIT)
        k->master_join(x, (const uint16_t *)w, (const int16_t *)op->master + begin, n);
    else if (op->master_kind == TR_MASTER_F32)
        memcpy(x, (const float *)op->master + begin, (size_t)n * 4);
    else
        k->to_f32[op->dtype](x, w, n);
}

static void store_weights(const struct job *j, int64_t begin, const float *x, int64_t n)
{
    const struct tr_op_update *op = j->op;
    uint16_t *w = (uint16_t *)op->w + begin;

    if (op->master_kind == TR_MASTER_SPLIT)
        j->k->master_split(w, (int16_t *)op->master + begin, x, n);
    else if (op->master_kind == TR_MASTER_F32 && op->dtype == TR_BF16)
        j->k->master_split(w, NULL, x, n);
    else if (op->rounding == TR_ROUND_STOCHASTIC)
        store_stochastic(j, &(struct target){op->w, op->name}, begin, x, n);
    else
        j->k->from_f32[op->dtype](w, x, n);
}

/* f32 values that are updated where they lie: the weights or their master; or NULL. */
static float *in_place(const struct tr_op_update *op)
{
    if (op->master_kind == TR_MASTER_F32)
        return op->master;
    return op->dtype == TR_F32 ? op->w : NULL;
}

static void update_blocks(void *arg, int64_t begin, int64_t end, int worker)
{
    const struct job *j = arg;
    const struct tr_op_update *op = j->op;
    float block[TR_BLOCK], m[TR_BLOCK], v[TR_BLOCK];

    (void)worker;
    for (int64_t i = begin; i < end; i += TR_BLOCK) {
        int64_t n = tr_min64(TR_BLOCK, end - i);
        float *there = in_place(op), *x = there ? there + i : block;
        struct tr_update_values values = {x, m, v};

        if (!there)
            tr_update_load(j->k, op, i, x, n);
        load_state(j, i, n, &values);
        j->kernel(&values, op, i, i + n);
        store_state(j, i, n, &values);
        if (op->dtype != TR_F32)
            store_weights(j, i, x, n);
    }
}

int tr_update_check(const struct tr_op_update *op)
{
    if (op->rounding == TR_ROUND_STOCHASTIC && op->dtype == TR_F16)
        return tr_error(-EINVAL, "stochastic rounding is defined for bf16, not for f16");
    if (op->state_dtype == TR_F16)
        return tr_error(-EINVAL, "optimizer state is f32 or bf16, not f16");
    if (op->master_kind && !tr_master_fits(op->master_kind, op->dtype))
        return tr_error(-EINVAL, "%s weights have no such master", tr_dtype_name(op->dtype));
    return 0;
}

int tr_update_run(const struct tr_cpu *cpu, const struct tr_op_update *op, tr_update_kernel *kernel,
                  int state)
{
    struct job j = {cpu->kernels, op, kernel, state};
    int r = tr_update_check(op);

    if (r < 0)
        return r;
    tr_pool_run(cpu->pool, op->n, tr_split_grain(2), update_blocks, &j);
    return 0;
}
