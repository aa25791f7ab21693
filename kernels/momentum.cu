/* SPDX-License-Identifier: Apache-2.0
 *
 * SGD with momentum: the arithmetic of device.h, operation by operation.
 */
#include "kernels/update.cuh"

template <enum tr_dtype D, bool stochastic, bool whole>
static __device__ __forceinline__ void momentum_group(const struct tr_op_update &op, int64_t i)
{
    float w[VEC], g[VEC], m[VEC];

    vec_get<D, whole>(w, op.w, i, op.n);
    vec_get<TR_F32, whole>(g, op.g, i, op.n);
    vec_get<TR_F32, whole>(m, op.m, i, op.n);
    for (int j = 0; j < VEC; j++) {
        m[j] = __fmaf_rn(op.beta1, m[j], update_gradient(op, g[j]));
        w[j] = __fmaf_rn(-op.lr, m[j], update_decayed(op, w[j]));
    }
    vec_put<TR_F32, whole>(op.m, i, op.n, m);
    update_put<D, stochastic, whole>(op, i, w);
}

template <enum tr_dtype D, bool stochastic>
static __global__ void __launch_bounds__(VEC_THREADS) momentum(const struct tr_op_update op)
{
    int64_t i = update_index(op);

    if (vec_whole<D>(op.w, i, op.n) && vec_whole<TR_F32>(op.g, i, op.n) &&
        vec_whole<TR_F32>(op.m, i, op.n))
        momentum_group<D, stochastic, true>(op, i);
    else
        momentum_group<D, stochastic, false>(op, i);
}

int tr_cuda_momentum(const struct tr_cuda *cuda, const struct tr_op_update *op)
{
    unsigned blocks = 0;
    int ret = update_blocks(op, &blocks);

    if (ret || !blocks)
        return ret;
    if (op->dtype == TR_BF16 && op->rounding == TR_ROUND_STOCHASTIC)
        TR_LAUNCH((momentum<TR_BF16, true>), blocks, VEC_THREADS, 0, cuda->stream, *op);
    else
        TR_BY_DTYPE(op->dtype, D,
                    TR_LAUNCH((momentum<D, false>), blocks, VEC_THREADS, 0, cuda->stream, *op));
    return tr_cuda_launched(cuda, "momentum");
}
