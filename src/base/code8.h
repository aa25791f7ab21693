/* SPDX-License-Identifier: Apache-2.0
 *
 * Optimizer state in 8 bits (the definition; SIMD tiers and kernels must agree bit for bit).
 *
 * A block is up to 256 consecutive elements: an f32 scale, then a byte for each. So the bytes of a
 * range of whole blocks move together, and an outlier costs only its own block precision
 * (block-wise quantisation: Dettmers et al., "8-bit optimizers via block-wise quantization", 2021).
 * A byte is a small float (formats: Micikevicius et al., "FP8 formats for deep learning", 2022)
 * relative to the scale: three bits of mantissa, without infinity and NaN, the largest 1.875.
 *
 *   TR_CODE8_SIGNED   a sign, 4 bits of exponent: 1.875 to 2^-14, then down in steps of 2^-17
 *   TR_CODE8_SQUARES  no sign, 5 bits of exponent: 1.875 to 2^-30, then in steps of 2^-33
 *
 * A mean of squares spans twice the octaves of what was squared: with the fifth bit of exponent
 * both end at the same place. Byte 0 is zero, and zeros are a state of zero.
 *
 * Storing: `top` is the largest magnitude in the block, scale = top / 1.875, and each t = x * (1 /
 * scale) is rounded stochastically to a neighbour, by 16 random bits: what changes by less than
 * half a step (of v a thousandth) would otherwise stay for ever. Of squares nothing but zero
 * becomes zero, for a first moment over a root of zero is no step of any size. A block without a
 * number of at least 2^-96 is stored as zeros; one with an infinity or NaN becomes NaN as a whole.
 */
#ifndef TR_BASE_CODE8_H
#define TR_BASE_CODE8_H

#include "src/base/dtype.h"

#define TR_CODE8_BLOCK   256
#define TR_CODE8_STRIDE  (TR_CODE8_BLOCK + 4) /* bytes from block to block */
#define TR_CODE8_LARGEST 1.875f
#define TR_CODE8_TINY    0x0f800000u /* bits of 2^-96 */
#define TR_CODE8_NAN     0x7fc00000u

enum tr_code8 { TR_CODE8_SIGNED, TR_CODE8_SQUARES };

/* Bits of the smallest number with a leading one, and the largest code of a magnitude. */
#define TR_CODE8_LOW(kind) ((kind) == TR_CODE8_SIGNED ? 0x38800000u : 0x30800000u)
#define TR_CODE8_TOP(kind) ((kind) == TR_CODE8_SIGNED ? 127u : 255u)

/* Bytes of n elements in this type, from the start of a block. */
static inline uint64_t tr_state_bytes(enum tr_dtype type, uint64_t n)
{
    return type == TR_8BIT ? n + (n + TR_CODE8_BLOCK - 1) / TR_CODE8_BLOCK * 4
                           : n * tr_dtype_size(type);
}

static inline float tr_code8_value(uint8_t code, enum tr_code8 kind)
{
    uint32_t low = TR_CODE8_LOW(kind), magnitude = code & TR_CODE8_TOP(kind);
    float x = magnitude < 8 ? tr_bits_f32(low + (magnitude << 20)) - tr_bits_f32(low)
                            : tr_bits_f32(low + ((magnitude - 8) << 20));

    return magnitude == code ? x : -x;
}

/* Below the smallest number with a leading one its distance is added, which leaves the steps of the
 * octave above: those of the numbers without one. */
static inline uint8_t tr_code8_round(float t, uint16_t random, enum tr_code8 kind)
{
    uint32_t low = TR_CODE8_LOW(kind), top = TR_CODE8_TOP(kind);
    uint32_t u = tr_f32_bits(t), magnitude = u & 0x7fffffff, code;

    if (magnitude < low)
        code = (tr_f32_bits(tr_bits_f32(magnitude) + tr_bits_f32(low)) + ((uint32_t)random << 4) -
                low) >>
               20;
    else
        code = ((magnitude + ((uint32_t)random << 4) - low) >> 20) + 8;
    code = code < top ? code : top;
    if (kind == TR_CODE8_SIGNED)
        return (uint8_t)(code | (u >> 31 << 7));
    return (uint8_t)(code + (code == 0 && magnitude != 0));
}

/* The scale of a block from the bits of its largest magnitude, and what its elements are multiplied
 * with; 0: they all become byte 0. */
static inline float tr_code8_scale(uint32_t top, float *by)
{
    float scale = tr_bits_f32(top) / TR_CODE8_LARGEST;

    *by = 0;
    if (top >= 0x7f800000)
        return tr_bits_f32(TR_CODE8_NAN);
    if (top < TR_CODE8_TINY)
        return 0;
    *by = 1.0f / scale;
    return scale;
}

#endif
