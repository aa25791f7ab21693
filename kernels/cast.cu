/* SPDX-License-Identifier: Apache-2.0
 *
 * Conversion between dtypes, rounded to nearest: the bits of src/base/dtype.h.
 */
#include "kernels/cuda.h"

#include "kernels/launch.cuh"
#include "kernels/vec.cuh"

template <enum tr_dtype F, enum tr_dtype T, bool whole>
static __device__ __forceinline__ void cast_group(const struct tr_op_cast &op, int64_t i)
{
    float x[VEC];

    vec_get<F, whole>(x, op.from, i, op.n);
    vec_put<T, whole>(op.to, i, op.n, x);
}

template <enum tr_dtype F, enum tr_dtype T>
static __global__ void __launch_bounds__(VEC_THREADS) cast(const struct tr_op_cast op)
{
    int64_t i = vec_index();

    if (vec_whole<F>(op.from, i, op.n) && vec_whole<T>(op.to, i, op.n))
        cast_group<F, T, true>(op, i);
    else
        cast_group<F, T, false>(op, i);
}

int tr_cuda_cast(const struct tr_cuda *cuda, const struct tr_op_cast *op)
{
    unsigned blocks = vec_blocks(op->n);

    if (op->n == 0)
        return 0;
    TR_BY_DTYPE(op->from_dtype, F,
                TR_BY_DTYPE(op->to_dtype, T,
                            TR_LAUNCH((cast<F, T>), blocks, VEC_THREADS, 0, cuda->stream, *op)));
    return tr_cuda_launched(cuda, "cast");
}
