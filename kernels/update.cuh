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
    bool weights = op.rounding == TR_ROUND_STOCHASTIC && op.dtype == TR_BF16 && !op.master_kind;

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

/* (double)x by integers, where x is normal or 0: on graphics cards the conversion takes as long as
 * a sum in f64, of which there is one for every element, too. */
static __device__ __forceinline__ double update_widen(float x)
{
    uint32_t u = __float_as_uint(x), magnitude = u & 0x7fffffff;
    bool normal = magnitude - 0x00800000 < 0x7f000000;

    if (!normal && magnitude)
        return (double)x;
    return __hiloint2double((int)((u & 0x80000000) | (normal ? (magnitude >> 3) + 0x38000000 : 0)),
                            (int)(u << 29));
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

/* Whether a group that lies whole and aligned in all else lies so in the state, too; state in 8
 * bits makes the lanes of a warp agree, for they meet in its shuffles. */
template <enum tr_dtype S>
static __device__ __forceinline__ bool update_state_whole(const struct tr_op_update &op, int64_t i,
                                                          bool whole, const float *second)
{
    if constexpr (S == TR_8BIT)
        return reduce_lanes(whole ? 0 : 1, 32) == 0;
    else
        return whole && vec_whole<S>(op.m, i, op.n) && (!second || vec_whole<S>(second, i, op.n));
}

/* How new weights are stored: rounded one way or the other, or with a master. */
enum update_way { UPDATE_NEAREST, UPDATE_STOCHASTIC, UPDATE_SPLIT, UPDATE_F32 };

/* X before the update: the weights, or their master. Element i. */
template <enum tr_dtype D, enum update_way R>
static __device__ __forceinline__ float update_load(const struct tr_op_update &op, int64_t i)
{
    if constexpr (R == UPDATE_SPLIT)
        return __uint_as_float(__float_as_uint(vec_load<TR_BF16>(op.w, i)) +
                               (uint32_t)(int32_t)((const int16_t *)op.master)[i]);
    else if constexpr (R == UPDATE_F32)
        return ((const float *)op.master)[i];
    else
        return vec_load<D>(op.w, i);
}

/* Whether a group lies whole and aligned in all that update_get and update_put touch. */
template <enum tr_dtype D, enum update_way R>
static __device__ __forceinline__ bool update_whole(const struct tr_op_update &op, int64_t i)
{
    constexpr enum tr_dtype M = R == UPDATE_F32 ? TR_F32 : TR_BF16; /* of the master, by size */

    if constexpr (R == UPDATE_SPLIT || R == UPDATE_F32)
        if (!vec_whole<M>(op.master, i, op.n))
            return false;
    return vec_whole<D>(op.w, i, op.n) && vec_whole<TR_F32>(op.g, i, op.n);
}

template <enum tr_dtype D, enum update_way R, bool whole>
static __device__ __forceinline__ void update_get(const struct tr_op_update &op, int64_t i,
                                                  float x[VEC])
{
    if constexpr (R == UPDATE_F32) {
        vec_get<TR_F32, whole>(x, op.master, i, op.n);
    } else if constexpr (R == UPDATE_SPLIT) {
        float rest[VEC]; /* each in the upper half of its word */

        vec_get<TR_BF16, whole>(x, op.w, i, op.n);
        vec_get<TR_BF16, whole>(rest, op.master, i, op.n);
        for (int j = 0; j < VEC; j++)
            x[j] = __uint_as_float(__float_as_uint(x[j]) +
                                   (uint32_t)((int32_t)__float_as_uint(rest[j]) >> 16));
    } else {
        vec_get<D, whole>(x, op.w, i, op.n);
    }
}

/* The upper halves of words, as they are. */
template <bool whole>
static __device__ __forceinline__ void update_put_halves(void *p, int64_t i, int64_t n,
                                                         const uint32_t u[VEC])
{
    uint16_t *to = (uint16_t *)p + i;

    if constexpr (whole)
        *(uint4 *)to =
            make_uint4(u[0] >> 16 | (u[1] & 0xffff0000), u[2] >> 16 | (u[3] & 0xffff0000),
                       u[4] >> 16 | (u[5] & 0xffff0000), u[6] >> 16 | (u[7] & 0xffff0000));
    else
        for (int j = 0; j < VEC; j++)
            if (i + j >= 0 && i + j < n)
                to[j] = (uint16_t)(u[j] >> 16);
}

/* tr_master_split of dtype.h; of f16 weights round(x). */
template <enum tr_dtype D, enum update_way R, bool whole>
static __device__ __forceinline__ void update_put_master(const struct tr_op_update &op, int64_t i,
                                                         const float x[VEC])
{
    uint32_t weight[VEC], rest[VEC];

    for (int j = 0; j < VEC; j++) {
        weight[j] = __float_as_uint(x[j]) + 0x8000;
        rest[j] = __float_as_uint(x[j]) << 16;
    }
    if constexpr (D == TR_BF16)
        update_put_halves<whole>(op.w, i, op.n, weight);
    else
        vec_put<D, whole>(op.w, i, op.n, x);
    if constexpr (R == UPDATE_SPLIT)
        update_put_halves<whole>(op.master, i, op.n, rest);
    else
        vec_put<TR_F32, whole>(op.master, i, op.n, x);
}

/* w = round(x), or x and w as the master has it. */
template <enum tr_dtype D, enum update_way R, bool whole>
static __device__ __forceinline__ void update_put(const struct tr_op_update &op, int64_t i,
                                                  float x[VEC])
{
    if constexpr (R == UPDATE_SPLIT || R == UPDATE_F32) {
        update_put_master<D, R, whole>(op, i, x);
    } else {
        if constexpr (R == UPDATE_STOCHASTIC)
            update_random(op, i, op.name, x);
        vec_put<D, whole>(op.w, i, op.n, x);
    }
}

/* Checks. */
static inline int update_refuse(const struct tr_op_update *op)
{
    if (op->rounding == TR_ROUND_STOCHASTIC && op->dtype == TR_F16)
        return tr_cuda_refuse(-EINVAL, "stochastic rounding is defined for bf16, not for f16");
    if (op->state_dtype == TR_F16)
        return tr_cuda_refuse(-EINVAL, "optimizer state is f32, bf16 or in 8 bits, not f16");
    if (op->state_dtype == TR_8BIT && op->first % TR_CODE8_BLOCK)
        return tr_cuda_refuse(-EINVAL, "element %lld begins no block of state in 8 bits",
                              (long long)op->first);
    if (op->master_kind && !tr_master_fits(op->master_kind, op->dtype))
        return tr_cuda_refuse(-EINVAL, "weights of this type have no such master");
    return 0;
}

/* Checks, and counts the blocks. */
static inline int update_blocks(const struct tr_op_update *op, unsigned *blocks)
{
    *blocks = op->n ? vec_blocks(update_shift(*op) + op->n) : 0;
    return update_refuse(op);
}

/* Runs a statement with constants: D, the weights' dtype, R, the update_way. */
#define UPDATE_BY_WEIGHTS(op, D, R, ...)                                                           \
    do {                                                                                           \
        if ((op)->master_kind == TR_MASTER_SPLIT) {                                                \
            constexpr enum tr_dtype D = TR_BF16;                                                   \
            constexpr enum update_way R = UPDATE_SPLIT;                                            \
            __VA_ARGS__;                                                                           \
        } else if ((op)->master_kind == TR_MASTER_F32) {                                           \
            constexpr enum update_way R = UPDATE_F32;                                              \
            if ((op)->dtype == TR_BF16) {                                                          \
                constexpr enum tr_dtype D = TR_BF16;                                               \
                __VA_ARGS__;                                                                       \
            } else {                                                                               \
                constexpr enum tr_dtype D = TR_F16;                                                \
                __VA_ARGS__;                                                                       \
            }                                                                                      \
        } else if ((op)->dtype == TR_BF16 && (op)->rounding == TR_ROUND_STOCHASTIC) {              \
            constexpr enum tr_dtype D = TR_BF16;                                                   \
            constexpr enum update_way R = UPDATE_STOCHASTIC;                                       \
            __VA_ARGS__;                                                                           \
        } else {                                                                                   \
            constexpr enum update_way R = UPDATE_NEAREST;                                          \
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
