/* SPDX-License-Identifier: Apache-2.0
 *
 * The embedding: rows of a slice of the table by token id, and the gradient added to the table's.
 * Ids outside the slice are someone else's: their rows stay untouched.
 *
 * The gradient must add the tokens of a row in their order, and no two blocks may add to one row.
 * So each row that occurs is given to the block of its first occurrence, which walks the later
 * tokens in windows, makes an ordered list of those with its id, and adds their gradients one by
 * one; columns are shared by blocks. Which rows occur, first where and how often is counted before
 * with integer atomics, whose results do not depend on their order: a row that occurs once needs
 * no walk, and a walk ends at the last occurrence. The list of first occurrences has any order, but
 * it decides only who sums. Slices whose counters exceed the scratch are done in parts.
 */
#include "kernels/cuda.h"

#include "kernels/launch.cuh"
#include "kernels/vec.cuh"

#define SUM_THREADS 128
#define SUM_PARTS   4                         /* columns of a thread, and ids it looks at */
#define SUM_TILE    (SUM_THREADS * SUM_PARTS) /* columns of a block, and tokens of a window */
#define SUM_AHEAD   8                         /* gradients loaded before they are added */
#define SUM_BLOCKS  1024

/* Counters of a part of the slice, in the scratch. */
struct occurrences {
    int64_t row0, rows; /* of the vocabulary */
    int *found;         /* number of rows that occur */
    int *count;         /* (rows) tokens with that id */
    int *back;          /* (rows) op.n less the first such token; 0: none */
    int *first;         /* (found) the first tokens */
};

static __device__ __forceinline__ int64_t row_of(const struct tr_op_embed &op, int64_t row0,
                                                 int64_t rows, int64_t token)
{
    int64_t row = op.ids[token] - row0;

    return row >= 0 && row < rows ? row : -1;
}

/* T: the widest type that divides the rows. */
template <class T>
static __global__ void __launch_bounds__(VEC_THREADS)
    embed(const struct tr_op_embed op, int64_t count, int lanes)
{
    int64_t token = (int64_t)blockIdx.x * (blockDim.x / lanes) + threadIdx.x / lanes;
    int64_t row = token < op.n ? row_of(op, op.row0, op.rows, token) : -1;

    if (row < 0)
        return;
    const T *from = (const T *)op.table + row * count;
    T *to = (T *)op.out + token * count;
    for (int64_t i = threadIdx.x % lanes; i < count; i += lanes)
        to[i] = from[i];
}

template <class T>
static void launch_embed(const struct tr_cuda *cuda, const struct tr_op_embed *op)
{
    int64_t count = op->cols * (int64_t)tr_dtype_size(op->dtype) / (int64_t)sizeof(T);
    int lanes = vec_lanes(count, VEC_THREADS), tokens = VEC_THREADS / lanes;
    unsigned blocks = (unsigned)((op->n + tokens - 1) / tokens);

    TR_LAUNCH(embed<T>, blocks, VEC_THREADS, 0, cuda->stream, *op, count, lanes);
}

int tr_cuda_embed(const struct tr_cuda *cuda, const struct tr_op_embed *op)
{
    size_t bytes = (size_t)op->cols * tr_dtype_size(op->dtype);

    if (op->n == 0 || op->cols == 0)
        return 0;
    if ((bytes | (uintptr_t)op->table | (uintptr_t)op->out) % sizeof(uint4) == 0)
        launch_embed<uint4>(cuda, op);
    else if (op->dtype == TR_F32)
        launch_embed<uint32_t>(cuda, op);
    else
        launch_embed<uint16_t>(cuda, op);
    return tr_cuda_launched(cuda, "embed");
}

static __global__ void __launch_bounds__(VEC_THREADS) clear_occurrences(const struct occurrences o)
{
    int64_t row = (int64_t)blockIdx.x * blockDim.x + threadIdx.x;

    if (row == 0)
        *o.found = 0;
    if (row < o.rows)
        o.count[row] = o.back[row] = 0;
}

static __global__ void __launch_bounds__(VEC_THREADS)
    count_occurrences(const struct tr_op_embed op, const struct occurrences o)
{
    int64_t token = (int64_t)blockIdx.x * blockDim.x + threadIdx.x;
    int64_t row = token < op.n ? row_of(op, o.row0, o.rows, token) : -1;

    if (row < 0)
        return;
    atomicAdd(&o.count[row], 1);
    atomicMax(&o.back[row], (int)(op.n - token));
}

static __global__ void __launch_bounds__(VEC_THREADS)
    list_first(const struct tr_op_embed op, const struct occurrences o)
{
    int64_t token = (int64_t)blockIdx.x * blockDim.x + threadIdx.x;
    int64_t row = token < op.n ? row_of(op, o.row0, o.rows, token) : -1;

    if (row >= 0 && o.back[row] == (int)(op.n - token))
        o.first[atomicAdd(o.found, 1)] = (int)token;
}

/* acc += the gradients of `count` tokens, in order. */
static __device__ __forceinline__ void
add_tokens(const struct tr_op_embed &op, float acc[SUM_PARTS], const int *tokens, int count)
{
    int64_t column = (int64_t)blockIdx.y * SUM_TILE + threadIdx.x;
    float by = op.fused ? -op.lr : 1.0f; /* times 1 a fused sum is a plain one */

    for (int i = 0; i < count; i += SUM_AHEAD) {
        float ahead[SUM_AHEAD][SUM_PARTS];

        for (int a = 0; a < SUM_AHEAD; a++)
            for (int p = 0; p < SUM_PARTS; p++)
                ahead[a][p] = i + a < count && column + p * SUM_THREADS < op.cols
                                  ? op.dy[tokens[i + a] * op.cols + column + p * SUM_THREADS]
                                  : 0;
        for (int a = 0; a < SUM_AHEAD; a++)
            for (int p = 0; p < SUM_PARTS; p++)
                acc[p] = i + a < count ? fmaf(by, ahead[a][p], acc[p]) : acc[p];
    }
}

/* Lists the tokens of [begin, begin + SUM_TILE) that have this id, in order; returns how many. */
static __device__ __forceinline__ int list_window(const struct tr_op_embed &op, int id,
                                                  int64_t begin, int *list)
{
    TR_SHARED(unsigned, masks, [SUM_TILE / 32]);
    int warp = threadIdx.x / 32, lane = threadIdx.x % 32, count = 0;

    for (int p = 0; p < SUM_PARTS; p++) {
        int64_t token = begin + p * SUM_THREADS + threadIdx.x;
        unsigned mask = __ballot_sync(0xffffffff, token < op.n && op.ids[token] == id);

        if (lane == 0)
            masks[p * (SUM_THREADS / 32) + warp] = mask;
    }
    __syncthreads();
    for (int w = 0; w < SUM_TILE / 32; w++) {
        if (w % (SUM_THREADS / 32) == warp && masks[w] >> lane & 1)
            list[count + __popc(masks[w] & ((1u << lane) - 1))] = (int)begin + w * 32 + lane;
        count += __popc(masks[w]);
    }
    __syncthreads();
    return count;
}

/* Adds to the row of the token `first` all its tokens' gradients, in this block's columns. */
static __device__ __forceinline__ void sum_row(const struct tr_op_embed &op, int64_t first,
                                               int total, int *list)
{
    int id = op.ids[first];
    int64_t column = (int64_t)blockIdx.y * SUM_TILE + threadIdx.x;
    float acc[SUM_PARTS], *grad = op.grad + (id - op.row0) * op.cols + column;

    for (int p = 0; p < SUM_PARTS; p++)
        acc[p] = column + p * SUM_THREADS < op.cols ? grad[p * SUM_THREADS] : 0;
    if (total == 1) {
        int token = (int)first;

        add_tokens(op, acc, &token, 1);
    } else {
        for (int64_t begin = first; total > 0 && begin < op.n; begin += SUM_TILE) {
            int count = list_window(op, id, begin, list);

            add_tokens(op, acc, list, count);
            total -= count;
        }
    }
    for (int p = 0; p < SUM_PARTS; p++)
        if (column + p * SUM_THREADS < op.cols)
            grad[p * SUM_THREADS] = acc[p];
}

static __global__ void __launch_bounds__(SUM_THREADS)
    sum_rows(const struct tr_op_embed op, const struct occurrences o)
{
    TR_SHARED(int, list, [SUM_TILE]);

    for (int i = blockIdx.x; i < *o.found; i += gridDim.x)
        sum_row(op, o.first[i], o.count[op.ids[o.first[i]] - o.row0], list);
}

/* What follows the first launch writes where its counters say: not without them. */
static int launch_grad(const struct tr_cuda *cuda, const struct tr_op_embed *op,
                       const struct occurrences *o)
{
    unsigned row_blocks = (unsigned)((o->rows + VEC_THREADS - 1) / VEC_THREADS);
    unsigned blocks = (unsigned)((op->n + VEC_THREADS - 1) / VEC_THREADS);
    dim3 sum((unsigned)(op->n < SUM_BLOCKS ? op->n : SUM_BLOCKS),
             (unsigned)((op->cols + SUM_TILE - 1) / SUM_TILE));
    int ret;

    TR_LAUNCH(clear_occurrences, row_blocks, VEC_THREADS, 0, cuda->stream, *o);
    if ((ret = tr_cuda_launched(cuda, "embed_grad")))
        return ret;
    TR_LAUNCH(count_occurrences, blocks, VEC_THREADS, 0, cuda->stream, *op, *o);
    TR_LAUNCH(list_first, blocks, VEC_THREADS, 0, cuda->stream, *op, *o);
    TR_LAUNCH(sum_rows, sum, SUM_THREADS, 0, cuda->stream, *op, *o);
    return tr_cuda_launched(cuda, "embed_grad");
}

int tr_cuda_embed_grad(const struct tr_cuda *cuda, const struct tr_op_embed *op)
{
    int64_t most = (int64_t)(cuda->scratch_bytes / sizeof(int) - 1) / 3;
    int ret;

    if (op->n == 0 || op->cols == 0)
        return 0;
    for (int64_t done = 0; done < op->rows; done += most) {
        int64_t rows = op->rows - done < most ? op->rows - done : most;
        int *counters = (int *)cuda->scratch;
        struct occurrences o = {
            op->row0 + done,        rows, counters, counters + 1, counters + 1 + rows,
            counters + 1 + 2 * rows};

        if ((ret = launch_grad(cuda, op, &o)))
            return ret;
    }
    return 0;
}
