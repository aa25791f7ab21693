/* SPDX-License-Identifier: Apache-2.0
 *
 * Sixteen lanes as two AVX2 vectors: the same names and meanings as in cpu/v16_avx512.h.
 */
#ifndef TR_CPU_V16_AVX2_H
#define TR_CPU_V16_AVX2_H

#include <immintrin.h>
#include <stdint.h>
#include <string.h>

#include "cpu/exp.h"

#define TR_TIER_INIT(op) tr_##op##_init_avx2

typedef struct {
    __m256 lo, hi;
} v16;
typedef struct {
    __m256i lo, hi;
} v16i, v8q;
typedef struct {
    __m256d q[4];
} v16d;

/* All ones in lanes below n - base. */
static inline __m256i v16_mask(int64_t n, int base)
{
    __m256i lane = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);

    return _mm256_cmpgt_epi32(_mm256_set1_epi32((int)n - base), lane);
}

static inline v16 v16_load(const float *p, int64_t n)
{
    if (n == 16)
        return (v16){_mm256_loadu_ps(p), _mm256_loadu_ps(p + 8)};
    return (v16){_mm256_maskload_ps(p, v16_mask(n, 0)), _mm256_maskload_ps(p + 8, v16_mask(n, 8))};
}

static inline void v16_store(float *p, v16 a, int64_t n)
{
    if (n == 16) {
        _mm256_storeu_ps(p, a.lo);
        _mm256_storeu_ps(p + 8, a.hi);
    } else {
        _mm256_maskstore_ps(p, v16_mask(n, 0), a.lo);
        _mm256_maskstore_ps(p + 8, v16_mask(n, 8), a.hi);
    }
}

static inline v16 v16_first(v16 a, v16 rest, int64_t n)
{
    if (n == 16)
        return a;
    return (v16){_mm256_blendv_ps(rest.lo, a.lo, _mm256_castsi256_ps(v16_mask(n, 0))),
                 _mm256_blendv_ps(rest.hi, a.hi, _mm256_castsi256_ps(v16_mask(n, 8)))};
}

static inline v16 v16_set(float x)
{
    return (v16){_mm256_set1_ps(x), _mm256_set1_ps(x)};
}

static inline v16 v16_add(v16 a, v16 b)
{
    return (v16){_mm256_add_ps(a.lo, b.lo), _mm256_add_ps(a.hi, b.hi)};
}

static inline v16 v16_sub(v16 a, v16 b)
{
    return (v16){_mm256_sub_ps(a.lo, b.lo), _mm256_sub_ps(a.hi, b.hi)};
}

static inline v16 v16_mul(v16 a, v16 b)
{
    return (v16){_mm256_mul_ps(a.lo, b.lo), _mm256_mul_ps(a.hi, b.hi)};
}

static inline v16 v16_div(v16 a, v16 b)
{
    return (v16){_mm256_div_ps(a.lo, b.lo), _mm256_div_ps(a.hi, b.hi)};
}

static inline v16 v16_sqrt(v16 a)
{
    return (v16){_mm256_sqrt_ps(a.lo), _mm256_sqrt_ps(a.hi)};
}

static inline v16 v16_fma(v16 a, v16 b, v16 c)
{
    return (v16){_mm256_fmadd_ps(a.lo, b.lo, c.lo), _mm256_fmadd_ps(a.hi, b.hi, c.hi)};
}

static inline v16 v16_max(v16 a, v16 b)
{
    return (v16){_mm256_max_ps(a.lo, b.lo), _mm256_max_ps(a.hi, b.hi)};
}

static inline v16 v16_min(v16 a, v16 b)
{
    return (v16){_mm256_min_ps(a.lo, b.lo), _mm256_min_ps(a.hi, b.hi)};
}

static inline v16i v16_bits(v16 a)
{
    return (v16i){_mm256_castps_si256(a.lo), _mm256_castps_si256(a.hi)};
}

static inline v16 v16_of_bits(v16i a)
{
    return (v16){_mm256_castsi256_ps(a.lo), _mm256_castsi256_ps(a.hi)};
}

static inline v16i v16i_set(uint32_t x)
{
    return (v16i){_mm256_set1_epi32((int)x), _mm256_set1_epi32((int)x)};
}

static inline v16i v16i_add(v16i a, v16i b)
{
    return (v16i){_mm256_add_epi32(a.lo, b.lo), _mm256_add_epi32(a.hi, b.hi)};
}

static inline v16i v16i_sub(v16i a, v16i b)
{
    return (v16i){_mm256_sub_epi32(a.lo, b.lo), _mm256_sub_epi32(a.hi, b.hi)};
}

static inline v16i v16i_and(v16i a, v16i b)
{
    return (v16i){_mm256_and_si256(a.lo, b.lo), _mm256_and_si256(a.hi, b.hi)};
}

static inline v16i v16i_or(v16i a, v16i b)
{
    return (v16i){_mm256_or_si256(a.lo, b.lo), _mm256_or_si256(a.hi, b.hi)};
}

static inline v16i v16i_xor(v16i a, v16i b)
{
    return (v16i){_mm256_xor_si256(a.lo, b.lo), _mm256_xor_si256(a.hi, b.hi)};
}

static inline v16i v16i_shl(v16i a, int n)
{
    return (v16i){_mm256_slli_epi32(a.lo, n), _mm256_slli_epi32(a.hi, n)};
}

static inline v16i v16i_shr(v16i a, int n)
{
    return (v16i){_mm256_srli_epi32(a.lo, n), _mm256_srli_epi32(a.hi, n)};
}

static inline v16i v16i_max(v16i a, v16i b)
{
    return (v16i){_mm256_max_epi32(a.lo, b.lo), _mm256_max_epi32(a.hi, b.hi)};
}

static inline v16i v16i_min(v16i a, v16i b)
{
    return (v16i){_mm256_min_epi32(a.lo, b.lo), _mm256_min_epi32(a.hi, b.hi)};
}

static inline v16i v16i_if_greater(v16i a, v16i b, v16i x, v16i y)
{
    return (v16i){_mm256_blendv_epi8(y.lo, x.lo, _mm256_cmpgt_epi32(a.lo, b.lo)),
                  _mm256_blendv_epi8(y.hi, x.hi, _mm256_cmpgt_epi32(a.hi, b.hi))};
}

/* AVX2 has no masked 16-bit moves: a short tail goes through a copy. */
static inline v16i v16i_load_16(const uint16_t *p, int64_t n)
{
    uint16_t copy[16] = {0};

    if (n != 16)
        p = memcpy(copy, p, (size_t)n * 2);
    return (v16i){_mm256_cvtepu16_epi32(_mm_loadu_si128((const __m128i *)p)),
                  _mm256_cvtepu16_epi32(_mm_loadu_si128((const __m128i *)p + 1))};
}

static inline void v16i_store_16(uint16_t *p, v16i a, int64_t n)
{
    __m256i low = _mm256_set1_epi32(0xffff);
    __m256i pack = _mm256_packus_epi32(_mm256_and_si256(a.lo, low), _mm256_and_si256(a.hi, low));
    uint16_t copy[16];

    _mm256_storeu_si256((__m256i *)(n == 16 ? p : copy), _mm256_permute4x64_epi64(pack, 0xd8));
    if (n != 16)
        memcpy(p, copy, (size_t)n * 2);
}

static inline v16i v16i_load_8(const uint8_t *p, int64_t n)
{
    uint8_t copy[16] = {0};

    if (n != 16)
        p = memcpy(copy, p, (size_t)n);
    return (v16i){_mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i *)p)),
                  _mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i *)(p + 8)))};
}

static inline void v16i_store_8(uint8_t *p, v16i a, int64_t n)
{
    __m256i low = _mm256_set1_epi32(0xff), order = _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7);
    __m256i half = _mm256_packus_epi32(_mm256_and_si256(a.lo, low), _mm256_and_si256(a.hi, low));
    __m256i pack = _mm256_permutevar8x32_epi32(_mm256_packus_epi16(half, half), order);
    uint8_t copy[16];

    _mm_storeu_si128((__m128i *)(n == 16 ? p : copy), _mm256_castsi256_si128(pack));
    if (n != 16)
        memcpy(p, copy, (size_t)n);
}

static inline v16 v16_load_f16(const uint16_t *p, int64_t n)
{
    uint16_t copy[16] = {0};

    if (n != 16)
        p = memcpy(copy, p, (size_t)n * 2);
    return (v16){_mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)p)),
                 _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)p + 1))};
}

static inline void v16_store_f16(uint16_t *p, v16 a, int64_t n)
{
    uint16_t copy[16];
    __m128i *to = (__m128i *)(n == 16 ? p : copy);

    _mm_storeu_si128(to, _mm256_cvtps_ph(a.lo, _MM_FROUND_TO_NEAREST_INT));
    _mm_storeu_si128(to + 1, _mm256_cvtps_ph(a.hi, _MM_FROUND_TO_NEAREST_INT));
    if (n != 16)
        memcpy(p, copy, (size_t)n * 2);
}

static inline v8q v8q_set(uint64_t x)
{
    return (v8q){_mm256_set1_epi64x((long long)x), _mm256_set1_epi64x((long long)x)};
}

static inline v8q v8q_count(uint64_t x)
{
    __m256i base = _mm256_set1_epi64x((long long)x);

    return (v8q){_mm256_add_epi64(base, _mm256_setr_epi64x(0, 1, 2, 3)),
                 _mm256_add_epi64(base, _mm256_setr_epi64x(4, 5, 6, 7))};
}

static inline v8q v8q_mul(v8q a, v8q b)
{
    return (v8q){_mm256_mul_epu32(a.lo, b.lo), _mm256_mul_epu32(a.hi, b.hi)};
}

static inline v8q v8q_high(v8q a)
{
    return (v8q){_mm256_shuffle_epi32(a.lo, 0xf5), _mm256_shuffle_epi32(a.hi, 0xf5)};
}

static inline v8q v8q_xor(v8q a, v8q b)
{
    return (v8q){_mm256_xor_si256(a.lo, b.lo), _mm256_xor_si256(a.hi, b.hi)};
}

static inline void v8q_store_half(__m256i *to, const __m256i c[4])
{
    __m256i a = _mm256_blend_epi32(c[0], _mm256_slli_epi64(c[1], 32), 0xaa);
    __m256i b = _mm256_blend_epi32(c[2], _mm256_slli_epi64(c[3], 32), 0xaa);
    __m256i even = _mm256_unpacklo_epi64(a, b), odd = _mm256_unpackhi_epi64(a, b);

    _mm256_storeu_si256(to, _mm256_permute2x128_si256(even, odd, 0x20));
    _mm256_storeu_si256(to + 1, _mm256_permute2x128_si256(even, odd, 0x31));
}

static inline void v8q_store_rows(void *to, const v8q c[4])
{
    v8q_store_half(to, (__m256i[4]){c[0].lo, c[1].lo, c[2].lo, c[3].lo});
    v8q_store_half((__m256i *)to + 2, (__m256i[4]){c[0].hi, c[1].hi, c[2].hi, c[3].hi});
}

static inline v16 v16_zero_below(v16 a, v16 x, float limit)
{
    __m256 l = _mm256_set1_ps(limit);

    return (v16){_mm256_and_ps(a.lo, _mm256_cmp_ps(x.lo, l, _CMP_NLT_UQ)),
                 _mm256_and_ps(a.hi, _mm256_cmp_ps(x.hi, l, _CMP_NLT_UQ))};
}

static inline v16 v16_scale(v16 p, v16 t, v16 n)
{
    v16i exponent = v16i_sub(v16_bits(t), v16i_set(tr_f32_bits(TR_EXP_MAGIC) - 126));

    (void)n;
    return v16_mul(v16_mul(p, v16_of_bits(v16i_shl(exponent, 23))), v16_set(2.0f));
}

static inline float v16_sum(v16 a)
{
    __m256 h = _mm256_add_ps(a.lo, a.hi);
    __m128 q = _mm_add_ps(_mm256_castps256_ps128(h), _mm256_extractf128_ps(h, 1));

    q = _mm_add_ps(q, _mm_movehl_ps(q, q));
    return _mm_cvtss_f32(_mm_add_ss(q, _mm_movehdup_ps(q)));
}

static inline float v16_largest(v16 a)
{
    __m256 h = _mm256_max_ps(a.lo, a.hi);
    __m128 q = _mm_max_ps(_mm256_castps256_ps128(h), _mm256_extractf128_ps(h, 1));

    q = _mm_max_ps(q, _mm_movehl_ps(q, q));
    return _mm_cvtss_f32(_mm_max_ss(q, _mm_movehdup_ps(q)));
}

static inline uint32_t v16i_largest(v16i a)
{
    __m256i h = _mm256_max_epi32(a.lo, a.hi);
    __m128i q = _mm_max_epi32(_mm256_castsi256_si128(h), _mm256_extracti128_si256(h, 1));

    q = _mm_max_epi32(q, _mm_shuffle_epi32(q, 0x4e));
    return (uint32_t)_mm_cvtsi128_si32(_mm_max_epi32(q, _mm_shuffle_epi32(q, 0xb1)));
}

static inline v16d v16d_zero(void)
{
    __m256d z = _mm256_setzero_pd();

    return (v16d){{z, z, z, z}};
}

static inline v16d v16d_add_square(v16d sum, v16 a)
{
    __m256d q[4] = {_mm256_cvtps_pd(_mm256_castps256_ps128(a.lo)),
                    _mm256_cvtps_pd(_mm256_extractf128_ps(a.lo, 1)),
                    _mm256_cvtps_pd(_mm256_castps256_ps128(a.hi)),
                    _mm256_cvtps_pd(_mm256_extractf128_ps(a.hi, 1))};

    for (int j = 0; j < 4; j++)
        sum.q[j] = _mm256_fmadd_pd(q[j], q[j], sum.q[j]);
    return sum;
}

static inline v16d v16d_load(const double *p)
{
    return (v16d){{_mm256_loadu_pd(p), _mm256_loadu_pd(p + 4), _mm256_loadu_pd(p + 8),
                   _mm256_loadu_pd(p + 12)}};
}

static inline v16d v16d_add_scaled(v16d sum, v16 a, double by)
{
    __m256d q[4] = {_mm256_cvtps_pd(_mm256_castps256_ps128(a.lo)),
                    _mm256_cvtps_pd(_mm256_extractf128_ps(a.lo, 1)),
                    _mm256_cvtps_pd(_mm256_castps256_ps128(a.hi)),
                    _mm256_cvtps_pd(_mm256_extractf128_ps(a.hi, 1))};

    for (int j = 0; j < 4; j++)
        sum.q[j] = _mm256_fmadd_pd(_mm256_mul_pd(q[j], q[j]), _mm256_set1_pd(by), sum.q[j]);
    return sum;
}

static inline void v16d_store(double *p, v16d a)
{
    for (int j = 0; j < 4; j++)
        _mm256_storeu_pd(p + 4 * j, a.q[j]);
}

#include "cpu/v16.h"

#endif
