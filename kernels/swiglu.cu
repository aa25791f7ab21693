/* SPDX-License-Identifier: Apache-2.0
 *
 * out = silu(gate) * up and its gradient, silu(x) = x * s, s = 1 / (1 + exp(-x)), in f32 with every
 * step rounded and the accurate exp. A thread reads its group before it writes it: dgate and dup
 * may be gate and up, dgate may be dout.
 */
#include "kernels/cuda.h"

#include "kernels/launch.cuh"
#include "kernels/vec.cuh"

static __device__ __forceinline__ float sigmoid(float x)
{
    return __fdiv_rn(1.0f, __fadd_rn(1.0f, expf(-x)));
}

template <enum tr_dtype D, bool whole>
static __device__ __forceinline__ void forward_group(const struct tr_op_swiglu &op, int64_t i)
{
    float x[VEC], u[VEC];

    vec_get<D, whole>(x, op.gate, i, op.n);
    vec_get<D, whole>(u, op.up, i, op.n);
    for (int j = 0; j < VEC; j++)
        x[j] = __fmul_rn(__fmul_rn(x[j], sigmoid(x[j])), u[j]);
    vec_put<D, whole>(op.out, i, op.n, x);
}

template <enum tr_dtype D, bool whole>
static __device__ __forceinline__ void backward_group(const struct tr_op_swiglu &op, int64_t i)
{
    float x[VEC], u[VEC], d[VEC];

    vec_get<D, whole>(x, op.gate, i, op.n);
    vec_get<D, whole>(u, op.up, i, op.n);
    vec_get<D, whole>(d, op.dout, i, op.n);
    for (int j = 0; j < VEC; j++) {
        float s = sigmoid(x[j]), rest = __fsub_rn(1.0f, s);
        float slope = __fmul_rn(s, __fadd_rn(1.0f, __fmul_rn(x[j], rest)));

        u[j] = __fmul_rn(__fmul_rn(d[j], u[j]), slope);
        x[j] = __fmul_rn(d[j], __fmul_rn(x[j], s));
    }
    vec_put<D, whole>(op.dgate, i, op.n, u);
    vec_put<D, whole>(op.dup, i, op.n, x);
}

template <enum tr_dtype D>
static __global__ void __launch_bounds__(VEC_THREADS) swiglu_forward(const struct tr_op_swiglu op)
{
    int64_t i = vec_index();

    if (vec_whole<D>(op.gate, i, op.n) && vec_whole<D>(op.up, i, op.n) &&
        vec_whole<D>(op.out, i, op.n))
        forward_group<D, true>(op, i);
    else
        forward_group<D, false>(op, i);
}

template <enum tr_dtype D>
static __global__ void __launch_bounds__(VEC_THREADS) swiglu_backward(const struct tr_op_swiglu op)
{
    int64_t i = vec_index();

    if (vec_whole<D>(op.gate, i, op.n) && vec_whole<D>(op.up, i, op.n) &&
        vec_whole<D>(op.dout, i, op.n) && vec_whole<D>(op.dgate, i, op.n) &&
        vec_whole<D>(op.dup, i, op.n))
        backward_group<D, true>(op, i);
    else
        backward_group<D, false>(op, i);
}

int tr_cuda_swiglu(const struct tr_cuda *cuda, const struct tr_op_swiglu *op)
{
    unsigned blocks = vec_blocks(op->n);

    if (op->n == 0)
        return 0;
    TR_BY_DTYPE(op->dtype, D,
                TR_LAUNCH(swiglu_forward<D>, blocks, VEC_THREADS, 0, cuda->stream, *op));
    return tr_cuda_launched(cuda, "swiglu");
}

int tr_cuda_swiglu_grad(const struct tr_cuda *cuda, const struct tr_op_swiglu *op)
{
    unsigned blocks = vec_blocks(op->n);

    if (op->n == 0)
        return 0;
    TR_BY_DTYPE(op->dtype, D,
                TR_LAUNCH(swiglu_backward<D>, blocks, VEC_THREADS, 0, cuda->stream, *op));
    return tr_cuda_launched(cuda, "swiglu_grad");
}
