/* SPDX-License-Identifier: Apache-2.0
 *
 * Tiles of 16-bit values in shared memory and products of them on tensor cores (mma m16n8k16, f32
 * accumulators). A tile has rows (tokens) of HD values, HD = 32, 64, 80, 96 or 128: the head padded
 * with zeros. Eight rows are read at once by ldmatrix, 16 bytes each, so rows must not fall on the
 * same banks: where a row is a multiple of 128 bytes, chunks of 16 bytes are exchanged within it by
 * the row number (no byte is lost); elsewhere rows are padded by 16 bytes.
 *
 * A warp's accumulators hold, of each 16 x 8 block, rows g and g + 8 (g = lane / 4), columns
 * 2 * (lane % 4) and the next: [0] and [1] of row g, [2] and [3] of row g + 8. Two neighbouring
 * blocks, rounded and packed, are just the A operand of a product over their columns, so
 * probabilities never leave registers.
 */
#ifndef TR_KERNELS_ATTENTION_MMA_CUH
#define TR_KERNELS_ATTENTION_MMA_CUH

#include "kernels/attention.cuh"

/* Elements from row to row. */
template <int HD> struct mma_tile {
    static constexpr bool exchanged = HD % 64 == 0;
    static constexpr int pitch = exchanged ? HD : HD + 8;
};

/* Where chunk0 + lane_chunk of row0 + lane_row begins; row0 is a multiple of 8 and chunk0 of 2,
 * both known at compile time in loops, lane_chunk is 0 or 1: what varies by lane is computed once.
 */
template <int HD>
static __device__ __forceinline__ int mma_at(int row0, int lane_row, int chunk0, int lane_chunk)
{
    if (mma_tile<HD>::exchanged)
        return row0 * HD + lane_row * HD + (chunk0 ^ (lane_chunk ^ (lane_row & 7))) * 8;
    return (row0 + lane_row) * mma_tile<HD>::pitch + (chunk0 + lane_chunk) * 8;
}

/* A 16 x 16: rows row0.., columns 8 * chunk0... */
template <int HD>
static __device__ __forceinline__ void mma_load_a(uint32_t a[4], const uint16_t *tile, int row0,
                                                  int chunk0)
{
    int lane = threadIdx.x & 31;

    ptx_ldmatrix_x4(a, tile + mma_at<HD>(row0, lane & 15, chunk0, lane >> 4));
}

/* The reverse of mma_load_a. */
template <int HD>
static __device__ __forceinline__ void mma_store_a(uint16_t *tile, const uint32_t a[4], int row0,
                                                   int chunk0)
{
    int lane = threadIdx.x & 31;

#pragma unroll
    for (int i = 0; i < 4; i++)
        *(uint32_t *)(tile + mma_at<HD>(row0 + i % 2 * 8, lane / 4, chunk0, i / 2) + lane % 4 * 2) =
            a[i];
}

/* B of two blocks: k runs along the tile's rows' values, n = row0.. (8) and the next 8. */
template <int HD>
static __device__ __forceinline__ void mma_load_b(uint32_t b[4], const uint16_t *tile, int row0,
                                                  int chunk0)
{
    int lane = threadIdx.x & 31;

    ptx_ldmatrix_x4(b,
                    tile + mma_at<HD>(row0, (lane & 7) | (lane >> 4 << 3), chunk0, lane >> 3 & 1));
}

/* B of two blocks: k runs along rows row0.. (16), n = values 8 * chunk0.. and the next 8. */
template <int HD>
static __device__ __forceinline__ void mma_load_b_trans(uint32_t b[4], const uint16_t *tile,
                                                        int row0, int chunk0)
{
    int lane = threadIdx.x & 31;

    ptx_ldmatrix_x4_trans(b, tile + mma_at<HD>(row0, lane & 15, chunk0, lane >> 4));
}

template <int DT>
static __device__ __forceinline__ void mma(float d[4], const uint32_t a[4], const uint32_t b[2])
{
    if (DT == TR_BF16)
        ptx_mma_bf16(d, a, b);
    else
        ptx_mma_f16(d, a, b);
}

template <int DT> static __device__ __forceinline__ uint32_t mma_pack(float low, float high)
{
    return DT == TR_BF16 ? ptx_pack_bf16(low, high) : ptx_pack_f16(low, high);
}

/* The A operand over the columns of two neighbouring blocks. */
template <int DT>
static __device__ __forceinline__ void mma_pack_a(uint32_t a[4], const float left[4],
                                                  const float right[4])
{
    a[0] = mma_pack<DT>(left[0], left[1]);
    a[1] = mma_pack<DT>(left[2], left[3]);
    a[2] = mma_pack<DT>(right[0], right[1]);
    a[3] = mma_pack<DT>(right[2], right[3]);
}

template <int BLOCKS> static __device__ __forceinline__ void mma_zero(float d[BLOCKS][4])
{
#pragma unroll
    for (int n = 0; n < BLOCKS; n++)
        d[n][0] = d[n][1] = d[n][2] = d[n][3] = 0;
}

/* Rows of one document and head, of any tensor with as many heads: where they begin, in elements,
 * and how many there are to the document's end. */
struct mma_rows {
    int64_t at;
    int32_t left, head_dim, stride;
};

static __device__ __forceinline__ struct mma_rows mma_rows_of(const struct tr_op_attention *op,
                                                              const struct attention_tile *t,
                                                              int64_t heads, int32_t head,
                                                              int32_t first)
{
    int32_t head_dim = (int32_t)op->head_dim, stride = (int32_t)heads * head_dim;

    return {(int64_t)(t->doc + first) * stride + head * head_dim, t->length - first, head_dim,
            stride};
}

static __device__ __forceinline__ void mma_rows_pass(struct mma_rows *rows, int32_t count)
{
    rows->at += count * rows->stride;
    rows->left -= count;
}

/* One thread's share of a tile: 16 bytes of every `step` rows. */
template <int HD> struct mma_share {
    static constexpr int lanes = HD / 8 <= 4 ? 4 : HD / 8 <= 8 ? 8 : 16;
    static constexpr int step = ATTENTION_THREADS / lanes;
};

/* Tiles that reach past the document or are wider than its heads: zeros there. Heads that are no
 * multiple of 16 bytes are stored at once. */
template <int HD, int ROWS>
static __device__ __forceinline__ void mma_load_part(uint16_t *tile, const void *tensor,
                                                     const struct mma_rows *rows)
{
    int chunk = threadIdx.x % mma_share<HD>::lanes, row = threadIdx.x / mma_share<HD>::lanes;
    const uint16_t *from = (const uint16_t *)tensor + rows->at + chunk * 8;

#pragma unroll 1
    for (; chunk < HD / 8 && row < ROWS; row += mma_share<HD>::step) {
        uint16_t *to = tile + mma_at<HD>(0, row, chunk & ~1, chunk & 1);
        int32_t left = row < rows->left ? rows->head_dim - chunk * 8 : 0;
        uint2 low = {0, 0}, high = {0, 0};

        if (rows->head_dim % 8 == 0) {
            ptx_cp_async_16(to, from + row * rows->stride, left > 0);
            continue;
        }
        if (left > 0)
            low = *(const uint2 *)(from + row * rows->stride);
        if (left > 4)
            high = *(const uint2 *)(from + row * rows->stride + 4);
        *(uint4 *)to = {low.x, low.y, high.x, high.y};
    }
}

/* The next ROWS rows into a tile. Copies are on their way when this returns. */
template <int HD, int ROWS>
static __device__ __forceinline__ void mma_load_tile(uint16_t *tile, const void *tensor,
                                                     const struct mma_rows *rows)
{
    int chunk = threadIdx.x % mma_share<HD>::lanes, row = threadIdx.x / mma_share<HD>::lanes;
    int32_t step = mma_share<HD>::step * rows->stride;
    const uint16_t *from = (const uint16_t *)tensor + rows->at + (row * rows->stride + chunk * 8);

    if (rows->left < ROWS || rows->head_dim != HD) {
        mma_load_part<HD, ROWS>(tile, tensor, rows);
        return;
    }
    if (chunk < HD / 8)
#pragma unroll
        for (int i = 0; i < ROWS; i += mma_share<HD>::step, from += step)
            ptx_cp_async_16(tile + mma_at<HD>(i, row, chunk & ~1, chunk & 1), from, true);
}

/* A warp's 16 rows of accumulators, times `by` of the row. */
template <int DT, int HD>
static __device__ __forceinline__ void mma_store(void *tensor, const struct mma_rows *rows,
                                                 const float d[HD / 8][4], const float by[2])
{
    int lane = threadIdx.x & 31;

#pragma unroll
    for (int half = 0; half < 2; half++) {
        int32_t row = lane / 4 + half * 8;
        uint16_t *to = (uint16_t *)tensor + rows->at + (row * rows->stride + lane % 4 * 2);

        if (row >= rows->left)
            continue;
#pragma unroll
        for (int n = 0; n < HD / 8; n++)
            if (n * 8 + lane % 4 * 2 < rows->head_dim)
                *(uint32_t *)(to + n * 8) =
                    mma_pack<DT>(d[n][half * 2] * by[half], d[n][half * 2 + 1] * by[half]);
    }
}

/* run(attention_width) with the narrowest tile that such a head fits; what is wider than the last
 * is not for tensor cores (attention_on_tensor_cores). */
template <class F> static int mma_by_width(int64_t head_dim, F run)
{
    if (head_dim <= 32)
        return run(attention_width<32>());
    if (head_dim <= 64)
        return run(attention_width<64>());
    if (head_dim <= 80)
        return run(attention_width<80>());
    if (head_dim <= 96)
        return run(attention_width<96>());
    return run(attention_width<128>());
}

#endif
