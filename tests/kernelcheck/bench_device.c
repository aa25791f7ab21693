/* SPDX-License-Identifier: Apache-2.0
 *
 * A device's peaks by its own ops, in its arena: the best of a few batches.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "src/base/err.h"
#include "tests/kernelcheck/bench.h"
#include "tests/kernelcheck/mirror.h"

#define REPEATS     5
#define COPY_FLOATS ((int64_t)64 << 20)

static int run_batch(const struct mirror *m, const struct tr_op *op, int runs, double *seconds)
{
    double start = bench_now();
    int error = 0;

    for (int i = 0; i < runs && !error; i++)
        error = m->device->ops->run(m->device, TR_STREAM_COMPUTE, op);
    if (!error)
        error = m->device->ops->sync(m->device, TR_STREAM_COMPUTE);
    *seconds = (bench_now() - start) / runs;
    return error;
}

/* Seconds of one run. */
static int best_of(const struct mirror *m, const struct tr_op *op, double *best)
{
    double seconds;
    int error = run_batch(m, op, 1, &seconds), runs;

    runs = m->info.host_visible || seconds > 0.02 ? 1 : 10;
    *best = 1e9;
    for (int r = 0; r < REPEATS && !error; r++) {
        error = run_batch(m, op, runs, &seconds);
        *best = seconds < *best ? seconds : *best;
    }
    return error;
}

/* Numbers like those of a model: arithmetic on zeros draws less power, and a GPU is as fast as its
 * power allows. */
static int fill_random(const struct mirror *m, char *to, int64_t n, enum tr_dtype dtype)
{
    size_t size = tr_dtype_size(dtype);
    char *host = malloc((size_t)n * size);
    uint32_t x = 1;
    int error;

    if (!host)
        return tr_error(-ENOMEM, "out of memory");
    for (int64_t i = 0; i < n; i++) {
        x = x * 1664525 + 1013904223;
        tr_store_f32(host, dtype, (size_t)i, (float)(int32_t)x * 0x1p-31f);
    }
    error = m->device->ops->copy_in(m->device, TR_STREAM_COMPUTE, to, host, (size_t)n * size);
    if (!error)
        error = m->device->ops->sync(m->device, TR_STREAM_COMPUTE);
    free(host);
    return error;
}

static int measure_gemm(struct bench_peaks *peaks, const struct mirror *m, enum tr_dtype dtype)
{
    int64_t side = m->info.host_visible ? 2048 : 8192, n = side * side;
    char *arena = m->device->ops->arena(m->device);
    int32_t grain[2] = {0, (int32_t)side};
    struct tr_op op = {.kind = TR_OP_MATMUL};
    double seconds;
    int error;

    op.matmul = (struct tr_op_matmul){.w_dtype = dtype, .in_dtype = dtype, .out_dtype = dtype};
    op.matmul.w = arena;
    op.matmul.x = arena + n * 4;
    op.matmul.y = arena + n * 8;
    op.matmul.n = op.matmul.m = op.matmul.k = side;
    op.matmul.grains = (struct tr_ranges){1, grain};
    error = fill_random(m, arena, n, dtype);
    if (!error)
        error = fill_random(m, arena + n * 4, n, dtype);
    if (!error)
        error = best_of(m, &op, &seconds);
    if (!error)
        peaks->flops[dtype] = 2.0 * (double)side * (double)n / seconds;
    return error;
}

int bench_measure_device(struct bench_peaks *peaks, const struct mirror *m)
{
    char *arena = m->device->ops->arena(m->device);
    struct tr_op op = {.kind = TR_OP_CAST,
                       .cast = {.from = arena, .to = arena + COPY_FLOATS * 4, .n = COPY_FLOATS}};
    double seconds;
    int error = fill_random(m, arena, COPY_FLOATS, TR_F32);

    if (!error)
        error = best_of(m, &op, &seconds);
    if (error)
        return error;
    peaks->bytes = 8.0 * COPY_FLOATS / seconds;
    printf("peak: %.1f GB/s copy", peaks->bytes * 1e-9);
    for (enum tr_dtype d = TR_F32; d < TR_DTYPES && !error; d++) {
        if (m->info.compute[d] != d)
            continue;
        error = measure_gemm(peaks, m, d);
        printf(", %s %.1f GFLOP/s", tr_dtype_name(d), peaks->flops[d] * 1e-9);
    }
    printf("\n");
    return error;
}
