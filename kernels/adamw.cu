/* SPDX-License-Identifier: Apache-2.0
 *
 * AdamW with decoupled weight decay: the arithmetic of device.h, operation by operation, in f32
 * whatever the state is kept in. The caller's bias corrections come in step_size and sqrt_bias2.
 */
#include "kernels/update.cuh"

template <enum tr_dtype D, enum update_way R, enum tr_dtype S, bool whole>
static __device__ __forceinline__ void adamw_group(const struct update_args &a, int64_t i)
{
    const struct tr_op_update &op = a.op;
    float rest1 = __fsub_rn(1.0f, op.beta1), rest2 = __fsub_rn(1.0f, op.beta2);
    float w[VEC], g[VEC], m[VEC], v[VEC];

    update_get<D, R, whole>(op, i, w);
    update_get_gradients<whole>(op, i, g);
    update_get_state<S, TR_CODE8_SIGNED, whole>(op, i, op.m, m);
    update_get_state<S, TR_CODE8_SQUARES, whole>(op, i, op.v, v);
    update_decay(op, w);
    for (int j = 0; j < VEC; j++) {
        m[j] = __fmaf_rn(rest1, __fsub_rn(g[j], m[j]), m[j]);
        v[j] = __fmaf_rn(__fmul_rn(rest2, g[j]), g[j], __fmul_rn(op.beta2, v[j]));
        float root = __fdiv_rn(__fsqrt_rn(v[j]), op.sqrt_bias2);
        w[j] = __fmaf_rn(-op.step_size, __fdiv_rn(m[j], __fadd_rn(root, op.eps)), w[j]);
    }
    update_put_state<S, TR_CODE8_SIGNED, whole>(a, i, op.m, m);
    update_put_state<S, TR_CODE8_SQUARES, whole>(a, i, op.v, v);
    update_put<D, R, whole>(a, i, w);
}

template <enum tr_dtype D, enum update_way R, enum tr_dtype S>
static __global__ void __launch_bounds__(VEC_THREADS) adamw(const struct update_args a)
{
    int64_t i = update_index(a);

    if (update_whole<S>(a, i))
        adamw_group<D, R, S, true>(a, i);
    else
        adamw_group<D, R, S, false>(a, i);
}

int tr_cuda_adamw(const struct tr_cuda *cuda, const struct tr_op_update *op)
{
    struct update_args args;
    unsigned blocks = 0;
    int ret = update_prepare(op, op->m, op->v, &args, &blocks);

    if (ret || !blocks)
        return ret;
    UPDATE_BY_DTYPES(op, D, R, S,
                     TR_LAUNCH((adamw<D, R, S>), blocks, VEC_THREADS, 0, cuda->stream, args));
    return tr_cuda_launched(cuda, "adamw");
}
