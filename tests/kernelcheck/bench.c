/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/kernelcheck/bench.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "cpu/blas.h"

#define GEMM_SIDE  1024
#define COPY_BYTES (64u << 20)
#define REPEATS    5

double bench_now(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

struct gemm_job {
    const struct tr_blas *blas;
    float *a, *b, *c; /* (threads, side, side) */
};

static void gemm_part(void *arg, int64_t begin, int64_t end, int worker)
{
    const struct gemm_job *job = arg;
    int64_t side = GEMM_SIDE;

    (void)worker;
    for (int64_t i = begin; i < end; i++) {
        struct tr_gemm g = {.rows = side,
                            .cols = side,
                            .k = side,
                            .a = job->a + i * side * side,
                            .b = job->b + i * side * side,
                            .c = job->c + i * side * side,
                            .lda = side,
                            .ldb = side,
                            .ldc = side,
                            .b_trans = 1};
        tr_blas_gemm(job->blas, &g);
    }
}

double bench_gemm(const struct tr_cpu *cpu)
{
    int threads = tr_pool_threads(cpu->pool);
    size_t n = (size_t)threads * GEMM_SIDE * GEMM_SIDE;
    float *all = calloc(3 * n, sizeof(float));
    struct gemm_job job = {cpu->blas, all, all + n, all + 2 * n};
    double best = 1e9;

    if (!all)
        return 0;
    for (size_t i = 0; i < 2 * n; i++)
        all[i] = (float)(i % 17) * 0.1f - 0.8f;
    for (int r = 0; r < REPEATS; r++) {
        double start = bench_now(), seconds;

        tr_pool_run(cpu->pool, threads, 1, gemm_part, &job);
        seconds = bench_now() - start;
        if (seconds < best)
            best = seconds;
    }
    free(all);
    return 2.0 * GEMM_SIDE * GEMM_SIDE * GEMM_SIDE * threads / best;
}

struct copy_job {
    char *to, *from;
};

static void copy_part(void *arg, int64_t begin, int64_t end, int worker)
{
    const struct copy_job *job = arg;

    (void)worker;
    memcpy(job->to + begin, job->from + begin, (size_t)(end - begin));
}

static double bench_copy(const struct tr_cpu *cpu)
{
    struct copy_job job = {malloc(COPY_BYTES), malloc(COPY_BYTES)};
    double best = 1e9;

    if (job.to && job.from) {
        memset(job.from, 1, COPY_BYTES);
        for (int r = 0; r < REPEATS; r++) {
            double start = bench_now(), seconds;

            tr_pool_run(cpu->pool, COPY_BYTES, 4096, copy_part, &job);
            seconds = bench_now() - start;
            if (seconds < best)
                best = seconds;
        }
    }
    free(job.to);
    free(job.from);
    return 2.0 * COPY_BYTES / best;
}

/* One kernel type in a process of its own: the type is chosen while the library loads. */
static double gemm_as(const char *core, const char *program)
{
    char command[4200];
    double flops = 0;
    FILE *f;

    snprintf(command, sizeof(command), "OPENBLAS_CORETYPE=%s '%s' --peak 2>/dev/null", core,
             program);
    f = popen(command, "r");
    if (!f || fscanf(f, "%lf", &flops) != 1)
        flops = 0;
    if (f)
        pclose(f);
    return flops;
}

void bench_measure(struct bench_peaks *peaks, const struct tr_cpu *cpu, const char *program)
{
    static const char *const types[] = {"Haswell", "Zen", "SkylakeX", "Cooperlake",
                                        "SapphireRapids"};

    peaks->bytes = bench_copy(cpu);
    peaks->flops[TR_F32] = bench_gemm(cpu);
    snprintf(peaks->flops_by, sizeof(peaks->flops_by), "%s", tr_blas_bits(cpu->blas));
    printf("peak: %.1f GB/s copy; sgemm %s %.0f GFLOP/s", peaks->bytes * 1e-9, peaks->flops_by,
           peaks->flops[TR_F32] * 1e-9);
    for (size_t i = 0; i < sizeof(types) / sizeof(types[0]); i++) {
        double flops = gemm_as(types[i], program);

        printf(", %s %.0f", types[i], flops * 1e-9);
        if (flops > peaks->flops[TR_F32]) {
            peaks->flops[TR_F32] = flops;
            snprintf(peaks->flops_by, sizeof(peaks->flops_by), "%s", types[i]);
        }
    }
    printf("; best %s\n", peaks->flops_by);
}
