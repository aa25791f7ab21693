/* SPDX-License-Identifier: Apache-2.0
 *
 * What all optimizers share on the device: the gradient as they see it, weight decay, and the way
 * back to the storage dtype. A thread updates one group of eight elements; with stochastic rounding
 * that is the group whose random bits come from one call of Philox. The arithmetic is that of
 * device.h, operation by operation, and so are the bits those of the cpu device.
 */
#ifndef TR_KERNELS_UPDATE_CUH
#define TR_KERNELS_UPDATE_CUH

#include "kernels/code8.cuh"
#include "kernels/cuda.h"
#include "kernels/launch.cuh"
#include "kernels/reduce.cuh"
#include "kernels/vec.cuh"
#include "src/base/philox.h"

#define UPDATE_PIECE 1024 /* elements that sums of squares are cut into */

/* By how much the first group begins before element 0: groups count from the tensor's start. */
static __host__ __device__ __forceinline__ int update_shift(const struct tr_op_update &op)
{
    bool weights = op.rounding == TR_ROUND_STOCHASTIC && op.dtype == TR_BF16;

    return weights || op.state_dtype == TR_BF16 ? (int)(op.first % VEC) : 0;
}

/* The first element of this thread's group: the first group may begin before element 0. */
static __device__ __forceinline__ int64_t update_index(const struct tr_op_update &op)
{
    return vec_index() - update_shift(op);
}

static __device__ __forceinline__ float update_gradient(const struct tr_op_update &op, float g)
{
    g = __fmul_rn(g, op.unscale);
    if (op.clip_value > 0) {
        g = -op.clip_value > g ? -op.clip_value : g;
        g = op.clip_value < g ? op.clip_value : g;
    }
    return __fmul_rn(g, op.coefficient);
}

static __device__ __forceinline__ float update_decayed(const struct tr_op_update &op, float w)
{
    float decay = __fsub_rn(1.0f, __fmul_rn(op.lr, op.weight_decay));

    return op.weight_decay != 0 ? __fmul_rn(w, decay) : w;
}

/* Infinity and NaN are kept, as in tr_f32_bf16_stochastic. */
static __device__ __forceinline__ float update_stochastic(float x, uint16_t random)
{
    uint32_t u = __float_as_uint(x);

    return (u & 0x7f800000) == 0x7f800000 ? x : __uint_as_float((u + random) & 0xffff0000);
}

/* What stochastic rounding leaves is exact in bf16. */
static __device__ __forceinline__ void update_random(const struct tr_op_update &op, int64_t i,
                                                     uint32_t name, float x[VEC])
{
    struct tr_philox r = tr_philox_round((uint64_t)(op.first + i), op.step, op.seed, name);

    for (int j = 0; j < VEC; j++)
        x[j] = update_stochastic(x[j], tr_philox_half(r, j));
}

/* m, of kind signed, or v, squares. */
template <enum tr_dtype S, enum tr_code8 K, bool whole>
static __device__ __forceinline__ void update_get_state(const struct tr_op_update &op, int64_t i,
                                                        float *state, float x[VEC])
{
    if constexpr (S == TR_8BIT)
        code8_get<K, whole>(x, state, i, op.n);
    else
        vec_get<S, whole>(x, state, i, op.n);
}

/* With random bits of its own. */
template <enum tr_dtype S, enum tr_code8 K, bool whole>
static __device__ __forceinline__ void update_put_state(const struct tr_op_update &op, int64_t i,
                                                        float *state, float x[VEC])
{
    uint32_t name = op.name ^ (K == TR_CODE8_SIGNED ? TR_PHILOX_M : TR_PHILOX_V);

    if constexpr (S == TR_8BIT) {
        code8_put<K, whole>(state, i, op.n, x,
                            tr_philox_round((uint64_t)(op.first + i), op.step, op.seed, name));
    } else {
        if constexpr (S == TR_BF16)
            update_random(op, i, name, x);
        vec_put<S, whole>(state, i, op.n, x);
    }
}

/* Whether a group lies whole and aligned in the weights, the gradient and the state; state in 8
 * bits makes the lanes of a warp agree, for they meet in its shuffles. */
template <enum tr_dtype D, enum tr_dtype S>
static __device__ __forceinline__ bool update_whole(const struct tr_op_update &op, int64_t i,
                                                    const float *second)
{
    bool whole = vec_whole<D>(op.w, i, op.n) && vec_whole<TR_F32>(op.g, i, op.n);

    if constexpr (S == TR_8BIT)
        return reduce_lanes(whole ? 0 : 1, 32) == 0;
    else
        return whole && vec_whole<S>(op.m, i, op.n) && (!second || vec_whole<S>(second, i, op.n));
}

/* w = round(x). */
template <enum tr_dtype D, bool stochastic, bool whole>
static __device__ __forceinline__ void update_put(const struct tr_op_update &op, int64_t i,
                                                  float x[VEC])
{
    if constexpr (stochastic)
        update_random(op, i, op.name, x);
    vec_put<D, whole>(op.w, i, op.n, x);
}

/* Checks, and counts the blocks. */
static inline int update_blocks(const struct tr_op_update *op, unsigned *blocks)
{
    if (op->rounding == TR_ROUND_STOCHASTIC && op->dtype == TR_F16)
        return tr_cuda_refuse(-EINVAL, "stochastic rounding is defined for bf16, not for f16");
    if (op->state_dtype == TR_F16)
        return tr_cuda_refuse(-EINVAL, "optimizer state is f32, bf16 or in 8 bits, not f16");
    if (op->state_dtype == TR_8BIT && op->first % TR_CODE8_BLOCK)
        return tr_cuda_refuse(-EINVAL, "element %lld begins no block of state in 8 bits",
                              (long long)op->first);
    *blocks = op->n ? vec_blocks(update_shift(*op) + op->n) : 0;
    return 0;
}

/* Runs a statement with constants: D, the weights' dtype, R, whether their rounding is stochastic.
 */
#define UPDATE_BY_WEIGHTS(op, D, R, ...)                                                           \
    do {                                                                                           \
        if ((op)->dtype == TR_BF16 && (op)->rounding == TR_ROUND_STOCHASTIC) {                     \
            constexpr enum tr_dtype D = TR_BF16;                                                   \
            constexpr bool R = true;                                                               \
            __VA_ARGS__;                                                                           \
        } else {                                                                                   \
            constexpr bool R = false;                                                              \
            TR_BY_DTYPE((op)->dtype, D, __VA_ARGS__);                                              \
        }                                                                                          \
    } while (0)

/* The same, and S, the dtype of the state. */
#define UPDATE_BY_DTYPES(op, D, R, S, ...)                                                         \
    do {                                                                                           \
        if ((op)->state_dtype == TR_8BIT) {                                                        \
            constexpr enum tr_dtype S = TR_8BIT;                                                   \
            UPDATE_BY_WEIGHTS(op, D, R, __VA_ARGS__);                                              \
        } else if ((op)->state_dtype == TR_BF16) {                                                 \
            constexpr enum tr_dtype S = TR_BF16;                                                   \
            UPDATE_BY_WEIGHTS(op, D, R, __VA_ARGS__);                                              \
        } else {                                                                                   \
            constexpr enum tr_dtype S = TR_F32;                                                    \
            UPDATE_BY_WEIGHTS(op, D, R, __VA_ARGS__);                                              \
        }                                                                                          \
    } while (0)

#endif
