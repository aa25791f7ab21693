/* SPDX-License-Identifier: Apache-2.0
 *
 * AdamW with decoupled weight decay: the arithmetic of device.h, operation by operation, in f32
 * whatever the state is kept in. The caller's bias corrections come in step_size and sqrt_bias2.
 *
 * A root and two quotients, correctly rounded, are most of an element's instructions: nvcc's own
 * ask of each operand whether a short sequence will do, and branch around a call. Here a group
 * takes the short ones (kernels/exact.cuh) and looks at its new weights, once, whether their bits
 * may be other than those of the plain way:
 *
 * - The root is of v * 2^54; the divisor has the other 2^27. Where v is none to have a root of, the
 *   root is NaN, and so is the new weight.
 * - With the limits of adamw_quick the denominator lies between 2^-44 and 2^54. m over it is right
 *   where the quotient is normal and m at least 2^-100, or 0. Else it is less than 2^-55, either
 *   way, and too little to change a weight whose new value is 2^-29 or more. An m that is infinite,
 *   NaN or too large makes a new weight that is NaN, or the right infinity.
 *
 * So the bits are right where all new weights are numbers of at least 2^-29. Weights of 0, as fresh
 * biases have, take the plain way.
 */
#include "kernels/exact.cuh"
#include "kernels/update.cuh"

/* What is the same for all elements. */
struct adamw_bias {
    float divisor, reciprocal; /* sqrt_bias2 * 2^27, and 1 over it */
    bool quick;                /* the short sequences will do, but for single groups */
};

/* x = the new weights, of those that have decayed; false: they may not be. */
static __device__ __forceinline__ bool adamw_quickly(const struct tr_op_update &op,
                                                     const struct adamw_bias &bias,
                                                     const float w[VEC], const float m[VEC],
                                                     const float v[VEC], float x[VEC])
{
    float least = 1;

    for (int j = 0; j < VEC; j++) {
        float root = exact_quotient(exact_root(v[j]), bias.divisor, bias.reciprocal);
        float denominator = __fadd_rn(root, op.eps);
        float quotient = exact_quotient(m[j], denominator, exact_reciprocal(denominator));

        x[j] = __fmaf_rn(-op.step_size, quotient, w[j]);
        least = ptx_min_nan(least, fabsf(x[j]));
    }
    return least >= 0x1p-29f;
}

static __device__ __forceinline__ void adamw_plainly(const struct tr_op_update &op,
                                                     const float w[VEC], const float m[VEC],
                                                     const float v[VEC], float x[VEC])
{
    for (int j = 0; j < VEC; j++) {
        float root = __fdiv_rn(__fsqrt_rn(v[j]), op.sqrt_bias2);
        float quotient = __fdiv_rn(m[j], __fadd_rn(root, op.eps));

        x[j] = __fmaf_rn(-op.step_size, quotient, w[j]);
    }
}

template <enum tr_dtype D, enum update_way R, enum tr_dtype S, bool whole>
static __device__ __forceinline__ void adamw_group(const struct update_args &a,
                                                   const struct adamw_bias &bias, int64_t i)
{
    const struct tr_op_update &op = a.op;
    float rest1 = __fsub_rn(1.0f, op.beta1), rest2 = __fsub_rn(1.0f, op.beta2);
    float w[VEC], g[VEC], m[VEC], v[VEC], x[VEC];

    update_get<D, R, whole>(op, i, w);
    update_get_gradients<whole>(op, i, g);
    update_get_state<S, TR_CODE8_SIGNED, whole>(op, i, op.m, m);
    update_get_state<S, TR_CODE8_SQUARES, whole>(op, i, op.v, v);
    for (int j = 0; j < VEC; j++) {
        m[j] = __fmaf_rn(rest1, __fsub_rn(g[j], m[j]), m[j]);
        v[j] = __fmaf_rn(__fmul_rn(rest2, g[j]), g[j], __fmul_rn(op.beta2, v[j]));
    }
    update_decay(op, w);
    if (!whole || !bias.quick || !adamw_quickly(op, bias, w, m, v, x))
        adamw_plainly(op, w, m, v, x);
    update_put_state<S, TR_CODE8_SIGNED, whole>(a, i, op.m, m);
    update_put_state<S, TR_CODE8_SQUARES, whole>(a, i, op.v, v);
    update_put<D, R, whole>(a, i, x);
}

template <enum tr_dtype D, enum update_way R, enum tr_dtype S>
static __global__ void __launch_bounds__(VEC_THREADS)
    adamw(const struct update_args a, const struct adamw_bias bias)
{
    int64_t i = update_index(a);

    if (update_whole<S>(a, i))
        adamw_group<D, R, S, true>(a, bias, i);
    else
        adamw_group<D, R, S, false>(a, bias, i);
}

static bool adamw_quick(const struct tr_op_update *op)
{
    return op->sqrt_bias2 >= 0x1p-16f && op->sqrt_bias2 <= 2 && op->eps >= 0x1p-44f &&
           op->eps <= 1 && fabsf(op->step_size) <= 1;
}

int tr_cuda_adamw(const struct tr_cuda *cuda, const struct tr_op_update *op)
{
    float divisor = op->sqrt_bias2 * 0x1p27f;
    struct adamw_bias bias = {divisor, 1 / divisor, adamw_quick(op)};
    struct update_args args;
    unsigned blocks = 0;
    int ret = update_prepare(op, op->m, op->v, &args, &blocks);

    if (ret || !blocks)
        return ret;
    UPDATE_BY_DTYPES(op, D, R, S,
                     TR_LAUNCH((adamw<D, R, S>), blocks, VEC_THREADS, 0, cuda->stream, args, bias));
    return tr_cuda_launched(cuda, "adamw");
}
