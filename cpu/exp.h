/* SPDX-License-Identifier: Apache-2.0
 *
 * exp in f32 as every tier computes it: x = n ln 2 + r, a polynomial in r, times 2^n. No fma, so
 * that plain C gives the same bits. Within 2 ULP of exp where that is above TR_EXP_LOW's 2.7e-38,
 * and 0 below: subnormal numbers cost a hundred cycles each, and masked scores would make many. NaN
 * stays NaN, +infinity gives infinity, -infinity gives 0. v16_exp of cpu/v16.h has the same lines
 * over sixteen lanes.
 */
#ifndef TR_CPU_EXP_H
#define TR_CPU_EXP_H

#include "src/base/dtype.h"

#define TR_EXP_LOW    -86.5f /* 0 below */
#define TR_EXP_HIGH   89.0f  /* infinity above */
#define TR_EXP_LOG2E  1.44269504f
#define TR_EXP_LN2_HI 0.693359375f /* nine bits: n * LN2_HI is exact */
#define TR_EXP_LN2_LO -2.12194440e-4f
#define TR_EXP_MAGIC  12582912.0f /* 1.5 * 2^23: adding it rounds to an integer */
#define TR_EXP_C2     0.5f
#define TR_EXP_C3     1.66666672e-1f
#define TR_EXP_C4     4.16666679e-2f
#define TR_EXP_C5     8.33333377e-3f
#define TR_EXP_C6     1.38888892e-3f
#define TR_EXP_C7     1.98412701e-4f

static inline float tr_exp(float x)
{
    float high = TR_EXP_HIGH < x ? TR_EXP_HIGH : x;
    float t = high * TR_EXP_LOG2E + TR_EXP_MAGIC, n = t - TR_EXP_MAGIC;
    float r = high - n * TR_EXP_LN2_HI - n * TR_EXP_LN2_LO;
    float p = TR_EXP_C7 * r + TR_EXP_C6;

    if (x < TR_EXP_LOW)
        return 0;
    p = p * r + TR_EXP_C5;
    p = p * r + TR_EXP_C4;
    p = p * r + TR_EXP_C3;
    p = p * r + TR_EXP_C2;
    p = p * (r * r) + r + 1.0f;
    /* 2^(n - 1), because 2^128 is no f32. */
    uint32_t exponent = tr_f32_bits(t) - tr_f32_bits(TR_EXP_MAGIC) + 126;
    return p * tr_bits_f32(exponent << 23) * 2.0f;
}

#endif
