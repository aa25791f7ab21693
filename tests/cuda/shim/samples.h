/* SPDX-License-Identifier: Apache-2.0
 *
 * Sample kernels, each with its mutants: `F` names the fault that is planted, NONE is the kernel as
 * it should be. correct.cc runs NONE, mutants.cc the others.
 */
#ifndef TR_TESTS_CUDA_SHIM_SAMPLES_H
#define TR_TESTS_CUDA_SHIM_SAMPLES_H

#include "kernels/launch.cuh"
#include "kernels/ptx.cuh"

enum fault {
    NONE,
    NO_FIRST_SYNC,   // a barrier between writing shared memory and reading it
    NO_LOOP_SYNC,    // the barrier of a loop
    NO_LAST_SYNC,    // the barrier before shared memory is written again
    NO_WARP_SYNC,    // __syncwarp
    NO_WAIT,         // cp.async read before its wait
    SHALLOW_WAIT,    // one group too few waited for
    NO_FINAL_WAIT,   // ends with a copy under way
    NO_COMMIT,       // waits for a group that was never closed
    ODD_SOURCE,      // a source that is not aligned
    SHORT_FILL,      // the last element of shared memory is never written
    OVERRUN,         // writes one element past the end
    UNDERRUN,        // writes one element before the start
    EARLY_EXIT,      // some threads leave before a barrier
    TWO_BARRIERS,    // the two halves of a block wait at different barriers
    LANE_AT_BARRIER, // one lane waits at a barrier, the others in a shuffle
    ABSENT_LANE,     // one lane does not come to a shuffle
    FOREIGN_LANE,    // a lane calls a shuffle whose mask does not name it
    READ_OUTSIDE,    // reads from a lane outside the mask
    SMALL_BLOCK,     // a mask of 32 lanes in a block of 16
    RACING_BLOCKS,   // two blocks write one element
};

static inline const char *sample_file(void)
{
    return __FILE__;
}

enum { REDUCE_THREADS = 128 };

/* out[block] = sum of the block's inputs; twice, so that the array is used again. */
template <fault F> static __global__ void sample_reduce(float *out, const float *x)
{
    TR_SHARED(float, s, [REDUCE_THREADS]);
    int t = (int)threadIdx.x;

    for (int round = 0; round < 2; round++) {
        int end = (int)blockDim.x - (F != OVERRUN);
        if (F != SHORT_FILL || t < end)
            s[t] = x[blockIdx.x * REDUCE_THREADS + t] + (float)round;
        if (F == OVERRUN && t == 0)
            s[end] = 1;
        if (F == UNDERRUN && t == 0)
            (s + end)[-REDUCE_THREADS] = 1;
        if (F == EARLY_EXIT && t == 77)
            return;
        if (F == TWO_BARRIERS && t < REDUCE_THREADS / 2)
            __syncthreads();
        else if (F != NO_FIRST_SYNC)
            __syncthreads();
        for (int width = REDUCE_THREADS / 2; width; width /= 2) {
            if (t < width)
                s[t] += s[t + width];
            if (F != NO_LOOP_SYNC)
                __syncthreads();
        }
        if (t == REDUCE_THREADS - 1)
            out[2 * (F == RACING_BLOCKS ? 0 : blockIdx.x) + round] = s[0];
        if (F != NO_LAST_SYNC)
            __syncthreads();
    }
}

enum { TILE = 32 };

/* y = x transposed; both n x n, blocks 32 wide. */
template <fault F> static __global__ void sample_transpose(float *y, const float *x, int n)
{
    TR_SHARED_DYNAMIC(float, tile);
    int column = (int)(blockIdx.x * TILE + threadIdx.x), row = (int)(blockIdx.y * TILE);

    for (int i = (int)threadIdx.y; i < TILE + (F == OVERRUN); i += (int)blockDim.y)
        tile[i * (TILE + 1) + (int)threadIdx.x] = x[(row + i) % n * n + column];
    if (F != NO_FIRST_SYNC)
        __syncthreads();
    column = (int)(blockIdx.y * TILE + threadIdx.x);
    row = (int)(blockIdx.x * TILE);
    for (int i = (int)threadIdx.y; i < TILE; i += (int)blockDim.y)
        y[(row + i) * n + column] = tile[(int)threadIdx.x * (TILE + 1) + i];
}

/* y[i] = x[0] + ... + x[i] within each block of up to 1024, by warp scans. */
template <fault F> static __global__ void sample_scan(float *y, const float *x)
{
    TR_SHARED(float, sums, [32]);
    int t = (int)threadIdx.x, lane = t % 32, warp = t / 32;
    unsigned mask = F == FOREIGN_LANE ? 0x7fffffff : 0xffffffff;
    float v = x[blockIdx.x * blockDim.x + t];

    if (F == ABSENT_LANE && t == 5)
        return;
    if (F == LANE_AT_BARRIER && t == 5)
        __syncthreads();
    if (F == READ_OUTSIDE && lane < 16)
        v = __shfl_sync(0xffff, v, lane == 3 ? 20 : lane);
    for (int d = 1; d < 32; d *= 2) {
        float u = __shfl_up_sync(mask, v, d);
        if (lane >= d)
            v += u;
    }
    if (lane == 31)
        sums[warp] = v;
    if (F != NO_FIRST_SYNC)
        __syncthreads();
    for (int i = 0; i < warp; i++)
        v += sums[i];
    y[blockIdx.x * blockDim.x + t] = v;
}

/* Neighbours swap through shared memory within their warp. */
template <fault F> static __global__ void sample_swap(int *y, const int *x)
{
    TR_SHARED(int, s, [64]);
    int t = (int)threadIdx.x;

    s[t] = x[t];
    if (F != NO_WARP_SYNC)
        __syncwarp();
    y[t] = s[t ^ 1];
}

enum { STREAM_THREADS = 64 };

/* y[t] = sum over i of 16-byte vector t of tile i, from two buffers that are filled in turn; every
 * second thread reads what its neighbour copied. */
template <fault F> static __global__ void sample_stream(float *y, const float *x, int n)
{
    TR_SHARED(float4, tile, [2][STREAM_THREADS]);
    int t = (int)threadIdx.x, other = t ^ 33;
    const float4 *from = (const float4 *)(const void *)(x + (F == ODD_SOURCE));
    float sum = 0;

    ptx_cp_async_16(&tile[0][t], from + t, true);
    if (F != NO_COMMIT)
        ptx_cp_async_commit();
    for (int i = 0; i < n; i++) {
        int next = i + 1 < n || F == NO_FINAL_WAIT ? i + 1 : n - 1;
        ptx_cp_async_16(&tile[(i + 1) % 2][t], from + next % n * STREAM_THREADS + t, i + 1 < n);
        ptx_cp_async_commit();
        if (F == SHALLOW_WAIT)
            ptx_cp_async_wait<2>();
        else if (F != NO_WAIT)
            ptx_cp_async_wait<1>();
        if (F != NO_FIRST_SYNC)
            __syncthreads();
        float4 v = tile[i % 2][other];
        sum += v.x + 2 * v.y + 3 * v.z + 4 * v.w;
        if (F != NO_LAST_SYNC)
            __syncthreads();
    }
    if (F != NO_FINAL_WAIT)
        ptx_cp_async_wait<0>();
    y[t] = sum + tile[n % 2][t].x;
}

#endif
