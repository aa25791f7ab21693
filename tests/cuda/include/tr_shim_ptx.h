/* SPDX-License-Identifier: Apache-2.0
 *
 * The functions of kernels/ptx.cuh for the CPU twin: the same fragments, the same bits, and what
 * a GPU leaves undefined made an error or poison. mma adds its products to d eight at a time, as
 * sums in f32 (a GPU adds them wider and in an order of its own: tests compare with a tolerance);
 * so the bits of a sum depend on how it is cut into eights, as they do on a GPU. Fast conversions
 * make the NaN of the hardware, so that nobody comes to rely on a payload.
 */
#ifndef TR_SHIM_PTX_H
#define TR_SHIM_PTX_H

#include <tr_shim_builtins.h>

#include "src/base/dtype.h"

enum tr_shim_type { TR_SHIM_BF16, TR_SHIM_F16 };

struct tr_shim_fragments {
    float *d;
    const uint32_t *a, *b;
};

/* Four matrices into r: lane 8 i + k brings row k of matrix i. */
struct tr_shim_rows {
    uint32_t *r, row[4];
    bool trans;
};

struct tr_shim_copy {
    void *shared;
    const void *global;
    bool valid;
};

void tr_shim_mma(enum tr_shim_type type, struct tr_shim_fragments *f, const char *file, int line);
void tr_shim_ldmatrix(struct tr_shim_rows *f, const char *file, int line);
/* Ends the run when p is not 16 aligned bytes of this block's shared memory. */
void tr_shim_check_shared(const char *what, const void *p, const char *file, int line);
void tr_shim_cp_async(const struct tr_shim_copy *c, const char *file, int line);
void tr_shim_cp_async_commit(void);
void tr_shim_cp_async_wait(int pending);

static inline void ptx_mma_bf16(float d[4], const uint32_t a[4], const uint32_t b[2], TR_SHIM_SITE)
{
    struct tr_shim_fragments f = {d, a, b};
    tr_shim_mma(TR_SHIM_BF16, &f, file, line);
}

static inline void ptx_mma_f16(float d[4], const uint32_t a[4], const uint32_t b[2], TR_SHIM_SITE)
{
    struct tr_shim_fragments f = {d, a, b};
    tr_shim_mma(TR_SHIM_F16, &f, file, line);
}

/* The lane reads its row here, in code that the sanitizers see, and as early as it may be read. */
static inline void tr_shim_read_row(struct tr_shim_rows *f, const void *shared_row,
                                    const char *file, int line)
{
    tr_shim_check_shared("ldmatrix", shared_row, file, line);
    for (int i = 0; i < 4; i++)
        f->row[i] = ((const uint32_t *)shared_row)[i];
    tr_shim_ldmatrix(f, file, line);
}

static inline void ptx_ldmatrix_x4(uint32_t r[4], const void *shared_row, TR_SHIM_SITE)
{
    struct tr_shim_rows f = {r, {0, 0, 0, 0}, false};
    tr_shim_read_row(&f, shared_row, file, line);
}

static inline void ptx_ldmatrix_x4_trans(uint32_t r[4], const void *shared_row, TR_SHIM_SITE)
{
    struct tr_shim_rows f = {r, {0, 0, 0, 0}, true};
    tr_shim_read_row(&f, shared_row, file, line);
}

static inline void ptx_cp_async_16(void *shared, const void *global, bool valid, TR_SHIM_SITE)
{
    struct tr_shim_copy c = {shared, global, valid};
    tr_shim_cp_async(&c, file, line);
}

static inline void ptx_cp_async_commit(void)
{
    tr_shim_cp_async_commit();
}

template <int N> static inline void ptx_cp_async_wait(void)
{
    tr_shim_cp_async_wait(N);
}

static inline uint16_t ptx_f32_bf16(float x)
{
    return tr_f32_bf16(x);
}

static inline uint16_t ptx_f32_f16(float x)
{
    return tr_f32_f16(x);
}

static inline float ptx_bf16_f32(uint16_t h)
{
    return tr_bf16_f32(h);
}

static inline float ptx_f16_f32(uint16_t h)
{
    return tr_f16_f32(h);
}

static inline uint32_t ptx_pack_bf16(float low, float high)
{
    uint32_t l = low != low ? 0x7fff : tr_f32_bf16(low);
    uint32_t h = high != high ? 0x7fff : tr_f32_bf16(high);
    return l | h << 16;
}

static inline uint32_t ptx_pack_f16(float low, float high)
{
    uint32_t l = low != low ? 0x7fff : tr_f32_f16(low);
    uint32_t h = high != high ? 0x7fff : tr_f32_f16(high);
    return l | h << 16;
}

static inline float ptx_bf16_low(uint32_t pair)
{
    return tr_bits_f32(pair << 16);
}

static inline float ptx_bf16_high(uint32_t pair)
{
    return tr_bits_f32(pair & 0xffff0000);
}

static inline float ptx_f16_fast(uint16_t h)
{
    return (h & 0x7fff) > 0x7c00 ? tr_bits_f32(0x7fffffff) : tr_f16_f32(h);
}

static inline float ptx_f16_low(uint32_t pair)
{
    return ptx_f16_fast((uint16_t)pair);
}

static inline float ptx_f16_high(uint32_t pair)
{
    return ptx_f16_fast((uint16_t)(pair >> 16));
}

static inline float ptx_min_nan(float a, float b)
{
    return a != a || b != b ? tr_bits_f32(0x7fffffff) : a < b ? a : b;
}

static inline float ptx_max_nan(float a, float b)
{
    return a != a || b != b ? tr_bits_f32(0x7fffffff) : a > b ? a : b;
}

static inline float ptx_rcp(float x)
{
    return 1.0f / x;
}

static inline float ptx_rsqrt(float x)
{
    return (float)(1.0 / sqrt((double)x));
}

static inline float ptx_exp2(float x)
{
    float y = exp2f(x);
    return y < 0x1p-126f ? 0.0f : y;
}

#endif
