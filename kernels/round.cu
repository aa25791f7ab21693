/* SPDX-License-Identifier: Apache-2.0
 *
 * f32 values rounded in place to the grid of a storage dtype.
 */
#include "kernels/cuda.h"

#include "kernels/launch.cuh"
#include "kernels/vec.cuh"

template <enum tr_dtype D, bool whole>
static __device__ __forceinline__ void round_group(const struct tr_op_round &op, int64_t i)
{
    float x[VEC];

    vec_get<TR_F32, whole>(x, op.x, i, op.n);
    for (int j = 0; j < VEC; j += 2)
        vec_unpack<D>(x + j, vec_pack<D>(x + j));
    vec_put<TR_F32, whole>(op.x, i, op.n, x);
}

template <enum tr_dtype D>
static __global__ void __launch_bounds__(VEC_THREADS) round_in_place(const struct tr_op_round op)
{
    int64_t i = vec_index();

    if (vec_whole<TR_F32>(op.x, i, op.n))
        round_group<D, true>(op, i);
    else
        round_group<D, false>(op, i);
}

int tr_cuda_round(const struct tr_cuda *cuda, const struct tr_op_round *op)
{
    unsigned blocks = vec_blocks(op->n);

    if (op->n == 0 || op->dtype == TR_F32)
        return 0;
    if (op->dtype == TR_BF16)
        TR_LAUNCH(round_in_place<TR_BF16>, blocks, VEC_THREADS, 0, cuda->stream, *op);
    else
        TR_LAUNCH(round_in_place<TR_F16>, blocks, VEC_THREADS, 0, cuda->stream, *op);
    return tr_cuda_launched(cuda, "round");
}
