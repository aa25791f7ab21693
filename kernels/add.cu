/* SPDX-License-Identifier: Apache-2.0
 *
 * out = round(a + b): the residual stream. A thread reads its group before it writes it, so out may
 * be a or b.
 */
#include "kernels/cuda.h"

#include "kernels/launch.cuh"
#include "kernels/vec.cuh"

template <enum tr_dtype A, enum tr_dtype O, bool whole>
static __device__ __forceinline__ void add_group(const struct tr_op_add &op, int64_t i)
{
    float a[VEC], b[VEC];

    vec_get<A, whole>(a, op.a, i, op.n);
    vec_get<TR_F32, whole>(b, op.b, i, op.n);
    for (int j = 0; j < VEC; j++)
        a[j] += b[j];
    vec_put<O, whole>(op.out, i, op.n, a);
}

template <enum tr_dtype A, enum tr_dtype O>
static __global__ void __launch_bounds__(VEC_THREADS) add(const struct tr_op_add op)
{
    int64_t i = vec_index();

    if (vec_whole<A>(op.a, i, op.n) && vec_whole<TR_F32>(op.b, i, op.n) &&
        vec_whole<O>(op.out, i, op.n))
        add_group<A, O, true>(op, i);
    else
        add_group<A, O, false>(op, i);
}

int tr_cuda_add(const struct tr_cuda *cuda, const struct tr_op_add *op)
{
    unsigned blocks = vec_blocks(op->n);

    if (op->n == 0)
        return 0;
    TR_BY_DTYPE(op->a_dtype, A,
                TR_BY_DTYPE(op->out_dtype, O,
                            TR_LAUNCH((add<A, O>), blocks, VEC_THREADS, 0, cuda->stream, *op)));
    return tr_cuda_launched(cuda, "add");
}
