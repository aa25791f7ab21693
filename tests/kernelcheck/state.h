/* SPDX-License-Identifier: Apache-2.0
 *
 * What the parts of the harness share: check.c (cases, buffers, inputs), verdict.c and timing.c.
 */
#ifndef TR_TESTS_KERNELCHECK_STATE_H
#define TR_TESTS_KERNELCHECK_STATE_H

#include "cpu/kernels.h"
#include "src/base/philox.h"
#include "tests/kernelcheck/bench.h"
#include "tests/kernelcheck/check.h"
#include "tests/kernelcheck/mirror.h"

#define CHECK_MAX_RESULTS 512

struct check_buffer {
    struct mirror_buffer memory; /* first: a list of these is one of those */
    void *kept;                  /* copy of an input, NULL where writing is allowed */
};

struct bench_result {
    char name[200];
    double seconds;
};

struct check_state {
    struct check_options options;
    struct tr_cpu_kernels kernels;
    struct tr_cpu cpus[CHECK_MAX_THREADS + 1];
    char case_name[160];
    int in_case, case_failed, passed, failed;
    int mutant;             /* cases must fail, quietly, to pass */
    int planted, found;     /* a fault is looked for, quietly; it was found */
    struct tr_philox key;   /* of the case's generator */
    struct tr_philox words; /* the last block drawn */
    uint64_t drawn;
    struct check_buffer *buffers; /* of this case */
    struct mirror mirror;
    struct bench_peaks peaks;
    struct bench_result results[CHECK_MAX_RESULTS]; /* of tier C */
    int n_results;
};

static inline struct check_buffer *check_next(const struct check_buffer *b)
{
    return (struct check_buffer *)b->memory.next;
}

/* Prints a line of a failed case, headed once by what is needed to repeat it. */
void check_fail(struct check *c, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/* planted.c: faults behind the ops of a device, and whether the ops' checks find them. */
void check_planted(struct check *c);

#endif
