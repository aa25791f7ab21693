/* SPDX-License-Identifier: Apache-2.0
 *
 * Blocks of optimizer state in bytes: src/base/code8.h, line by line. A block's 256 elements are
 * the groups of one warp, so that its largest magnitude is found by shuffles: all lanes of a warp
 * come together, those beyond the last element too.
 */
#ifndef TR_KERNELS_CODE8_CUH
#define TR_KERNELS_CODE8_CUH

#include "kernels/vec.cuh"
#include "src/base/code8.h"
#include "src/base/philox.h"

static_assert(TR_CODE8_BLOCK == 32 * VEC, "a block is what a warp's lanes hold");

/* The block of element i, and in it the byte of it. */
static __device__ __forceinline__ uint8_t *code8_block(void *state, int64_t i)
{
    return (uint8_t *)state + i / TR_CODE8_BLOCK * TR_CODE8_STRIDE;
}

static __device__ __forceinline__ uint8_t *code8_byte(void *state, int64_t i)
{
    return code8_block(state, i) + sizeof(float) + i % TR_CODE8_BLOCK;
}

template <enum tr_code8 K> static __device__ __forceinline__ float code8_value(uint32_t code)
{
    uint32_t low = TR_CODE8_LOW(K), magnitude = code & TR_CODE8_TOP(K);
    float small = __fsub_rn(__uint_as_float(low + (magnitude << 20)), __uint_as_float(low));
    uint32_t large = low + (magnitude << 20) - (8u << 20);

    return __uint_as_float((magnitude < 8 ? __float_as_uint(small) : large) |
                           (code ^ magnitude) << 24);
}

template <enum tr_code8 K>
static __device__ __forceinline__ uint32_t code8_round(float t, uint16_t random)
{
    uint32_t low = TR_CODE8_LOW(K), top = TR_CODE8_TOP(K);
    uint32_t u = __float_as_uint(t), magnitude = u & 0x7fffffff;
    float small = __fadd_rn(__uint_as_float(magnitude), __uint_as_float(low));
    uint32_t from = magnitude < low ? __float_as_uint(small) : magnitude + (8u << 20);
    uint32_t code = (from + ((uint32_t)random << 4) - low) >> 20;

    code = code < top ? code : top;
    if (K == TR_CODE8_SIGNED)
        return code | u >> 31 << 7;
    return code + (code == 0 && magnitude != 0);
}

/* x = elements [i, i + 8) of a range of n, i a multiple of 8; 0 for those outside. */
template <enum tr_code8 K, bool whole>
static __device__ __forceinline__ void code8_get(float x[VEC], void *state, int64_t i, int64_t n)
{
    float scale = whole || i < n ? *(const float *)code8_block(state, i) : 0;
    const uint8_t *byte = code8_byte(state, i);

    for (int j = 0; j < VEC; j++) {
        uint32_t code = 0;

        if constexpr (whole)
            code = ((const uint32_t *)byte)[j / 4] >> j % 4 * 8 & 0xff;
        else if (i + j < n)
            code = byte[j];
        x[j] = __fmul_rn(code8_value<K>(code), scale);
    }
}

/* Bits of the largest magnitude in the warp's block. */
static __device__ __forceinline__ uint32_t code8_top(const float x[VEC])
{
    uint32_t top = 0;

    for (int j = 0; j < VEC; j++) {
        uint32_t u = __float_as_uint(x[j]) & 0x7fffffff;

        top = u > top ? u : top;
    }
    for (int half = 16; half; half /= 2) {
        uint32_t other = __shfl_xor_sync(0xffffffff, top, half);

        top = other > top ? other : top;
    }
    return top;
}

/* tr_code8_scale */
static __device__ __forceinline__ float code8_scale(uint32_t top, float *by)
{
    float scale = __fdiv_rn(__uint_as_float(top), TR_CODE8_LARGEST);

    *by = top < 0x7f800000 && top >= TR_CODE8_TINY ? __fdiv_rn(1.0f, scale) : 0;
    return top >= 0x7f800000 ? __uint_as_float(TR_CODE8_NAN) : top < TR_CODE8_TINY ? 0 : scale;
}

/* The reverse of code8_get, with the group's random numbers; elements outside are not written, and
 * are 0 in x. */
template <enum tr_code8 K, bool whole>
static __device__ __forceinline__ void code8_put(void *state, int64_t i, int64_t n,
                                                 const float x[VEC], struct tr_philox random)
{
    float by, scale = code8_scale(code8_top(x), &by);
    uint8_t *byte = code8_byte(state, i);
    uint32_t code[VEC];

    for (int j = 0; j < VEC; j++)
        code[j] = by == 0 ? 0 : code8_round<K>(__fmul_rn(x[j], by), tr_philox_half(random, j));
    __syncwarp(); /* all lanes have read the old scale: shuffles alone put memory in no order */
    if (i % TR_CODE8_BLOCK == 0 && i < n)
        *(float *)code8_block(state, i) = scale;
    if constexpr (whole) {
        for (int j = 0; j < VEC; j += 4)
            ((uint32_t *)byte)[j / 4] =
                code[j] | code[j + 1] << 8 | code[j + 2] << 16 | code[j + 3] << 24;
    } else {
        for (int j = 0; j < VEC; j++)
            if (i + j < n)
                byte[j] = (uint8_t)code[j];
    }
}

#endif
