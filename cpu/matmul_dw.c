/* SPDX-License-Identifier: Apache-2.0
 *
 * The weight gradient dw (m, k) = (+)= dy^T x, a sum over tokens: every tile of dw runs over the
 * grains in order, one single-threaded sgemm each, the first one writing and the others adding, so
 * that grains of one op and grains of successive ops with add = 1 give the same bits. Fused, all of
 * them add to the weight itself.
 */
#include <string.h>

#include "cpu/blas.h"
#include "cpu/cpu.h"
#include "cpu/tile.h"

struct job {
    const struct tr_cpu *cpu;
    const struct tr_op_matmul *op;
    struct tr_tiles rows, columns;
};

static void do_tile(const struct job *job, int64_t row, int64_t column)
{
    const struct tr_op_matmul *op = job->op;
    int64_t m0 = tr_tile_begin(&job->rows, row), k0 = tr_tile_begin(&job->columns, column);
    struct tr_gemm g = {.rows = tr_tile_end(&job->rows, row) - m0,
                        .cols = tr_tile_end(&job->columns, column) - k0,
                        .c = op->dw + m0 * op->k + k0,
                        .lda = op->m,
                        .ldb = op->k,
                        .ldc = op->k,
                        .a_trans = 1,
                        .scaled = op->fused,
                        .alpha = -op->lr,
                        .beta = op->add || op->fused ? 1.0f : 0.0f};

    for (int32_t i = 0; i < op->grains.n; i++) {
        int64_t t0 = op->grains.start[i];

        g.k = op->grains.start[i + 1] - t0;
        if (g.k == 0)
            continue;
        g.a = (const float *)op->dy + t0 * op->m + m0;
        g.b = (const float *)op->x + t0 * op->k + k0;
        tr_blas_gemm(job->cpu->blas, &g);
        g.beta = 1.0f;
    }
}

static void do_tiles(void *arg, int64_t begin, int64_t end, int worker)
{
    const struct job *job = arg;

    (void)worker;
    for (int64_t i = begin; i < end; i++)
        do_tile(job, i / job->columns.count, i % job->columns.count);
}

int tr_cpu_matmul_dw(const struct tr_cpu *cpu, const struct tr_op_matmul *op)
{
    struct job job = {cpu, op, tr_tiles_across(op->m)};
    int error = tr_matmul_check(op);

    if (error)
        return error;
    /* Each call packs both its factors: wide where the rows alone give work to four cores. */
    job.columns = tr_tiles_of(op->k, job.rows.count < 4 ? 256 : 1024);
    if (op->n == 0 && !op->add && !op->fused)
        memset(op->dw, 0, (size_t)(op->m * op->k) * sizeof(float));
    tr_pool_run(cpu->pool, job.rows.count * job.columns.count, 1, do_tiles, &job);
    return 0;
}
