/* SPDX-License-Identifier: Apache-2.0
 *
 * What this CPU can run: the SIMD tier of our kernels, and the OpenBLAS kernel type that fits it.
 * A tier includes all weaker ones; tier C runs everywhere and is the definition of every kernel.
 */
#ifndef TR_CPU_FLAGS_H
#define TR_CPU_FLAGS_H

enum tr_cpu_tier {
    TR_TIER_C,
    TR_TIER_AVX2,   /* AVX2, FMA, F16C */
    TR_TIER_AVX512, /* the above and AVX-512 F, BW, VL, DQ */
    TR_TIERS
};

/* The strongest tier of this machine (CPU and operating system). */
enum tr_cpu_tier tr_cpu_tier_best(void);
/* "c", "avx2", "avx512". */
const char *tr_cpu_tier_name(enum tr_cpu_tier tier);
/* Reads a tier's name; NULL gives the best. -EINVAL for no such tier, -ENOTSUP where the machine
 * cannot run it. */
int tr_cpu_tier_parse(const char *name, enum tr_cpu_tier *out);

/* The value of OPENBLAS_CORETYPE with the fastest kernels here; NULL leaves it to the library. */
const char *tr_cpu_blas_coretype(void);

#endif
