/* SPDX-License-Identifier: Apache-2.0
 *
 * CUDA's device arithmetic on a CPU. The _rn forms are single IEEE operations (kernels compile
 * with -ffp-contract=off here); the fast ones (__expf, rsqrtf) are the C library's, more exact
 * than a GPU's, so tests compare them within a tolerance.
 */
#ifndef TR_SHIM_MATH_H
#define TR_SHIM_MATH_H

#include <math.h>
#include <stdint.h>
#include <string.h>

static inline float __uint_as_float(unsigned u)
{
    float x;
    memcpy(&x, &u, 4);
    return x;
}

static inline unsigned __float_as_uint(float x)
{
    unsigned u;
    memcpy(&u, &x, 4);
    return u;
}

static inline float __int_as_float(int i)
{
    return __uint_as_float((unsigned)i);
}

static inline int __float_as_int(float x)
{
    return (int)__float_as_uint(x);
}

static inline double __hiloint2double(int high, int low)
{
    uint64_t u = (uint64_t)(unsigned)high << 32 | (unsigned)low;
    double x;
    memcpy(&x, &u, 8);
    return x;
}

#define TR_SHIM_MATH(type, name, parameters, value)                                                \
    static inline type name parameters                                                             \
    {                                                                                              \
        return value;                                                                              \
    }

TR_SHIM_MATH(float, __fmaf_rn, (float a, float b, float c), fmaf(a, b, c))
TR_SHIM_MATH(float, __fmul_rn, (float a, float b), a *b)
TR_SHIM_MATH(float, __fadd_rn, (float a, float b), a + b)
TR_SHIM_MATH(float, __fsub_rn, (float a, float b), a - b)
TR_SHIM_MATH(float, __fdiv_rn, (float a, float b), a / b)
TR_SHIM_MATH(float, __fsqrt_rn, (float a), sqrtf(a))
TR_SHIM_MATH(float, __frcp_rn, (float a), 1.0f / a)
TR_SHIM_MATH(float, __frsqrt_rn, (float a), (float)(1.0 / sqrt((double)a)))
TR_SHIM_MATH(double, __fma_rn, (double a, double b, double c), fma(a, b, c))
TR_SHIM_MATH(double, __dmul_rn, (double a, double b), a *b)
TR_SHIM_MATH(double, __dadd_rn, (double a, double b), a + b)
TR_SHIM_MATH(double, __dsub_rn, (double a, double b), a - b)
TR_SHIM_MATH(double, __ddiv_rn, (double a, double b), a / b)
TR_SHIM_MATH(double, __dsqrt_rn, (double a), sqrt(a))
TR_SHIM_MATH(float, __fdividef, (float a, float b), a / b)
TR_SHIM_MATH(float, __saturatef, (float a), a > 0 ? (a < 1 ? a : 1.0f) : 0.0f)
TR_SHIM_MATH(float, rsqrtf, (float a), 1.0f / sqrtf(a))
TR_SHIM_MATH(double, rsqrt, (double a), 1.0 / sqrt(a))
TR_SHIM_MATH(float, __int2float_rn, (int a), (float)a)
TR_SHIM_MATH(float, __uint2float_rn, (unsigned a), (float)a)
TR_SHIM_MATH(float, __double2float_rn, (double a), (float)a)
TR_SHIM_MATH(int, __float2int_rn, (float a), (int)rintf(a))
TR_SHIM_MATH(unsigned, __umulhi, (unsigned a, unsigned b), (unsigned)((uint64_t)a * b >> 32))
TR_SHIM_MATH(unsigned long long, __umul64hi, (unsigned long long a, unsigned long long b),
             (unsigned long long)((unsigned __int128)a * b >> 64))
/* Byte i of the result is the byte of y:x that digit i of the selector names. */
TR_SHIM_MATH(unsigned, tr_shim_byte, (unsigned x, unsigned y, unsigned from),
             (unsigned)(((uint64_t)y << 32 | x) >> from % 8 * 8 & 0xff))
TR_SHIM_MATH(unsigned, __byte_perm, (unsigned x, unsigned y, unsigned s),
             tr_shim_byte(x, y, s) | tr_shim_byte(x, y, s >> 4) << 8 |
                 tr_shim_byte(x, y, s >> 8) << 16 | tr_shim_byte(x, y, s >> 12) << 24)
TR_SHIM_MATH(int, __popc, (unsigned a), __builtin_popcount(a))
TR_SHIM_MATH(int, __popcll, (unsigned long long a), __builtin_popcountll(a))
TR_SHIM_MATH(int, __ffs, (int a), __builtin_ffs(a))
TR_SHIM_MATH(int, __clz, (int a), a ? __builtin_clz((unsigned)a) : 32)

/* glibc has private functions of these two names. */
TR_SHIM_MATH(float, tr_shim_expf, (float a), expf(a))
TR_SHIM_MATH(float, tr_shim_logf, (float a), logf(a))
#define __expf tr_shim_expf
#define __logf tr_shim_logf

/* nvcc has these in the global namespace, for each arithmetic type. */
#define TR_SHIM_MIN_MAX(type)                                                                      \
    TR_SHIM_MATH(type, min, (type a, type b), a < b ? a : b)                                       \
    TR_SHIM_MATH(type, max, (type a, type b), a < b ? b : a)
TR_SHIM_MIN_MAX(int)
TR_SHIM_MIN_MAX(unsigned)
TR_SHIM_MIN_MAX(long)
TR_SHIM_MIN_MAX(unsigned long)
TR_SHIM_MIN_MAX(long long)
TR_SHIM_MIN_MAX(unsigned long long)
TR_SHIM_MATH(unsigned, min, (int a, unsigned b), min((unsigned)a, b))
TR_SHIM_MATH(unsigned, min, (unsigned a, int b), min(a, (unsigned)b))
TR_SHIM_MATH(unsigned, max, (int a, unsigned b), max((unsigned)a, b))
TR_SHIM_MATH(unsigned, max, (unsigned a, int b), max(a, (unsigned)b))
TR_SHIM_MATH(float, min, (float a, float b), fminf(a, b))
TR_SHIM_MATH(float, max, (float a, float b), fmaxf(a, b))
TR_SHIM_MATH(double, min, (double a, double b), fmin(a, b))
TR_SHIM_MATH(double, max, (double a, double b), fmax(a, b))

#endif
