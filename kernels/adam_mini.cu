/* SPDX-License-Identifier: Apache-2.0
 *
 * Adam-mini: the arithmetic of device.h, operation by operation. Sixteen lanes sum a piece of a
 * block, whose sum waits in the scratch; a warp adds the pieces of a block in order and makes its
 * second moment; then the elements, like any other update. f64 is slow on graphics cards, but there
 * is only an fma of it for each element, which hides behind the element's memory.
 */
#include "kernels/reduce.cuh"
#include "kernels/update.cuh"

#define LANES 16

static __global__ void __launch_bounds__(VEC_THREADS)
    adam_mini_pieces(double *partial, const struct tr_op_update op, int64_t pieces, int64_t all)
{
    int64_t piece = ((int64_t)blockIdx.x * VEC_THREADS + threadIdx.x) / LANES;
    int64_t at = piece % pieces * UPDATE_PIECE, n = op.block - at;
    const float *g = op.g + piece / pieces * op.block + at;
    double sum = 0;

    if (piece >= all)
        n = 0;
    if (n > UPDATE_PIECE)
        n = UPDATE_PIECE;
    for (int i = threadIdx.x % LANES; i < n; i += LANES) {
        double x = update_widen(update_gradient(op, g[i]));

        sum = fma(x, x, sum); /* the square is exact */
    }
    sum = reduce_lanes(sum, LANES);
    if (piece < all && threadIdx.x % LANES == 0)
        partial[piece] = sum;
}

/* In order; a head has hundreds, which the lanes of a warp load together. All get the sum. */
static __device__ __forceinline__ double sum_pieces(const double *partial, int64_t pieces)
{
    int lane = threadIdx.x % 32;
    double sum = 0;

    for (int64_t at = 0; at < pieces; at += 32) {
        double mine = at + lane < pieces ? partial[at + lane] : 0;
        int n = pieces - at < 32 ? (int)(pieces - at) : 32;

        for (int k = 0; k < n; k++)
            sum += __shfl_sync(0xffffffff, mine, k);
    }
    return sum;
}

/* A warp makes a block's. */
static __global__ void __launch_bounds__(VEC_THREADS)
    adam_mini_moments(const struct tr_op_update op, const double *partial, int64_t pieces)
{
    int64_t block = ((int64_t)blockIdx.x * VEC_THREADS + threadIdx.x) / 32;
    double sum;

    if (block >= op.n / op.block)
        return;
    sum = sum_pieces(partial + block * pieces, pieces);
    if (threadIdx.x % 32 == 0)
        op.v[block] = __fmaf_rn(__fsub_rn(1.0f, op.beta2), (float)(sum / (double)op.block),
                                __fmul_rn(op.beta2, op.v[block]));
}

static __device__ __forceinline__ float adam_mini_scale(const struct tr_op_update &op,
                                                        int64_t block)
{
    float root = __fdiv_rn(__fsqrt_rn(op.v[block]), op.sqrt_bias2);

    return __fdiv_rn(op.step_size, __fadd_rn(root, op.eps));
}

/* Of the group's elements. It may begin before element 0 and may lie in several blocks. */
static __device__ __forceinline__ void adam_mini_scales(const struct tr_op_update &op, int64_t i,
                                                        float scale[VEC])
{
    int64_t block = i > 0 ? i / op.block : 0, end = (block + 1) * op.block;
    float first = i < op.n ? adam_mini_scale(op, block) : 0;

    for (int j = 0; j < VEC; j++)
        scale[j] = first;
    if (i + VEC <= end)
        return;
    for (int j = 1; j < VEC; j++) {
        scale[j] = scale[j - 1];
        if (i + j >= end && i + j < op.n) {
            scale[j] = adam_mini_scale(op, ++block);
            end += op.block;
        }
    }
}

template <enum tr_dtype D, enum update_way R, enum tr_dtype S, bool whole>
static __device__ __forceinline__ void adam_mini_group(const struct update_args &a, int64_t i)
{
    const struct tr_op_update &op = a.op;
    float rest1 = __fsub_rn(1.0f, op.beta1), w[VEC], g[VEC], m[VEC], scale[VEC];

    update_get<D, R, whole>(op, i, w);
    update_get_gradients<whole>(op, i, g);
    update_get_state<S, TR_CODE8_SIGNED, whole>(op, i, op.m, m);
    adam_mini_scales(op, i, scale);
    update_decay(op, w);
    for (int j = 0; j < VEC; j++) {
        m[j] = __fmaf_rn(rest1, __fsub_rn(g[j], m[j]), m[j]);
        w[j] = __fmaf_rn(-scale[j], m[j], w[j]);
    }
    update_put_state<S, TR_CODE8_SIGNED, whole>(a, i, op.m, m);
    update_put<D, R, whole>(a, i, w);
}

template <enum tr_dtype D, enum update_way R, enum tr_dtype S>
static __global__ void __launch_bounds__(VEC_THREADS) adam_mini(const struct update_args a)
{
    int64_t i = update_index(a);

    if (update_whole<S>(a, i))
        adam_mini_group<D, R, S, true>(a, i);
    else
        adam_mini_group<D, R, S, false>(a, i);
}

/* The new second moments. */
static int moments(const struct tr_cuda *cuda, const struct tr_op_update *op)
{
    double *partial = (double *)cuda->scratch;
    int64_t pieces, all, blocks;

    if (op->block < 1 || op->n % op->block)
        return tr_cuda_refuse(-EINVAL, "%lld elements are not whole blocks of %lld",
                              (long long)op->n, (long long)op->block);
    pieces = (op->block + UPDATE_PIECE - 1) / UPDATE_PIECE;
    blocks = op->n / op->block;
    all = blocks * pieces;
    if ((uint64_t)all > cuda->scratch_bytes / sizeof(*partial))
        return tr_cuda_refuse(-EINVAL, "%lld sums of blocks exceed the scratch", (long long)all);
    TR_LAUNCH(adam_mini_pieces, (unsigned)((all * LANES + VEC_THREADS - 1) / VEC_THREADS),
              VEC_THREADS, 0, cuda->stream, partial, *op, pieces, all);
    TR_LAUNCH(adam_mini_moments, (unsigned)((blocks * 32 + VEC_THREADS - 1) / VEC_THREADS),
              VEC_THREADS, 0, cuda->stream, *op, partial, pieces);
    return 0;
}

int tr_cuda_adam_mini(const struct tr_cuda *cuda, const struct tr_op_update *op)
{
    struct update_args args;
    unsigned blocks = 0;
    int ret = update_prepare(op, op->m, NULL, &args, &blocks);

    if (ret || !blocks || (ret = moments(cuda, op)))
        return ret;
    UPDATE_BY_DTYPES(op, D, R, S,
                     TR_LAUNCH((adam_mini<D, R, S>), blocks, VEC_THREADS, 0, cuda->stream, args));
    return tr_cuda_launched(cuda, "adam_mini");
}
