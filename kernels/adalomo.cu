/* SPDX-License-Identifier: Apache-2.0
 *
 * AdaLomo: the arithmetic of device.h, operation by operation; cpu/adalomo.c says why it is three
 * ops. Everything but the update is sums in f64, each in an order that leaves sixteen lanes free:
 * sixteen threads sum along a row, and sixteen threads share a column, a lane each.
 */
#include "kernels/reduce.cuh"
#include "kernels/update.cuh"

#define LANES   16
#define COLUMNS 32 /* of a block that sums columns */
#define SHARE   4  /* lanes of it: small blocks fill a GPU evenly */
#define AHEAD   16 /* loads of a thread that are on their way: few threads have much to sum */

static_assert(COLUMNS == 2 * LANES, "a warp of the columns' block sums the lanes");

/* Adds N elements from i on, a lane's next each time: loaded together, added in their order. */
template <enum tr_dtype D, enum update_way R, int N>
static __device__ __forceinline__ void add_squares(const struct tr_op_update &op, int64_t i,
                                                   double sums[2])
{
    float g[N], x[N];

    for (int k = 0; k < N; k++) {
        g[k] = op.g[i + k * LANES];
        x[k] = update_load<D, R>(op, i + k * LANES);
    }
    update_gradients<N>(op, g);
    for (int k = 0; k < N; k++) {
        double q = update_widen(g[k]), s = update_widen(x[k]);

        sums[0] = fma(q, q, sums[0]); /* the squares are exact */
        sums[1] = fma(s, s, sums[1]);
    }
}

/* The sums over a row of G * G and of the weights' squares, in pieces. */
template <enum tr_dtype D, enum update_way R>
static __device__ __forceinline__ void row_sums(const struct tr_op_update &op, int64_t row,
                                                double sums[2])
{
    int64_t begin = row * op.block, n = row >= 0 ? op.block : 0;

    sums[0] = sums[1] = 0;
    for (int64_t at = 0; at < op.block; at += UPDATE_PIECE) {
        int64_t i = at + threadIdx.x % LANES, end = at + UPDATE_PIECE < n ? at + UPDATE_PIECE : n;
        double piece[2] = {0, 0};

        for (; i + (AHEAD - 1) * LANES < end; i += AHEAD * LANES)
            add_squares<D, R, AHEAD>(op, begin + i, piece);
        for (; i < end; i += LANES)
            add_squares<D, R, 1>(op, begin + i, piece);
        sums[0] += reduce_lanes(piece[0], LANES);
        sums[1] += reduce_lanes(piece[1], LANES);
    }
}

template <enum tr_dtype D, enum update_way R>
static __global__ void __launch_bounds__(VEC_THREADS)
    adalomo_rows(const struct tr_op_update op, double *weights, double *inverse)
{
    int64_t row = ((int64_t)blockIdx.x * VEC_THREADS + threadIdx.x) / LANES, rows = op.n / op.block;
    double sums[2];

    row_sums<D, R>(op, row < rows ? row : -1, sums);
    if (row >= rows || threadIdx.x % LANES)
        return;
    weights[row] = sums[1];
    inverse[row] = 1;
    if (!op.factored)
        return;
    op.m[row] = __fmaf_rn(op.beta1, (float)(sums[0] / (double)op.block + (double)op.eps),
                          __fmul_rn(op.beta2, op.m[row]));
    inverse[row] = (double)__fdiv_rn(1.0f, op.m[row]);
}

/* The last of the op's rows that is of a lane. */
static __device__ __forceinline__ int64_t last_row(const struct tr_op_update &op, int lane)
{
    int64_t row0 = op.first / op.block, end = row0 + op.n / op.block;

    return end - 1 - (end - 1 - lane + LANES) % LANES - row0;
}

/* One warp: half of it sums r, the other half the weights' squares. */
static __device__ __forceinline__ void sum_lanes(const struct tr_op_update &op,
                                                 const double *weights)
{
    int lane = threadIdx.x % LANES;
    double sum = op.add ? op.sums[threadIdx.x] : 0;

    for (int64_t row = last_row(op, lane); row >= 0; row -= LANES)
        if (threadIdx.x >= LANES)
            sum += weights[row];
        else if (op.factored)
            sum += (double)op.m[row];
    op.sums[threadIdx.x] = sum;
}

/* A lane's N rows of a column from that one back: loaded together, added in their order. */
template <int N>
static __device__ __forceinline__ void add_rows(const struct tr_op_update &op,
                                                const double *inverse, int64_t row, int64_t column,
                                                double sums[2])
{
    float g[N];
    double by[N];

    for (int k = 0; k < N; k++) {
        g[k] = op.g[(row - k * LANES) * op.block + column];
        by[k] = inverse[row - k * LANES];
    }
    update_gradients<N>(op, g);
    for (int k = 0; k < N; k++) {
        double x = update_widen(g[k]);

        sums[0] = fma(x, x, sums[0]);
        sums[1] = fma(__dmul_rn(x, x), by[k], sums[1]);
    }
}

/* The rows' factors come in f64: on graphics cards a conversion takes as long as a sum, and there
 * would be one for every element. The first block sums lanes, which one warp can only do slowly: it
 * does so while the others sum columns. */
static __global__ void __launch_bounds__(COLUMNS *SHARE)
    adalomo_columns(const struct tr_op_update op, const double *inverse, const double *weights)
{
    int lane = (int)blockIdx.y * SHARE + (int)threadIdx.y;
    int64_t column = ((int64_t)blockIdx.x - 1) * COLUMNS + threadIdx.x, row = last_row(op, lane);
    double *to = op.sums + 2 * LANES + lane * op.block + column, sums[2] = {0, 0};

    if (blockIdx.x == 0 && lane == 0)
        sum_lanes(op, weights);
    if (blockIdx.x == 0 || column >= op.block)
        return;
    if (op.add) {
        sums[0] = to[0];
        sums[1] = to[LANES * op.block];
    }
    for (; row >= (AHEAD - 1) * LANES; row -= AHEAD * LANES)
        add_rows<AHEAD>(op, inverse, row, column, sums);
    for (; row >= 0; row -= LANES)
        add_rows<1>(op, inverse, row, column, sums);
    to[0] = sums[0];
    to[LANES * op.block] = sums[1];
}

static int refuse_part(const struct tr_op_update *op)
{
    if (!op->n || (op->block > 0 && op->n % op->block == 0 && op->first % op->block == 0))
        return 0;
    return tr_cuda_refuse(-EINVAL, "%lld elements from %lld on are not whole rows of %lld",
                          (long long)op->n, (long long)op->first, (long long)op->block);
}

static unsigned blocks_of(int64_t threads)
{
    return (unsigned)((threads + VEC_THREADS - 1) / VEC_THREADS);
}

int tr_cuda_adalomo_sum(const struct tr_cuda *cuda, const struct tr_op_update *op)
{
    int refused = update_refuse(op), ret = refused ? refused : refuse_part(op);
    int64_t rows = ret || !op->n ? 0 : op->n / op->block;
    double *weights = (double *)cuda->scratch;
    double *inverse = weights + rows;

    if (ret || !rows)
        return ret;
    if ((uint64_t)rows > cuda->scratch_bytes / (2 * sizeof(*weights)))
        return tr_cuda_refuse(-EINVAL, "the sums of %lld rows exceed the scratch", (long long)rows);
    UPDATE_BY_WEIGHTS(op, D, R,
                      TR_LAUNCH((adalomo_rows<D, R>), blocks_of(rows * LANES), VEC_THREADS, 0,
                                cuda->stream, *op, weights, inverse));
    TR_LAUNCH(adalomo_columns,
              dim3((unsigned)((op->block + COLUMNS - 1) / COLUMNS) + 1, LANES / SHARE),
              dim3(COLUMNS, SHARE), 0, cuda->stream, *op, inverse, weights);
    return tr_cuda_launched(cuda, "adalomo_sum");
}

/* Sixteen sums `stride` apart, folded by halves. */
static __device__ __forceinline__ double fold(const double *sums, int64_t stride)
{
    double lanes[LANES];

    for (int l = 0; l < LANES; l++)
        lanes[l] = sums[l * stride];
    for (int half = LANES / 2; half; half /= 2)
        for (int l = 0; l < half; l++)
            lanes[l] += lanes[l + half];
    return lanes[0];
}

/* A thread makes a column's factor, and what the column adds to the square of the update. */
static __global__ void __launch_bounds__(VEC_THREADS)
    adalomo_factors(const struct tr_op_update op, double *squares)
{
    int64_t j = (int64_t)blockIdx.x * VEC_THREADS + threadIdx.x;
    const double *sums = op.sums + 2 * LANES + j;
    double q, f;

    if (j >= op.block)
        return;
    q = __dadd_rn(fold(sums, op.block) / (double)(op.n / op.block), (double)op.eps);
    op.v[j] = __fmaf_rn(op.beta1, (float)q, __fmul_rn(op.beta2, op.v[j]));
    f = op.factor[j] = __fdiv_rn(1.0f, __fsqrt_rn(op.v[j]));
    squares[j] = __dmul_rn(__dmul_rn(f, f), fold(sums + LANES * op.block, op.block));
}

static __device__ __forceinline__ void finish_factors(const struct tr_op_update &op, double squares)
{
    float mean = op.factored ? (float)(fold(op.sums, 1) / (double)(op.n / op.block)) : 1;
    double u = sqrt(__dmul_rn((double)mean, squares) / (double)op.n);
    double x = sqrt(fold(op.sums + LANES, 1) / (double)op.n);
    float rate = (float)__dmul_rn((double)op.lr, x > (double)op.eps2 ? x : (double)op.eps2);

    op.factor[op.block] = mean;
    op.factor[op.block + 1] = (float)((double)rate / (u <= 1 ? 1 : u)); /* NaN goes through */
    op.factor[op.block + 2] = __fsub_rn(1.0f, __fmul_rn(rate, op.weight_decay));
}

static __global__ void __launch_bounds__(32)
    adalomo_whole(const struct tr_op_update op, const double *squares)
{
    double sum = 0;

    for (int64_t j = threadIdx.x % LANES; j < op.block; j += LANES)
        sum = __dadd_rn(sum, squares[j]);
    sum = reduce_lanes(sum, LANES);
    if (threadIdx.x == 0)
        finish_factors(op, sum);
}

int tr_cuda_adalomo_factor(const struct tr_cuda *cuda, const struct tr_op_update *op)
{
    double *squares = (double *)cuda->scratch;

    if (!op->n)
        return 0;
    if (op->block <= 0 || (uint64_t)op->block > cuda->scratch_bytes / sizeof(*squares))
        return tr_cuda_refuse(-EINVAL, "rows of %lld elements exceed the scratch",
                              (long long)op->block);
    TR_LAUNCH(adalomo_factors, blocks_of(op->block), VEC_THREADS, 0, cuda->stream, *op, squares);
    TR_LAUNCH(adalomo_whole, 1, 32, 0, cuda->stream, *op, squares);
    return tr_cuda_launched(cuda, "adalomo_factor");
}

static __device__ __forceinline__ float row_factor(const struct tr_op_update &op, int64_t row)
{
    if (!op.factored)
        return 1;
    return __fdiv_rn(1.0f, __fsqrt_rn(__fdiv_rn(op.m[row], op.factor[op.block])));
}

/* What the group's elements are divided by, the other way round. It may begin before element 0 and
 * may lie in several rows. */
static __device__ __forceinline__ void group_factors(const struct tr_op_update &op, int64_t i,
                                                     float f[VEC])
{
    int64_t row = i > 0 ? i / op.block : 0, begin = row * op.block;
    float a = i < op.n ? row_factor(op, row) : 0;

    if (i >= 0 && i + VEC <= begin + op.block && vec_aligned<TR_F32>(op.factor, i - begin)) {
        vec_get<TR_F32, true>(f, op.factor, i - begin, op.block);
        for (int j = 0; j < VEC; j++)
            f[j] = __fmul_rn(a, f[j]);
        return;
    }
    for (int j = 0; j < VEC; j++) {
        f[j] = 0;
        if (i + j < 0 || i + j >= op.n)
            continue;
        if (i + j >= begin + op.block) {
            a = row_factor(op, ++row);
            begin += op.block;
        }
        f[j] = __fmul_rn(a, op.factor[i + j - begin]);
    }
}

template <enum tr_dtype D, enum update_way R, bool whole>
static __device__ __forceinline__ void adalomo_group(const struct update_args &a, int64_t i)
{
    const struct tr_op_update &op = a.op;
    float rate = op.factor[op.block + 1], decay = op.factor[op.block + 2];
    float w[VEC], g[VEC], f[VEC];

    update_get<D, R, whole>(op, i, w);
    update_get_gradients<whole>(op, i, g);
    group_factors(op, i, f);
    if (op.weight_decay != 0)
        for (int j = 0; j < VEC; j++)
            w[j] = __fmul_rn(w[j], decay);
    for (int j = 0; j < VEC; j++)
        w[j] = __fmaf_rn(-rate, __fmul_rn(f[j], g[j]), w[j]);
    update_put<D, R, whole>(a, i, w);
}

template <enum tr_dtype D, enum update_way R>
static __global__ void __launch_bounds__(VEC_THREADS) adalomo(const struct update_args a)
{
    int64_t i = update_index(a);

    if (update_whole(a, i))
        adalomo_group<D, R, true>(a, i);
    else
        adalomo_group<D, R, false>(a, i);
}

int tr_cuda_adalomo(const struct tr_cuda *cuda, const struct tr_op_update *op)
{
    struct update_args args;
    unsigned blocks = 0;
    int ret = refuse_part(op);

    if (ret || (ret = update_prepare(op, NULL, NULL, &args, &blocks)) || !blocks)
        return ret;
    UPDATE_BY_WEIGHTS(op, D, R,
                      TR_LAUNCH((adalomo<D, R>), blocks, VEC_THREADS, 0, cuda->stream, args));
    return tr_cuda_launched(cuda, "adalomo");
}
