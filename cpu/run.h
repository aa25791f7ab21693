/* SPDX-License-Identifier: Apache-2.0
 *
 * What runs an op: the pool, the kernels of one tier and the BLAS, and the choice by kind. Knows no
 * streams and no memory; one thread at a time.
 */
#ifndef TR_CPU_RUN_H
#define TR_CPU_RUN_H

#include "cpu/cpu.h"
#include "cpu/kernels.h"

struct tr_cpu_context {
    struct tr_cpu cpu; /* points into this struct, which may not move; scratch is the owner's */
    struct tr_cpu_kernels kernels;
    enum tr_cpu_tier tier;
};

/* Fills a zeroed context. tier: a name, or NULL for the best. Close it also after a failure. */
int tr_cpu_context_open(struct tr_cpu_context *c, const char *tier, int threads);
void tr_cpu_context_close(struct tr_cpu_context *c);

/* Does one op to its end. */
int tr_cpu_run(const struct tr_cpu *cpu, const struct tr_op *op);

#endif
