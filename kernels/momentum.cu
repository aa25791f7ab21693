/* SPDX-License-Identifier: Apache-2.0
 *
 * SGD with momentum: the arithmetic of device.h, operation by operation.
 */
#include "kernels/update.cuh"

template <enum tr_dtype D, enum update_way R, enum tr_dtype S, bool whole>
static __device__ __forceinline__ void momentum_group(const struct update_args &a, int64_t i)
{
    const struct tr_op_update &op = a.op;
    float w[VEC], g[VEC], m[VEC];

    update_get<D, R, whole>(op, i, w);
    update_get_gradients<whole>(op, i, g);
    update_get_state<S, TR_CODE8_SIGNED, whole>(op, i, op.m, m);
    update_decay(op, w);
    for (int j = 0; j < VEC; j++) {
        m[j] = __fmaf_rn(op.beta1, m[j], g[j]);
        w[j] = __fmaf_rn(-op.lr, m[j], w[j]);
    }
    update_put<D, R, whole>(a, i, w);
    update_put_state<S, TR_CODE8_SIGNED, whole>(a, i, op.m, m);
}

template <enum tr_dtype D, enum update_way R, enum tr_dtype S>
static __global__ void __launch_bounds__(VEC_THREADS) momentum(const struct update_args a)
{
    int64_t i = update_index(a);

    if (update_whole<S>(a, i))
        momentum_group<D, R, S, true>(a, i);
    else
        momentum_group<D, R, S, false>(a, i);
}

int tr_cuda_momentum(const struct tr_cuda *cuda, const struct tr_op_update *op)
{
    struct update_args args;
    unsigned blocks = 0;
    int ret = update_prepare(op, op->m, NULL, &args, &blocks);

    if (ret || !blocks)
        return ret;
    UPDATE_BY_DTYPES(op, D, R, S,
                     TR_LAUNCH((momentum<D, R, S>), blocks, VEC_THREADS, 0, cuda->stream, args));
    return tr_cuda_launched(cuda, "momentum");
}
