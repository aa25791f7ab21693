/* SPDX-License-Identifier: Apache-2.0
 *
 * What all optimizers share on the device: the gradient as they see it, weight decay, and the way
 * back to the storage dtype. A thread updates one group of eight elements; with stochastic rounding
 * that is the group whose random bits come from one call of Philox. The arithmetic is that of
 * device.h, operation by operation, and so are the bits those of the cpu device.
 *
 * Where memory is fast, an update is bound by its instructions: an H200 has moved a byte of each of
 * a group's elements in the time of 58. What is the same for all groups is therefore made where a
 * kernel is launched (struct update_args), and a rare case costs a group one branch, not each of
 * its elements.
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

/* What the random bits of a group are drawn for. */
enum update_stream { UPDATE_OF_W, UPDATE_OF_M, UPDATE_OF_V, UPDATE_STREAMS };

/* An update, and what is the same for all its groups: made once, where it is launched. */
struct update_args {
    struct tr_op_update op;
    int shift;    /* by how much the first group begins before element 0 */
    bool aligned; /* groups lie on 16 bytes in all that is read and written by groups */
    uint32_t seeds[TR_PHILOX_ROUNDS], names[UPDATE_STREAMS][TR_PHILOX_ROUNDS]; /* Philox's keys */
};

/* The first element of this thread's group: the first group may begin before element 0. */
static __device__ __forceinline__ int64_t update_index(const struct update_args &a)
{
    return vec_index() - a.shift;
}

/* Whether a group may be moved by 16-byte accesses. State in 8 bits makes the lanes of a warp
 * agree, for they meet in its maxima. */
template <enum tr_dtype S = TR_F32>
static __device__ __forceinline__ bool update_whole(const struct update_args &a, int64_t i)
{
    bool whole = a.aligned && i >= 0 && i + VEC <= a.op.n;

    if constexpr (S == TR_8BIT)
        return __all_sync(0xffffffff, whole);
    return whole;
}

/* One branch for all. */
template <int N>
static __device__ __forceinline__ void update_gradients(const struct tr_op_update &op, float g[N])
{
    for (int j = 0; j < N; j++)
        g[j] = __fmul_rn(g[j], op.unscale);
    if (op.clip_value > 0)
        for (int j = 0; j < N; j++) {
            g[j] = -op.clip_value > g[j] ? -op.clip_value : g[j];
            g[j] = op.clip_value < g[j] ? op.clip_value : g[j];
        }
    for (int j = 0; j < N; j++)
        g[j] = __fmul_rn(g[j], op.coefficient);
}

static __device__ __forceinline__ float update_gradient(const struct tr_op_update &op, float g)
{
    update_gradients<1>(op, &g);
    return g;
}

template <bool whole>
static __device__ __forceinline__ void update_get_gradients(const struct tr_op_update &op,
                                                            int64_t i, float g[VEC])
{
    vec_get<TR_F32, whole>(g, op.g, i, op.n);
    update_gradients<VEC>(op, g);
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

static __device__ __forceinline__ void update_decay(const struct tr_op_update &op, float w[VEC])
{
    float decay = __fsub_rn(1.0f, __fmul_rn(op.lr, op.weight_decay));

    if (op.weight_decay != 0)
        for (int j = 0; j < VEC; j++)
            w[j] = __fmul_rn(w[j], decay);
}

/* tr_philox_round, whose keys need not be made for every group. */
static __device__ __forceinline__ struct tr_philox
update_random(const struct update_args &a, int64_t i, enum update_stream stream)
{
    struct tr_philox c = tr_philox_counter((uint64_t)(a.op.first + i), a.op.step);

    for (int round = 0; round < TR_PHILOX_ROUNDS; round++)
        c = tr_philox_turn(c, a.seeds[round], a.names[stream][round]);
    return c;
}

/* The upper halves of words, as they are. */
template <bool whole>
static __device__ __forceinline__ void update_put_halves(void *p, int64_t i, int64_t n,
                                                         const uint32_t u[VEC])
{
    uint16_t *to = (uint16_t *)p + i;

    if constexpr (whole)
        *(uint4 *)to = make_uint4(__byte_perm(u[0], u[1], 0x7632), __byte_perm(u[2], u[3], 0x7632),
                                  __byte_perm(u[4], u[5], 0x7632), __byte_perm(u[6], u[7], 0x7632));
    else
        for (int j = 0; j < VEC; j++)
            if (i + j >= 0 && i + j < n)
                to[j] = (uint16_t)(u[j] >> 16);
}

/* Rounds as tr_f32_bf16_stochastic does, to bf16. Infinity stays what it is by itself. */
template <bool whole>
static __device__ __forceinline__ void update_put_rounded(const struct update_args &a, int64_t i,
                                                          enum update_stream stream, void *p,
                                                          const float x[VEC])
{
    struct tr_philox r = update_random(a, i, stream);
    uint32_t u[VEC];
    bool nan = false;

    for (int j = 0; j < VEC; j++) {
        u[j] = __float_as_uint(x[j]) + tr_philox_half(r, j);
        nan |= x[j] != x[j];
    }
    if (nan)
        for (int j = 0; j < VEC; j++)
            u[j] = x[j] != x[j] ? __float_as_uint(x[j]) | 0x00400000 : u[j];
    update_put_halves<whole>(p, i, a.op.n, u);
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
static __device__ __forceinline__ void update_put_state(const struct update_args &a, int64_t i,
                                                        float *state, const float x[VEC])
{
    constexpr enum update_stream stream = K == TR_CODE8_SIGNED ? UPDATE_OF_M : UPDATE_OF_V;

    if constexpr (S == TR_8BIT)
        code8_put<K, whole>(state, i, a.op.n, x, update_random(a, i, stream));
    else if constexpr (S == TR_BF16)
        update_put_rounded<whole>(a, i, stream, state, x);
    else
        vec_put<S, whole>(state, i, a.op.n, x);
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
static __device__ __forceinline__ void update_put(const struct update_args &a, int64_t i,
                                                  const float x[VEC])
{
    if constexpr (R == UPDATE_SPLIT || R == UPDATE_F32)
        update_put_master<D, R, whole>(a.op, i, x);
    else if constexpr (R == UPDATE_STOCHASTIC)
        update_put_rounded<whole>(a, i, UPDATE_OF_W, a.op.w, x);
    else
        vec_put<D, whole>(a.op.w, i, a.op.n, x);
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

/* Groups count from the tensor's start where random bits are drawn for them. */
static inline int update_shift(const struct tr_op_update *op)
{
    bool weights = op->rounding == TR_ROUND_STOCHASTIC && op->dtype == TR_BF16 && !op->master_kind;

    return weights || op->state_dtype == TR_BF16 ? (int)(op->first % VEC) : 0;
}

/* Of an array that may be NULL; 8 bits lie as they have to. */
static inline bool update_on_16_bytes(const void *p, enum tr_dtype dtype, int shift)
{
    return dtype == TR_8BIT || ((uintptr_t)p - (uintptr_t)shift * tr_dtype_size(dtype)) % 16 == 0;
}

static inline void update_keys(struct update_args *a)
{
    static const uint32_t streams[UPDATE_STREAMS] = {0, TR_PHILOX_M, TR_PHILOX_V};

    for (uint32_t round = 0; round < TR_PHILOX_ROUNDS; round++) {
        a->seeds[round] = a->op.seed + round * TR_PHILOX_BUMP0;
        for (int s = 0; s < UPDATE_STREAMS; s++)
            a->names[s][round] = (a->op.name ^ streams[s]) + round * TR_PHILOX_BUMP1;
    }
}

/* Checks, prepares, and counts the blocks. m, v: state that the groups move, or NULL. */
static inline int update_prepare(const struct tr_op_update *op, const void *m, const void *v,
                                 struct update_args *a, unsigned *blocks)
{
    enum tr_dtype master = op->master_kind == TR_MASTER_F32 ? TR_F32 : TR_BF16; /* by size */
    int shift = update_shift(op);

    a->op = *op;
    a->shift = shift;
    a->aligned = update_on_16_bytes(op->w, op->dtype, shift) &&
                 update_on_16_bytes(op->g, TR_F32, shift) &&
                 (!op->master_kind || update_on_16_bytes(op->master, master, shift)) &&
                 (!m || update_on_16_bytes(m, op->state_dtype, shift)) &&
                 (!v || update_on_16_bytes(v, op->state_dtype, shift));
    update_keys(a);
    *blocks = op->n ? vec_blocks(shift + op->n) : 0;
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
