/* SPDX-License-Identifier: Apache-2.0
 *
 * The sum of squares in f64, in an order fixed by n alone: a thread sums the groups of eight that
 * fall to it, blocks leave partial sums in the scratch, one block adds those.
 *
 * Graphics cards do one operation in f64 where they do 64 in f32, too few to square every element
 * in it at the speed of memory. So a group is summed in two f32, the sum and what its roundings
 * lost (error-free product and sum), about 48 bits, and only that pair is widened. Where squares
 * would overflow in f32 or lose their low part to underflow, the group is summed in f64.
 */
#include "kernels/cuda.h"

#include "kernels/launch.cuh"
#include "kernels/reduce.cuh"
#include "kernels/vec.cuh"

#define BLOCKS 1024 /* at most */

static __device__ __forceinline__ double sum_wide(const float x[VEC])
{
    double sum = 0;

    for (int j = 0; j < VEC; j++)
        sum = fma((double)x[j], (double)x[j], sum);
    return sum;
}

static __device__ __forceinline__ double sum_pair(const float x[VEC])
{
    float sum = 0, lost = 0;

    for (int j = 0; j < VEC; j++) {
        float square = __fmul_rn(x[j], x[j]), rest = __fmaf_rn(x[j], x[j], -square);
        float next = __fadd_rn(sum, square), taken = __fsub_rn(next, sum);

        rest = __fadd_rn(rest, __fsub_rn(square, taken));
        lost = __fadd_rn(lost, __fadd_rn(rest, __fsub_rn(sum, __fsub_rn(next, taken))));
        sum = next;
    }
    return (double)sum + (double)lost;
}

/* NaN passes by the comparisons and through sum_pair; infinity takes the wide way. */
static __device__ __forceinline__ double sum_group(const float x[VEC])
{
    float most = 0;

    for (int j = 0; j < VEC; j++)
        most = fmaxf(most, fabsf(x[j]));
    return most > 0x1p60f || (most > 0 && most < 0x1p-40f) ? sum_wide(x) : sum_pair(x);
}

static __global__ void __launch_bounds__(VEC_THREADS)
    sumsq_part(double *partial, const float *p, int64_t n)
{
    TR_SHARED(double, shared, [32]);
    int64_t step = (int64_t)gridDim.x * blockDim.x * VEC;
    double sum = 0;

    for (int64_t i = vec_index(); i < n; i += step) {
        float x[VEC];

        if (vec_whole<TR_F32>(p, i, n))
            vec_get<TR_F32, true>(x, p, i, n);
        else
            vec_get<TR_F32, false>(x, p, i, n);
        sum += sum_group(x);
    }
    sum = reduce_block(sum, shared);
    if (threadIdx.x == 0)
        partial[blockIdx.x] = sum;
}

static __global__ void __launch_bounds__(VEC_THREADS)
    sumsq_whole(double *out, const double *partial, int blocks)
{
    TR_SHARED(double, shared, [32]);
    double sum = 0;

    for (int i = threadIdx.x; i < blocks; i += blockDim.x)
        sum += partial[i];
    sum = reduce_block(sum, shared);
    if (threadIdx.x == 0)
        *out = sum;
}

int tr_cuda_sumsq(const struct tr_cuda *cuda, const struct tr_op_sumsq *op)
{
    unsigned blocks =
        vec_blocks(op->n < BLOCKS * VEC_THREADS * VEC ? op->n : BLOCKS * VEC_THREADS * VEC);
    double *partial = (double *)cuda->scratch;

    if (blocks)
        TR_LAUNCH(sumsq_part, blocks, VEC_THREADS, 0, cuda->stream, partial, op->x, op->n);
    TR_LAUNCH(sumsq_whole, 1, VEC_THREADS, 0, cuda->stream, op->out, partial, (int)blocks);
    return tr_cuda_launched(cuda, "sumsq");
}
