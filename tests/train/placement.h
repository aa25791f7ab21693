/* SPDX-License-Identifier: Apache-2.0
 *
 * Invariant 1 as a test: one training under many placements, the exported bytes compared.
 */
#ifndef TR_TESTS_TRAIN_PLACEMENT_H
#define TR_TESTS_TRAIN_PLACEMENT_H

#include "tests/train/common.h"

/* What changes memory and time, and never the result. */
struct variant {
    const char *name;
    int smallest;         /* device memory: the smallest that fits */
    uint64_t host_memory; /* 0: the default */
    enum tr_engine io;
    int64_t prefetch, threads, micro_batch;
    enum tr_recompute recompute;
    enum tr_streaming streaming;
    enum tr_keep durability;
    unsigned delay_seed;
    int interrupted, serial;
    int folders; /* of the store; 0: the default one */
};

/* Runs p, but for what the variant says, in SCRATCH/run; the hash of the exported weights (and of
 * adapters). device: the budget where the variant does not ask for the smallest. Also invariant 6:
 * the measured device peak is within the budget. And what ran is what was asked for: the I/O engine
 * and, with OPENBLAS_CORETYPE, the kernels. */
uint64_t run_variant(struct tr_train_params p, const struct variant *v, uint64_t device);
void remove_run(void); /* SCRATCH/run */

struct placements {
    const struct tiny *shape;
    enum tr_type dtype;
    enum tr_optimizer optimizer;
    const struct variant *variants;
    size_t n;
    size_t share; /* one variant in so many, the next one at the next call; 0: all of them */
    double momentum, clip_norm; /* 0: the default */
    enum tr_type state_dtype;
    const char *freeze;
    int fused_gemm;
    enum tr_master_choice master;
    int64_t lora_rank;
    double lora_dropout;
    const char *lora_targets;
    enum tr_optimizer lora_optimizer;
};

/* The variants give the bits of everything resident; in a program's first call with a dtype, which
 * shows that the comparison can fail, another seed of rounding gives others. */
void check_placements(const struct placements *p);
/* "--all": every call takes all variants and the other seed. "--share=N": one variant in N. */
void placements_options(int argc, char **argv);
int placements_are_few(void); /* --share */

#endif
