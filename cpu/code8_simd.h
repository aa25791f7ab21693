/* SPDX-License-Identifier: Apache-2.0
 *
 * Blocks of optimizer state in sixteen lanes: src/base/code8.h, line by line.
 */
#include <string.h>

#include "src/base/code8.h"

/* Magnitudes; codes below 8 have no leading one. */
static inline v16 value_of(v16i code, uint32_t low)
{
    v16i from = v16i_add(v16i_set(low), v16i_shl(code, 20));
    v16 small = v16_sub(v16_of_bits(from), v16_of_bits(v16i_set(low)));
    v16i large = v16i_sub(from, v16i_set(8 << 20));

    return v16_of_bits(v16i_if_greater(v16i_set(8), code, v16_bits(small), large));
}

static inline v16 load_lanes(const uint8_t *codes, int64_t n, enum tr_code8 kind)
{
    v16i code = v16i_load_8(codes, n);
    v16i magnitude = v16i_and(code, v16i_set(TR_CODE8_TOP(kind)));
    v16i sign = v16i_shl(v16i_xor(code, magnitude), 24);

    return v16_of_bits(v16i_or(v16_bits(value_of(magnitude, TR_CODE8_LOW(kind))), sign));
}

static inline v16i round_lanes(v16 t, v16i random, enum tr_code8 kind)
{
    v16i u = v16_bits(t), magnitude = v16i_and(u, v16i_set(0x7fffffff)), zero = v16i_set(0);
    v16i low = v16i_set(TR_CODE8_LOW(kind)), top = v16i_set(TR_CODE8_TOP(kind));
    v16i small = v16_bits(v16_add(v16_of_bits(magnitude), v16_of_bits(low)));
    v16i large = v16i_add(magnitude, v16i_set(8 << 20));
    v16i from = v16i_if_greater(low, magnitude, small, large);
    v16i code = v16i_shr(v16i_sub(v16i_add(from, v16i_shl(random, 4)), low), 20);

    code = v16i_min(code, top);
    if (kind == TR_CODE8_SIGNED)
        return v16i_or(code, v16i_shl(v16i_shr(u, 31), 7));
    return v16i_if_greater(magnitude, zero, v16i_max(code, v16i_set(1)), code);
}

static inline void load_kind(float *to, const uint8_t *block, int64_t n, enum tr_code8 kind)
{
    float scale;

    memcpy(&scale, block, sizeof(scale));
    block += sizeof(scale);
#define BODY(i, count)                                                                             \
    v16_store(to + (i), v16_mul(load_lanes(block + (i), count, kind), v16_set(scale)), count)
    V16_LOOP(n, BODY);
#undef BODY
}

static uint32_t top_of(const float *x, int64_t n)
{
    v16i top = v16i_set(0);

#define BODY(i, count)                                                                             \
    top = v16i_max(top, v16i_and(v16_bits(v16_load(x + (i), count)), v16i_set(0x7fffffff)))
    V16_LOOP(n, BODY);
#undef BODY
    return v16i_largest(top);
}

static inline void store_kind(uint8_t *block, const float *from, const uint16_t *random, int64_t n,
                              enum tr_code8 kind)
{
    float by, scale = tr_code8_scale(top_of(from, n), &by);

    memcpy(block, &scale, sizeof(scale));
    block += sizeof(scale);
    if (by == 0) {
        memset(block, 0, (size_t)n);
        return;
    }
#define BODY(i, count)                                                                             \
    v16i_store_8(block + (i),                                                                      \
                 round_lanes(v16_mul(v16_load(from + (i), count), v16_set(by)),                    \
                             v16i_load_16(random + (i), count), kind),                             \
                 count)
    V16_LOOP(n, BODY);
#undef BODY
}

/* One loop for each kind, whose numbers are then constants. */
static void load(float *to, const uint8_t *block, int64_t n, enum tr_code8 kind)
{
    if (kind == TR_CODE8_SIGNED)
        load_kind(to, block, n, TR_CODE8_SIGNED);
    else
        load_kind(to, block, n, TR_CODE8_SQUARES);
}

static void store(uint8_t *block, const float *from, const uint16_t *random, int64_t n,
                  enum tr_code8 kind)
{
    if (kind == TR_CODE8_SIGNED)
        store_kind(block, from, random, n, TR_CODE8_SIGNED);
    else
        store_kind(block, from, random, n, TR_CODE8_SQUARES);
}

void TR_TIER_INIT(code8)(struct tr_cpu_kernels *k)
{
    k->code8_load = load;
    k->code8_store = store;
}
