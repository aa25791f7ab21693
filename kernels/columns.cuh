/* SPDX-License-Identifier: Apache-2.0
 *
 * Sums down columns in the fixed order of gradients, for the weight of rmsnorm and for biases. The
 * rows of a grain are cut into chunks, a block sums the rows of a chunk and leaves a row of partial
 * sums in the scratch (columns_put), and a second kernel adds the chunks and then the grain to the
 * result (columns_finish). The cut is a function of the grain's rows and the columns alone, and the
 * grains follow each other on the stream: one call with two grains and two calls with one give the
 * same bits.
 */
#ifndef TR_KERNELS_COLUMNS_CUH
#define TR_KERNELS_COLUMNS_CUH

#include "kernels/cuda.h"
#include "kernels/launch.cuh"
#include "kernels/vec.cuh"

#define COLUMNS_THREADS 256 /* of a block that holds more than one row at a time */
#define COLUMNS_SLOTS   16  /* of columns_fold: that many runs of chunks */

/* Consecutive rows and how they are cut. */
struct columns_grain {
    int64_t row0, rows;
    int64_t chunk;  /* rows of a chunk */
    float *partial; /* (chunks, cols), or NULL: nobody wants the sums */
};

static inline unsigned columns_chunks(const struct columns_grain *g)
{
    return (unsigned)((g->rows + g->chunk - 1) / g->chunk);
}

/* Cuts a grain into at most `most` chunks of a multiple of `slots` rows. */
static inline void columns_cut(struct columns_grain *g, int64_t most, int64_t slots)
{
    int64_t chunk = (g->rows + most - 1) / most;

    g->chunk = chunk ? (chunk + slots - 1) / slots * slots : slots;
}

/* At most `most` chunks, fewer where the scratch holds no more; 0: not one row of sums fits. */
static inline int64_t columns_most(const struct tr_cuda *cuda, int64_t cols, int64_t most)
{
    int64_t fit = (int64_t)(cuda->scratch_bytes / sizeof(float)) / cols;

    return fit < most ? fit : most;
}

/* Adds the sums that the block's slots (threads / lanes of them) have of columns
 * column0 + 8 lane ... and writes them as columns of the chunk's partial sums. */
static __device__ __forceinline__ void columns_put(float *partial, const float acc[VEC], int lanes,
                                                   int64_t column0, int64_t cols)
{
    TR_SHARED(float, slots, [COLUMNS_THREADS * VEC]);
    int width = lanes * VEC;

    for (int j = 0; j < VEC; j++)
        slots[threadIdx.x * VEC + j] = acc[j];
    __syncthreads();
    for (int c = threadIdx.x; c < width && column0 + c < cols; c += blockDim.x) {
        float sum = slots[c];

        for (int at = c + width; at < COLUMNS_THREADS * VEC; at += width)
            sum += slots[at];
        partial[column0 + c] = sum;
    }
}

/* out (= or +=) the sum of the chunks' rows. A slot takes every COLUMNS_SLOTS-th chunk. */
static __global__ void __launch_bounds__(32 * COLUMNS_SLOTS)
    columns_fold(float *out, const float *partial, int chunks, int64_t cols, int add)
{
    TR_SHARED(float, slots, [COLUMNS_SLOTS][32]);
    int64_t column = (int64_t)blockIdx.x * 32 + threadIdx.x;
    float sum = 0;

    if (column < cols)
        for (int c = threadIdx.y; c < chunks; c += COLUMNS_SLOTS)
            sum += partial[c * cols + column];
    slots[threadIdx.y][threadIdx.x] = sum;
    __syncthreads();
    if (threadIdx.y || column >= cols)
        return;
    for (int s = 1; s < COLUMNS_SLOTS; s++)
        sum += slots[s][threadIdx.x];
    out[column] = add ? out[column] + sum : sum;
}

/* Adds a grain whose partial sums are queued to out, or lets it begin out. */
static inline void columns_finish(const struct tr_cuda *cuda, const struct columns_grain *g,
                                  float *out, int64_t cols, int add)
{
    int chunks = (int)columns_chunks(g);
    unsigned blocks = (unsigned)((cols + 31) / 32);

    TR_LAUNCH(columns_fold, blocks, dim3(32, COLUMNS_SLOTS), 0, cuda->stream, out, g->partial,
              chunks, cols, add);
}

#endif
