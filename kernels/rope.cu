/* SPDX-License-Identifier: Apache-2.0
 *
 * Rotary positions in the rotate-half layout: pair (i, i + head_dim / 2) of every head is turned by
 * the angle of its token's position. The gradient turns back (inverse). A thread turns eight pairs
 * of one head; tokens with few pairs share a block. No fma, as on the cpu.
 */
#include "kernels/cuda.h"

#include "kernels/launch.cuh"
#include "kernels/vec.cuh"

/* One thread's pairs. */
struct pairs {
    void *x;                /* (head_dim) of the head */
    const float *cos, *sin; /* (half) of the token's position */
    int half, first;
    float sign;
};

template <enum tr_dtype D, bool whole>
static __device__ __forceinline__ void turn(const struct pairs &p)
{
    void *high = vec_at<D>(p.x, p.half);
    float a[VEC], b[VEC], c[VEC], s[VEC];

    vec_get<D, whole>(a, p.x, p.first, p.half);
    vec_get<D, whole>(b, high, p.first, p.half);
    vec_get<TR_F32, whole>(c, p.cos, p.first, p.half);
    vec_get<TR_F32, whole>(s, p.sin, p.first, p.half);
    for (int j = 0; j < VEC; j++) {
        float x = a[j], y = b[j], sine = s[j] * p.sign;

        a[j] = __fsub_rn(__fmul_rn(x, c[j]), __fmul_rn(y, sine));
        b[j] = __fadd_rn(__fmul_rn(y, c[j]), __fmul_rn(x, sine));
    }
    vec_put<D, whole>(p.x, p.first, p.half, a);
    vec_put<D, whole>(high, p.first, p.half, b);
}

template <enum tr_dtype D>
static __global__ void __launch_bounds__(VEC_THREADS) rope(const struct tr_op_rope op, int lanes)
{
    int64_t token = (int64_t)blockIdx.x * (blockDim.x / lanes) + threadIdx.x / lanes;
    int half = (int)(op.head_dim / 2), groups = (half + VEC - 1) / VEC;
    struct pairs p = {NULL, NULL, NULL, half, 0, op.inverse ? -1.0f : 1.0f};

    if (token >= op.n)
        return;
    p.cos = op.cos + (int64_t)op.position[token] * half;
    p.sin = op.sin + (int64_t)op.position[token] * half;
    for (int i = threadIdx.x % lanes; i < (int)op.heads * groups; i += lanes) {
        p.x = vec_at<D>(op.x, (token * op.heads + i / groups) * op.head_dim);
        p.first = i % groups * VEC;
        if (vec_whole<D>(p.x, p.first, half) && vec_whole<D>(vec_at<D>(p.x, half), p.first, half) &&
            vec_whole<TR_F32>(p.cos, p.first, half) && vec_whole<TR_F32>(p.sin, p.first, half))
            turn<D, true>(p);
        else
            turn<D, false>(p);
    }
}

int tr_cuda_rope(const struct tr_cuda *cuda, const struct tr_op_rope *op)
{
    int64_t groups = op->heads * ((op->head_dim / 2 + VEC - 1) / VEC);
    int lanes = vec_lanes(groups, VEC_THREADS), tokens = VEC_THREADS / lanes;
    unsigned blocks = (unsigned)((op->n + tokens - 1) / tokens);

    if (op->n == 0 || groups == 0)
        return 0;
    TR_BY_DTYPE(op->dtype, D, TR_LAUNCH(rope<D>, blocks, VEC_THREADS, 0, cuda->stream, *op, lanes));
    return tr_cuda_launched(cuda, "rope");
}
