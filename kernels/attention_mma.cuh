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

/* The rows of one document and head. */
struct mma_rows {
    const uint16_t *row0;
    int32_t length, head_dim;
    int64_t stride; /* elements */
};

static __device__ __forceinline__ struct mma_rows mma_rows_of(const struct tr_op_attention *op,
                                                              const struct attention_tile *t,
                                                              const void *tensor, int64_t heads,
                                                              int64_t head)
{
    return {(const uint16_t *)tensor + attention_at(op, heads, t->doc, head), t->length,
            (int32_t)op->head_dim, heads * op->head_dim};
}

/* Rows [first, first + ROWS) into a tile, zeros past the document's end and the head's. Copies are
 * on their way when this returns; heads that are no multiple of 16 bytes are stored at once. */
template <int HD, int ROWS>
static __device__ __forceinline__ void mma_load_tile(uint16_t *tile, const struct mma_rows *from,
                                                     int32_t first)
{
    constexpr int lanes = HD / 8 <= 4 ? 4 : HD / 8 <= 8 ? 8 : 16;
    constexpr int step = ATTENTION_THREADS / lanes;
    int chunk = threadIdx.x % lanes, row = threadIdx.x / lanes, value = chunk * 8;

    if (chunk >= HD / 8)
        return;
    bool whole = from->head_dim % 8 == 0, inside = value < from->head_dim;
    const uint16_t *source = from->row0 + (first + row) * from->stride + value;

#pragma unroll
    for (int i = 0; i < ROWS; i += step, source += step * from->stride) {
        uint16_t *to = tile + mma_at<HD>(i, row, chunk & ~1, chunk & 1);
        bool valid = inside && first + row + i < from->length;

        if (whole) {
            ptx_cp_async_16(to, source, valid);
        } else {
            uint2 low = {0, 0}, high = {0, 0};

            if (valid)
                low = *(const uint2 *)source;
            if (valid && value + 4 < from->head_dim)
                high = *(const uint2 *)(source + 4);
            *(uint4 *)to = {low.x, low.y, high.x, high.y};
        }
    }
}

/* A warp's 16 rows of accumulators, times `by` of the row, to rows row0.. of the tensor. */
template <int DT, int HD>
static __device__ __forceinline__ void mma_store(const struct mma_rows *to, int32_t row0,
                                                 const float d[HD / 8][4], const float by[2])
{
    int lane = threadIdx.x & 31;

#pragma unroll
    for (int half = 0; half < 2; half++) {
        int32_t row = row0 + lane / 4 + half * 8;
        uint16_t *at = (uint16_t *)to->row0 + row * to->stride + lane % 4 * 2;

        if (row >= to->length)
            continue;
#pragma unroll
        for (int n = 0; n < HD / 8; n++)
            if (n * 8 + lane % 4 * 2 < to->head_dim)
                *(uint32_t *)(at + n * 8) =
                    mma_pack<DT>(d[n][half * 2] * by[half], d[n][half * 2 + 1] * by[half]);
    }
}

#endif
