/* SPDX-License-Identifier: Apache-2.0
 *
 * Sixteen lanes in AVX-512: the vocabulary in which the SIMD kernels (cpu/NAME_simd.h) are written,
 * once for both tiers. cpu/v16_avx2.h has the same names. A count n below 16 means that only the
 * first n lanes are read or written.
 */
#ifndef TR_CPU_V16_AVX512_H
#define TR_CPU_V16_AVX512_H

#include <immintrin.h>
#include <stdint.h>

#define TR_TIER_INIT(op) tr_##op##_init_avx512

typedef __m512 v16;
typedef __m512i v16i;
typedef __m512i v8q;
typedef struct {
    __m512d lo, hi;
} v16d;

static inline __mmask16 v16_mask(int64_t n)
{
    return (__mmask16)((1u << n) - 1);
}

static inline v16 v16_load(const float *p, int64_t n)
{
    return n == 16 ? _mm512_loadu_ps(p) : _mm512_maskz_loadu_ps(v16_mask(n), p);
}

static inline void v16_store(float *p, v16 a, int64_t n)
{
    if (n == 16)
        _mm512_storeu_ps(p, a);
    else
        _mm512_mask_storeu_ps(p, v16_mask(n), a);
}

/* Lanes n and later become those of rest. */
static inline v16 v16_first(v16 a, v16 rest, int64_t n)
{
    return n == 16 ? a : _mm512_mask_blend_ps(v16_mask(n), rest, a);
}

static inline v16 v16_set(float x)
{
    return _mm512_set1_ps(x);
}

static inline v16 v16_add(v16 a, v16 b)
{
    return _mm512_add_ps(a, b);
}

static inline v16 v16_sub(v16 a, v16 b)
{
    return _mm512_sub_ps(a, b);
}

static inline v16 v16_mul(v16 a, v16 b)
{
    return _mm512_mul_ps(a, b);
}

static inline v16 v16_div(v16 a, v16 b)
{
    return _mm512_div_ps(a, b);
}

static inline v16 v16_sqrt(v16 a)
{
    return _mm512_sqrt_ps(a);
}

static inline v16 v16_fma(v16 a, v16 b, v16 c)
{
    return _mm512_fmadd_ps(a, b, c);
}

/* a > b ? a : b, so b where one is NaN; and a < b ? a : b. */
static inline v16 v16_max(v16 a, v16 b)
{
    return _mm512_max_ps(a, b);
}

static inline v16 v16_min(v16 a, v16 b)
{
    return _mm512_min_ps(a, b);
}

static inline v16i v16_bits(v16 a)
{
    return _mm512_castps_si512(a);
}

static inline v16 v16_of_bits(v16i a)
{
    return _mm512_castsi512_ps(a);
}

static inline v16i v16i_set(uint32_t x)
{
    return _mm512_set1_epi32((int)x);
}

static inline v16i v16i_add(v16i a, v16i b)
{
    return _mm512_add_epi32(a, b);
}

static inline v16i v16i_sub(v16i a, v16i b)
{
    return _mm512_sub_epi32(a, b);
}

static inline v16i v16i_and(v16i a, v16i b)
{
    return _mm512_and_si512(a, b);
}

static inline v16i v16i_or(v16i a, v16i b)
{
    return _mm512_or_si512(a, b);
}

static inline v16i v16i_xor(v16i a, v16i b)
{
    return _mm512_xor_si512(a, b);
}

static inline v16i v16i_shl(v16i a, unsigned n)
{
    return _mm512_slli_epi32(a, n);
}

static inline v16i v16i_shr(v16i a, unsigned n)
{
    return _mm512_srli_epi32(a, n);
}

/* Of signed numbers. */
static inline v16i v16i_max(v16i a, v16i b)
{
    return _mm512_max_epi32(a, b);
}

static inline v16i v16i_min(v16i a, v16i b)
{
    return _mm512_min_epi32(a, b);
}

/* a > b (signed) ? x : y */
static inline v16i v16i_if_greater(v16i a, v16i b, v16i x, v16i y)
{
    return _mm512_mask_blend_epi32(_mm512_cmpgt_epi32_mask(a, b), y, x);
}

/* 16-bit integers, widened with zeros and cut to their low halves. */
static inline v16i v16i_load_16(const uint16_t *p, int64_t n)
{
    return _mm512_cvtepu16_epi32(n == 16 ? _mm256_loadu_si256((const __m256i *)p)
                                         : _mm256_maskz_loadu_epi16(v16_mask(n), p));
}

static inline void v16i_store_16(uint16_t *p, v16i a, int64_t n)
{
    _mm256_mask_storeu_epi16(p, v16_mask(n), _mm512_cvtepi32_epi16(a));
}

/* 8-bit integers, likewise. */
static inline v16i v16i_load_8(const uint8_t *p, int64_t n)
{
    return _mm512_cvtepu8_epi32(_mm_maskz_loadu_epi8(v16_mask(n), p));
}

static inline void v16i_store_8(uint8_t *p, v16i a, int64_t n)
{
    _mm_mask_storeu_epi8(p, v16_mask(n), _mm512_cvtepi32_epi8(a));
}

static inline v16 v16_load_f16(const uint16_t *p, int64_t n)
{
    return _mm512_cvtph_ps(_mm256_maskz_loadu_epi16(v16_mask(n), p));
}

static inline void v16_store_f16(uint16_t *p, v16 a, int64_t n)
{
    __m256i h = _mm512_cvtps_ph(a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);

    _mm256_mask_storeu_epi16(p, v16_mask(n), h);
}

/* Eight 64-bit lanes, of which products read the low words only: Philox. */
static inline v8q v8q_set(uint64_t x)
{
    return _mm512_set1_epi64((long long)x);
}

/* x, x + 1 ... x + 7 */
static inline v8q v8q_count(uint64_t x)
{
    return _mm512_add_epi64(v8q_set(x), _mm512_setr_epi64(0, 1, 2, 3, 4, 5, 6, 7));
}

static inline v8q v8q_mul(v8q a, v8q b)
{
    return _mm512_mul_epu32(a, b);
}

/* The high words in place of the low ones. */
static inline v8q v8q_high(v8q a)
{
    return _mm512_shuffle_epi32(a, (_MM_PERM_ENUM)0xf5);
}

static inline v8q v8q_xor(v8q a, v8q b)
{
    return _mm512_xor_si512(a, b);
}

/* The low words of c[0..3] of each lane in a row: (8, 4) words. */
static inline void v8q_store_rows(void *to, const v8q c[4])
{
    v8q a = _mm512_mask_blend_epi32(0xaaaa, c[0], _mm512_slli_epi64(c[1], 32));
    v8q b = _mm512_mask_blend_epi32(0xaaaa, c[2], _mm512_slli_epi64(c[3], 32));
    v8q low = _mm512_setr_epi64(0, 8, 1, 9, 2, 10, 3, 11);
    v8q high = _mm512_setr_epi64(4, 12, 5, 13, 6, 14, 7, 15);

    _mm512_storeu_si512(to, _mm512_permutex2var_epi64(a, low, b));
    _mm512_storeu_si512((char *)to + 64, _mm512_permutex2var_epi64(a, high, b));
}

/* 0 in the lanes where x < limit, else a. */
static inline v16 v16_zero_below(v16 a, v16 x, float limit)
{
    return _mm512_maskz_mov_ps(_mm512_cmp_ps_mask(x, _mm512_set1_ps(limit), _CMP_NLT_UQ), a);
}

/* p * 2^n; n also stands in the low bits of t, which is n + TR_EXP_MAGIC. */
static inline v16 v16_scale(v16 p, v16 t, v16 n)
{
    (void)t;
    return _mm512_scalef_ps(p, n);
}

/* The fold of tr_lanes_sum. */
static inline float v16_sum(v16 a)
{
    __m256 h = _mm256_add_ps(_mm512_castps512_ps256(a), _mm512_extractf32x8_ps(a, 1));
    __m128 q = _mm_add_ps(_mm256_castps256_ps128(h), _mm256_extractf128_ps(h, 1));

    q = _mm_add_ps(q, _mm_movehl_ps(q, q));
    return _mm_cvtss_f32(_mm_add_ss(q, _mm_movehdup_ps(q)));
}

/* The largest lane; no lane may be NaN. */
static inline float v16_largest(v16 a)
{
    __m256 h = _mm256_max_ps(_mm512_castps512_ps256(a), _mm512_extractf32x8_ps(a, 1));
    __m128 q = _mm_max_ps(_mm256_castps256_ps128(h), _mm256_extractf128_ps(h, 1));

    q = _mm_max_ps(q, _mm_movehl_ps(q, q));
    return _mm_cvtss_f32(_mm_max_ss(q, _mm_movehdup_ps(q)));
}

/* The largest lane; all are below 2^31. */
static inline uint32_t v16i_largest(v16i a)
{
    __m256i h = _mm256_max_epi32(_mm512_castsi512_si256(a), _mm512_extracti32x8_epi32(a, 1));
    __m128i q = _mm_max_epi32(_mm256_castsi256_si128(h), _mm256_extracti128_si256(h, 1));

    q = _mm_max_epi32(q, _mm_shuffle_epi32(q, 0x4e));
    return (uint32_t)_mm_cvtsi128_si32(_mm_max_epi32(q, _mm_shuffle_epi32(q, 0xb1)));
}

static inline v16d v16d_zero(void)
{
    return (v16d){_mm512_setzero_pd(), _mm512_setzero_pd()};
}

/* sum + a * a in f64, where the product of two f32 is exact */
static inline v16d v16d_add_square(v16d sum, v16 a)
{
    __m512d lo = _mm512_cvtps_pd(_mm512_castps512_ps256(a));
    __m512d hi = _mm512_cvtps_pd(_mm512_extractf32x8_ps(a, 1));

    sum.lo = _mm512_fmadd_pd(lo, lo, sum.lo);
    sum.hi = _mm512_fmadd_pd(hi, hi, sum.hi);
    return sum;
}

static inline v16d v16d_load(const double *p)
{
    return (v16d){_mm512_loadu_pd(p), _mm512_loadu_pd(p + 8)};
}

/* sum + a * a * by, the square exact. */
static inline v16d v16d_add_scaled(v16d sum, v16 a, double by)
{
    __m512d lo = _mm512_cvtps_pd(_mm512_castps512_ps256(a));
    __m512d hi = _mm512_cvtps_pd(_mm512_extractf32x8_ps(a, 1));

    sum.lo = _mm512_fmadd_pd(_mm512_mul_pd(lo, lo), _mm512_set1_pd(by), sum.lo);
    sum.hi = _mm512_fmadd_pd(_mm512_mul_pd(hi, hi), _mm512_set1_pd(by), sum.hi);
    return sum;
}

static inline void v16d_store(double *p, v16d a)
{
    _mm512_storeu_pd(p, a.lo);
    _mm512_storeu_pd(p + 8, a.hi);
}

#include "cpu/v16.h"

#endif
