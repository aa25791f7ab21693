/* SPDX-License-Identifier: Apache-2.0
 *
 * Tiles of f32 values in shared memory, for f32 models (no TF32), heads wider than 128 and heads
 * of odd widths in 16 bits, which become f32 on the way in. 128 threads stand as 8 x 16: thread
 * (y, x) has the rows y * rows_each ... of a tile and the columns x, x + 16 ... of scores and
 * heads. The 16 threads of a row are half a warp, so rows are reduced by shuffles.
 */
#ifndef TR_KERNELS_ATTENTION_PLAIN_CUH
#define TR_KERNELS_ATTENTION_PLAIN_CUH

#include "kernels/attention.cuh"

/* Tiles have `size` rows and shared memory for heads of up to HD values. Rows are padded so that
 * sixteen of them, read four values at a time, fall on different banks. */
template <int HD> struct plain_shape {
    static constexpr int size = HD > 128 ? 16 : 32;
    static constexpr int pitch = HD + 4, tile = size * pitch;
    static constexpr int square_pitch = size + 1, square = size * square_pitch;
    static constexpr int rows_each = size / 8, columns_each = size / 16;
};

static __device__ __forceinline__ int plain_x(void)
{
    return threadIdx.x % 16;
}

template <int HD> static __device__ __forceinline__ int plain_row(int i)
{
    return threadIdx.x / 16 * plain_shape<HD>::rows_each + i;
}

template <int DT> static __device__ __forceinline__ float plain_get(const void *p, int64_t i)
{
    if (DT == TR_F32)
        return ((const float *)p)[i];
    uint16_t x = ((const uint16_t *)p)[i];
    return DT == TR_BF16 ? ptx_bf16_f32(x) : ptx_f16_f32(x);
}

template <int DT> static __device__ __forceinline__ void plain_put(void *p, int64_t i, float x)
{
    if (DT == TR_F32)
        ((float *)p)[i] = x;
    else
        ((uint16_t *)p)[i] = DT == TR_BF16 ? ptx_f32_bf16(x) : ptx_f32_f16(x);
}

/* A head of a document's rows in a tensor of `heads` heads. */
struct plain_rows {
    const void *tensor;
    int64_t row0; /* elements */
    int32_t length, head_dim, stride;
};

static __device__ __forceinline__ struct plain_rows plain_rows_of(const struct tr_op_attention *op,
                                                                  const struct attention_tile *t,
                                                                  const void *tensor, int64_t heads,
                                                                  int32_t head)
{
    int32_t head_dim = (int32_t)op->head_dim, stride = (int32_t)heads * head_dim;

    return {tensor, (int64_t)t->doc * stride + head * head_dim, t->length, head_dim, stride};
}

/* Rows [first, first + size) into a tile, zeros past the document's end and the head's. */
template <int DT, int HD>
static __device__ __forceinline__ void plain_load(float *tile, const struct plain_rows *from,
                                                  int32_t first)
{
    for (int i = threadIdx.x; i < plain_shape<HD>::size * HD; i += ATTENTION_THREADS) {
        int row = i / HD, d = i % HD;
        bool valid = first + row < from->length && d < from->head_dim;

        tile[row * plain_shape<HD>::pitch + d] =
            valid ? plain_get<DT>(from->tensor,
                                  from->row0 + (int64_t)(first + row) * from->stride + d)
                  : 0;
    }
}

/* The thread's rows and columns of a b^T. */
template <int HD>
static __device__ __forceinline__ void
plain_scores(float s[plain_shape<HD>::rows_each][plain_shape<HD>::columns_each], const float *a,
             const float *b, int head_dim)
{
    typedef plain_shape<HD> shape;

    for (int i = 0; i < shape::rows_each; i++)
        for (int j = 0; j < shape::columns_each; j++)
            s[i][j] = 0;
    for (int d = 0; d < head_dim; d += 4) {
        float4 x[shape::rows_each], y[shape::columns_each];

#pragma unroll
        for (int i = 0; i < shape::rows_each; i++)
            x[i] = *(const float4 *)(a + plain_row<HD>(i) * shape::pitch + d);
#pragma unroll
        for (int j = 0; j < shape::columns_each; j++)
            y[j] = *(const float4 *)(b + (plain_x() + j * 16) * shape::pitch + d);
#pragma unroll
        for (int i = 0; i < shape::rows_each; i++)
#pragma unroll
            for (int j = 0; j < shape::columns_each; j++)
                s[i][j] += x[i].x * y[j].x + x[i].y * y[j].y + x[i].z * y[j].z + x[i].w * y[j].w;
    }
}

/* sum += s b, s the square of scores, of which `columns` are not zero. */
template <int HD>
static __device__ __forceinline__ void plain_product(float sum[plain_shape<HD>::rows_each][HD / 16],
                                                     const float *s, const float *b, int columns)
{
    typedef plain_shape<HD> shape;

    for (int c = 0; c < columns; c++) {
        float x[shape::rows_each];

#pragma unroll
        for (int i = 0; i < shape::rows_each; i++)
            x[i] = s[plain_row<HD>(i) * shape::square_pitch + c];
#pragma unroll
        for (int j = 0; j < HD / 16; j++) {
            float y = b[c * shape::pitch + plain_x() + j * 16];

#pragma unroll
            for (int i = 0; i < shape::rows_each; i++)
                sum[i][j] += x[i] * y;
        }
    }
}

/* The thread's part of rows first + ..., times `by` of the row. */
template <int DT, int HD>
static __device__ __forceinline__ void
plain_store(const struct plain_rows *to, int32_t first,
            const float sum[plain_shape<HD>::rows_each][HD / 16], const float *by)
{
#pragma unroll
    for (int i = 0; i < plain_shape<HD>::rows_each; i++) {
        int32_t row = first + plain_row<HD>(i);

#pragma unroll
        for (int j = 0; j < HD / 16; j++)
            if (row < to->length && plain_x() + j * 16 < to->head_dim)
                plain_put<DT>((void *)to->tensor,
                              to->row0 + (int64_t)row * to->stride + plain_x() + j * 16,
                              sum[i][j] * by[i]);
    }
}

static __device__ __forceinline__ float plain_row_max(float x)
{
#pragma unroll
    for (int lanes = 8; lanes; lanes /= 2)
        x = fmaxf(x, __shfl_xor_sync(0xffffffff, x, lanes));
    return x;
}

static __device__ __forceinline__ float plain_row_sum(float x)
{
#pragma unroll
    for (int lanes = 8; lanes; lanes /= 2)
        x += __shfl_xor_sync(0xffffffff, x, lanes);
    return x;
}

/* run(attention_width) with the narrowest tile that such a head fits. */
template <class F> static int plain_by_width(int64_t head_dim, F run)
{
    if (head_dim <= 64)
        return run(attention_width<64>());
    if (head_dim <= 128)
        return run(attention_width<128>());
    return run(attention_width<256>());
}

#endif
