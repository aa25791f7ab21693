/* SPDX-License-Identifier: Apache-2.0
 *
 * Conversions between the storage dtypes and f32: the definitions are those of src/base/dtype.h and
 * src/base/philox.h, element by element; every tier must give the same bits. And the op made of
 * them.
 */
#include "cpu/cpu.h"

#include <string.h>

#include "cpu/kernels.h"
#include "cpu/split.h"
#include "src/base/philox.h"

struct job {
    const struct tr_cpu_kernels *k;
    const struct tr_op_cast *op;
};

static void f32_copy(void *to, const void *from, int64_t n)
{
    memmove(to, from, (size_t)n * 4);
}

static void f32_to_f32(float *to, const void *from, int64_t n)
{
    f32_copy(to, from, n);
}

static void f32_from_f32(void *to, const float *from, int64_t n)
{
    f32_copy(to, from, n);
}

static void bf16_to_f32(float *to, const void *from, int64_t n)
{
    const uint16_t *h = from;

    for (int64_t i = 0; i < n; i++)
        to[i] = tr_bf16_f32(h[i]);
}

static void bf16_from_f32(void *to, const float *from, int64_t n)
{
    uint16_t *h = to;

    for (int64_t i = 0; i < n; i++)
        h[i] = tr_f32_bf16(from[i]);
}

static void master_join(float *to, const uint16_t *w, const int16_t *rest, int64_t n)
{
    for (int64_t i = 0; i < n; i++)
        to[i] = tr_master_join(w[i], rest[i]);
}

static void master_split(uint16_t *w, int16_t *rest, const float *from, int64_t n)
{
    int16_t dropped;

    for (int64_t i = 0; i < n; i++)
        w[i] = tr_master_split(from[i], rest ? &rest[i] : &dropped);
}

static void f16_to_f32(float *to, const void *from, int64_t n)
{
    const uint16_t *h = from;

    for (int64_t i = 0; i < n; i++)
        to[i] = tr_f16_f32(h[i]);
}

static void f16_from_f32(void *to, const float *from, int64_t n)
{
    uint16_t *h = to;

    for (int64_t i = 0; i < n; i++)
        h[i] = tr_f32_f16(from[i]);
}

static void random_halves(uint16_t *to, uint64_t group, int64_t groups,
                          const struct tr_op_update *op)
{
    for (int64_t g = 0; g < groups; g++) {
        uint64_t index = (group + (uint64_t)g) * 8;
        struct tr_philox r = tr_philox_round(index, op->step, op->seed, op->name);

        for (int j = 0; j < 8; j++)
            to[g * 8 + j] = tr_philox_half(r, index + (uint64_t)j);
    }
}

static void to_bf16_stochastic(uint16_t *to, const float *from, const uint16_t *random, int64_t n)
{
    for (int64_t i = 0; i < n; i++)
        to[i] = tr_f32_bf16_stochastic(from[i], random[i]);
}

void tr_cast_init_c(struct tr_cpu_kernels *k)
{
    k->to_f32[TR_F32] = f32_to_f32;
    k->to_f32[TR_BF16] = bf16_to_f32;
    k->to_f32[TR_F16] = f16_to_f32;
    k->from_f32[TR_F32] = f32_from_f32;
    k->from_f32[TR_BF16] = bf16_from_f32;
    k->from_f32[TR_F16] = f16_from_f32;
    k->random = random_halves;
    k->to_bf16_stochastic = to_bf16_stochastic;
    k->master_join = master_join;
    k->master_split = master_split;
}

static void cast_blocks(void *arg, int64_t begin, int64_t end, int worker)
{
    const struct job *j = arg;
    const struct tr_op_cast *op = j->op;
    size_t from_size = tr_dtype_size(op->from_dtype), to_size = tr_dtype_size(op->to_dtype);
    float block[TR_BLOCK];

    (void)worker;
    for (int64_t i = begin; i < end; i += TR_BLOCK) {
        int64_t n = tr_min64(TR_BLOCK, end - i);

        j->k->to_f32[op->from_dtype](block, (const char *)op->from + (size_t)i * from_size, n);
        j->k->from_f32[op->to_dtype]((char *)op->to + (size_t)i * to_size, block, n);
    }
}

int tr_cpu_cast(const struct tr_cpu *cpu, const struct tr_op_cast *op)
{
    struct job j = {cpu->kernels, op};

    tr_pool_run(cpu->pool, op->n, tr_split_grain(1), cast_blocks, &j);
    return 0;
}
