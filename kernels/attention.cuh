/* SPDX-License-Identifier: Apache-2.0
 *
 * The geometry of attention, shared by its kernels. A document is cut into tiles counted from its
 * own first token, and every sum over keys or queries runs in the order of such tiles: the bits of
 * a document depend on nothing around it, wherever it lies in the micro-batch (invariant 1).
 *
 * A block owns the tokens of one window, [i * size, (i + 1) * size) of the op, and does the tiles
 * that begin there. Of a document longer than the window exactly one begins in each, so a block has
 * one tile but where documents meet; a window of tiny documents has one for each of them.
 *
 * Positions are counted inside the document unless said otherwise. A query sees a key if
 * 0 <= query - key < span. There are two families of kernels: 16-bit tiles on tensor cores
 * (attention_mma.cuh) and f32 tiles for everything else (attention_plain.cuh).
 */
#ifndef TR_KERNELS_ATTENTION_CUH
#define TR_KERNELS_ATTENTION_CUH

#include <math.h>

#include "kernels/cuda.h"
#include "kernels/launch.cuh"
#include "kernels/ptx.cuh"

#define ATTENTION_THREADS 128
#define ATTENTION_LOG2E   1.44269504088896340736f

struct attention_tile {
    int32_t doc;    /* the document's first token, counted in the op */
    int32_t length; /* the document's tokens */
    int32_t first;  /* the tile's first */
};

/* The next tile that begins before `end` in the op: t is the one before, at first
 * {the window's first token, 0}. */
static __device__ __forceinline__ bool attention_next(const struct tr_op_attention *op, int32_t end,
                                                      int32_t size, struct attention_tile *t)
{
    int32_t at;

    while ((at = t->doc + t->length) < end) {
        t->doc = op->doc_first[at];
        t->length = op->doc_end[at] - t->doc;
        t->first = (at - t->doc + size - 1) / size * size;
        if (t->first < t->length && t->doc + t->first < end)
            return true;
    }
    return false;
}

static __device__ __forceinline__ int32_t attention_span(const struct tr_op_attention *op)
{
    return op->window && op->window < INT32_MAX ? (int32_t)op->window : INT32_MAX;
}

/* Positions that a tile has to do with. */
struct attention_reach {
    int32_t begin, end;
};

/* Keys seen by the queries [first, first + size), from the start of a tile of `step` on. */
static __device__ __forceinline__ struct attention_reach
attention_keys(const struct attention_tile *t, int32_t size, int32_t span, int32_t step)
{
    int32_t begin = t->first - span + 1;

    return {begin > 0 ? begin / step * step : 0, min(t->first + size, t->length)};
}

/* Queries that see the keys [first, first + size). */
static __device__ __forceinline__ struct attention_reach
attention_queries(const struct attention_tile *t, int32_t size, int32_t span)
{
    int32_t last = min(t->first + size, t->length) - 1;

    return {t->first, span < t->length - last ? last + span : t->length};
}

/* What a rectangle of queries and keys needs: the differences query - key lie in [least, most]. */
enum attention_sight { ATTENTION_NONE, ATTENTION_SOME, ATTENTION_ALL };

static __device__ __forceinline__ enum attention_sight attention_sees(int32_t least, int32_t most,
                                                                      int32_t span)
{
    if (most < 0 || least >= span)
        return ATTENTION_NONE;
    return least >= 0 && most < span ? ATTENTION_ALL : ATTENTION_SOME;
}

/* Heads of queries to one of keys. */
static __device__ __forceinline__ int32_t attention_group(const struct tr_op_attention *op)
{
    return (int32_t)op->heads / (int32_t)op->kv_heads;
}

/* 0 where the op can run; sets nothing. */
static inline int attention_check(const struct tr_op_attention *op)
{
    if (op->heads <= 0 || op->kv_heads <= 0 || op->heads % op->kv_heads)
        return tr_cuda_refuse(-EINVAL,
                              "attention: %lld heads are not a multiple of %lld key-value heads",
                              (long long)op->heads, (long long)op->kv_heads);
    if (op->head_dim <= 0 || op->head_dim > 256 || op->n > 1 << 30 || op->heads > 65535)
        return tr_cuda_refuse(-EINVAL, "attention: %lld tokens, %lld heads of %lld: too many",
                              (long long)op->n, (long long)op->heads, (long long)op->head_dim);
    return 0;
}

/* Tensor cores take 16-bit heads of whole 8-byte pieces, as wide as a tile of shared memory. */
static inline bool attention_on_tensor_cores(const struct tr_op_attention *op)
{
    return op->dtype != TR_F32 && op->head_dim % 4 == 0 && op->head_dim <= 128;
}

/* Bytes of shared memory that a multiprocessor has, and that a block of so many takes of them. */
static inline size_t attention_room(const struct tr_cuda *cuda)
{
    if (!tr_cuda_large(cuda))
        return 100 << 10;
    return cuda->sm == 80 ? 164 << 10 : 228 << 10;
}

static constexpr size_t attention_takes(size_t bytes)
{
    return bytes + (1 << 10);
}

/* The width of a tile as a type, for what is chosen by it (mma_by_width, plain_by_width). */
template <int HD> struct attention_width {
    static constexpr int value = HD;
};

static inline dim3 attention_grid(const struct tr_op_attention *op, int size, int64_t heads)
{
    return dim3((unsigned)((op->n + size - 1) / size), (unsigned)heads);
}

/* Allows a kernel that many bytes of shared memory; 48 KiB need no asking. */
template <class... P> static int attention_shared(void (*kernel)(P...), size_t bytes)
{
    cudaError_t e =
        bytes <= 48 << 10
            ? cudaSuccess
            : cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, (int)bytes);

    return e == cudaSuccess ? 0 : tr_cuda_error(e, "attention: %zu bytes of shared memory", bytes);
}

#endif
