/* SPDX-License-Identifier: Apache-2.0
 *
 * Attention backward on tensor cores (attention_grad.cu has the table of rows and columns).
 */
#ifndef TR_KERNELS_ATTENTION_GRAD_MMA_CUH
#define TR_KERNELS_ATTENTION_GRAD_MMA_CUH

#include "kernels/attention_mma.cuh"
#include "kernels/attention_walk.cuh"

/* Rows that a block owns on tensor cores, 16 for each warp; columns of a step. */
#define MMA_ROWS 64

template <int HD> struct mma_step {
    static constexpr int columns = HD <= 64 ? 64 : 32;
    static constexpr int row_tile = MMA_ROWS * mma_tile<HD>::pitch;
    static constexpr int column_tile = columns * mma_tile<HD>::pitch;
};

/* A block's shared memory: two tiles that it owns, then for each stage two that it walks over;
 * KEYS: lse and delta of two steps' queries. */
template <int HD, int KEYS> static constexpr size_t mma_grad_bytes(int stages)
{
    return (2 * mma_step<HD>::row_tile + 2 * stages * mma_step<HD>::column_tile) *
               sizeof(uint16_t) +
           (KEYS ? 4 * mma_step<HD>::columns * sizeof(float) : 0);
}

/* Starts the copies of a step's columns. With KEYS a thread returns one of the step's numbers of
 * queries, to be stored once the step before no longer needs the place. */
template <int HD, int KEYS>
static __device__ __forceinline__ float mma_fetch(const struct tr_op_attention *op,
                                                  const struct attention_tile *t,
                                                  const struct grad_walk *w, uint16_t *columns)
{
    constexpr int step = mma_step<HD>::columns;
    int32_t kv = w->head / attention_group(op);
    struct mma_rows rows =
        mma_rows_of(op, t, KEYS ? op->heads : op->kv_heads, KEYS ? w->head : kv, w->column);
    int32_t query = w->column + threadIdx.x % step;

    mma_load_tile<HD, step>(columns, KEYS ? op->q : op->k, &rows);
    mma_load_tile<HD, step>(columns + mma_step<HD>::column_tile, KEYS ? op->d_o : op->v, &rows);
    ptx_cp_async_commit();
    if (!KEYS || threadIdx.x >= 2 * step)
        return 0;
    return threadIdx.x < step ? grad_lse(op, t, query, w->head) : grad_delta(op, t, query, w->head);
}

/* s = a b^T of the warp's 16 rows and the step's columns. */
template <int DT, int HD>
static __device__ __forceinline__ void mma_grad_scores(float s[mma_step<HD>::columns / 8][4],
                                                       const uint16_t *a, const uint16_t *b)
{
    int row0 = threadIdx.x / 32 * 16;

    mma_zero<mma_step<HD>::columns / 8>(s);
#pragma unroll
    for (int d = 0; d < HD / 16; d++) {
        uint32_t x[4], y[4];

        mma_load_a<HD>(x, a, row0, d * 2);
#pragma unroll
        for (int n = 0; n < mma_step<HD>::columns / 16; n++) {
            mma_load_b<HD>(y, b, n * 16, d * 2);
            mma<DT>(s[2 * n], x, y);
            mma<DT>(s[2 * n + 1], x, y + 2);
        }
    }
}

/* sum += s b, s rounded to 16 bits. */
template <int DT, int HD>
static __device__ __forceinline__ void
mma_grad_sum(float sum[HD / 8][4], const float s[mma_step<HD>::columns / 8][4], const uint16_t *b)
{
#pragma unroll
    for (int c = 0; c < mma_step<HD>::columns / 16; c++) {
        uint32_t x[4], y[4];

        mma_pack_a<DT>(x, s[2 * c], s[2 * c + 1]);
#pragma unroll
        for (int n = 0; n < HD / 16; n++) {
            mma_load_b_trans<HD>(y, b, c * 16, n * 2);
            mma<DT>(sum[2 * n], x, y);
            mma<DT>(sum[2 * n + 1], x, y + 2);
        }
    }
}

/* Numbers of the queries of the lane's two rows, or with KEYS of the step's columns. */
struct mma_query_numbers {
    float lse[2], delta[2];
    const float *columns;
};

/* s becomes p, dp becomes ds. distance: query - key of row 0, column 0 of the warp's rectangle;
 * without MASK all of it is seen. */
template <int HD, int KEYS, int MASK>
static __device__ __forceinline__ void
mma_grad_fold(float s[mma_step<HD>::columns / 8][4], float dp[mma_step<HD>::columns / 8][4],
              const struct tr_op_attention *op, const struct mma_query_numbers *queries,
              int32_t distance)
{
    constexpr int step = mma_step<HD>::columns;
    int lane = threadIdx.x & 31;
    uint32_t span = (uint32_t)attention_span(op);

    distance += KEYS ? lane % 4 * 2 - lane / 4 : lane / 4 - lane % 4 * 2;
#pragma unroll
    for (int n = 0; n < step / 8; n++) {
        float2 lse, delta;

        if (KEYS) {
            lse = *(const float2 *)(queries->columns + n * 8 + lane % 4 * 2);
            delta = *(const float2 *)(queries->columns + step + n * 8 + lane % 4 * 2);
        }
#pragma unroll
        for (int e = 0; e < 4; e++) {
            int32_t away = n * 8 + e % 2 - e / 2 * 8; /* column - row */
            float l = !KEYS ? queries->lse[e / 2] : e % 2 ? lse.y : lse.x;
            float d = !KEYS ? queries->delta[e / 2] : e % 2 ? delta.y : delta.x;
            float p = ptx_exp2(__fmaf_rn(s[n][e], op->scale * ATTENTION_LOG2E, l));

            if (MASK && (uint32_t)(distance + (KEYS ? away : -away)) >= span)
                p = 0;
            s[n][e] = p;
            dp[n][e] = p * __fmaf_rn(dp[n][e], op->scale, d);
        }
    }
}

/* One step of the walk for the warp's rows. */
template <int DT, int HD, int KEYS>
static __device__ __forceinline__ void
mma_grad_step(float sums[KEYS ? 2 : 1][HD / 8][4], const struct tr_op_attention *op,
              const uint16_t *rows, const uint16_t *columns,
              const struct mma_query_numbers *queries, int32_t distance)
{
    constexpr int step = mma_step<HD>::columns;
    int32_t below = KEYS ? 15 : step - 1, above = KEYS ? step - 1 : 15;
    enum attention_sight sees =
        attention_sees(distance - below, distance + above, attention_span(op));
    const uint16_t *second = columns + mma_step<HD>::column_tile;
    float s[step / 8][4], dp[step / 8][4];

    if (sees == ATTENTION_NONE)
        return;
    mma_grad_scores<DT, HD>(s, rows, columns);
    mma_grad_scores<DT, HD>(dp, rows + mma_step<HD>::row_tile, second);
    if (sees == ATTENTION_SOME)
        mma_grad_fold<HD, KEYS, 1>(s, dp, op, queries, distance);
    else
        mma_grad_fold<HD, KEYS, 0>(s, dp, op, queries, distance);
    if (KEYS)
        mma_grad_sum<DT, HD>(sums[KEYS ? 1 : 0], s, second);
    mma_grad_sum<DT, HD>(sums[0], dp, columns);
}

/* The tiles that the block owns, on their way after this. */
template <int HD, int KEYS>
static __device__ __forceinline__ void mma_grad_open(const struct tr_op_attention *op,
                                                     const struct attention_tile *t, uint16_t *rows)
{
    int64_t heads = KEYS ? op->kv_heads : op->heads;
    struct mma_rows from = mma_rows_of(op, t, heads, blockIdx.y, t->first);

    mma_load_tile<HD, MMA_ROWS>(rows, KEYS ? op->k : op->q, &from);
    mma_load_tile<HD, MMA_ROWS>(rows + mma_step<HD>::row_tile, KEYS ? op->v : op->d_o, &from);
}

template <int DT, int HD, int KEYS>
static __device__ __forceinline__ void mma_grad_close(const struct tr_op_attention *op,
                                                      const struct attention_tile *t,
                                                      const float sums[KEYS ? 2 : 1][HD / 8][4])
{
    const float by[2] = {1, 1};
    int64_t heads = KEYS ? op->kv_heads : op->heads;
    struct mma_rows to = mma_rows_of(op, t, heads, blockIdx.y, t->first + threadIdx.x / 32 * 16);

    mma_store<DT, HD>(KEYS ? op->dk : op->dq, &to, sums[0], by);
    if (KEYS)
        mma_store<DT, HD>(op->dv, &to, sums[KEYS ? 1 : 0], by);
}

/* One tile of rows. With two stages the next step's columns travel while this one's are used. */
template <int DT, int HD, int KEYS>
static __device__ __forceinline__ void mma_grad_tile(const struct tr_op_attention *op,
                                                     const struct attention_tile *t, uint16_t *rows,
                                                     int stages)
{
    constexpr int step = mma_step<HD>::columns, stage = 2 * mma_step<HD>::column_tile;
    uint16_t *columns = rows + 2 * mma_step<HD>::row_tile;
    float *kept = (float *)(columns + stages * stage);
    struct grad_walk w = grad_begin<KEYS>(op, t, MMA_ROWS, step);
    int32_t row0 = t->first + threadIdx.x / 32 * 16;
    float sums[KEYS ? 2 : 1][HD / 8][4], number;
    struct mma_query_numbers queries;
    bool more = true;

    for (int half = 0; !KEYS && half < 2; half++) {
        int32_t row = row0 + threadIdx.x % 32 / 4 + half * 8;

        queries.lse[half] = grad_lse(op, t, row, w.head);
        queries.delta[half] = grad_delta(op, t, row, w.head);
    }
    for (int i = 0; i < (KEYS ? 2 : 1); i++)
        mma_zero<HD / 8>(sums[i]);
    mma_grad_open<HD, KEYS>(op, t, rows);
    number = mma_fetch<HD, KEYS>(op, t, &w, columns);
    if (KEYS && threadIdx.x < 2 * step)
        kept[threadIdx.x] = number;
    for (int i = 0; more; i++) {
        uint16_t *here = columns + (stages > 1 ? i % 2 * stage : 0);
        uint16_t *there = columns + (stages > 1 ? (i + 1) % 2 * stage : 0);
        struct grad_walk now = w;

        ptx_cp_async_wait<0>();
        __syncthreads(); /* this step is there, and no warp is in the one before */
        more = grad_advance(&w, step);
        if (more && stages > 1)
            number = mma_fetch<HD, KEYS>(op, t, &w, there);
        queries.columns = kept + i % 2 * 2 * step;
        mma_grad_step<DT, HD, KEYS>(sums, op, rows, here, &queries,
                                    KEYS ? now.column - row0 : row0 - now.column);
        if (more && stages == 1) {
            __syncthreads(); /* no warp reads the columns any more */
            number = mma_fetch<HD, KEYS>(op, t, &w, there);
        }
        if (KEYS && more && threadIdx.x < 2 * step)
            kept[(i + 1) % 2 * 2 * step + threadIdx.x] = number;
    }
    mma_grad_close<DT, HD, KEYS>(op, t, sums);
}

template <int DT, int HD, int KEYS>
static __global__ void __launch_bounds__(ATTENTION_THREADS, 2)
    attention_grad_mma(const struct tr_op_attention op, int stages)
{
    TR_SHARED_DYNAMIC(uint16_t, shared);
    int32_t begin = grad_window<KEYS>(MMA_ROWS);
    int32_t end = min(begin + MMA_ROWS, (int32_t)op.n);
    struct attention_tile t = {begin, 0, 0};

    while (attention_next(&op, end, MMA_ROWS, &t)) {
        mma_grad_tile<DT, HD, KEYS>(&op, &t, shared, stages);
        __syncthreads(); /* before the next tile's rows come */
    }
}

/* Two stages where two blocks still fit a multiprocessor. */
template <int DT, int HD, int KEYS>
static int mma_grad_launch(const struct tr_cuda *cuda, const struct tr_op_attention *op)
{
    int stages = mma_grad_bytes<HD, KEYS>(2) <= 49 << 10 || attention_large(cuda) ? 2 : 1;
    size_t bytes = mma_grad_bytes<HD, KEYS>(stages);
    int ret = attention_shared(attention_grad_mma<DT, HD, KEYS>, bytes);

    if (ret < 0)
        return ret;
    TR_LAUNCH((attention_grad_mma<DT, HD, KEYS>),
              attention_grid(op, MMA_ROWS, KEYS ? op->kv_heads : op->heads), ATTENTION_THREADS,
              bytes, cuda->stream, *op, stages);
    return 0;
}

template <int DT, int HD>
static int mma_grad_run(const struct tr_cuda *cuda, const struct tr_op_attention *op)
{
    int ret = mma_grad_launch<DT, HD, 1>(cuda, op);

    return ret < 0 ? ret : mma_grad_launch<DT, HD, 0>(cuda, op);
}

template <int DT>
static int mma_grad_dispatch(const struct tr_cuda *cuda, const struct tr_op_attention *op)
{
    if (op->head_dim <= 32)
        return mma_grad_run<DT, 32>(cuda, op);
    if (op->head_dim <= 64)
        return mma_grad_run<DT, 64>(cuda, op);
    if (op->head_dim <= 80)
        return mma_grad_run<DT, 80>(cuda, op);
    if (op->head_dim <= 96)
        return mma_grad_run<DT, 96>(cuda, op);
    return mma_grad_run<DT, 128>(cuda, op);
}

#endif
