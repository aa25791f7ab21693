/* SPDX-License-Identifier: Apache-2.0
 *
 * Quotients and roots that are correctly rounded without a branch: the sequences of nvcc's own
 * division and square root, operation by operation, whose callers know that their operands need no
 * other. A quotient's is right where divisor, quotient and 2^-24 of the dividend are normal
 * numbers, and for a dividend of 0.
 */
#ifndef TR_KERNELS_EXACT_CUH
#define TR_KERNELS_EXACT_CUH

#include "kernels/ptx.cuh"

/* x / y with r = 1 / y. The remainder is negated, so that 0 keeps its sign. */
static __device__ __forceinline__ float exact_quotient(float x, float y, float r)
{
    float q = __fmul_rn(x, r);

    return __fmaf_rn(-__fmaf_rn(y, q, -x), r, q);
}

static __device__ __forceinline__ float exact_reciprocal(float y)
{
    float r = ptx_rcp(y);

    return __fmaf_rn(r, __fmaf_rn(-y, r, 1.0f), r);
}

/* sqrt(v) * 2^27, for no v is too small for the root of v * 2^54; NaN where v is negative, NaN, or
 * 2^74 and more. What is added to 0 keeps its reciprocal root finite, and is lost in all else. */
static __device__ __forceinline__ float exact_root(float v)
{
    float x = __fmul_rn(v, 0x1p54f), r = ptx_rsqrt(__fmaf_rn(v, 0x1p54f, 0x1p-126f));
    float root = __fmul_rn(x, r);

    return __fmaf_rn(__fmaf_rn(-root, root, x), __fmul_rn(r, 0.5f), root);
}

#endif
