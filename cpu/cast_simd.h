/* SPDX-License-Identifier: Apache-2.0
 *
 * Casts and the random halves of stochastic rounding in sixteen lanes: the bits of cpu/cast.c.
 */
#include <string.h>

#include "cpu/philox_simd.h"

/* bf16 bits of f32 bits: nearest, ties to even, NaN made quiet. */
static inline v16i nearest(v16i u)
{
    v16i odd = v16i_and(v16i_shr(u, 16), v16i_set(1));
    v16i rounded = v16i_shr(v16i_add(u, v16i_add(v16i_set(0x7fff), odd)), 16);
    v16i nan = v16i_or(v16i_shr(u, 16), v16i_set(0x40));

    return v16i_if_greater(v16i_and(u, v16i_set(0x7fffffff)), v16i_set(0x7f800000), nan, rounded);
}

/* Random bits instead of half a unit; infinity and NaN go the way of nearest. */
static inline v16i stochastic(v16i u, v16i random)
{
    v16i rounded = v16i_shr(v16i_add(u, random), 16);

    return v16i_if_greater(v16i_and(u, v16i_set(0x7fffffff)), v16i_set(0x7f7fffff), nearest(u),
                           rounded);
}

static void bf16_to_f32(float *to, const void *from, int64_t n)
{
    const uint16_t *h = from;

#define BODY(i, count)                                                                             \
    v16_store(to + (i), v16_of_bits(v16i_shl(v16i_load_16(h + (i), count), 16)), count)
    V16_LOOP(n, BODY);
#undef BODY
}

static void bf16_from_f32(void *to, const float *from, int64_t n)
{
    uint16_t *h = to;

#define BODY(i, count) v16i_store_16(h + (i), nearest(v16_bits(v16_load(from + (i), count))), count)
    V16_LOOP(n, BODY);
#undef BODY
}

/* The remainder is sign-extended by two shifts; a NULL one is not kept. */
static void master_join(float *to, const uint16_t *w, const int16_t *rest, int64_t n)
{
    const uint16_t *low = (const uint16_t *)rest;
    v16i sign = v16i_set(0x8000);

#define BODY(i, count)                                                                             \
    v16_store(                                                                                     \
        to + (i),                                                                                  \
        v16_of_bits(v16i_add(v16i_shl(v16i_load_16(w + (i), count), 16),                           \
                             v16i_sub(v16i_xor(v16i_load_16(low + (i), count), sign), sign))),     \
        count)
    V16_LOOP(n, BODY);
#undef BODY
}

static void master_split(uint16_t *w, int16_t *rest, const float *from, int64_t n)
{
    uint16_t *low = (uint16_t *)rest;
    v16i half = v16i_set(0x8000), mask = v16i_set(0xffff);

#define BODY(i, count)                                                                             \
    v16i_store_16(w + (i), v16i_shr(v16i_add(v16_bits(v16_load(from + (i), count)), half), 16),    \
                  count)
    V16_LOOP(n, BODY);
#undef BODY
#define BODY(i, count)                                                                             \
    v16i_store_16(low + (i), v16i_and(v16_bits(v16_load(from + (i), count)), mask), count)
    if (low)
        V16_LOOP(n, BODY);
#undef BODY
}

static void f16_to_f32(float *to, const void *from, int64_t n)
{
    const uint16_t *h = from;

#define BODY(i, count) v16_store(to + (i), v16_load_f16(h + (i), count), count)
    V16_LOOP(n, BODY);
#undef BODY
}

static void f16_from_f32(void *to, const float *from, int64_t n)
{
    uint16_t *h = to;

#define BODY(i, count) v16_store_f16(h + (i), v16_load(from + (i), count), count)
    V16_LOOP(n, BODY);
#undef BODY
}

static void to_bf16_stochastic(uint16_t *to, const float *from, const uint16_t *random, int64_t n)
{
#define BODY(i, count)                                                                             \
    v16i_store_16(                                                                                 \
        to + (i),                                                                                  \
        stochastic(v16_bits(v16_load(from + (i), count)), v16i_load_16(random + (i), count)),      \
        count)
    V16_LOOP(n, BODY);
#undef BODY
}

static void random_halves(uint16_t *to, uint64_t group, int64_t groups,
                          const struct tr_op_update *op)
{
    v8q keys[ROUNDS][2];

    philox_keys(keys, op->seed, op->name);
    for (int64_t g = 0; g < groups; g += 8, group += 8) {
        uint16_t halves[64];
        v8q c[4];

        philox(c, group, op->step, keys);
        if (groups - g >= 8) {
            v8q_store_rows(to + g * 8, c);
        } else {
            v8q_store_rows(halves, c);
            memcpy(to + g * 8, halves, (size_t)(groups - g) * 16);
        }
    }
}

void TR_TIER_INIT(cast)(struct tr_cpu_kernels *k)
{
    k->to_f32[TR_BF16] = bf16_to_f32;
    k->to_f32[TR_F16] = f16_to_f32;
    k->from_f32[TR_BF16] = bf16_from_f32;
    k->from_f32[TR_F16] = f16_from_f32;
    k->random = random_halves;
    k->to_bf16_stochastic = to_bf16_stochastic;
    k->master_join = master_join;
    k->master_split = master_split;
}
