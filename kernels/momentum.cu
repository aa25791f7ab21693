/* SPDX-License-Identifier: Apache-2.0
 *
 * SGD with momentum: the arithmetic of device.h, operation by operation.
 */
#include "kernels/update.cuh"

template <enum tr_dtype D, enum update_way R, enum tr_dtype S, bool whole>
static __device__ __forceinline__ void momentum_group(const struct tr_op_update &op, int64_t i)
{
    float w[VEC], g[VEC], m[VEC];

    update_get<D, R, whole>(op, i, w);
    vec_get<TR_F32, whole>(g, op.g, i, op.n);
    update_get_state<S, TR_CODE8_SIGNED, whole>(op, i, op.m, m);
    for (int j = 0; j < VEC; j++) {
        m[j] = __fmaf_rn(op.beta1, m[j], update_gradient(op, g[j]));
        w[j] = __fmaf_rn(-op.lr, m[j], update_decayed(op, w[j]));
    }
    update_put_state<S, TR_CODE8_SIGNED, whole>(op, i, op.m, m);
    update_put<D, R, whole>(op, i, w);
}

template <enum tr_dtype D, enum update_way R, enum tr_dtype S>
static __global__ void __launch_bounds__(VEC_THREADS) momentum(const struct tr_op_update op)
{
    int64_t i = update_index(op);

    if (update_state_whole<S>(op, i, update_whole<D, R>(op, i), NULL))
        momentum_group<D, R, S, true>(op, i);
    else
        momentum_group<D, R, S, false>(op, i);
}

int tr_cuda_momentum(const struct tr_cuda *cuda, const struct tr_op_update *op)
{
    unsigned blocks = 0;
    int ret = update_blocks(op, &blocks);

    if (ret || !blocks)
        return ret;
    UPDATE_BY_DTYPES(op, D, R, S,
                     TR_LAUNCH((momentum<D, R, S>), blocks, VEC_THREADS, 0, cuda->stream, *op));
    return tr_cuda_launched(cuda, "momentum");
}
