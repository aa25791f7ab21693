/* SPDX-License-Identifier: Apache-2.0
 *
 * Blocks of optimizer state in bytes: src/base/code8.h, whose distinction of small numbers is here
 * made by f32's own. A block's 256 elements are the groups of one warp, so that its largest
 * magnitude is found within it: all lanes of a warp come together, those beyond the last element
 * too.
 */
#ifndef TR_KERNELS_CODE8_CUH
#define TR_KERNELS_CODE8_CUH

#include "kernels/exact.cuh"
#include "kernels/vec.cuh"
#include "src/base/code8.h"
#include "src/base/philox.h"

static_assert(TR_CODE8_BLOCK == 32 * VEC, "a block is what a warp's lanes hold");

/* The block of element i, and in it the byte of it. */
static __device__ __forceinline__ uint8_t *code8_block(void *state, int64_t i)
{
    return (uint8_t *)state + (uint64_t)i / TR_CODE8_BLOCK * TR_CODE8_STRIDE;
}

static __device__ __forceinline__ uint8_t *code8_byte(void *state, int64_t i)
{
    return code8_block(state, i) + sizeof(float) + (uint64_t)i % TR_CODE8_BLOCK;
}

#define CODE8_STEP 0x1p-33f /* of squares from 0 to code 1 */

/* A magnitude in the place of an f32's exponent and upper mantissa is that number over
 * CODE8_RAISE, the small ones without a leading one too: f32 has them there as well. */
#define CODE8_RAISE(K) (K == TR_CODE8_SIGNED ? 0x1p112f : 0x1p96f)
#define CODE8_LOWER(K) (K == TR_CODE8_SIGNED ? 0x1p-112f : 0x1p-96f)

/* Of the code in byte j of a word. */
template <enum tr_code8 K> static __device__ __forceinline__ float code8_value(uint32_t word, int j)
{
    uint32_t u = word << (24 - j * 8); /* uppermost */

    u = K == TR_CODE8_SIGNED ? (uint32_t)((int32_t)u >> 4) & 0x87f00000 : u >> 4 & 0x0ff00000;
    return __fmul_rn(__uint_as_float(u), CODE8_RAISE(K));
}

/* A code in the upper byte. random: its bits above a byte of zeros, under another. The block's
 * largest t is TR_CODE8_LARGEST but for a few units, to which the random bits leave room. */
template <enum tr_code8 K>
static __device__ __forceinline__ uint32_t code8_round(float t, uint32_t random)
{
    uint32_t code = (__float_as_uint(__fmul_rn(fabsf(t), CODE8_LOWER(K))) << 4) + random;

    return K == TR_CODE8_SIGNED ? code | (__float_as_uint(t) & 0x80000000) : code;
}

/* x = elements [i, i + 8) of a range of n, i a multiple of 8; 0 for those outside. */
template <enum tr_code8 K, bool whole>
static __device__ __forceinline__ void code8_get(float x[VEC], void *state, int64_t i, int64_t n)
{
    float scale = whole || i < n ? *(const float *)code8_block(state, i) : 0;
    const uint8_t *byte = code8_byte(state, i);

    for (int j = 0; j < VEC; j++) {
        float value = 0;

        if constexpr (whole)
            value = code8_value<K>(((const uint32_t *)byte)[j / 4], j % 4);
        else if (i + j < n)
            value = code8_value<K>(byte[j], 0);
        x[j] = __fmul_rn(value, scale);
    }
}

/* Bits of the largest magnitude in the warp's block; those of a NaN where there is one. */
static __device__ __forceinline__ uint32_t code8_top(const float x[VEC])
{
    float top = 0;

    for (int j = 0; j < VEC; j++)
        top = ptx_max_nan(top, fabsf(x[j]));
    return __reduce_max_sync(0xffffffff, __float_as_uint(top));
}

/* tr_code8_scale */
static __device__ __forceinline__ float code8_scale(uint32_t top, float *by)
{
    float scale = exact_quotient(__uint_as_float(top), TR_CODE8_LARGEST, 1 / TR_CODE8_LARGEST);

    *by = top < 0x7f800000 && top >= TR_CODE8_TINY ? __frcp_rn(scale) : 0;
    return top >= 0x7f800000 ? __uint_as_float(TR_CODE8_NAN) : top < TR_CODE8_TINY ? 0 : scale;
}

/* Half j % 2 of a word, as code8_round has it. */
static __device__ __forceinline__ uint32_t code8_random(uint32_t word, int j)
{
    return __byte_perm(word, 0, j % 2 ? 0x4324 : 0x4104);
}

/* Of squares what is not 0 gets no code of 0. */
static __device__ __forceinline__ void code8_keep(uint32_t code[VEC], const float x[VEC], float by)
{
    for (int j = 0; j < VEC; j++)
        if (code[j] < 1u << 24 && __fmul_rn(x[j], by) != 0)
            code[j] = 1u << 24;
}

/* The upper bytes of four words. */
static __device__ __forceinline__ uint32_t code8_word(const uint32_t code[4])
{
    return __byte_perm(__byte_perm(code[0], code[1], 0x0073), __byte_perm(code[2], code[3], 0x0073),
                       0x5410);
}

/* The reverse of code8_get, with the group's random numbers; elements outside are not written, and
 * are 0 in x. */
template <enum tr_code8 K, bool whole>
static __device__ __forceinline__ void code8_put(void *state, int64_t i, int64_t n,
                                                 const float x[VEC], struct tr_philox random)
{
    float by, scale = code8_scale(code8_top(x), &by), least = 1;
    uint8_t *byte = code8_byte(state, i);
    uint32_t code[VEC], words[2];

    for (int j = 0; j < VEC; j++) {
        float t = __fmul_rn(x[j], by);

        code[j] = code8_round<K>(t, code8_random(random.v[j / 2], j));
        least = fminf(least, fabsf(t));
    }
    if (K == TR_CODE8_SQUARES && least < CODE8_STEP)
        code8_keep(code, x, by);
    for (int j = 0; j < 2; j++)
        words[j] = by == 0 ? 0 : code8_word(code + j * 4);
    __syncwarp(); /* all lanes have read the old scale: shuffles alone put memory in no order */
    if (i % TR_CODE8_BLOCK == 0 && i < n)
        *(float *)code8_block(state, i) = scale;
    if constexpr (whole) {
        ((uint32_t *)byte)[0] = words[0];
        ((uint32_t *)byte)[1] = words[1];
    } else {
        for (int j = 0; j < VEC; j++)
            if (i + j < n)
                byte[j] = (uint8_t)(words[j / 4] >> j % 4 * 8);
    }
}

#endif
