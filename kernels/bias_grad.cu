/* SPDX-License-Identifier: Apache-2.0
 *
 * The gradient of a bias: column sums of dy in the fixed order of kernels/columns.cuh.
 */
#include "kernels/columns.cuh"

#define CHUNKS 128 /* of a grain, at most */
#define ROWS   4   /* of a chunk and slot, at least */

template <enum tr_dtype D>
static __global__ void __launch_bounds__(COLUMNS_THREADS)
    sum_chunk(const struct tr_op_bias_grad op, const struct columns_grain g, int lanes)
{
    int slots = blockDim.x / lanes, slot = threadIdx.x / lanes;
    int64_t column0 = (int64_t)blockIdx.x * lanes * VEC;
    int64_t column = column0 + threadIdx.x % lanes * VEC;
    int64_t begin = blockIdx.y * g.chunk, end = begin + g.chunk < g.rows ? begin + g.chunk : g.rows;
    float acc[VEC] = {0}, x[VEC];

    for (int64_t r = begin + slot; r < end; r += slots) {
        const void *row = vec_at<D>(op.dy, (g.row0 + r) * op.m);

        if (vec_whole<D>(row, column, op.m))
            vec_get<D, true>(x, row, column, op.m);
        else
            vec_get<D, false>(x, row, column, op.m);
        for (int j = 0; j < VEC; j++)
            acc[j] += x[j];
    }
    columns_put(g.partial + blockIdx.y * op.m, acc, lanes, column0, op.m);
}

static void add_grain(const struct tr_cuda *cuda, const struct tr_op_bias_grad *op,
                      struct columns_grain *g, int add)
{
    int lanes = vec_lanes((op->m + VEC - 1) / VEC, 32);

    columns_cut(g, columns_most(cuda, op->m, CHUNKS), COLUMNS_THREADS / lanes * ROWS);
    dim3 grid((unsigned)((op->m + lanes * VEC - 1) / (lanes * VEC)), columns_chunks(g));
    if (g->rows)
        TR_BY_DTYPE(
            op->dtype, D,
            TR_LAUNCH(sum_chunk<D>, grid, COLUMNS_THREADS, 0, cuda->stream, *op, *g, lanes));
    columns_finish(cuda, g, op->db, op->m, add);
}

int tr_cuda_bias_grad(const struct tr_cuda *cuda, const struct tr_op_bias_grad *op)
{
    struct columns_grain empty = {0, 0, 1, (float *)cuda->scratch};

    if (op->m == 0)
        return 0;
    if (!columns_most(cuda, op->m, CHUNKS))
        return tr_cuda_refuse(-EINVAL, "bias_grad: %lld columns exceed the cuda device's scratch",
                              (long long)op->m);
    if (!op->grains.n && !op->add)
        columns_finish(cuda, &empty, op->db, op->m, 0);
    for (int32_t i = 0; i < op->grains.n; i++) {
        int64_t row0 = op->grains.start[i];
        struct columns_grain g = {row0, op->grains.start[i + 1] - row0, 1, (float *)cuda->scratch};

        add_grain(cuda, op, &g, op->add || i);
    }
    return tr_cuda_launched(cuda, "bias_grad");
}
