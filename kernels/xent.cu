/* SPDX-License-Identifier: Apache-2.0
 *
 * Cross-entropy over vocabulary slices: XENT folds a slice of logits into each token's running
 * maximum, sum of exponentials and target logit; XENT_LOSS closes; XENT_GRAD turns the slice, made
 * again, into the gradient. A block has a token's row and reads it once: each thread keeps its own
 * maximum and the sum relative to it, and the pairs are merged. Which elements a thread has depends
 * on the row's length alone and not on where it lies, so rows are read four bytes a thread, a warp
 * its 128 side by side, which needs no alignment.
 */
#include "kernels/cuda.h"

#include "kernels/launch.cuh"
#include "kernels/vec.cuh"

#define THREADS 512

/* The sum of exponentials relative to the largest. */
struct soft {
    float max, sum;
};

/* What exponents are relative to: with nothing but -infinity so far, exp gives zeros, not NaN. */
static __device__ __forceinline__ float soft_base(float max)
{
    return max == -INFINITY ? 0 : max;
}

static __device__ __forceinline__ struct soft soft_merge(struct soft a, struct soft b)
{
    float max = b.max > a.max ? b.max : a.max, base = soft_base(max);

    return {max,
            __fadd_rn(__fmul_rn(a.sum, expf(a.max - base)), __fmul_rn(b.sum, expf(b.max - base)))};
}

static __device__ __forceinline__ struct soft soft_row(const float *row, int64_t n)
{
    struct soft s = {-INFINITY, 0};

    for (int64_t begin = threadIdx.x; begin < n; begin += VEC * blockDim.x) {
        float x[VEC], max = s.max, sum = 0;

        for (int j = 0; j < VEC; j++) {
            int64_t i = begin + j * blockDim.x;

            x[j] = i < n ? row[i] : -INFINITY;
            max = x[j] > max ? x[j] : max;
        }
        for (int j = 0; j < VEC; j++)
            sum += expf(x[j] - soft_base(max));
        s = {max, __fadd_rn(__fmul_rn(s.sum, expf(s.max - soft_base(max))), sum)};
    }
    return s;
}

static __device__ __forceinline__ struct soft soft_warp(struct soft s)
{
    for (int half = 16; half; half /= 2) {
        struct soft other = {__shfl_xor_sync(0xffffffff, s.max, half),
                             __shfl_xor_sync(0xffffffff, s.sum, half)};
        s = soft_merge(s, other);
    }
    return s;
}

/* The target's column in this slice, or -1. */
static __device__ __forceinline__ int64_t target_column(const struct tr_op_xent &op, int64_t t)
{
    int64_t column = op.targets[t] - op.row0;

    return op.targets[t] >= 0 && column >= 0 && column < op.rows ? column : -1;
}

/* A row of nothing but -infinity has no softmax: NaN, as the definition has it. */
static __device__ __forceinline__ void fold_row(const struct tr_op_xent &op, struct soft s)
{
    int64_t t = blockIdx.x, column = target_column(op, t);

    if (!op.first)
        s = soft_merge({op.max[t], op.sum[t]}, s);
    op.max[t] = s.max;
    op.sum[t] = s.max == -INFINITY ? s.max - s.max : s.sum;
    if (op.first)
        op.target_logit[t] = 0;
    if (column >= 0)
        op.target_logit[t] = op.logits[t * op.rows + column];
}

static __global__ void __launch_bounds__(THREADS) xent_fold(const struct tr_op_xent op)
{
    TR_SHARED(struct soft, warps, [32]);
    struct soft s = soft_warp(soft_row(op.logits + blockIdx.x * op.rows, op.rows));

    if (threadIdx.x % 32 == 0)
        warps[threadIdx.x / 32] = s;
    __syncthreads();
    if (threadIdx.x >= 32)
        return;
    s = {-INFINITY, 0};
    if (threadIdx.x < blockDim.x / 32)
        s = warps[threadIdx.x];
    s = soft_warp(s);
    if (threadIdx.x == 0)
        fold_row(op, s);
}

static __global__ void __launch_bounds__(VEC_THREADS) xent_loss(const struct tr_op_xent op)
{
    int64_t t = (int64_t)blockIdx.x * blockDim.x + threadIdx.x;

    if (t >= op.n)
        return;
    op.lse[t] = op.max[t] + logf(op.sum[t]);
    op.nll[t] = op.targets[t] >= 0 ? op.lse[t] - op.target_logit[t] : 0;
}

/* Tokens without weight give exact zeros whatever their logits. */
template <enum tr_dtype D>
static __global__ void __launch_bounds__(THREADS) xent_grad(const struct tr_op_xent op)
{
    int64_t t = blockIdx.x, column = target_column(op, t);
    const float *row = op.logits + t * op.rows;
    void *to = vec_at<D>(op.dlogits, t * op.rows);
    float scale = op.scale[t], lse = op.lse[t];

    for (int64_t begin = threadIdx.x; begin < op.rows; begin += VEC * blockDim.x) {
        float x[VEC];

        for (int j = 0; j < VEC; j++) {
            int64_t i = begin + j * blockDim.x;

            x[j] = i < op.rows && scale != 0 ? row[i] : 0;
        }
        for (int j = 0; j < VEC; j++) {
            int64_t i = begin + j * blockDim.x;
            float p = expf(x[j] - lse), one = i == column ? 1.0f : 0.0f;

            if (i < op.rows)
                vec_store<D>(to, i, scale != 0 ? __fmul_rn(__fsub_rn(p, one), scale) : 0);
        }
    }
}

/* Threads of a row: few where a slice is short. */
static unsigned row_threads(int64_t rows)
{
    int64_t threads = (rows + VEC * 32 - 1) / (VEC * 32) * 32;

    return (unsigned)(threads < THREADS ? threads : THREADS);
}

int tr_cuda_xent(const struct tr_cuda *cuda, const struct tr_op_xent *op)
{
    if (op->n == 0 || op->rows == 0)
        return 0;
    TR_LAUNCH(xent_fold, (unsigned)op->n, row_threads(op->rows), 0, cuda->stream, *op);
    return tr_cuda_launched(cuda, "xent");
}

int tr_cuda_xent_loss(const struct tr_cuda *cuda, const struct tr_op_xent *op)
{
    unsigned blocks = (unsigned)((op->n + VEC_THREADS - 1) / VEC_THREADS);

    if (op->n == 0)
        return 0;
    TR_LAUNCH(xent_loss, blocks, VEC_THREADS, 0, cuda->stream, *op);
    return tr_cuda_launched(cuda, "xent_loss");
}

int tr_cuda_xent_grad(const struct tr_cuda *cuda, const struct tr_op_xent *op)
{
    if (op->n == 0 || op->rows == 0)
        return 0;
    TR_BY_DTYPE(
        op->dtype, D,
        TR_LAUNCH(xent_grad<D>, (unsigned)op->n, row_threads(op->rows), 0, cuda->stream, *op));
    return tr_cuda_launched(cuda, "xent_grad");
}
