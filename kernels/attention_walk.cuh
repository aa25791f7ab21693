/* SPDX-License-Identifier: Apache-2.0
 *
 * The way of a block of attention's backward, shared by its two families of kernels: over the heads
 * of the group and the queries that see its keys, or over the keys that its queries see.
 */
#ifndef TR_KERNELS_ATTENTION_WALK_CUH
#define TR_KERNELS_ATTENTION_WALK_CUH

#include "kernels/attention.cuh"

/* Where a block is on its walk. */
struct grad_walk {
    int32_t head, end_head; /* of queries */
    int32_t column;
    struct attention_reach columns;
};

template <int KEYS>
static __device__ __forceinline__ struct grad_walk
grad_begin(const struct tr_op_attention *op, const struct attention_tile *t, int size, int step)
{
    int32_t group = attention_group(op), span = attention_span(op);
    int32_t head = (int32_t)blockIdx.y * (KEYS ? group : 1);
    struct attention_reach columns =
        KEYS ? attention_queries(t, size, span) : attention_keys(t, size, span, step);

    return {head, head + (KEYS ? group : 1), columns.begin, columns};
}

/* Where it goes next; false at the end of the way. */
static __device__ __forceinline__ bool grad_advance(struct grad_walk *w, int32_t step)
{
    w->column += step;
    if (w->column < w->columns.end)
        return true;
    w->column = w->columns.begin;
    return ++w->head < w->end_head;
}

/* What the exponential and the gradient of a query's scores need, ready for one fma each:
 * p = 2^(s * scale * log2(e) + lse), ds = p * (dp * scale + delta). */
static __device__ __forceinline__ float grad_lse(const struct tr_op_attention *op,
                                                 const struct attention_tile *t, int32_t query,
                                                 int32_t head)
{
    return query < t->length
               ? -op->lse[(int64_t)(t->doc + query) * op->heads + head] * ATTENTION_LOG2E
               : -INFINITY; /* no query: p is 0 */
}

static __device__ __forceinline__ float grad_delta(const struct tr_op_attention *op,
                                                   const struct attention_tile *t, int32_t query,
                                                   int32_t head)
{
    return query < t->length ? -op->delta[(int64_t)(t->doc + query) * op->heads + head] * op->scale
                             : 0;
}

/* Early keys are seen by most queries, late queries see most keys: long walks begin first. */
template <int KEYS> static __device__ __forceinline__ int32_t grad_window(int size)
{
    return (int32_t)(KEYS ? blockIdx.x : gridDim.x - 1 - blockIdx.x) * size;
}

#endif
