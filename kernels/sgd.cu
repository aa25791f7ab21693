/* SPDX-License-Identifier: Apache-2.0
 *
 * LOMO's update (plain SGD without clipping): the arithmetic of device.h, operation by operation.
 */
#include "kernels/update.cuh"

template <enum tr_dtype D, enum update_way R, bool whole>
static __device__ __forceinline__ void sgd_group(const struct update_args &a, int64_t i)
{
    const struct tr_op_update &op = a.op;
    float w[VEC], g[VEC];

    update_get<D, R, whole>(op, i, w);
    update_get_gradients<whole>(op, i, g);
    update_decay(op, w);
    for (int j = 0; j < VEC; j++)
        w[j] = __fmaf_rn(-op.lr, g[j], w[j]);
    update_put<D, R, whole>(a, i, w);
}

template <enum tr_dtype D, enum update_way R>
static __global__ void __launch_bounds__(VEC_THREADS) sgd(const struct update_args a)
{
    int64_t i = update_index(a);

    if (update_whole(a, i))
        sgd_group<D, R, true>(a, i);
    else
        sgd_group<D, R, false>(a, i);
}

int tr_cuda_sgd(const struct tr_cuda *cuda, const struct tr_op_update *op)
{
    struct update_args args;
    unsigned blocks = 0;
    int ret = update_prepare(op, NULL, NULL, &args, &blocks);

    if (ret || !blocks)
        return ret;
    UPDATE_BY_WEIGHTS(op, D, R, TR_LAUNCH((sgd<D, R>), blocks, VEC_THREADS, 0, cuda->stream, args));
    return tr_cuda_launched(cuda, "sgd");
}
