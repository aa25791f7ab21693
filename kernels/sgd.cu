/* SPDX-License-Identifier: Apache-2.0
 *
 * LOMO's update (plain SGD without clipping): the arithmetic of device.h, operation by operation.
 */
#include "kernels/update.cuh"

template <enum tr_dtype D, enum update_way R, bool whole>
static __device__ __forceinline__ void sgd_group(const struct tr_op_update &op, int64_t i)
{
    float w[VEC], g[VEC];

    update_get<D, R, whole>(op, i, w);
    vec_get<TR_F32, whole>(g, op.g, i, op.n);
    for (int j = 0; j < VEC; j++)
        w[j] = __fmaf_rn(-op.lr, update_gradient(op, g[j]), update_decayed(op, w[j]));
    update_put<D, R, whole>(op, i, w);
}

template <enum tr_dtype D, enum update_way R>
static __global__ void __launch_bounds__(VEC_THREADS) sgd(const struct tr_op_update op)
{
    int64_t i = update_index(op);

    if (update_whole<D, R>(op, i))
        sgd_group<D, R, true>(op, i);
    else
        sgd_group<D, R, false>(op, i);
}

int tr_cuda_sgd(const struct tr_cuda *cuda, const struct tr_op_update *op)
{
    unsigned blocks = 0;
    int ret = update_blocks(op, &blocks);

    if (ret || !blocks)
        return ret;
    UPDATE_BY_WEIGHTS(op, D, R,
                      TR_LAUNCH((sgd<D, R>), blocks, VEC_THREADS, 0, cuda->stream, *op));
    return tr_cuda_launched(cuda, "sgd");
}
