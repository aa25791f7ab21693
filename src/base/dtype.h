/* SPDX-License-Identifier: Apache-2.0
 *
 * Storage types of tensors and their scalar conversions (the definition; SIMD tiers must agree
 * bit for bit). Conversions from f32 round to nearest, ties to even; NaN stays NaN, infinity stays.
 */
#ifndef TR_BASE_DTYPE_H
#define TR_BASE_DTYPE_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

/* TR_8BIT is no storage type and in no table by type: only optimizer state has it, in blocks of
 * bytes (src/base/code8.h). */
enum tr_dtype { TR_F32, TR_BF16, TR_F16, TR_DTYPES, TR_8BIT = TR_DTYPES };

static inline size_t tr_dtype_size(enum tr_dtype t)
{
    return t == TR_F32 ? 4 : 2;
}

/* "f32", "bf16", "f16": our names; tr_dtype_hf: "F32", "BF16", "F16" as safetensors writes them. */
const char *tr_dtype_name(enum tr_dtype t);
const char *tr_dtype_hf(enum tr_dtype t);
/* Reads any usual spelling (f32, F32, float32, bf16, bfloat16, ...). 0 or -EINVAL, no message. */
int tr_dtype_parse(const char *s, enum tr_dtype *out);
/* 0, or -EINVAL with a message where weights cannot be stored so; -1: as their source. */
int tr_dtype_check(int dtype);

static inline uint32_t tr_f32_bits(float x)
{
    uint32_t u;
    memcpy(&u, &x, 4);
    return u;
}

static inline float tr_bits_f32(uint32_t u)
{
    float x;
    memcpy(&x, &u, 4);
    return x;
}

static inline float tr_bf16_f32(uint16_t h)
{
    return tr_bits_f32((uint32_t)h << 16);
}

static inline uint16_t tr_f32_bf16(float x)
{
    uint32_t u = tr_f32_bits(x);

    if ((u & 0x7fffffff) > 0x7f800000)
        return (uint16_t)(u >> 16 | 0x40); /* quiet NaN, never rounded to infinity */
    return (uint16_t)((u + 0x7fff + (u >> 16 & 1)) >> 16);
}

/* Stochastic rounding of the 16 dropped bits with 16 random bits; infinity and NaN are kept. */
static inline uint16_t tr_f32_bf16_stochastic(float x, uint16_t random)
{
    uint32_t u = tr_f32_bits(x);

    if ((u & 0x7f800000) == 0x7f800000)
        return tr_f32_bf16(x);
    return (uint16_t)((u + random) >> 16);
}

/* What a 16-bit weight has beside it, so that no update is lost: see tr_op_update. */
enum tr_master { TR_MASTER_NONE, TR_MASTER_SPLIT, TR_MASTER_F32, TR_MASTER_KINDS };

static inline int tr_master_fits(enum tr_master kind, enum tr_dtype weights)
{
    return weights == TR_BF16 || (weights == TR_F16 && kind != TR_MASTER_SPLIT);
}

/* An f32 master as a bf16 weight, rounded with ties up, and what it lacks: a signed remainder of 16
 * bits. Modulo 2^32 join gives back every pattern. The weight of a NaN need not be a NaN. */
static inline uint16_t tr_master_split(float x, int16_t *rest)
{
    uint32_t u = tr_f32_bits(x);

    *rest = (int16_t)(uint16_t)u;
    return (uint16_t)((u + 0x8000) >> 16);
}

static inline float tr_master_join(uint16_t w, int16_t rest)
{
    return tr_bits_f32(((uint32_t)w << 16) + (uint32_t)(int32_t)rest);
}

static inline float tr_f16_f32(uint16_t h)
{
    uint32_t sign = (uint32_t)(h & 0x8000) << 16, e = h >> 10 & 31, m = h & 0x3ff;

    if (e == 31)
        return tr_bits_f32(sign | 0x7f800000 | m << 13 | (m ? 0x400000 : 0));
    if (e == 0) /* zero and subnormals: m * 2^-24 is exact */
        return tr_bits_f32(sign | tr_f32_bits((float)m * 0x1p-24f));
    return tr_bits_f32(sign | (e + 112) << 23 | m << 13);
}

static inline uint16_t tr_f32_f16(float x)
{
    uint32_t u = tr_f32_bits(x), a = u & 0x7fffffff;
    uint16_t sign = (uint16_t)(u >> 16 & 0x8000);

    if (a > 0x7f800000)
        return sign | 0x7e00 | (uint16_t)(a >> 13 & 0x3ff);
    if (a >= 0x477ff000) /* rounds past 65504 */
        return sign | 0x7c00;
    if (a < 0x38800000) { /* subnormal: adding 0.5 aligns the last kept bit with 2^-24 */
        float f = tr_bits_f32(a) + 0.5f;
        return sign | (uint16_t)(tr_f32_bits(f) - 0x3f000000);
    }
    return sign | (uint16_t)((a - 0x38000000 + 0xfff + (a >> 13 & 1)) >> 13);
}

/* Element i of an array of type t, as f32, and back with round to nearest. */
static inline float tr_load_f32(const void *p, enum tr_dtype t, size_t i)
{
    if (t == TR_F32)
        return ((const float *)p)[i];
    return t == TR_BF16 ? tr_bf16_f32(((const uint16_t *)p)[i])
                        : tr_f16_f32(((const uint16_t *)p)[i]);
}

static inline void tr_store_f32(void *p, enum tr_dtype t, size_t i, float x)
{
    if (t == TR_F32)
        ((float *)p)[i] = x;
    else
        ((uint16_t *)p)[i] = t == TR_BF16 ? tr_f32_bf16(x) : tr_f32_f16(x);
}

#endif
