/* SPDX-License-Identifier: Apache-2.0
 *
 * Measures a device through its table. Every figure is printed as a row of a Markdown table, beside
 * the ratio that a target names: to a peak measured in the same run on the same device.
 */
#ifndef TR_TESTS_CUDA_BENCH_H
#define TR_TESTS_CUDA_BENCH_H

#include "src/base/device.h"

struct bench {
    struct tr_device *d;
    char *arena;
    uint64_t arena_bytes;
    int quick;        /* small sizes and one round, for a test */
    double copy_rate; /* GB/s that a copy moves, both ways added: the driver's or a kernel's */
    double gemm_rate; /* FLOP/s of the largest product */
};

/* Fails the program with the device's message. */
void bench_must(int error);
double bench_now(void);
/* Seconds of one round of fn, which queues work on any streams: the best of a few batches. */
double bench_time(const struct bench *b, void (*fn)(const struct bench *b, void *arg), void *arg);
/* The same after seconds of nothing else, when a GPU has found the clock that its power allows. */
double bench_time_warm(const struct bench *b, void (*fn)(const struct bench *b, void *arg),
                       void *arg);
/* A row: what, figure in unit, and the ratio to peak where peak is not 0. */
void bench_row(const char *what, double figure, const char *unit, double peak);

void bench_copies(struct bench *b);
void bench_memory(struct bench *b); /* sets copy_rate */
/* GB/s of the driver's own copies from the arena's first bytes to those behind them, both ways
 * added; 0 where there is no driver. */
double bench_driver_copy(const struct bench *b, size_t bytes);
void bench_gemm(struct bench *b); /* sets gemm_rate */
void bench_attentions(const struct bench *b);

#endif
