/* SPDX-License-Identifier: Apache-2.0
 *
 * Dropout and scaling to f32: the bits of cpu/dropout.c. Two draws of four words serve a group of
 * eight elements where it begins at a multiple of four, else three.
 */
#include "kernels/cuda.h"

#include "kernels/launch.cuh"
#include "kernels/vec.cuh"
#include "src/base/philox.h"

static __device__ __forceinline__ void drop_group(const struct tr_op_dropout &op, int64_t i,
                                                  float x[VEC])
{
    uint64_t first = (uint64_t)(op.first + i);
    struct tr_philox r = tr_philox_drop(first, op.step, op.seed, op.name);

    for (int j = 0; j < VEC; j++) {
        uint64_t at = first + (uint64_t)j;

        if (j > 0 && at % 4 == 0)
            r = tr_philox_drop(at, op.step, op.seed, op.name);
        if (r.v[at % 4] < op.threshold)
            x[j] = 0;
    }
}

template <enum tr_dtype F, bool whole>
static __device__ __forceinline__ void scale_group(const struct tr_op_dropout &op, int64_t i)
{
    float x[VEC];

    vec_get<F, whole>(x, op.from, i, op.n);
    for (int j = 0; j < VEC; j++)
        x[j] = __fmul_rn(x[j], op.scale);
    if (op.threshold)
        drop_group(op, i, x);
    vec_put<TR_F32, whole>(op.to, i, op.n, x);
}

template <enum tr_dtype F>
static __global__ void __launch_bounds__(VEC_THREADS) dropout(const struct tr_op_dropout op)
{
    int64_t i = vec_index();

    if (vec_whole<F>(op.from, i, op.n) && vec_whole<TR_F32>(op.to, i, op.n))
        scale_group<F, true>(op, i);
    else
        scale_group<F, false>(op, i);
}

int tr_cuda_dropout(const struct tr_cuda *cuda, const struct tr_op_dropout *op)
{
    unsigned blocks = vec_blocks(op->n);

    if (op->n == 0)
        return 0;
    TR_BY_DTYPE(op->from_dtype, F,
                TR_LAUNCH(dropout<F>, blocks, VEC_THREADS, 0, cuda->stream, *op));
    return tr_cuda_launched(cuda, "dropout");
}
