/* SPDX-License-Identifier: Apache-2.0
 *
 * Blocks of optimizer state in bytes: the definitions are those of src/base/code8.h, element by
 * element; every tier must give the same bits.
 */
#include "src/base/code8.h"

#include <string.h>

#include "cpu/kernels.h"

static void load(float *to, const uint8_t *block, int64_t n, enum tr_code8 kind)
{
    float scale;

    memcpy(&scale, block, sizeof(scale));
    for (int64_t i = 0; i < n; i++)
        to[i] = tr_code8_value(block[sizeof(scale) + (size_t)i], kind) * scale;
}

static uint32_t top_of(const float *x, int64_t n)
{
    uint32_t top = 0;

    for (int64_t i = 0; i < n; i++) {
        uint32_t u = tr_f32_bits(x[i]) & 0x7fffffff;

        top = u > top ? u : top;
    }
    return top;
}

static void store(uint8_t *block, const float *from, const uint16_t *random, int64_t n,
                  enum tr_code8 kind)
{
    float by, scale = tr_code8_scale(top_of(from, n), &by);

    memcpy(block, &scale, sizeof(scale));
    block += sizeof(scale);
    if (by == 0)
        memset(block, 0, (size_t)n);
    for (int64_t i = 0; by != 0 && i < n; i++)
        block[i] = tr_code8_round(from[i] * by, random[i], kind);
}

void tr_code8_init_c(struct tr_cpu_kernels *k)
{
    k->code8_load = load;
    k->code8_store = store;
}
