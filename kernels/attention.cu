/* SPDX-License-Identifier: Apache-2.0
 *
 * Attention forward. A tile of queries walks over the tiles of keys that it sees, in ascending
 * order, with a running maximum and sum per row; scores exist only in registers (on tensor cores)
 * or for one tile in shared memory (plain).
 *
 * On tensor cores the base of a row's exponentials follows its maximum only when that has grown by
 * more than 2^8: the result is the same whatever the base, probabilities up to 256 lose nothing in
 * 16 bits, and outputs are hardly ever rescaled. Whether a row's base moves depends on that row
 * alone.
 */
#include "kernels/attention_mma.cuh"
#include "kernels/attention_plain.cuh"

/* Keys in a tile, on tensor cores. */
#define MMA_KEYS 64

/* A warp's rows: M blocks of 16, of which a lane has two rows each. */
template <int M> struct mma_softmax {
    float base[M][2], sum[M][2]; /* of the lane's columns, until the end */
};

/* Scores outside of the row's sight become -infinity. least: query - key of row 0, column 0. */
template <int M>
static __device__ __forceinline__ void mma_mask(float s[M][MMA_KEYS / 8][4], int32_t least,
                                                int32_t span)
{
    int lane = threadIdx.x & 31;
    int32_t distance = least + lane / 4 - lane % 4 * 2;

#pragma unroll
    for (int m = 0; m < M; m++)
#pragma unroll
        for (int n = 0; n < MMA_KEYS / 8; n++)
#pragma unroll
            for (int e = 0; e < 4; e++)
                if ((uint32_t)(distance + m * 16 + e / 2 * 8 - n * 8 - e % 2) >= (uint32_t)span)
                    s[m][n][e] = -INFINITY;
}

/* The largest score of a row, over the four lanes that share it. */
static __device__ __forceinline__ float mma_row_max(const float s[MMA_KEYS / 8][4], int half)
{
    float most = fmaxf(s[0][half * 2], s[0][half * 2 + 1]);

#pragma unroll
    for (int n = 1; n < MMA_KEYS / 8; n++)
        most = fmaxf(most, fmaxf(s[n][half * 2], s[n][half * 2 + 1]));
    most = fmaxf(most, __shfl_xor_sync(0xffffffff, most, 1));
    return fmaxf(most, __shfl_xor_sync(0xffffffff, most, 2));
}

/* Where a row's scores outgrow its base the base moves, and what is summed so far shrinks. */
template <int HD, int M>
static __device__ __forceinline__ void mma_move_base(float o[M][HD / 8][4],
                                                     const float s[M][MMA_KEYS / 8][4],
                                                     struct mma_softmax<M> *rows, float scale)
{
    float shrink[M][2];
    bool moved = false;

#pragma unroll
    for (int m = 0; m < M; m++)
#pragma unroll
        for (int half = 0; half < 2; half++) {
            float base = rows->base[m][half], most = mma_row_max(s[m], half);
            bool moves = (most - base) * scale > 8; /* NaN, as where nothing is seen yet: no */

            shrink[m][half] = moves ? ptx_exp2((base - most) * scale) : 1;
            rows->base[m][half] = moves ? most : base;
            rows->sum[m][half] *= shrink[m][half];
            moved |= moves;
        }
    if (!__any_sync(0xffffffff, moved))
        return;
#pragma unroll
    for (int m = 0; m < M; m++)
#pragma unroll
        for (int n = 0; n < HD / 8; n++)
#pragma unroll
            for (int e = 0; e < 4; e++)
                o[m][n][e] *= shrink[m][e / 2];
}

/* A warp's queries: one block of 16 rows stays in registers and leaves its shared memory to keys
 * and values; two are read again for each tile of keys, which two blocks share. */
template <int HD, int M> struct mma_queries {
    uint32_t kept[M == 1 ? HD / 16 : 1][4];
    const uint16_t *tile;
    int row0;
};

template <int HD, int M>
static __device__ __forceinline__ void mma_load_queries(uint32_t a[M][4],
                                                        const struct mma_queries<HD, M> *q, int d)
{
#pragma unroll
    for (int m = 0; m < M; m++)
        if (M > 1)
            mma_load_a<HD>(a[m], q->tile, q->row0 + m * 16, d * 2);
        else
            for (int i = 0; i < 4; i++)
                a[m][i] = q->kept[M > 1 ? 0 : d][i];
}

/* s = q k^T, unscaled. */
template <int DT, int HD, int M>
static __device__ __forceinline__ void
mma_scores(float s[M][MMA_KEYS / 8][4], const struct mma_queries<HD, M> *q, const uint16_t *k)
{
#pragma unroll
    for (int m = 0; m < M; m++)
        mma_zero<MMA_KEYS / 8>(s[m]);
#pragma unroll
    for (int d = 0; d < HD / 16; d++) {
        uint32_t a[M][4], b[4];

        mma_load_queries<HD, M>(a, q, d);
#pragma unroll
        for (int n = 0; n < MMA_KEYS / 16; n++) {
            mma_load_b<HD>(b, k, n * 16, d * 2);
#pragma unroll
            for (int m = 0; m < M; m++) {
                mma<DT>(s[m][2 * n], a[m], b);
                mma<DT>(s[m][2 * n + 1], a[m], b + 2);
            }
        }
    }
}

/* Scores of eight keys into probabilities. offset: of the lane's two rows. */
static __device__ __forceinline__ void mma_exp(float s[4], float sum[2], const float offset[2],
                                               float scale)
{
#pragma unroll
    for (int e = 0; e < 4; e++) {
        s[e] = ptx_exp2(__fmaf_rn(s[e], scale, offset[e / 2]));
        sum[e / 2] += s[e];
    }
}

/* o += p v, sixteen keys at a time: exponentials of the next run beside products of these. */
template <int DT, int HD, int M>
static __device__ __forceinline__ void
mma_values(float o[M][HD / 8][4], float s[M][MMA_KEYS / 8][4], struct mma_softmax<M> *rows,
           const uint16_t *v, float scale)
{
    float offset[M][2];

#pragma unroll
    for (int m = 0; m < M; m++)
#pragma unroll
        for (int half = 0; half < 2; half++)
            offset[m][half] = rows->base[m][half] == -INFINITY ? 0 : -rows->base[m][half] * scale;
#pragma unroll
    for (int c = 0; c < MMA_KEYS / 16; c++) {
        uint32_t a[M][4], b[4];

#pragma unroll
        for (int m = 0; m < M; m++) {
            mma_exp(s[m][2 * c], rows->sum[m], offset[m], scale);
            mma_exp(s[m][2 * c + 1], rows->sum[m], offset[m], scale);
            mma_pack_a<DT>(a[m], s[m][2 * c], s[m][2 * c + 1]);
        }
#pragma unroll
        for (int n = 0; n < HD / 16; n++) {
            mma_load_b_trans<HD>(b, v, c * 16, n * 2);
#pragma unroll
            for (int m = 0; m < M; m++) {
                mma<DT>(o[m][2 * n], a[m], b);
                mma<DT>(o[m][2 * n + 1], a[m], b + 2);
            }
        }
    }
}

/* Divides by the sums and writes o and lse of a warp's rows, row0 the first. */
template <int DT, int HD, int M>
static __device__ __forceinline__ void
mma_finish(const struct tr_op_attention *op, const struct attention_tile *t, int32_t row0,
           const float o[M][HD / 8][4], const struct mma_softmax<M> *rows)
{
    struct mma_rows to = mma_rows_of(op, t, op->heads, blockIdx.y, row0);
    int lane = threadIdx.x & 31;

#pragma unroll
    for (int m = 0; m < M; m++) {
        float by[2];

#pragma unroll
        for (int half = 0; half < 2; half++) {
            float sum = rows->sum[m][half];
            int32_t row = row0 + m * 16 + half * 8 + lane / 4;

            sum += __shfl_xor_sync(0xffffffff, sum, 1);
            sum += __shfl_xor_sync(0xffffffff, sum, 2);
            by[half] = 1.0f / sum;
            if (lane % 4 == 0 && row < t->length)
                op->lse[(int64_t)(t->doc + row) * op->heads + blockIdx.y] =
                    rows->base[m][half] * op->scale + logf(sum);
        }
        mma_store<DT, HD>(op->o, &to, o[m], by);
        mma_rows_pass(&to, 16);
    }
}

/* Queries of a tile, as far as they are kept: waits for them. */
template <int HD, int M>
static __device__ __forceinline__ void
mma_open_queries(struct mma_queries<HD, M> *q, const struct tr_op_attention *op,
                 const struct attention_tile *t, uint16_t *shared)
{
    struct mma_rows rows = mma_rows_of(op, t, op->heads, blockIdx.y, t->first);

    q->tile = shared;
    q->row0 = threadIdx.x / 32 * 16 * M;
    mma_load_tile<HD, 64 * M>(shared, op->q, &rows);
    ptx_cp_async_commit();
    if (M > 1)
        return;
    ptx_cp_async_wait<0>();
    __syncthreads();
#pragma unroll
    for (int d = 0; d < HD / 16; d++)
        mma_load_a<HD>(q->kept[M > 1 ? 0 : d], q->tile, q->row0, d * 2);
    __syncthreads(); /* before keys take their place */
}

/* One tile of queries. K of the next tile travels while V is used, V while K is. */
template <int DT, int HD, int M>
static __device__ __forceinline__ void mma_attend(const struct tr_op_attention *op,
                                                  const struct attention_tile *t, uint16_t *shared)
{
    constexpr int pitch = mma_tile<HD>::pitch;
    uint16_t *k = shared + (M > 1 ? 64 * M * pitch : 0), *v = k + MMA_KEYS * pitch;
    int32_t span = attention_span(op), row0 = threadIdx.x / 32 * 16 * M;
    struct attention_reach keys = attention_keys(t, 64 * M, span, MMA_KEYS);
    struct mma_rows next =
        mma_rows_of(op, t, op->kv_heads, (int32_t)blockIdx.y / attention_group(op), keys.begin);
    float s[M][MMA_KEYS / 8][4], o[M][HD / 8][4];
    struct mma_queries<HD, M> q;
    struct mma_softmax<M> rows;

#pragma unroll
    for (int m = 0; m < M; m++) {
        mma_zero<HD / 8>(o[m]);
        rows.base[m][0] = rows.base[m][1] = -INFINITY;
        rows.sum[m][0] = rows.sum[m][1] = 0;
    }
    mma_open_queries<HD, M>(&q, op, t, shared);
    mma_load_tile<HD, MMA_KEYS>(k, op->k, &next);
    ptx_cp_async_commit();
    for (int32_t key = keys.begin; key < keys.end; key += MMA_KEYS) {
        int32_t least = t->first + row0 - key;
        enum attention_sight sees = attention_sees(least - MMA_KEYS + 1, least + 16 * M - 1, span);

        ptx_cp_async_wait<0>();
        __syncthreads(); /* K is there, and no warp reads V any more */
        mma_load_tile<HD, MMA_KEYS>(v, op->v, &next);
        mma_rows_pass(&next, MMA_KEYS);
        ptx_cp_async_commit();
        if (sees != ATTENTION_NONE)
            mma_scores<DT, HD, M>(s, &q, k);
        ptx_cp_async_wait<0>();
        __syncthreads(); /* V is there, and no warp reads K any more */
        if (key + MMA_KEYS < keys.end)
            mma_load_tile<HD, MMA_KEYS>(k, op->k, &next);
        ptx_cp_async_commit();
        if (sees == ATTENTION_NONE)
            continue;
        if (sees == ATTENTION_SOME)
            mma_mask<M>(s, least, span);
        mma_move_base<HD, M>(o, s, &rows, op->scale * ATTENTION_LOG2E);
        mma_values<DT, HD, M>(o, s, &rows, v, op->scale * ATTENTION_LOG2E);
    }
    mma_finish<DT, HD, M>(op, t, t->first + row0, o, &rows);
}

template <int DT, int HD, int M>
static __global__ void __launch_bounds__(ATTENTION_THREADS, M == 1 ? 3 : 2)
    attention_mma(const struct tr_op_attention op)
{
    TR_SHARED_DYNAMIC(uint16_t, shared);
    int32_t begin = (int32_t)(gridDim.x - 1 - blockIdx.x) * 64 * M; /* long rows of tiles first */
    int32_t end = min(begin + 64 * M, (int32_t)op.n);
    struct attention_tile t = {begin, 0, 0};

    /* The barrier is not for order: behind a tile's last one only V is read, and the next tile has
     * one before V is written. Without it ptxas keeps the tile across the loop by spilling. */
    while (attention_next(&op, end, 64 * M, &t)) {
        mma_attend<DT, HD, M>(&op, &t, shared);
        __syncthreads();
    }
}

/* Bytes of shared memory of a block. */
template <int HD, int M> static constexpr size_t mma_shared(void)
{
    return ((M > 1 ? 64 * M : 0) + 2 * MMA_KEYS) * mma_tile<HD>::pitch * sizeof(uint16_t);
}

template <int DT, int HD, int M>
static int mma_launch(const struct tr_cuda *cuda, const struct tr_op_attention *op)
{
    int ret = attention_shared(attention_mma<DT, HD, M>, mma_shared<HD, M>());

    if (ret < 0)
        return ret;
    TR_LAUNCH((attention_mma<DT, HD, M>), attention_grid(op, 64 * M, op->heads), ATTENTION_THREADS,
              (mma_shared<HD, M>()), cuda->stream, *op);
    return 0;
}

/* Two blocks of rows per warp read K and V half as often, which the tensor cores of sm_80, 90 and
 * 100 need; where they are slower and shared memory is small, more warps are better for wide heads.
 */
template <int DT, int HD>
static int mma_run(const struct tr_cuda *cuda, const struct tr_op_attention *op)
{
    if constexpr (HD > 64)
        if (!tr_cuda_large(cuda))
            return mma_launch<DT, HD, 1>(cuda, op);
    return mma_launch<DT, HD, 2>(cuda, op);
}

template <int DT>
static int mma_dispatch(const struct tr_cuda *cuda, const struct tr_op_attention *op)
{
    return mma_by_width(op->head_dim,
                        [=](auto width) { return mma_run<DT, width.value>(cuda, op); });
}

/* The thread's rows. */
template <int HD> struct plain_softmax {
    float max[plain_shape<HD>::rows_each], sum[plain_shape<HD>::rows_each];
    float o[plain_shape<HD>::rows_each][HD / 16];
};

/* Scores of the tile of keys at `key` into probabilities in `square`; what is summed so far shrinks
 * as the maximum grows. */
template <int HD>
static __device__ __forceinline__ void
plain_fold(float s[plain_shape<HD>::rows_each][plain_shape<HD>::columns_each], float *square,
           struct plain_softmax<HD> *rows, int32_t least, const struct tr_op_attention *op)
{
    typedef plain_shape<HD> shape;
    uint32_t span = (uint32_t)attention_span(op);

#pragma unroll
    for (int i = 0; i < shape::rows_each; i++) {
        float most = -INFINITY, base, shrink, sum = 0;

        for (int j = 0; j < shape::columns_each; j++) {
            if ((uint32_t)(least + plain_row<HD>(i) - plain_x() - j * 16) >= span)
                s[i][j] = -INFINITY;
            most = fmaxf(most, s[i][j]);
        }
        most = fmaxf(plain_row_max(most), rows->max[i]);
        base = most == -INFINITY ? 0 : most; /* nothing is seen yet */
        shrink = expf((rows->max[i] - base) * op->scale);
        for (int j = 0; j < shape::columns_each; j++) {
            float p = expf((s[i][j] - base) * op->scale);

            square[plain_row<HD>(i) * shape::square_pitch + plain_x() + j * 16] = p;
            sum += p;
        }
        rows->max[i] = most;
        rows->sum[i] = rows->sum[i] * shrink + plain_row_sum(sum);
        for (int j = 0; j < HD / 16; j++)
            rows->o[i][j] *= shrink;
    }
}

template <int DT, int HD>
static __device__ __forceinline__ void plain_finish(const struct tr_op_attention *op,
                                                    const struct attention_tile *t,
                                                    const struct plain_softmax<HD> *rows)
{
    struct plain_rows to = plain_rows_of(op, t, op->o, op->heads, blockIdx.y);
    float by[plain_shape<HD>::rows_each];

    for (int i = 0; i < plain_shape<HD>::rows_each; i++) {
        int32_t row = t->first + plain_row<HD>(i);

        by[i] = 1.0f / rows->sum[i];
        if (plain_x() == 0 && row < t->length)
            op->lse[(int64_t)(t->doc + row) * op->heads + blockIdx.y] =
                rows->max[i] * op->scale + logf(rows->sum[i]);
    }
    plain_store<DT, HD>(&to, t->first, rows->o, by);
}

/* One tile of queries, plain. */
template <int DT, int HD>
static __device__ __forceinline__ void plain_attend(const struct tr_op_attention *op,
                                                    const struct attention_tile *t, float *q)
{
    typedef plain_shape<HD> shape;
    float *k = q + shape::tile, *v = k + shape::tile, *square = v + shape::tile;
    struct attention_reach keys = attention_keys(t, shape::size, attention_span(op), shape::size);
    int32_t kv = (int32_t)blockIdx.y / attention_group(op);
    struct plain_rows q_rows = plain_rows_of(op, t, op->q, op->heads, blockIdx.y);
    struct plain_rows k_rows = plain_rows_of(op, t, op->k, op->kv_heads, kv);
    struct plain_rows v_rows = plain_rows_of(op, t, op->v, op->kv_heads, kv);
    struct plain_softmax<HD> rows;
    float s[shape::rows_each][shape::columns_each];

    for (int i = 0; i < shape::rows_each; i++) {
        rows.max[i] = -INFINITY;
        rows.sum[i] = 0;
        for (int j = 0; j < HD / 16; j++)
            rows.o[i][j] = 0;
    }
    plain_load<DT, HD>(q, &q_rows, t->first);
    for (int32_t key = keys.begin; key < keys.end; key += shape::size) {
        plain_load<DT, HD>(k, &k_rows, key);
        plain_load<DT, HD>(v, &v_rows, key);
        __syncthreads();
        plain_scores<HD>(s, q, k, (int)op->head_dim);
        plain_fold<HD>(s, square, &rows, t->first - key, op);
        __syncthreads();
        plain_product<HD>(rows.o, square, v, min(shape::size, keys.end - key));
        __syncthreads(); /* before the next keys come, or queries */
    }
    plain_finish<DT, HD>(op, t, &rows);
}

template <int DT, int HD>
static __global__ void __launch_bounds__(ATTENTION_THREADS)
    attention_plain(const struct tr_op_attention op)
{
    TR_SHARED_DYNAMIC(float, shared);
    constexpr int size = plain_shape<HD>::size;
    int32_t begin = (int32_t)(gridDim.x - 1 - blockIdx.x) * size;
    int32_t end = min(begin + size, (int32_t)op.n);
    struct attention_tile t = {begin, 0, 0};

    while (attention_next(&op, end, size, &t))
        plain_attend<DT, HD>(&op, &t, shared);
}

template <int DT, int HD>
static int plain_launch(const struct tr_cuda *cuda, const struct tr_op_attention *op)
{
    constexpr int size = plain_shape<HD>::size;
    constexpr size_t bytes = 4 * (3 * plain_shape<HD>::tile + plain_shape<HD>::square);
    int ret = attention_shared(attention_plain<DT, HD>, bytes);

    if (ret < 0)
        return ret;
    TR_LAUNCH((attention_plain<DT, HD>), attention_grid(op, size, op->heads), ATTENTION_THREADS,
              bytes, cuda->stream, *op);
    return 0;
}

template <int DT> static int plain_run(const struct tr_cuda *cuda, const struct tr_op_attention *op)
{
    return plain_by_width(op->head_dim,
                          [=](auto width) { return plain_launch<DT, width.value>(cuda, op); });
}

int tr_cuda_attention(const struct tr_cuda *cuda, const struct tr_op_attention *op)
{
    int ret = attention_check(op);

    if (ret < 0 || op->n <= 0)
        return ret;
    if (attention_on_tensor_cores(op))
        ret =
            op->dtype == TR_BF16 ? mma_dispatch<TR_BF16>(cuda, op) : mma_dispatch<TR_F16>(cuda, op);
    else if (op->dtype == TR_F32)
        ret = plain_run<TR_F32>(cuda, op);
    else
        ret = op->dtype == TR_BF16 ? plain_run<TR_BF16>(cuda, op) : plain_run<TR_F16>(cuda, op);
    return ret < 0 ? ret : tr_cuda_launched(cuda, "attention");
}
