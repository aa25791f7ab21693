/* SPDX-License-Identifier: Apache-2.0
 *
 * Conversions between the storage dtypes and f32: the definitions are those of src/base/dtype.h and
 * src/base/philox.h, element by element; every tier must give the same bits.
 */
#include "cpu/kernels.h"

#include <string.h>

#include "src/base/philox.h"

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
}
