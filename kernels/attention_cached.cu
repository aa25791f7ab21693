/* SPDX-License-Identifier: Apache-2.0
 *
 * Attention to keys and values that are kept from one call to the next: what generation does for
 * each new token. A block has one query head of one token; its warps take the keys in turn, each
 * with a running maximum and sum of its own, and their results are joined in the order of the
 * warps. What this costs is the reading of the cache, not the arithmetic: no tensor cores.
 */
#include "kernels/cuda.h"

#include "kernels/reduce.cuh"
#include "kernels/vec.cuh"

#define CACHED_WARPS   4
#define CACHED_THREADS (CACHED_WARPS * 32)
#define CACHED_WIDEST  256                  /* of a head */
#define CACHED_EACH    (CACHED_WIDEST / 32) /* elements of a lane */

/* T: an element's bits. */
template <class T>
static __global__ void __launch_bounds__(VEC_THREADS)
    keep_rows(const struct tr_op_attention_cached op)
{
    int64_t width = op.kv_heads * op.head_dim;
    int64_t i = (int64_t)blockIdx.x * blockDim.x + threadIdx.x;
    int64_t token = i / width, to = token < op.n ? op.row[token] * width + i % width : 0;

    if (token >= op.n)
        return;
    ((T *)op.k_cache)[to] = ((const T *)op.k)[i];
    ((T *)op.v_cache)[to] = ((const T *)op.v)[i];
}

/* A warp's part of a softmax: each lane has the elements lane + 32 i of the sum of values. */
struct cached_part {
    float base, sum, o[CACHED_EACH];
};

/* One key and value more, which begin at element `at` of the cache. */
template <enum tr_dtype D>
static __device__ __forceinline__ void cached_add(struct cached_part *p, const float q[CACHED_EACH],
                                                  const struct tr_op_attention_cached &op,
                                                  int64_t at)
{
    int lane = threadIdx.x % 32;
    float s = 0, most, base, shrink, e;

#pragma unroll
    for (int i = 0; i < CACHED_EACH; i++)
        if (lane + 32 * i < op.head_dim)
            s += q[i] * vec_load<D>(op.k_cache, at + lane + 32 * i);
    s = reduce_lanes(s, 32) * op.scale;
    most = fmaxf(p->base, s);
    base = most == -INFINITY ? 0 : most; /* nothing is seen yet */
    shrink = expf(p->base - base);
    e = expf(s - base);
    p->base = most;
    p->sum = p->sum * shrink + e;
#pragma unroll
    for (int i = 0; i < CACHED_EACH; i++)
        if (lane + 32 * i < op.head_dim)
            p->o[i] = p->o[i] * shrink + e * vec_load<D>(op.v_cache, at + lane + 32 * i);
}

/* The parts of all warps, joined and written. */
template <enum tr_dtype D>
static __device__ __forceinline__ void cached_finish(const struct cached_part *p,
                                                     const struct tr_op_attention_cached &op)
{
    TR_SHARED(float, o, [CACHED_WARPS][CACHED_WIDEST]);
    TR_SHARED(float, base, [CACHED_WARPS]);
    TR_SHARED(float, sum, [CACHED_WARPS]);
    int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    int64_t to = ((int64_t)blockIdx.x * op.heads + blockIdx.y) * op.head_dim;
    float most = -INFINITY;

#pragma unroll
    for (int i = 0; i < CACHED_EACH; i++)
        o[warp][lane + 32 * i] = p->o[i];
    if (lane == 0) {
        base[warp] = p->base;
        sum[warp] = p->sum;
    }
    __syncthreads();
    for (int w = 0; w < CACHED_WARPS; w++)
        most = fmaxf(most, base[w]);
    for (int i = threadIdx.x; i < op.head_dim; i += CACHED_THREADS) {
        float total = 0, x = 0;

        for (int w = 0; w < CACHED_WARPS; w++) {
            float by = expf(base[w] - most);

            total += sum[w] * by;
            x += o[w][i] * by;
        }
        vec_store<D>(op.o, to + i, x / total);
    }
}

template <enum tr_dtype D>
static __global__ void __launch_bounds__(CACHED_THREADS)
    attend_cached(const struct tr_op_attention_cached op)
{
    int64_t token = blockIdx.x, head = blockIdx.y, kv = head / (op.heads / op.kv_heads);
    int64_t last = op.row[token], first = op.first[token];
    int lane = threadIdx.x % 32;
    struct cached_part p = {-INFINITY, 0, {0}};
    float q[CACHED_EACH];

    if (op.window && last + 1 - op.window > first)
        first = last + 1 - op.window;
#pragma unroll
    for (int i = 0; i < CACHED_EACH; i++)
        q[i] = lane + 32 * i < op.head_dim
                   ? vec_load<D>(op.q, (token * op.heads + head) * op.head_dim + lane + 32 * i)
                   : 0;
    for (int64_t key = first + threadIdx.x / 32; key <= last; key += CACHED_WARPS)
        cached_add<D>(&p, q, op, (key * op.kv_heads + kv) * op.head_dim);
    cached_finish<D>(&p, op);
}

static int check(const struct tr_op_attention_cached *op)
{
    if (op->heads <= 0 || op->kv_heads <= 0 || op->heads % op->kv_heads)
        return tr_cuda_refuse(-EINVAL,
                              "attention: %lld heads are not a multiple of %lld key-value heads",
                              (long long)op->heads, (long long)op->kv_heads);
    if (op->head_dim <= 0 || op->head_dim > CACHED_WIDEST || op->n > 1 << 30 || op->heads > 65535)
        return tr_cuda_refuse(-EINVAL, "attention: %lld tokens, %lld heads of %lld: too many",
                              (long long)op->n, (long long)op->heads, (long long)op->head_dim);
    return 0;
}

int tr_cuda_attention_cached(const struct tr_cuda *cuda, const struct tr_op_attention_cached *op)
{
    int64_t elements = op->n * op->kv_heads * op->head_dim;
    unsigned blocks = (unsigned)((elements + VEC_THREADS - 1) / VEC_THREADS);
    dim3 grid((unsigned)op->n, (unsigned)op->heads);
    int ret = check(op);

    if (ret < 0 || op->n <= 0)
        return ret;
    if (op->dtype == TR_F32)
        TR_LAUNCH(keep_rows<uint32_t>, blocks, VEC_THREADS, 0, cuda->stream, *op);
    else
        TR_LAUNCH(keep_rows<uint16_t>, blocks, VEC_THREADS, 0, cuda->stream, *op);
    if (op->o)
        TR_BY_DTYPE(op->dtype, D,
                    TR_LAUNCH(attend_cached<D>, grid, CACHED_THREADS, 0, cuda->stream, *op));
    return tr_cuda_launched(cuda, "attention_cached");
}
