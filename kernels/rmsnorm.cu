/* SPDX-License-Identifier: Apache-2.0
 *
 * y = x * rstd * w, rstd = 1 / sqrt(mean(x^2) + eps), over rows; also per head, with a row a head.
 * Backward, with xhat = x * rstd and c = mean(dy * w * xhat): dx = rstd * (dy * w - xhat * c),
 * dw = column sums of dy * xhat in the order of kernels/columns.cuh.
 *
 * A row lies in the registers of the threads that share it, K groups of eight a thread: of a part
 * of a warp for short rows, which pack into a block, else of a block. It is read and written once.
 * The backward kernel walks the rows of a chunk and keeps dw's sum of its columns meanwhile; the
 * longest rows are read again for the second half, from a cache that just had them, because their
 * registers would spill. How a row is shared depends on its length alone.
 */
#include "kernels/columns.cuh"
#include "kernels/reduce.cuh"

#define SHARED_COLS 256  /* shorter rows share a block */
#define WIDE_COLS   8192 /* of 1024 threads; longer rows have WIDE groups a thread */
#define WIDE        4
#define MOST_COLS   16384 /* of 512 threads */
#define CHUNKS      256   /* of a grain, at most */

/* w's dtype is asked at run time: its values come from a cache. */
template <bool whole>
static __device__ __forceinline__ void get_w(float w[VEC], const struct tr_op_rmsnorm &op,
                                             int64_t i)
{
    TR_BY_DTYPE(op.w_dtype, W, vec_get<W, whole>(w, op.w, i, op.cols));
}

static __device__ __forceinline__ void load_w(float w[VEC], const struct tr_op_rmsnorm &op,
                                              int64_t i)
{
    bool aligned = (uintptr_t)op.w % 16 == 0; /* i is a multiple of eight */

    if (aligned && i + VEC <= op.cols)
        get_w<true>(w, op, i);
    else
        get_w<false>(w, op, i);
}

template <enum tr_dtype D>
static __device__ __forceinline__ void load_row(float x[VEC], const void *row, int64_t i,
                                                int64_t cols)
{
    if (vec_whole<D>(row, i, cols))
        vec_get<D, true>(x, row, i, cols);
    else
        vec_get<D, false>(x, row, i, cols);
}

template <enum tr_dtype D>
static __device__ __forceinline__ void store_row(void *row, int64_t i, int64_t cols,
                                                 const float x[VEC])
{
    if (vec_whole<D>(row, i, cols))
        vec_put<D, true>(row, i, cols, x);
    else
        vec_put<D, false>(row, i, cols, x);
}

/* The sum over the threads of a row. */
static __device__ __forceinline__ float sum_threads(float x, int lanes, float *shared)
{
    return lanes > 32 ? reduce_block(x, shared) : reduce_lanes(x, lanes);
}

/* Element of this thread in the k-th part of a row. */
static __device__ __forceinline__ int64_t part_index(int k, int lanes)
{
    return ((int64_t)k * lanes + threadIdx.x % lanes) * VEC;
}

template <enum tr_dtype X, int K>
static __global__ void __launch_bounds__(K == 1 ? 1024 : 512)
    rmsnorm_forward(const struct tr_op_rmsnorm op, int lanes)
{
    TR_SHARED(float, shared, [32]);
    int64_t row = (int64_t)blockIdx.x * (blockDim.x / lanes) + threadIdx.x / lanes;
    int64_t cols = row < op.rows ? op.cols : 0; /* no row: no element, but all come to the sum */
    const void *from = vec_at<X>(op.x, row * op.cols);
    float x[K][VEC], w[VEC], sum = 0;

#pragma unroll
    for (int k = 0; k < K; k++) {
        load_row<X>(x[k], from, part_index(k, lanes), cols);
        for (int j = 0; j < VEC; j++)
            sum = __fmaf_rn(x[k][j], x[k][j], sum);
    }
    float mean = __fdiv_rn(sum_threads(sum, lanes, shared), (float)op.cols);
    float rstd = __fdiv_rn(1.0f, __fsqrt_rn(__fadd_rn(mean, op.eps)));

    if (!cols)
        return;
    if (threadIdx.x % lanes == 0)
        op.rstd[row] = rstd;
#pragma unroll
    for (int k = 0; k < K; k++) {
        int64_t i = part_index(k, lanes);

        load_w(w, op, i);
        for (int j = 0; j < VEC; j++)
            x[k][j] = __fmul_rn(__fmul_rn(x[k][j], rstd), w[j]);
        TR_BY_DTYPE(op.y_dtype, Y, store_row<Y>(vec_at<Y>(op.y, row * op.cols), i, cols, x[k]));
    }
}

/* A thread's part of a row in the backward pass. */
struct row_part {
    float x[VEC], dy[VEC], w[VEC];
};

template <enum tr_dtype X, enum tr_dtype Y>
static __device__ __forceinline__ void part_load(struct row_part &p, const struct tr_op_rmsnorm &op,
                                                 int64_t row, int64_t i, int64_t cols)
{
    load_row<X>(p.x, vec_at<X>(op.x, row * op.cols), i, cols);
    load_row<Y>(p.dy, vec_at<Y>(op.dy, row * op.cols), i, cols);
    load_w(p.w, op, i);
}

/* dw's terms, then dy * w in place of dy; returns sum and the row's terms of c. */
static __device__ __forceinline__ float part_add(struct row_part &p, float acc[VEC], float rstd,
                                                 float sum)
{
    for (int j = 0; j < VEC; j++) {
        acc[j] = __fmaf_rn(p.dy[j], __fmul_rn(p.x[j], rstd), acc[j]);
        p.dy[j] = __fmul_rn(p.dy[j], p.w[j]);
        sum = __fmaf_rn(p.dy[j], p.x[j], sum);
    }
    return sum;
}

/* Turns dy * w into dx. */
static __device__ __forceinline__ void part_turn(struct row_part &p, float rstd, float mean)
{
    for (int j = 0; j < VEC; j++)
        p.dy[j] = __fmul_rn(rstd, __fsub_rn(p.dy[j], __fmul_rn(__fmul_rn(p.x[j], rstd), mean)));
}

template <enum tr_dtype Y>
static __device__ __forceinline__ void
part_store(struct row_part &p, const struct tr_op_rmsnorm &op, int64_t row, int64_t i, int64_t cols)
{
    void *to = vec_at<Y>(op.dx, row * op.cols);

    if (op.add_dx) {
        load_row<Y>(p.x, to, i, cols);
        for (int j = 0; j < VEC; j++)
            p.dy[j] = __fadd_rn(p.x[j], p.dy[j]);
    }
    store_row<Y>(to, i, cols, p.dy);
}

template <enum tr_dtype X, enum tr_dtype Y, int K>
static __global__ void __launch_bounds__(K == 1 ? 1024 : 512)
    rmsnorm_backward(const struct tr_op_rmsnorm op, const struct columns_grain g, int lanes)
{
    TR_SHARED(float, shared, [2][32]);
    int slots = blockDim.x / lanes, turn = 0;
    int64_t begin = blockIdx.x * g.chunk, end = begin + g.chunk < g.rows ? begin + g.chunk : g.rows;
    struct row_part part;
    float acc[K][VEC] = {};

    for (int64_t r = begin; r < end; r += slots, turn ^= 1) {
        int64_t at = r + threadIdx.x / lanes, row = g.row0 + at;
        int64_t cols = at < end ? op.cols : 0;
        float rstd = cols ? op.rstd[row] : 0, sum = 0;

#pragma unroll
        for (int k = 0; k < K; k++) {
            part_load<X, Y>(part, op, row, part_index(k, lanes), cols);
            sum = part_add(part, acc[k], rstd, sum);
        }
        sum = sum_threads(sum, lanes, shared[turn]);
        float mean = __fdiv_rn(__fmul_rn(sum, rstd), (float)op.cols);

#pragma unroll
        for (int k = 0; k < K; k++) {
            if (K > 1) {
                part_load<X, Y>(part, op, row, part_index(k, lanes), cols);
                for (int j = 0; j < VEC; j++)
                    part.dy[j] = __fmul_rn(part.dy[j], part.w[j]);
            }
            part_turn(part, rstd, mean);
            part_store<Y>(part, op, row, part_index(k, lanes), cols);
        }
    }
    if (!g.partial)
        return;
    float *partial = g.partial + blockIdx.x * op.cols;
    if (lanes <= 32)
        columns_put(partial, acc[0], lanes, 0, op.cols);
    else
#pragma unroll
        for (int k = 0; k < K; k++)
            store_row<TR_F32>(partial, part_index(k, lanes), op.cols, acc[k]);
}

/* Threads of a row and of a block, groups of a thread. */
struct shape {
    int lanes, threads, parts;
};

static struct shape shape_of(int64_t cols)
{
    struct shape s = {vec_lanes((cols + VEC - 1) / VEC, 32), COLUMNS_THREADS, 1};

    if (cols <= SHARED_COLS)
        return s;
    s.parts = cols > WIDE_COLS ? WIDE : 1;
    s.lanes = (int)((cols + s.parts * VEC * 32 - 1) / (s.parts * VEC * 32) * 32);
    s.threads = s.lanes;
    return s;
}

static int check_cols(const struct tr_op_rmsnorm *op)
{
    if (op->cols > MOST_COLS)
        return tr_cuda_refuse(-EINVAL, "rmsnorm: rows of %lld elements, the cuda device has %d",
                              (long long)op->cols, MOST_COLS);
    return 0;
}

int tr_cuda_rmsnorm(const struct tr_cuda *cuda, const struct tr_op_rmsnorm *op)
{
    struct shape s = shape_of(op->cols);
    int slots = s.threads / s.lanes, ret = check_cols(op);
    unsigned blocks = (unsigned)((op->rows + slots - 1) / slots);

    if (ret || op->rows == 0 || op->cols == 0)
        return ret;
    if (s.parts == 1)
        TR_BY_DTYPE(
            op->x_dtype, X,
            TR_LAUNCH((rmsnorm_forward<X, 1>), blocks, s.threads, 0, cuda->stream, *op, s.lanes));
    else
        TR_BY_DTYPE(op->x_dtype, X,
                    TR_LAUNCH((rmsnorm_forward<X, WIDE>), blocks, s.threads, 0, cuda->stream, *op,
                              s.lanes));
    return tr_cuda_launched(cuda, "rmsnorm");
}

template <enum tr_dtype X, enum tr_dtype Y>
static void launch_backward(const struct tr_cuda *cuda, const struct tr_op_rmsnorm *op,
                            const struct columns_grain *g)
{
    struct shape s = shape_of(op->cols);
    unsigned blocks = columns_chunks(g);

    if (s.parts == 1)
        TR_LAUNCH((rmsnorm_backward<X, Y, 1>), blocks, s.threads, 0, cuda->stream, *op, *g,
                  s.lanes);
    else
        TR_LAUNCH((rmsnorm_backward<X, Y, WIDE>), blocks, s.threads, 0, cuda->stream, *op, *g,
                  s.lanes);
}

/* dx of some rows, and their partial sums of dw where g has room for them. */
static void walk_rows(const struct tr_cuda *cuda, const struct tr_op_rmsnorm *op,
                      struct columns_grain *g)
{
    struct shape s = shape_of(op->cols);

    columns_cut(g, columns_most(cuda, op->cols, CHUNKS), s.threads / s.lanes);
    if (g->rows)
        TR_BY_DTYPE(op->x_dtype, X,
                    TR_BY_DTYPE(op->y_dtype, Y, launch_backward<X, Y>(cuda, op, g)));
}

int tr_cuda_rmsnorm_grad(const struct tr_cuda *cuda, const struct tr_op_rmsnorm *op)
{
    struct columns_grain g = {0, 0, 1, (float *)cuda->scratch};
    int ret = check_cols(op);

    if (ret || op->cols == 0)
        return ret;
    if (op->dw && !op->grains.n && !op->add_dw)
        columns_finish(cuda, &g, op->dw, op->cols, 0);
    for (int32_t i = 0; op->dw && i < op->grains.n; i++) {
        g.row0 = op->grains.start[i] * op->rows_per_token;
        g.rows = op->grains.start[i + 1] * op->rows_per_token - g.row0;
        walk_rows(cuda, op, &g);
        columns_finish(cuda, &g, op->dw, op->cols, op->add_dw || i);
    }
    /* Rows of no grain: all of them where dw is not asked for. */
    g = (struct columns_grain){g.row0 + g.rows, op->rows - g.row0 - g.rows, 1, NULL};
    walk_rows(cuda, op, &g);
    return tr_cuda_launched(cuda, "rmsnorm_grad");
}
