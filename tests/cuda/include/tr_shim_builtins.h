/* SPDX-License-Identifier: Apache-2.0
 *
 * The CUDA execution model as kernels see it, for a compiler that is not nvcc: where a thread is,
 * barriers, shuffles, votes, atomics, shared memory. What stands behind it is tests/cuda/shim.
 *
 * Every point where a thread may wait knows its file and line: they name the place in a message,
 * and threads that meet at two different places are found to have diverged. Nothing here
 * remembers an address of thread-local memory: a block stays on one thread of the system.
 */
#ifndef TR_SHIM_BUILTINS_H
#define TR_SHIM_BUILTINS_H

#include <tr_shim_math.h>
#include <tr_shim_types.h>

/* Written by the scheduler at each switch. initial-exec: a plain load, also in a module that is
 * opened at run time. */
#define TR_SHIM_TLS extern __thread __attribute__((tls_model("initial-exec")))
TR_SHIM_TLS uint3 threadIdx, blockIdx;
TR_SHIM_TLS dim3 blockDim, gridDim;
enum { warpSize = 32 };

#define TR_SHIM_SITE const char *file = __builtin_FILE(), int line = __builtin_LINE()

/* ---- shared memory ---- */

/* Bytes of this block's shared memory that belong to `key`; poisoned when the block first asks. */
void *tr_shim_shared(const void *key, const char *name, size_t bytes, size_t align);
void *tr_shim_shared_dynamic(const char *name);

/* ---- barriers and warp collectives (tests/cuda/shim) ---- */

enum tr_shim_reduce { TR_SHIM_NONE, TR_SHIM_AND, TR_SHIM_OR, TR_SHIM_COUNT };
enum tr_shim_shuffle { TR_SHIM_SHFL, TR_SHIM_SHFL_UP, TR_SHIM_SHFL_DOWN, TR_SHIM_SHFL_XOR };

struct tr_shim_shfl {
    enum tr_shim_shuffle kind;
    unsigned mask;
    int operand, width;
};

int tr_shim_barrier(enum tr_shim_reduce reduce, int value, const char *file, int line);
void tr_shim_syncwarp(unsigned mask, const char *file, int line);
/* Lanes of `mask` whose value is not 0. */
unsigned tr_shim_vote(const char *what, unsigned mask, int value, const char *file, int line);
uint64_t tr_shim_shuffle(const struct tr_shim_shfl *s, uint64_t value, const char *file, int line);
void tr_shim_fence(void);

static inline void __syncthreads(TR_SHIM_SITE)
{
    tr_shim_barrier(TR_SHIM_NONE, 0, file, line);
}

static inline int __syncthreads_or(int value, TR_SHIM_SITE)
{
    return tr_shim_barrier(TR_SHIM_OR, value, file, line);
}

static inline int __syncthreads_and(int value, TR_SHIM_SITE)
{
    return tr_shim_barrier(TR_SHIM_AND, value, file, line);
}

static inline int __syncthreads_count(int value, TR_SHIM_SITE)
{
    return tr_shim_barrier(TR_SHIM_COUNT, value, file, line);
}

static inline void __syncwarp(unsigned mask = 0xffffffff, TR_SHIM_SITE)
{
    tr_shim_syncwarp(mask, file, line);
}

static inline unsigned __ballot_sync(unsigned mask, int value, TR_SHIM_SITE)
{
    return tr_shim_vote("__ballot_sync", mask, value, file, line);
}

static inline int __any_sync(unsigned mask, int value, TR_SHIM_SITE)
{
    return tr_shim_vote("__any_sync", mask, value, file, line) != 0;
}

static inline int __all_sync(unsigned mask, int value, TR_SHIM_SITE)
{
    return tr_shim_vote("__all_sync", mask, value, file, line) == mask;
}

template <class T>
static inline T tr_shim_shuffle_as(const struct tr_shim_shfl &s, T value, const char *file,
                                   int line)
{
    uint64_t bits = 0;
    static_assert(sizeof value <= sizeof bits, "a shuffle moves 4 or 8 bytes");
    memcpy(&bits, &value, sizeof value);
    bits = tr_shim_shuffle(&s, bits, file, line);
    memcpy(&value, &bits, sizeof value);
    return value;
}

template <class T>
static inline T __shfl_sync(unsigned mask, T value, int lane, int width = 32, TR_SHIM_SITE)
{
    return tr_shim_shuffle_as({TR_SHIM_SHFL, mask, lane, width}, value, file, line);
}

template <class T>
static inline T __shfl_up_sync(unsigned mask, T value, unsigned delta, int width = 32, TR_SHIM_SITE)
{
    return tr_shim_shuffle_as({TR_SHIM_SHFL_UP, mask, (int)delta, width}, value, file, line);
}

template <class T>
static inline T __shfl_down_sync(unsigned mask, T value, unsigned delta, int width = 32,
                                 TR_SHIM_SITE)
{
    return tr_shim_shuffle_as({TR_SHIM_SHFL_DOWN, mask, (int)delta, width}, value, file, line);
}

template <class T>
static inline T __shfl_xor_sync(unsigned mask, T value, int lanes, int width = 32, TR_SHIM_SITE)
{
    return tr_shim_shuffle_as({TR_SHIM_SHFL_XOR, mask, lanes, width}, value, file, line);
}

/* By shuffles: all lanes of a full mask must come. */
static inline unsigned __reduce_max_sync(unsigned mask, unsigned value, TR_SHIM_SITE)
{
    for (int half = 16; half; half /= 2) {
        unsigned other = tr_shim_shuffle_as({TR_SHIM_SHFL_XOR, mask, half, 32}, value, file, line);

        value = other > value ? other : value;
    }
    return value;
}

/* ---- memory ---- */

static inline void __threadfence(void)
{
    tr_shim_fence();
}

static inline void __threadfence_block(void)
{
    tr_shim_fence();
}

/* Cache hints: plain accesses here. */
template <class T> static inline T __ldg(const T *p)
{
    return *p;
}

template <class T> static inline T __ldcs(const T *p)
{
    return *p;
}

template <class T> static inline T __ldcg(const T *p)
{
    return *p;
}

template <class T> static inline void __stcs(T *p, T value)
{
    *p = value;
}

template <class T> static inline void __stcg(T *p, T value)
{
    *p = value;
}

/* Atomics are relaxed, as on a GPU. Blocks of two streams run at the same time. */
#define TR_SHIM_ATOMIC(type)                                                                       \
    static inline type atomicAdd(type *p, type v)                                                  \
    {                                                                                              \
        return __atomic_fetch_add(p, v, __ATOMIC_RELAXED);                                         \
    }                                                                                              \
    static inline type atomicOr(type *p, type v)                                                   \
    {                                                                                              \
        return __atomic_fetch_or(p, v, __ATOMIC_RELAXED);                                          \
    }                                                                                              \
    static inline type atomicAnd(type *p, type v)                                                  \
    {                                                                                              \
        return __atomic_fetch_and(p, v, __ATOMIC_RELAXED);                                         \
    }                                                                                              \
    static inline type atomicExch(type *p, type v)                                                 \
    {                                                                                              \
        return __atomic_exchange_n(p, v, __ATOMIC_RELAXED);                                        \
    }                                                                                              \
    static inline type atomicCAS(type *p, type expected, type v)                                   \
    {                                                                                              \
        __atomic_compare_exchange_n(p, &expected, v, false, __ATOMIC_RELAXED, __ATOMIC_RELAXED);   \
        return expected;                                                                           \
    }                                                                                              \
    static inline type atomicMax(type *p, type v)                                                  \
    {                                                                                              \
        type old = __atomic_load_n(p, __ATOMIC_RELAXED);                                           \
        while (old < v && !__atomic_compare_exchange_n(p, &old, v, false, __ATOMIC_RELAXED,        \
                                                       __ATOMIC_RELAXED))                          \
            ;                                                                                      \
        return old;                                                                                \
    }                                                                                              \
    static inline type atomicMin(type *p, type v)                                                  \
    {                                                                                              \
        type old = __atomic_load_n(p, __ATOMIC_RELAXED);                                           \
        while (v < old && !__atomic_compare_exchange_n(p, &old, v, false, __ATOMIC_RELAXED,        \
                                                       __ATOMIC_RELAXED))                          \
            ;                                                                                      \
        return old;                                                                                \
    }

TR_SHIM_ATOMIC(int)
TR_SHIM_ATOMIC(unsigned)
TR_SHIM_ATOMIC(unsigned long long)

static inline float atomicAdd(float *p, float v)
{
    unsigned old = __atomic_load_n((unsigned *)p, __ATOMIC_RELAXED);

    while (!__atomic_compare_exchange_n((unsigned *)p, &old,
                                        __float_as_uint(__uint_as_float(old) + v), false,
                                        __ATOMIC_RELAXED, __ATOMIC_RELAXED))
        ;
    return __uint_as_float(old);
}

#endif
