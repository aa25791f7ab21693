/* SPDX-License-Identifier: Apache-2.0
 *
 * The peaks that --bench compares with, measured in the same run.
 */
#ifndef TR_TESTS_KERNELCHECK_BENCH_H
#define TR_TESTS_KERNELCHECK_BENCH_H

#include "cpu/cpu.h"

struct bench_peaks {
    double bytes, flops[TR_DTYPES]; /* per second; by the dtype computed in */
    char flops_by[64];              /* cpu: the OpenBLAS kernel type that reached it */
};

/* Plain products, one single-threaded sgemm on each worker at once, FLOP/s. */
double bench_gemm(const struct tr_cpu *cpu);
/* Fills peaks: memory by streaming copies, arithmetic by bench_gemm in child processes of `program`
 * under every OpenBLAS kernel type, the best counting. */
void bench_measure(struct bench_peaks *peaks, const struct tr_cpu *cpu, const char *program);

struct mirror;

/* The same of a device, by its own ops: a copy (cast f32 to f32), square products. */
int bench_measure_device(struct bench_peaks *peaks, const struct mirror *m);

double bench_now(void);

#endif
