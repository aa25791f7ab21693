/* SPDX-License-Identifier: Apache-2.0
 *
 * AdamW with decoupled weight decay: the arithmetic of device.h, operation by operation. The state
 * is f32 and the caller's bias corrections come in step_size and sqrt_bias2.
 */
#include "kernels/update.cuh"

template <enum tr_dtype D, bool stochastic, bool whole>
static __device__ __forceinline__ void adamw_group(const struct tr_op_update &op, int64_t i)
{
    float rest1 = __fsub_rn(1.0f, op.beta1), rest2 = __fsub_rn(1.0f, op.beta2);
    float w[VEC], g[VEC], m[VEC], v[VEC];

    vec_get<D, whole>(w, op.w, i, op.n);
    vec_get<TR_F32, whole>(g, op.g, i, op.n);
    vec_get<TR_F32, whole>(m, op.m, i, op.n);
    vec_get<TR_F32, whole>(v, op.v, i, op.n);
    for (int j = 0; j < VEC; j++) {
        float gradient = update_gradient(op, g[j]);

        m[j] = __fmaf_rn(rest1, __fsub_rn(gradient, m[j]), m[j]);
        v[j] = __fmaf_rn(__fmul_rn(rest2, gradient), gradient, __fmul_rn(op.beta2, v[j]));
        float root = __fdiv_rn(__fsqrt_rn(v[j]), op.sqrt_bias2);
        w[j] = __fmaf_rn(-op.step_size, __fdiv_rn(m[j], __fadd_rn(root, op.eps)),
                         update_decayed(op, w[j]));
    }
    vec_put<TR_F32, whole>(op.m, i, op.n, m);
    vec_put<TR_F32, whole>(op.v, i, op.n, v);
    update_put<D, stochastic, whole>(op, i, w);
}

template <enum tr_dtype D, bool stochastic>
static __global__ void __launch_bounds__(VEC_THREADS) adamw(const struct tr_op_update op)
{
    int64_t i = update_index(op);

    if (vec_whole<D>(op.w, i, op.n) && vec_whole<TR_F32>(op.g, i, op.n) &&
        vec_whole<TR_F32>(op.m, i, op.n) && vec_whole<TR_F32>(op.v, i, op.n))
        adamw_group<D, stochastic, true>(op, i);
    else
        adamw_group<D, stochastic, false>(op, i);
}

int tr_cuda_adamw(const struct tr_cuda *cuda, const struct tr_op_update *op)
{
    unsigned blocks = 0;
    int ret = update_blocks(op, &blocks);

    if (ret || !blocks)
        return ret;
    if (op->dtype == TR_BF16 && op->rounding == TR_ROUND_STOCHASTIC)
        TR_LAUNCH((adamw<TR_BF16, true>), blocks, VEC_THREADS, 0, cuda->stream, *op);
    else
        TR_BY_DTYPE(op->dtype, D,
                    TR_LAUNCH((adamw<D, false>), blocks, VEC_THREADS, 0, cuda->stream, *op));
    return tr_cuda_launched(cuda, "adamw");
}
