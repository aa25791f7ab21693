/* SPDX-License-Identifier: Apache-2.0
 *
 * The sum of squares in f64. Chunks of 4096 elements, whose partial sums are added in order: the
 * workers fill the partials (which lie in the scratch), this thread adds them, batch by batch.
 */
#include "cpu/cpu.h"

#include "cpu/kernels.h"
#include "cpu/split.h"

#define CHUNK 4096
#define BATCH ((int64_t)256 * CHUNK) /* elements whose partials are in the scratch at a time */

struct job {
    const struct tr_cpu_kernels *k;
    const float *x;
    int64_t n;
    double *partial;
};

static double sumsq(const float *x, int64_t n)
{
    double lanes[TR_LANES] = {0};

    for (int64_t i = 0; i < n; i++)
        lanes[i % TR_LANES] += (double)x[i] * x[i];
    return tr_lanes_sum_f64(lanes);
}

void tr_sumsq_init_c(struct tr_cpu_kernels *k)
{
    k->sumsq = sumsq;
}

static void sum_chunks(void *arg, int64_t begin, int64_t end, int worker)
{
    const struct job *j = arg;

    (void)worker;
    for (int64_t c = begin; c < end; c++)
        j->partial[c] = j->k->sumsq(j->x + c * CHUNK, tr_min64(CHUNK, j->n - c * CHUNK));
}

int tr_cpu_sumsq(const struct tr_cpu *cpu, const struct tr_op_sumsq *op)
{
    double sum = 0;

    for (int64_t i = 0; i < op->n; i += BATCH) {
        int64_t n = tr_min64(BATCH, op->n - i), chunks = (n + CHUNK - 1) / CHUNK;
        struct job j = {cpu->kernels, op->x + i, n, tr_cpu_scratch(cpu, 0)};

        tr_pool_run(cpu->pool, chunks, tr_split_grain(CHUNK), sum_chunks, &j);
        for (int64_t c = 0; c < chunks; c++)
            sum += j.partial[c];
    }
    *op->out = sum;
    return 0;
}
