/* SPDX-License-Identifier: Apache-2.0
 *
 * Sums over the threads of a warp or a block in a fixed order: by halves within a warp (every lane
 * ends with the same bits, because a + b is b + a), then the warps' sums by halves again.
 */
#ifndef TR_KERNELS_REDUCE_CUH
#define TR_KERNELS_REDUCE_CUH

#include "kernels/launch.cuh"

/* Over aligned groups of `lanes` lanes, a power of two. All 32 lanes must come. */
template <class T> static __device__ __forceinline__ T reduce_lanes(T x, int lanes)
{
    for (int half = lanes / 2; half; half /= 2)
        x += __shfl_xor_sync(0xffffffff, x, half);
    return x;
}

/* Over the block, whose size is a multiple of 32; every thread gets the sum. `shared` has room for
 * 32 and must not be in use by a slower thread's last sum: callers in a loop take two in turn. */
template <class T> static __device__ __forceinline__ T reduce_block(T x, T *shared)
{
    int lane = threadIdx.x % 32, warps = blockDim.x / 32;

    x = reduce_lanes(x, 32);
    if (lane == 0)
        shared[threadIdx.x / 32] = x;
    __syncthreads();
    return reduce_lanes(lane < warps ? shared[lane] : T(0), 32);
}

#endif
