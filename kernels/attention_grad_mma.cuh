/* SPDX-License-Identifier: Apache-2.0
 *
 * Attention backward on tensor cores (attention_grad.cu has the table of rows and columns).
 *
 * What bounds it is how often fragments are read from shared memory for each product, so four warps
 * share a block's 64 rows in one of two ways:
 *
 *     across 1   each has 16 rows, all columns of a step and all of the head. Probabilities never
 *                leave its registers; 0.56 to 0.67 reads of ldmatrix a product of mma, the most
 *                where a step has 32 columns.
 *     across 2   two by two. Each makes the scores of 32 rows and half the columns, and sums 32
 *                rows over all columns for half of the head: p and ds of its own columns it has in
 *                registers, those of the warp beside it come through shared memory. 0.41 to 0.46
 *                reads a product, for which sm_80, 90 and 100 have tensor cores fast enough and
 *                room for the wider step.
 */
#ifndef TR_KERNELS_ATTENTION_GRAD_MMA_CUH
#define TR_KERNELS_ATTENTION_GRAD_MMA_CUH

#include "kernels/attention_mma.cuh"
#include "kernels/attention_walk.cuh"

/* Rows that a block owns; sixteen of them are a piece. */
#define MMA_ROWS 64

template <int DT_, int HD_, int KEYS_, int ACROSS> struct grad_shape {
    static_assert(ACROSS == 1 || HD_ % 64 == 0, "halves of a head are told apart by one bit");
    static constexpr int DT = DT_, HD = HD_, KEYS = KEYS_, across = ACROSS;
    static constexpr int pieces = MMA_ROWS / 16 * across / (ATTENTION_THREADS / 32); /* of a warp */
    static constexpr int columns = across > 1 || HD <= 64 ? 64 : 32;                 /* of a step */
    static constexpr int own = columns / across; /* columns whose scores a warp makes */
    static constexpr int dims = HD / across;     /* values of a row that it sums */
    static constexpr int sums = KEYS ? 2 : 1;
    static constexpr int row_tile = MMA_ROWS * mma_tile<HD>::pitch;
    static constexpr int column_tile = columns * mma_tile<HD>::pitch;
    static constexpr int square = across > 1 ? MMA_ROWS * 64 : 0; /* p or ds of a step */
    static constexpr int numbers = 2 * columns; /* KEYS: lse and delta of its queries */
};

/* A block's shared memory: two tiles that it owns, then for each stage two that it walks over, the
 * squares, and lse and delta of two steps. */
struct grad_shared {
    uint16_t *rows, *columns, *squares;
    float *numbers;
};

template <class S>
static __device__ __forceinline__ struct grad_shared grad_shared_at(uint16_t *shared, int stages)
{
    uint16_t *columns = shared + 2 * S::row_tile;
    uint16_t *squares = columns + stages * 2 * S::column_tile;

    return {shared, columns, squares, (float *)(squares + S::sums * S::square)};
}

template <class S> static constexpr size_t grad_shared_bytes(int stages)
{
    return (2 * S::row_tile + 2 * stages * S::column_tile + S::sums * S::square) *
               sizeof(uint16_t) +
           (S::KEYS ? 2 * S::numbers * sizeof(float) : 0);
}

/* Where the warp is in the block's tile: its first row, and which of those side by side it is; and
 * query - key of that row and the step's first column. */
struct grad_warp {
    int32_t row0, side, distance;
};

template <class S> static __device__ __forceinline__ struct grad_warp grad_warp_here(void)
{
    int32_t warp = threadIdx.x / 32;

    return {warp / S::across * S::pieces * 16, warp % S::across, 0};
}

/* Starts the copies of a step's columns. With KEYS a thread returns one of the step's numbers of
 * queries, to be stored once the step before no longer needs the place. */
template <class S>
static __device__ __forceinline__ float mma_fetch(const struct tr_op_attention *op,
                                                  const struct attention_tile *t,
                                                  const struct grad_walk *w, uint16_t *columns)
{
    int32_t kv = w->head / attention_group(op), query = w->column + threadIdx.x % S::columns;
    struct mma_rows rows =
        mma_rows_of(op, t, S::KEYS ? op->heads : op->kv_heads, S::KEYS ? w->head : kv, w->column);

    mma_load_tile<S::HD, S::columns>(columns, S::KEYS ? op->q : op->k, &rows);
    mma_load_tile<S::HD, S::columns>(columns + S::column_tile, S::KEYS ? op->d_o : op->v, &rows);
    ptx_cp_async_commit();
    if (!S::KEYS || threadIdx.x >= S::numbers)
        return 0;
    return threadIdx.x < S::columns ? grad_lse(op, t, query, w->head)
                                    : grad_delta(op, t, query, w->head);
}

/* s = a b^T of the warp's rows, row0 the first, and the first of b. */
template <class S>
static __device__ __forceinline__ void mma_grad_scores(float s[S::pieces][S::own / 8][4],
                                                       const uint16_t *a, int32_t row0,
                                                       const uint16_t *b)
{
#pragma unroll
    for (int m = 0; m < S::pieces; m++)
        mma_zero<S::own / 8>(s[m]);
#pragma unroll
    for (int d = 0; d < S::HD / 16; d++) {
        uint32_t x[S::pieces][4], y[4];

#pragma unroll
        for (int m = 0; m < S::pieces; m++)
            mma_load_a<S::HD>(x[m], a, row0 + m * 16, d * 2);
#pragma unroll
        for (int n = 0; n < S::own / 16; n++) {
            mma_load_b<S::HD>(y, b, n * 16, d * 2);
#pragma unroll
            for (int m = 0; m < S::pieces; m++) {
                mma<S::DT>(s[m][2 * n], x[m], y);
                mma<S::DT>(s[m][2 * n + 1], x[m], y + 2);
            }
        }
    }
}

/* sum += x b: x of sixteen columns, b from the first of them on. */
template <class S>
static __device__ __forceinline__ void mma_grad_sum(float sum[S::pieces][S::dims / 8][4],
                                                    const uint32_t x[S::pieces][4],
                                                    const uint16_t *b, int32_t side)
{
#pragma unroll
    for (int n = 0; n < S::dims / 16; n++) {
        uint32_t y[4];

        mma_load_b_trans<S::HD>(y, b, 0, side * (S::dims / 8) ^ n * 2);
#pragma unroll
        for (int m = 0; m < S::pieces; m++) {
            mma<S::DT>(sum[m][2 * n], x[m], y);
            mma<S::DT>(sum[m][2 * n + 1], x[m], y + 2);
        }
    }
}

/* Numbers of the queries of the lane's rows, or with KEYS of the step's columns. */
template <class S> struct grad_numbers {
    float lse[S::pieces][2], delta[S::pieces][2];
    const float *columns;
};

/* query - key of a place that many columns on. */
template <class S>
static __device__ __forceinline__ int32_t grad_distance(int32_t distance, int32_t columns)
{
    return S::KEYS ? distance + columns : distance - columns;
}

/* What the warp's rows see of as many columns as a warp's own, from that one on. */
template <class S>
static __device__ __forceinline__ enum attention_sight
grad_sees(const struct tr_op_attention *op, const struct grad_warp *w, int32_t column)
{
    int32_t distance = grad_distance<S>(w->distance, column);
    int32_t rows = S::pieces * 16 - 1, columns = S::own - 1;

    return attention_sees(distance - (S::KEYS ? rows : columns),
                          distance + (S::KEYS ? columns : rows), attention_span(op));
}

/* s becomes p, dp becomes ds, of 16 rows. distance: of the first row and column; without MASK all
 * is seen. */
template <class S, int MASK>
static __device__ __forceinline__ void
mma_grad_fold(float s[S::own / 8][4], float dp[S::own / 8][4], const struct tr_op_attention *op,
              const struct grad_numbers<S> *queries, int m, int32_t distance)
{
    int lane = threadIdx.x & 31;
    uint32_t span = (uint32_t)attention_span(op);

    distance += S::KEYS ? lane % 4 * 2 - lane / 4 : lane / 4 - lane % 4 * 2;
#pragma unroll
    for (int n = 0; n < S::own / 8; n++) {
        float2 lse, delta;

        if (S::KEYS) {
            lse = *(const float2 *)(queries->columns + n * 8 + lane % 4 * 2);
            delta = *(const float2 *)(queries->columns + S::columns + n * 8 + lane % 4 * 2);
        }
#pragma unroll
        for (int e = 0; e < 4; e++) {
            int32_t away = n * 8 + e % 2 - e / 2 * 8; /* column - row */
            float l = !S::KEYS ? queries->lse[m][e / 2] : e % 2 ? lse.y : lse.x;
            float d = !S::KEYS ? queries->delta[m][e / 2] : e % 2 ? delta.y : delta.x;
            float p = ptx_exp2(__fmaf_rn(s[n][e], op->scale * ATTENTION_LOG2E, l));

            if (MASK && (uint32_t)grad_distance<S>(distance, away) >= span)
                p = 0;
            s[n][e] = p;
            dp[n][e] = p * __fmaf_rn(dp[n][e], op->scale, d);
        }
    }
}

/* p and ds of the warp's rows and sixteen columns, as operands. */
template <class S> struct grad_operands {
    uint32_t p[S::pieces][4], ds[S::pieces][4];
};

/* What the warp makes of a step itself, of its own columns; false: none of them is seen. */
template <class S>
static __device__ __forceinline__ bool
mma_grad_own(struct grad_operands<S> x[S::own / 16], const struct tr_op_attention *op,
             const uint16_t *rows, const uint16_t *columns, const struct grad_numbers<S> *queries,
             const struct grad_warp *w)
{
    const uint16_t *first = columns + w->side * S::own * mma_tile<S::HD>::pitch;
    enum attention_sight sees = grad_sees<S>(op, w, w->side * S::own);
    float s[S::pieces][S::own / 8][4], dp[S::pieces][S::own / 8][4];

    if (sees == ATTENTION_NONE)
        return false;
    mma_grad_scores<S>(s, rows, w->row0, first);
    mma_grad_scores<S>(dp, rows + S::row_tile, w->row0, first + S::column_tile);
#pragma unroll
    for (int m = 0; m < S::pieces; m++) {
        int32_t distance =
            grad_distance<S>(w->distance, w->side * S::own) + (S::KEYS ? -16 : 16) * m;

        if (sees == ATTENTION_SOME)
            mma_grad_fold<S, 1>(s[m], dp[m], op, queries, m, distance);
        else
            mma_grad_fold<S, 0>(s[m], dp[m], op, queries, m, distance);
#pragma unroll
        for (int c = 0; c < S::own / 16; c++) {
            mma_pack_a<S::DT>(x[c].p[m], s[m][2 * c], s[m][2 * c + 1]);
            mma_pack_a<S::DT>(x[c].ds[m], dp[m][2 * c], dp[m][2 * c + 1]);
        }
    }
    return true;
}

/* dv += p d_o, dk += ds q, or dq += ds k, over sixteen columns, first the first of them. */
template <class S>
static __device__ __forceinline__ void mma_grad_add(float sums[S::sums][S::pieces][S::dims / 8][4],
                                                    const struct grad_operands<S> *x,
                                                    const uint16_t *first, int32_t side)
{
    if (S::KEYS)
        mma_grad_sum<S>(sums[S::sums - 1], x->p, first + S::column_tile, side);
    mma_grad_sum<S>(sums[0], x->ds, first, side);
}

/* To and from the squares, where the warp beside this one finds them; chunk0: of the columns. */
template <class S>
static __device__ __forceinline__ void mma_grad_give(uint16_t *squares, int32_t row0, int chunk0,
                                                     const struct grad_operands<S> *x)
{
#pragma unroll
    for (int m = 0; m < S::pieces; m++) {
        mma_store_a<64>(squares, x->ds[m], row0 + m * 16, chunk0);
        if (S::KEYS)
            mma_store_a<64>(squares + S::square, x->p[m], row0 + m * 16, chunk0);
    }
}

template <class S>
static __device__ __forceinline__ void
mma_grad_take(struct grad_operands<S> *x, const uint16_t *squares, int32_t row0, int chunk0)
{
#pragma unroll
    for (int m = 0; m < S::pieces; m++) {
        mma_load_a<64>(x->ds[m], squares, row0 + m * 16, chunk0);
        if (S::KEYS)
            mma_load_a<64>(x->p[m], squares + S::square, row0 + m * 16, chunk0);
    }
}

/* One step of the walk. */
template <class S>
static __device__ __forceinline__ void
mma_grad_step(float sums[S::sums][S::pieces][S::dims / 8][4], const struct tr_op_attention *op,
              const struct grad_shared *shared, const uint16_t *columns,
              const struct grad_numbers<S> *queries, const struct grad_warp *w)
{
    constexpr int pitch = mma_tile<S::HD>::pitch, chunks = S::own / 8;
    struct grad_operands<S> x[S::own / 16];
    int32_t own = w->side * S::own, other = S::own - own;

    if (mma_grad_own<S>(x, op, shared->rows, columns, queries, w)) {
#pragma unroll
        for (int c = 0; S::across > 1 && c < S::own / 16; c++)
            mma_grad_give<S>(shared->squares, w->row0, w->side * chunks ^ c * 2, &x[c]);
#pragma unroll
        for (int c = 0; c < S::own / 16; c++)
            mma_grad_add<S>(sums, &x[c], columns + (own + c * 16) * pitch, w->side);
    }
    if constexpr (S::across > 1) {
        __syncthreads(); /* the squares are there */
        if (grad_sees<S>(op, w, other) == ATTENTION_NONE)
            return;
#pragma unroll
        for (int c = 0; c < S::own / 16; c++) {
            struct grad_operands<S> theirs;

            mma_grad_take<S>(&theirs, shared->squares, w->row0, (w->side ^ 1) * chunks ^ c * 2);
            mma_grad_add<S>(sums, &theirs, columns + (other + c * 16) * pitch, w->side);
        }
    }
}

/* The tiles that the block owns, on their way after this. */
template <class S>
static __device__ __forceinline__ void mma_grad_open(const struct tr_op_attention *op,
                                                     const struct attention_tile *t, uint16_t *rows)
{
    int64_t heads = S::KEYS ? op->kv_heads : op->heads;
    struct mma_rows from = mma_rows_of(op, t, heads, blockIdx.y, t->first);

    mma_load_tile<S::HD, MMA_ROWS>(rows, S::KEYS ? op->k : op->q, &from);
    mma_load_tile<S::HD, MMA_ROWS>(rows + S::row_tile, S::KEYS ? op->v : op->d_o, &from);
}

/* Without KEYS: numbers of the lane's rows, whose head is that of the block. */
template <class S>
static __device__ __forceinline__ void
grad_numbers_open(struct grad_numbers<S> *queries, const struct tr_op_attention *op,
                  const struct attention_tile *t, int32_t row0)
{
#pragma unroll
    for (int i = 0; i < 2 * S::pieces; i++) {
        int32_t row = t->first + row0 + threadIdx.x % 32 / 4 + i * 8;

        queries->lse[i / 2][i % 2] = grad_lse(op, t, row, blockIdx.y);
        queries->delta[i / 2][i % 2] = grad_delta(op, t, row, blockIdx.y);
    }
}

template <class S>
static __device__ __forceinline__ void
mma_grad_close(const struct tr_op_attention *op, const struct attention_tile *t,
               const struct grad_warp *w, const float sums[S::sums][S::pieces][S::dims / 8][4])
{
    const float by[2] = {1, 1};
    int64_t heads = S::KEYS ? op->kv_heads : op->heads;
    struct mma_rows to = mma_rows_of(op, t, heads, blockIdx.y, t->first + w->row0);

    to.at += w->side * S::dims;
    to.head_dim -= w->side * S::dims;
#pragma unroll
    for (int m = 0; m < S::pieces; m++) {
        mma_store<S::DT, S::dims>(S::KEYS ? op->dk : op->dq, &to, sums[0][m], by);
        if (S::KEYS)
            mma_store<S::DT, S::dims>(op->dv, &to, sums[S::sums - 1][m], by);
        mma_rows_pass(&to, 16);
    }
}

/* One tile of rows. With two stages the next step's columns travel while this one's are used. */
template <class S>
static __device__ __forceinline__ void mma_grad_tile(const struct tr_op_attention *op,
                                                     const struct attention_tile *t,
                                                     const struct grad_shared *shared, int stages)
{
    constexpr int stage = 2 * S::column_tile;
    struct grad_walk w = grad_begin<S::KEYS>(op, t, MMA_ROWS, S::columns);
    struct grad_warp warp = grad_warp_here<S>();
    float sums[S::sums][S::pieces][S::dims / 8][4], number;
    struct grad_numbers<S> queries;
    bool more = true;

    if (!S::KEYS)
        grad_numbers_open<S>(&queries, op, t, warp.row0);
#pragma unroll
    for (int i = 0; i < S::sums * S::pieces; i++)
        mma_zero<S::dims / 8>(sums[i / S::pieces][i % S::pieces]);
    mma_grad_open<S>(op, t, shared->rows);
    number = mma_fetch<S>(op, t, &w, shared->columns);
    if (S::KEYS && threadIdx.x < S::numbers)
        shared->numbers[threadIdx.x] = number;
    for (int i = 0; more; i++) {
        uint16_t *here = shared->columns + (stages > 1 ? i % 2 * stage : 0);
        uint16_t *there = shared->columns + (stages > 1 ? (i + 1) % 2 * stage : 0);
        int32_t column = w.column - t->first; /* from the first row */

        ptx_cp_async_wait<0>();
        __syncthreads(); /* this step is there, and no warp is in the one before */
        more = grad_advance(&w, S::columns);
        if (more && stages > 1)
            number = mma_fetch<S>(op, t, &w, there);
        queries.columns = shared->numbers + i % 2 * S::numbers + warp.side * S::own;
        warp.distance = S::KEYS ? column - warp.row0 : warp.row0 - column;
        mma_grad_step<S>(sums, op, shared, here, &queries, &warp);
        if (more && stages == 1) {
            __syncthreads(); /* no warp reads the columns any more */
            number = mma_fetch<S>(op, t, &w, there);
        }
        if (S::KEYS && more && threadIdx.x < S::numbers)
            shared->numbers[(i + 1) % 2 * S::numbers + threadIdx.x] = number;
    }
    mma_grad_close<S>(op, t, &warp, sums);
}

template <int DT, int HD, int KEYS, int ACROSS>
static __global__ void __launch_bounds__(ATTENTION_THREADS, 2)
    attention_grad_mma(const struct tr_op_attention op, int stages)
{
    TR_SHARED_DYNAMIC(uint16_t, bytes);
    typedef grad_shape<DT, HD, KEYS, ACROSS> shape;
    struct grad_shared shared = grad_shared_at<shape>(bytes, stages);
    int32_t begin = grad_window<KEYS>(MMA_ROWS);
    int32_t end = min(begin + MMA_ROWS, (int32_t)op.n);
    struct attention_tile t = {begin, 0, 0};

    while (attention_next(&op, end, MMA_ROWS, &t)) {
        mma_grad_tile<shape>(&op, &t, &shared, stages);
        __syncthreads(); /* before the next tile's rows come */
    }
}

/* Two stages where two blocks still fit a multiprocessor. */
template <int DT, int HD, int KEYS, int ACROSS>
static int mma_grad_launch(const struct tr_cuda *cuda, const struct tr_op_attention *op)
{
    typedef grad_shape<DT, HD, KEYS, ACROSS> shape;
    int stages = 2 * attention_takes(grad_shared_bytes<shape>(2)) <= attention_room(cuda) ? 2 : 1;
    size_t bytes = grad_shared_bytes<shape>(stages);
    int ret = attention_shared(attention_grad_mma<DT, HD, KEYS, ACROSS>, bytes);

    if (ret < 0)
        return ret;
    TR_LAUNCH((attention_grad_mma<DT, HD, KEYS, ACROSS>),
              attention_grid(op, MMA_ROWS, KEYS ? op->kv_heads : op->heads), ATTENTION_THREADS,
              bytes, cuda->stream, *op, stages);
    return 0;
}

template <int DT, int HD, int ACROSS>
static int mma_grad_launch_both(const struct tr_cuda *cuda, const struct tr_op_attention *op)
{
    int ret = mma_grad_launch<DT, HD, 1, ACROSS>(cuda, op);

    return ret < 0 ? ret : mma_grad_launch<DT, HD, 0, ACROSS>(cuda, op);
}

template <int DT, int HD>
static int mma_grad_run(const struct tr_cuda *cuda, const struct tr_op_attention *op)
{
    if constexpr (HD % 64 == 0)
        if (tr_cuda_large(cuda))
            return mma_grad_launch_both<DT, HD, 2>(cuda, op);
    return mma_grad_launch_both<DT, HD, 1>(cuda, op);
}

template <int DT>
static int mma_grad_dispatch(const struct tr_cuda *cuda, const struct tr_op_attention *op)
{
    return mma_by_width(op->head_dim,
                        [=](auto width) { return mma_grad_run<DT, width.value>(cuda, op); });
}

#endif
