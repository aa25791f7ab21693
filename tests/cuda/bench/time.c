/* SPDX-License-Identifier: Apache-2.0 */
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "src/base/err.h"
#include "tests/cuda/bench/bench.h"

#define BATCH_SECONDS 0.15
#define BATCHES       4
#define WARM_BATCHES  20

void bench_must(int error)
{
    if (!error)
        return;
    fprintf(stderr, "gpu-bench: %s\n", tr_error_message());
    exit(1);
}

double bench_now(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static double batch(const struct bench *b, void (*fn)(const struct bench *b, void *arg), void *arg,
                    int rounds)
{
    double start = bench_now();

    for (int i = 0; i < rounds; i++)
        fn(b, arg);
    for (int s = 0; s < TR_STREAMS; s++)
        bench_must(b->d->ops->sync(b->d, (enum tr_stream)s));
    return (bench_now() - start) / rounds;
}

double bench_time(const struct bench *b, void (*fn)(const struct bench *b, void *arg), void *arg)
{
    double best = batch(b, fn, arg, 1); /* warms up, and may be the slow one */
    int rounds;

    if (b->quick)
        return best;
    best = batch(b, fn, arg, 2);
    rounds = best < BATCH_SECONDS / 2 ? (int)(BATCH_SECONDS / best) + 1 : 2;
    for (int i = 0; i < BATCHES; i++) {
        double t = batch(b, fn, arg, rounds);

        best = t < best ? t : best;
    }
    return best;
}

double bench_time_warm(const struct bench *b, void (*fn)(const struct bench *b, void *arg),
                       void *arg)
{
    double t = bench_time(b, fn, arg);
    int rounds = (int)(BATCH_SECONDS / t) + 1;

    for (int i = 0; i < WARM_BATCHES && !b->quick; i++)
        t = batch(b, fn, arg, rounds);
    return t;
}

void bench_row(const char *what, double figure, const char *unit, double peak)
{
    printf("| %s | %.1f %s | ", what, figure, unit);
    if (peak > 0)
        printf("%.3f", figure / peak);
    printf(" |\n");
    fflush(stdout);
}
