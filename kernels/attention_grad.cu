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
#include "kernels/attention_grad_mma.cuh"
#include "kernels/attention_plain.cuh"

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
    return plain_by_width(op->head_dim,
                          [=](auto width) { return plain_grad_run<DT, width.value>(cuda, op); });
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
