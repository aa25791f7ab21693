/* SPDX-License-Identifier: Apache-2.0
 *
 * PTX wrappers, sm_80 and newer: the only place with asm. The CPU twin of the tests has the same
 * functions in <tr_shim_ptx.h>, with the same fragments and the same bits.
 *
 * Fragments of m16n8k16 (g = lane / 4, t = lane % 4; a register holds two 16-bit values, the one
 * with the lower column or row in its low half):
 *     A  a[0] (g, 2t..)   a[1] (g+8, 2t..)   a[2] (g, 2t+8..)   a[3] (g+8, 2t+8..)      16 x 16
 *     B  b[0] (2t.., g)   b[1] (2t+8.., g)                                               16 x 8
 *     D  d[0] (g, 2t)   d[1] (g, 2t+1)   d[2] (g+8, 2t)   d[3] (g+8, 2t+1)               16 x 8
 * ldmatrix gives matrix i of 8 x 8 in r[i]: element (g, 2t) and (g, 2t+1), transposed (2t, g) and
 * (2t+1, g); lane 8 i + k holds the address of row k, 16-byte aligned.
 *
 * Conversions round to nearest, ties to even. They come in two kinds:
 *   exact  ptx_f32_bf16, ptx_f32_f16, ptx_bf16_f32, ptx_f16_f32, ptx_bf16_low, ptx_bf16_high:
 *          every bit as in src/base/dtype.h, NaN's payload too. For weights and states.
 *   fast   ptx_pack_bf16, ptx_pack_f16, ptx_f16_low, ptx_f16_high: one or two instructions; the
 *          same bits but for NaN, which becomes the hardware's own (0x7fff; 0x7fffffff). For
 *          operands of tensor cores and activations, where a NaN need only stay one.
 */
#ifndef TR_KERNELS_PTX_CUH
#define TR_KERNELS_PTX_CUH

#include <stdint.h>

#ifndef __CUDACC__
#include <tr_shim_ptx.h>
#else

#define TR_PTX static __device__ __forceinline__

TR_PTX void ptx_mma_bf16(float d[4], const uint32_t a[4], const uint32_t b[2])
{
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 "
                 "{%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
                 : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

TR_PTX void ptx_mma_f16(float d[4], const uint32_t a[4], const uint32_t b[2])
{
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 "
                 "{%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
                 : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

TR_PTX uint32_t ptx_shared_address(const void *shared)
{
    return static_cast<uint32_t>(__cvta_generic_to_shared(shared));
}

/* The memory clobbers keep ldmatrix behind the plain stores that filled the tile. */
TR_PTX void ptx_ldmatrix_x4(uint32_t r[4], const void *shared_row)
{
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(ptx_shared_address(shared_row))
                 : "memory");
}

TR_PTX void ptx_ldmatrix_x4_trans(uint32_t r[4], const void *shared_row)
{
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(ptx_shared_address(shared_row))
                 : "memory");
}

/* 16 bytes, both addresses 16-byte aligned; not valid: 16 zero bytes, `global` is not read. */
TR_PTX void ptx_cp_async_16(void *shared, const void *global, bool valid)
{
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(ptx_shared_address(shared)),
                 "l"(__cvta_generic_to_global(global)), "r"(valid ? 16 : 0)
                 : "memory");
}

TR_PTX void ptx_cp_async_commit(void)
{
    asm volatile("cp.async.commit_group;" ::: "memory");
}

/* Waits until at most N of this thread's groups are pending; other threads see the bytes after a
 * barrier. */
template <int N> TR_PTX void ptx_cp_async_wait(void)
{
    asm volatile("cp.async.wait_group %0;" ::"n"(N) : "memory");
}

TR_PTX uint32_t ptx_pack_bf16(float low, float high)
{
    uint32_t r;
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(r) : "f"(high), "f"(low));
    return r;
}

TR_PTX uint32_t ptx_pack_f16(float low, float high)
{
    uint32_t r;
    asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(r) : "f"(high), "f"(low));
    return r;
}

TR_PTX float ptx_bf16_low(uint32_t pair)
{
    return __uint_as_float(pair << 16);
}

TR_PTX float ptx_bf16_high(uint32_t pair)
{
    return __uint_as_float(pair & 0xffff0000);
}

TR_PTX float ptx_f16_fast(uint16_t h)
{
    float x;
    asm("cvt.f32.f16 %0, %1;" : "=f"(x) : "h"(h));
    return x;
}

TR_PTX float ptx_f16_low(uint32_t pair)
{
    return ptx_f16_fast(static_cast<uint16_t>(pair));
}

TR_PTX float ptx_f16_high(uint32_t pair)
{
    return ptx_f16_fast(static_cast<uint16_t>(pair >> 16));
}

TR_PTX float ptx_bf16_f32(uint16_t h)
{
    return __uint_as_float(static_cast<uint32_t>(h) << 16);
}

TR_PTX uint16_t ptx_f32_bf16(float x)
{
    uint32_t u = __float_as_uint(x);
    uint16_t h;

    asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(h) : "f"(x));
    return (u & 0x7fffffff) > 0x7f800000 ? static_cast<uint16_t>(u >> 16 | 0x40) : h;
}

TR_PTX uint16_t ptx_f32_f16(float x)
{
    uint32_t u = __float_as_uint(x);
    uint16_t h;

    asm("cvt.rn.f16.f32 %0, %1;" : "=h"(h) : "f"(x));
    if ((u & 0x7fffffff) > 0x7f800000)
        h = static_cast<uint16_t>((u >> 16 & 0x8000) | 0x7e00 | (u >> 13 & 0x3ff));
    return h;
}

TR_PTX float ptx_f16_f32(uint16_t h)
{
    uint32_t sign = static_cast<uint32_t>(h & 0x8000) << 16;
    float x = ptx_f16_fast(h);

    if ((h & 0x7fff) > 0x7c00)
        x = __uint_as_float(sign | 0x7fc00000 | static_cast<uint32_t>(h & 0x3ff) << 13);
    return x;
}

/* The smaller, or the larger, as fminf and fmaxf have it, but NaN where either is. */
TR_PTX float ptx_min_nan(float a, float b)
{
    float y;
    asm("min.NaN.f32 %0, %1, %2;" : "=f"(y) : "f"(a), "f"(b));
    return y;
}

TR_PTX float ptx_max_nan(float a, float b)
{
    float y;
    asm("max.NaN.f32 %0, %1, %2;" : "=f"(y) : "f"(a), "f"(b));
    return y;
}

/* 1 / x and 1 / sqrt(x) of normal numbers within about an ULP: one instruction, with which exact
 * quotients and roots begin. */
TR_PTX float ptx_rcp(float x)
{
    float y;
    asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}

TR_PTX float ptx_rsqrt(float x)
{
    float y;
    asm("rsqrt.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}

/* 2^x within 2 ULP, one instruction; below 2^-126: 0. */
TR_PTX float ptx_exp2(float x)
{
    float y;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}

#endif
#endif
