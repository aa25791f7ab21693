/* SPDX-License-Identifier: Apache-2.0
 *
 * CUDA's words for a compiler that is not nvcc: qualifiers, dim3 and the small vectors, with the
 * sizes and alignments that kernels rely on. A kernel's shared memory is declared by TR_SHARED, so
 * there is no __shared__ here: its bare use does not compile.
 */
#ifndef TR_SHIM_TYPES_H
#define TR_SHIM_TYPES_H

#include <stddef.h>
#include <stdint.h>

#define __global__
#define __device__
#define __host__
#define __constant__
#define __forceinline__ inline __attribute__((always_inline))
#define __launch_bounds__(...)

#define TR_SHIM_VECTOR1(name, type)                                                                \
    struct name##1 {                                                                               \
        type x;                                                                                    \
    };                                                                                             \
    static inline name##1 make_##name##1(type x)                                                   \
    {                                                                                              \
        return {x};                                                                                \
    }
#define TR_SHIM_VECTOR2(name, type)                                                                \
    struct alignas(2 * sizeof(type)) name##2 {                                                     \
        type x, y;                                                                                 \
    };                                                                                             \
    static inline name##2 make_##name##2(type x, type y)                                           \
    {                                                                                              \
        return {x, y};                                                                             \
    }
#define TR_SHIM_VECTOR3(name, type)                                                                \
    struct name##3 {                                                                               \
        type x, y, z;                                                                              \
    };                                                                                             \
    static inline name##3 make_##name##3(type x, type y, type z)                                   \
    {                                                                                              \
        return {x, y, z};                                                                          \
    }
#define TR_SHIM_VECTOR4(name, type)                                                                \
    struct alignas(4 * sizeof(type) < 16 ? 4 * sizeof(type) : 16) name##4 {                        \
        type x, y, z, w;                                                                           \
    };                                                                                             \
    static inline name##4 make_##name##4(type x, type y, type z, type w)                           \
    {                                                                                              \
        return {x, y, z, w};                                                                       \
    }
#define TR_SHIM_VECTORS(name, type)                                                                \
    TR_SHIM_VECTOR1(name, type)                                                                    \
    TR_SHIM_VECTOR2(name, type)                                                                    \
    TR_SHIM_VECTOR3(name, type)                                                                    \
    TR_SHIM_VECTOR4(name, type)

TR_SHIM_VECTORS(uchar, unsigned char)
TR_SHIM_VECTORS(short, short)
TR_SHIM_VECTORS(ushort, unsigned short)
TR_SHIM_VECTORS(int, int)
TR_SHIM_VECTORS(uint, unsigned)
TR_SHIM_VECTORS(longlong, long long)
TR_SHIM_VECTORS(ulonglong, unsigned long long)
TR_SHIM_VECTORS(float, float)
TR_SHIM_VECTORS(double, double)

struct dim3 {
    unsigned x, y, z;
    constexpr dim3(unsigned vx = 1, unsigned vy = 1, unsigned vz = 1) : x(vx), y(vy), z(vz)
    {
    }
    constexpr dim3(uint3 v) : x(v.x), y(v.y), z(v.z)
    {
    }
    constexpr operator uint3() const
    {
        return uint3{x, y, z};
    }
};

/* What a launch is, for the shim (tests/cuda/shim/shim.h) and for TR_LAUNCH. */
struct tr_shim_grid {
    dim3 grid, block;
    size_t shared_bytes;
    /* Filled in by TR_LAUNCH: the function, and its arguments that are pointers (others: NULL). */
    const void *kernel = nullptr, *const *pointers = nullptr;
    unsigned n_pointers = 0;
};

#endif
