/* SPDX-License-Identifier: Apache-2.0
 *
 * Eight elements of any dtype as f32 in registers: how element-wise and row-wise kernels touch
 * memory. A group is moved by 16-byte accesses where it lies whole and aligned, else element by
 * element; kernels ask once for all their arrays (vec_whole) and are written once for both, so
 * that the loads of the fast way stand together without a branch between them. A value never
 * depends on which way its group took: products and sums that could be contracted differently in
 * the two copies are written as __fmul_rn, __fadd_rn and __fmaf_rn.
 */
#ifndef TR_KERNELS_VEC_CUH
#define TR_KERNELS_VEC_CUH

#include "kernels/ptx.cuh"
#include "src/base/dtype.h"

#define VEC         8   /* elements of a group */
#define VEC_THREADS 256 /* of a block, where nothing else is asked */

/* Runs a statement with the dtype as the compile-time constant D. */
#define TR_BY_DTYPE(dtype, D, ...)                                                                 \
    do {                                                                                           \
        switch (dtype) {                                                                           \
        case TR_F32: {                                                                             \
            constexpr enum tr_dtype D = TR_F32;                                                    \
            __VA_ARGS__;                                                                           \
            break;                                                                                 \
        }                                                                                          \
        case TR_BF16: {                                                                            \
            constexpr enum tr_dtype D = TR_BF16;                                                   \
            __VA_ARGS__;                                                                           \
            break;                                                                                 \
        }                                                                                          \
        default: {                                                                                 \
            constexpr enum tr_dtype D = TR_F16;                                                    \
            __VA_ARGS__;                                                                           \
            break;                                                                                 \
        }                                                                                          \
        }                                                                                          \
    } while (0)

/* Blocks for n elements in groups, a group a thread. */
static inline unsigned vec_blocks(int64_t n)
{
    return (unsigned)((n + VEC * VEC_THREADS - 1) / (VEC * VEC_THREADS));
}

/* Threads that share a row of `items`: a power of two, so that rows pack into a block. */
static inline int vec_lanes(int64_t items, int most)
{
    int lanes = 1;

    while (lanes < items && lanes < most)
        lanes *= 2;
    return lanes;
}

/* This thread's first element, a group a thread. */
static __device__ __forceinline__ int64_t vec_index(void)
{
    return ((int64_t)blockIdx.x * blockDim.x + threadIdx.x) * VEC;
}

template <enum tr_dtype D>
static __device__ __forceinline__ float vec_load(const void *p, int64_t i)
{
    if constexpr (D == TR_F32)
        return ((const float *)p)[i];
    else if constexpr (D == TR_BF16)
        return ptx_bf16_f32(((const uint16_t *)p)[i]);
    else
        return ptx_f16_f32(((const uint16_t *)p)[i]);
}

template <enum tr_dtype D>
static __device__ __forceinline__ void vec_store(void *p, int64_t i, float x)
{
    if constexpr (D == TR_F32)
        ((float *)p)[i] = x;
    else if constexpr (D == TR_BF16)
        ((uint16_t *)p)[i] = ptx_f32_bf16(x);
    else
        ((uint16_t *)p)[i] = ptx_f32_f16(x);
}

/* Element i of an array, as an address. */
template <enum tr_dtype D>
static __device__ __forceinline__ const void *vec_at(const void *p, int64_t i)
{
    return (const char *)p + i * (D == TR_F32 ? 4 : 2);
}

template <enum tr_dtype D> static __device__ __forceinline__ void *vec_at(void *p, int64_t i)
{
    return (char *)p + i * (D == TR_F32 ? 4 : 2);
}

template <enum tr_dtype D>
static __device__ __forceinline__ bool vec_aligned(const void *p, int64_t i)
{
    return (uintptr_t)vec_at<D>(p, i) % 16 == 0;
}

/* Whether elements [i, i + 8) lie inside p's n and on 16 bytes. */
template <enum tr_dtype D>
static __device__ __forceinline__ bool vec_whole(const void *p, int64_t i, int64_t n)
{
    return i >= 0 && i + VEC <= n && vec_aligned<D>(p, i);
}

/* Two halves of a 32-bit word, the first element low; NaN's bits too are those of dtype.h. */
template <enum tr_dtype D> static __device__ __forceinline__ void vec_unpack(float x[2], uint32_t u)
{
    x[0] = D == TR_BF16 ? ptx_bf16_low(u) : ptx_f16_f32((uint16_t)u);
    x[1] = D == TR_BF16 ? ptx_bf16_high(u) : ptx_f16_f32((uint16_t)(u >> 16));
}

template <enum tr_dtype D> static __device__ __forceinline__ uint32_t vec_pack(const float x[2])
{
    uint16_t low = D == TR_BF16 ? ptx_f32_bf16(x[0]) : ptx_f32_f16(x[0]);
    uint16_t high = D == TR_BF16 ? ptx_f32_bf16(x[1]) : ptx_f32_f16(x[1]);

    return low | (uint32_t)high << 16;
}

/* x = elements [i, i + 8) of p, which has n; 0 for those outside. whole: as vec_whole says. */
template <enum tr_dtype D, bool whole>
static __device__ __forceinline__ void vec_get(float x[VEC], const void *p, int64_t i, int64_t n)
{
    if constexpr (!whole) {
        for (int j = 0; j < VEC; j++)
            x[j] = i + j >= 0 && i + j < n ? vec_load<D>(p, i + j) : 0;
    } else if constexpr (D == TR_F32) {
        const float4 *from = (const float4 *)vec_at<D>(p, i);
        float4 a = from[0], b = from[1];

        x[0] = a.x, x[1] = a.y, x[2] = a.z, x[3] = a.w;
        x[4] = b.x, x[5] = b.y, x[6] = b.z, x[7] = b.w;
    } else {
        uint4 a = *(const uint4 *)vec_at<D>(p, i);

        vec_unpack<D>(x, a.x);
        vec_unpack<D>(x + 2, a.y);
        vec_unpack<D>(x + 4, a.z);
        vec_unpack<D>(x + 6, a.w);
    }
}

/* The reverse: those outside are not written. */
template <enum tr_dtype D, bool whole>
static __device__ __forceinline__ void vec_put(void *p, int64_t i, int64_t n, const float x[VEC])
{
    if constexpr (!whole) {
        for (int j = 0; j < VEC; j++)
            if (i + j >= 0 && i + j < n)
                vec_store<D>(p, i + j, x[j]);
    } else if constexpr (D == TR_F32) {
        float4 *to = (float4 *)vec_at<D>(p, i);

        to[0] = make_float4(x[0], x[1], x[2], x[3]);
        to[1] = make_float4(x[4], x[5], x[6], x[7]);
    } else {
        *(uint4 *)vec_at<D>(p, i) =
            make_uint4(vec_pack<D>(x), vec_pack<D>(x + 2), vec_pack<D>(x + 4), vec_pack<D>(x + 6));
    }
}

#endif
