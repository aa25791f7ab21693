/* SPDX-License-Identifier: Apache-2.0
 *
 * Attention backward: probabilities are made again from the kept lse; with delta = rowsum(d_o * o):
 * ds = p * (dp - delta) * scale, dp = d_o v^T, dv += p^T d_o, dk += ds^T q, dq += ds k.
 *
 * Two kernels of one shape, so that every sum has one owner and one order, without atomics. KEYS:
 * a block owns a tile of keys and walks over the heads of the group and the queries that see it,
 * for dk and dv. Otherwise it owns a tile of queries and walks over the keys it sees, for dq. What
 * is owned are rows of scores, what is walked over are columns (with KEYS scores are transposed):
 *
 *            rows                 columns              scores      dp         sums
 *     KEYS   k, v of a key        q, d_o of a query    k q^T       v d_o^T    dk += ds q, dv += p
 * d_o else   q, d_o of a query    k, v of a key        q k^T       d_o v^T    dq += ds k
 */
#include "kernels/attention_mma.cuh"
#include "kernels/attention_plain.cuh"

/* Rows that a block owns on tensor cores, 16 for each warp; columns of a step. */
#define MMA_ROWS 64

template <int HD> struct mma_step {
    static constexpr int columns = HD <= 64 ? 64 : 32;
    static constexpr int row_tile = MMA_ROWS * mma_tile<HD>::pitch;
    static constexpr int column_tile = columns * mma_tile<HD>::pitch;
};

/* delta = rowsum(d_o * o): eight lanes a row, each of them eight values at a time. */
#define DELTA_LANES 8

/* Eight values from i on, zeros past the end. */
template <int DT>
static __device__ __forceinline__ void delta_get(float x[8], const void *p, int64_t i, int left)
{
    const uint16_t *at = (const uint16_t *)p + i;

    if (DT != TR_F32 && left >= 8 && (uintptr_t)at % 16 == 0) { /* p itself may lie anywhere */
        uint4 u = *(const uint4 *)at;
        uint32_t pairs[4] = {u.x, u.y, u.z, u.w};

#pragma unroll
        for (int j = 0; j < 4; j++) {
            x[j * 2] = DT == TR_BF16 ? ptx_bf16_low(pairs[j]) : ptx_f16_low(pairs[j]);
            x[j * 2 + 1] = DT == TR_BF16 ? ptx_bf16_high(pairs[j]) : ptx_f16_high(pairs[j]);
        }
        return;
    }
#pragma unroll
    for (int j = 0; j < 8; j++)
        x[j] = j < left ? plain_get<DT>(p, i + j) : 0;
}

template <int DT>
static __global__ void __launch_bounds__(ATTENTION_THREADS)
    attention_delta(const struct tr_op_attention op)
{
    constexpr int rows = ATTENTION_THREADS / DELTA_LANES;
    int64_t row = (int64_t)blockIdx.x * rows + threadIdx.x / DELTA_LANES;
    int dim = row < op.n * op.heads ? (int)op.head_dim : 0;
    float sum = 0;

    for (int d = threadIdx.x % DELTA_LANES * 8; d < dim; d += DELTA_LANES * 8) {
        float a[8], b[8];

        delta_get<DT>(a, op.d_o, row * dim + d, dim - d);
        delta_get<DT>(b, op.o, row * dim + d, dim - d);
#pragma unroll
        for (int j = 0; j < 8; j++)
            sum += a[j] * b[j];
    }
#pragma unroll
    for (int lanes = DELTA_LANES / 2; lanes; lanes /= 2)
        sum += __shfl_xor_sync(0xffffffff, sum, lanes);
    if (dim && threadIdx.x % DELTA_LANES == 0)
        op.delta[row] = sum;
}

/* Where a block is on its walk. */
struct grad_walk {
    int32_t head, end_head; /* of queries */
    int32_t column;
    struct attention_reach columns;
};

template <int KEYS>
static __device__ __forceinline__ struct grad_walk
grad_begin(const struct tr_op_attention *op, const struct attention_tile *t, int size, int step)
{
    int32_t group = attention_group(op), span = attention_span(op);
    int32_t head = (int32_t)blockIdx.y * (KEYS ? group : 1);
    struct attention_reach columns =
        KEYS ? attention_queries(t, size, span) : attention_keys(t, size, span, step);

    return {head, head + (KEYS ? group : 1), columns.begin, columns};
}

/* Where it goes next; false at the end of the way. */
static __device__ __forceinline__ bool grad_advance(struct grad_walk *w, int32_t step)
{
    w->column += step;
    if (w->column < w->columns.end)
        return true;
    w->column = w->columns.begin;
    return ++w->head < w->end_head;
}

/* What the exponential and the gradient of a query's scores need, ready for one fma each:
 * p = 2^(s * scale * log2(e) + lse), ds = p * (dp * scale + delta). */
static __device__ __forceinline__ float grad_lse(const struct tr_op_attention *op,
                                                 const struct attention_tile *t, int32_t query,
                                                 int32_t head)
{
    return query < t->length
               ? -op->lse[(int64_t)(t->doc + query) * op->heads + head] * ATTENTION_LOG2E
               : -INFINITY; /* no query: p is 0 */
}

static __device__ __forceinline__ float grad_delta(const struct tr_op_attention *op,
                                                   const struct attention_tile *t, int32_t query,
                                                   int32_t head)
{
    return query < t->length ? -op->delta[(int64_t)(t->doc + query) * op->heads + head] * op->scale
                             : 0;
}

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

/* Early keys are seen by most queries, late queries see most keys: long walks begin first. */
template <int KEYS> static __device__ __forceinline__ int32_t grad_window(int size)
{
    return (int32_t)(KEYS ? blockIdx.x : gridDim.x - 1 - blockIdx.x) * size;
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

/* Plain: p and ds of the thread's rows and columns into squares of shared memory. */
template <int HD, int KEYS>
static __device__ __forceinline__ void
plain_grad_fold(float s[plain_shape<HD>::rows_each][plain_shape<HD>::columns_each],
                float dp[plain_shape<HD>::rows_each][plain_shape<HD>::columns_each],
                const struct tr_op_attention *op, const struct attention_tile *t,
                const struct grad_walk *w, float *square)
{
    typedef plain_shape<HD> shape;

    for (int i = 0; i < shape::rows_each; i++)
        for (int j = 0; j < shape::columns_each; j++) {
            int row = plain_row<HD>(i), column = plain_x() + j * 16;
            int32_t query = KEYS ? w->column + column : t->first + row;
            int32_t key = KEYS ? t->first + row : w->column + column;
            bool seen = (uint32_t)(query - key) < (uint32_t)attention_span(op) && query < t->length;
            int64_t at = (int64_t)(t->doc + query) * op->heads + w->head;
            float p = seen ? expf(s[i][j] * op->scale - op->lse[at]) : 0;
            float ds = seen ? p * (dp[i][j] - op->delta[at]) * op->scale : 0;

            square[row * shape::square_pitch + column] = ds;
            if (KEYS)
                square[shape::square + row * shape::square_pitch + column] = p;
        }
}

template <int DT, int HD, int KEYS>
static __device__ __forceinline__ void
plain_grad_tile(const struct tr_op_attention *op, const struct attention_tile *t, float *shared)
{
    typedef plain_shape<HD> shape;
    float *first = shared + 2 * shape::tile, *second = shared + 3 * shape::tile;
    float *square = shared + 4 * shape::tile;
    struct grad_walk w = grad_begin<KEYS>(op, t, shape::size, shape::size);
    int64_t heads = KEYS ? op->kv_heads : op->heads;
    int64_t others = KEYS ? op->heads : op->kv_heads;
    struct plain_rows rows = plain_rows_of(op, t, KEYS ? op->k : op->q, heads, blockIdx.y);
    float sums[KEYS ? 2 : 1][shape::rows_each][HD / 16] = {};
    float by[shape::rows_each];

    for (int i = 0; i < shape::rows_each; i++)
        by[i] = 1;
    plain_load<DT, HD>(shared, &rows, t->first);
    rows.tensor = KEYS ? op->v : op->d_o;
    plain_load<DT, HD>(shared + shape::tile, &rows, t->first);
    do {
        int32_t head = KEYS ? w.head : w.head / attention_group(op);
        struct plain_rows columns = plain_rows_of(op, t, KEYS ? op->q : op->k, others, head);
        float s[shape::rows_each][shape::columns_each], dp[shape::rows_each][shape::columns_each];
        int count = min(shape::size, w.columns.end - w.column);

        plain_load<DT, HD>(first, &columns, w.column);
        columns.tensor = KEYS ? op->d_o : op->v;
        plain_load<DT, HD>(second, &columns, w.column);
        __syncthreads();
        plain_scores<HD>(s, shared, first, (int)op->head_dim);
        plain_scores<HD>(dp, shared + shape::tile, second, (int)op->head_dim);
        plain_grad_fold<HD, KEYS>(s, dp, op, t, &w, square);
        __syncthreads();
        plain_product<HD>(sums[0], square, first, count);
        if (KEYS)
            plain_product<HD>(sums[KEYS ? 1 : 0], square + shape::square, second, count);
        __syncthreads(); /* before the next columns come, or rows */
    } while (grad_advance(&w, shape::size));
    rows.tensor = KEYS ? op->dk : op->dq;
    plain_store<DT, HD>(&rows, t->first, sums[0], by);
    rows.tensor = op->dv;
    if (KEYS)
        plain_store<DT, HD>(&rows, t->first, sums[KEYS ? 1 : 0], by);
}

/* Left to itself the assembler spills sums of wide heads to make room for more blocks than shared
 * memory lets in. */
template <int DT, int HD, int KEYS>
static __global__ void __launch_bounds__(ATTENTION_THREADS, HD > 128 ? 2 : 0)
    attention_grad_plain(const struct tr_op_attention op)
{
    TR_SHARED_DYNAMIC(float, shared);
    constexpr int size = plain_shape<HD>::size;
    int32_t begin = grad_window<KEYS>(size);
    int32_t end = min(begin + size, (int32_t)op.n);
    struct attention_tile t = {begin, 0, 0};

    while (attention_next(&op, end, size, &t))
        plain_grad_tile<DT, HD, KEYS>(&op, &t, shared);
}

template <int DT, int HD, int KEYS>
static int plain_grad_launch(const struct tr_cuda *cuda, const struct tr_op_attention *op)
{
    constexpr size_t bytes = 4 * (4 * plain_shape<HD>::tile + 2 * plain_shape<HD>::square);
    int ret = attention_shared(attention_grad_plain<DT, HD, KEYS>, bytes);

    if (ret < 0)
        return ret;
    TR_LAUNCH((attention_grad_plain<DT, HD, KEYS>),
              attention_grid(op, plain_shape<HD>::size, KEYS ? op->kv_heads : op->heads),
              ATTENTION_THREADS, bytes, cuda->stream, *op);
    return 0;
}

template <int DT, int HD>
static int plain_grad_run(const struct tr_cuda *cuda, const struct tr_op_attention *op)
{
    int ret = plain_grad_launch<DT, HD, 1>(cuda, op);

    return ret < 0 ? ret : plain_grad_launch<DT, HD, 0>(cuda, op);
}

template <int DT>
static int plain_grad_dispatch(const struct tr_cuda *cuda, const struct tr_op_attention *op)
{
    if (op->head_dim <= 64)
        return plain_grad_run<DT, 64>(cuda, op);
    if (op->head_dim <= 128)
        return plain_grad_run<DT, 128>(cuda, op);
    return plain_grad_run<DT, 256>(cuda, op);
}

template <int DT> static int grad_run(const struct tr_cuda *cuda, const struct tr_op_attention *op)
{
    constexpr int rows = ATTENTION_THREADS / DELTA_LANES;
    dim3 grid((unsigned)((op->n * op->heads + rows - 1) / rows));

    TR_LAUNCH((attention_delta<DT>), grid, ATTENTION_THREADS, 0, cuda->stream, *op);
    if constexpr (DT != TR_F32)
        if (attention_on_tensor_cores(op))
            return mma_grad_dispatch<DT>(cuda, op);
    return plain_grad_dispatch<DT>(cuda, op);
}

int tr_cuda_attention_grad(const struct tr_cuda *cuda, const struct tr_op_attention *op)
{
    int ret = attention_check(op);

    if (ret < 0 || op->n <= 0)
        return ret;
    if (op->dtype == TR_F32)
        ret = grad_run<TR_F32>(cuda, op);
    else
        ret = op->dtype == TR_BF16 ? grad_run<TR_BF16>(cuda, op) : grad_run<TR_F16>(cuda, op);
    return ret < 0 ? ret : tr_cuda_launched(cuda, "attention_grad");
}
