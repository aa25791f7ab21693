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

/* An array of 16 or 8 bits, to be rounded with random numbers of its own. */
struct target {
    void *to;
    uint32_t name;
    enum tr_code8 kind; /* in 8 bits */
};

/* Those of elements [begin, begin + n), from random[0] or a little behind it: they come in groups
 * of eight elements, and a block may begin inside one. */
static const uint16_t *draw(const struct job *j, const struct target *t, int64_t begin, int64_t n,
                            uint16_t random[TR_BLOCK + 16])
{
    struct tr_op_update named = *j->op;
    uint64_t first = (uint64_t)(j->op->first + begin), group = first / 8;
    int64_t groups = (int64_t)((first + (uint64_t)n + 7) / 8 - group);

    named.name = t->name;
    j->k->random(random, group, groups, &named);
    return random + first % 8;
}

static void store_stochastic(const struct job *j, const struct target *t, int64_t begin,
                             const float *x, int64_t n)
{
    uint16_t random[TR_BLOCK + 16];

    j->k->to_bf16_stochastic((uint16_t *)t->to + begin, x, draw(j, t, begin, n, random), n);
}

/* TR_BLOCK is a multiple of a block of bytes, and so is where a worker begins. */
static void load_codes(const struct job *j, const struct target *t, int64_t begin, float *x,
                       int64_t n)
{
    const uint8_t *block = (uint8_t *)t->to + tr_state_bytes(TR_8BIT, (uint64_t)begin);

    for (int64_t i = 0; i < n; i += TR_CODE8_BLOCK, block += TR_CODE8_STRIDE)
        j->k->code8_load(x + i, block, tr_min64(TR_CODE8_BLOCK, n - i), t->kind);
}

static void store_codes(const struct job *j, const struct target *t, int64_t begin, const float *x,
                        int64_t n)
{
    uint8_t *block = (uint8_t *)t->to + tr_state_bytes(TR_8BIT, (uint64_t)begin);
    uint16_t numbers[TR_BLOCK + 16];
    const uint16_t *random = draw(j, t, begin, n, numbers);

    for (int64_t i = 0; i < n; i += TR_CODE8_BLOCK, block += TR_CODE8_STRIDE)
        j->k->code8_store(block, x + i, random + i, tr_min64(TR_CODE8_BLOCK, n - i), t->kind);
}

static void find_state(const struct tr_op_update *op, struct target state[2])
{
    state[0] = (struct target){op->m, op->name ^ TR_PHILOX_M, TR_CODE8_SIGNED};
    state[1] = (struct target){op->v, op->name ^ TR_PHILOX_V, TR_CODE8_SQUARES};
}

/* Where the state of elements [begin, begin + n) is: in place, or widened into the buffers. */
static void load_state(const struct job *j, int64_t begin, int64_t n,
                       struct tr_update_values *values)
{
    const struct tr_op_update *op = j->op;
    float *to[2] = {values->m, values->v};
    struct target state[2];

    if (op->state_dtype == TR_F32) {
        values->m = j->state > 0 ? op->m + begin : NULL;
        values->v = j->state > 1 ? op->v + begin : NULL;
        return;
    }
    find_state(op, state);
    for (int i = 0; i < j->state; i++)
        if (op->state_dtype == TR_8BIT)
            load_codes(j, &state[i], begin, to[i], n);
        else
            j->k->to_f32[TR_BF16](to[i], (uint16_t *)state[i].to + begin, n);
}

static void store_state(const struct job *j, int64_t begin, int64_t n,
                        const struct tr_update_values *values)
{
    const float *from[2] = {values->m, values->v};
    struct target state[2];

    find_state(j->op, state);
    for (int i = 0; i < j->state; i++)
        if (j->op->state_dtype == TR_8BIT)
            store_codes(j, &state[i], begin, from[i], n);
        else if (j->op->state_dtype == TR_BF16)
            store_stochastic(j, &state[i], begin, from[i], n);
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
        store_stochastic(j, &(struct target){.to = op->w, .name = op->name}, begin, x, n);
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
        return tr_error(-EINVAL, "optimizer state is f32, bf16 or in 8 bits, not f16");
    if (op->state_dtype == TR_8BIT && op->first % TR_CODE8_BLOCK)
        return tr_error(-EINVAL, "element %lld begins no block of state in 8 bits",
                        (long long)op->first);
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
