/* SPDX-License-Identifier: Apache-2.0
 *
 * The kernel checker: every op against a reference that the op's file computes (double where
 * rounding matters), with poisoned outputs, guard areas around every buffer, and inputs that must
 * not change: on the cpu device's functions in every tier that the machine runs, or, with --device,
 * on any device through its table (mirror.h). With --bench the same call sites print GB/s or
 * GFLOP/s against the peak measured in the same run, and the factor over tier C.
 *
 * A file checks one op:
 *
 *     void check_rmsnorm(struct check *c)
 *     {
 *         while (check_case(c, "rows=%d cols=%d", rows, cols)) {     one case; reseeds the inputs
 *             const float *x = check_input(c, TR_F32, n, CHECK_NORMAL);
 *             float *y = check_output(c, TR_F32, n);
 *             double *want = check_scratch(c, n * sizeof(double));
 *             struct tr_op_rmsnorm op = {...};
 *             check_run(c, TR_OP_RMSNORM, &op);
 *             check_close(c, "y", TR_F32, y, want, n);
 *             CHECK_BENCH(c, bytes, flops) check_run(c, TR_OP_RMSNORM, &op);
 *         }
 *     }
 *
 * check_case() gives 1 once, then 0 when the case has been judged: the loop is a scope that owns
 * its buffers. Tolerances are not given at the call: they stand in tolerance.c, rows "op" or
 * "op.what".
 */
#ifndef TR_TESTS_KERNELCHECK_CHECK_H
#define TR_TESTS_KERNELCHECK_CHECK_H

#include <stddef.h>
#include <stdint.h>

#include "cpu/cpu.h"
#include "cpu/flags.h"

/* The ops, in the order they are checked: the one place where a new op is registered. */
#define CHECK_OPS(X)                                                                               \
    X(cast)                                                                                        \
    X(add)                                                                                         \
    X(round)                                                                                       \
    X(dropout)                                                                                     \
    X(embed)                                                                                       \
    X(sumsq)                                                                                       \
    X(matmul)                                                                                      \
    X(bias_grad)                                                                                   \
    X(rmsnorm) X(rope) X(attention) X(attention_cached) X(swiglu) X(xent) X(sgd) X(adamw)          \
        X(momentum) X(adam_mini) X(adalomo)

#define CHECK_MAX_THREADS 3

struct check_options {
    const char *op;     /* NULL: all */
    const char *device; /* NULL: the cpu's functions, tier by tier */
    int tier;           /* -1: all that the machine runs */
    uint64_t seed;
    int bench;
    int large;           /* a device: the sizes of the cpu tiers, not those for slow devices */
    int peak;            /* only measure the plain product */
    const char *program; /* argv[0], for measuring peaks in child processes */
};

struct check_state; /* check.c's own */

struct mirror;

struct check {
    const struct tr_cpu *cpu; /* the tier's kernels over 2 threads */
    enum tr_cpu_tier tier;
    struct mirror *device; /* what runs the ops; NULL: cpu */
    const char *op;
    int variant;           /* which way of running the ops, 0 the usual (variant.h) */
    enum tr_dtype compute; /* of the case at hand: whose peak it is timed against */
    struct check_state *state;
};

/* The same tier over `threads` threads (1..CHECK_MAX_THREADS): values may not depend on it. */
const struct tr_cpu *check_cpu(struct check *c, int threads);
/* "avx2", "cuda". */
const char *check_where(const struct check *c);

/* Runs an op on what is checked; an error fails the case. op: the struct of that kind. All that it
 * points to (but ranges) lies in buffers of the case. */
void check_run(struct check *c, enum tr_op_kind kind, const void *op);

/* The dtype of activations where the storage dtype is this; and whether any storage has it. */
enum tr_dtype check_compute(const struct check *c, enum tr_dtype storage);
int check_computes(const struct check *c, enum tr_dtype dtype);
/* For sizes: a device that may be slow (a CPU that plays a GPU). */
int check_small(const struct check *c);

int check_case(struct check *c, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

enum check_values {
    CHECK_NORMAL,       /* normally distributed, standard deviation 1 */
    CHECK_UNIFORM,      /* in [-1, 1) */
    CHECK_PATHOLOGICAL, /* zeros of both signs, subnormals, huge, tiny, exact ties; finite */
    CHECK_SPECIAL,      /* pathological with infinities and NaNs */
};

/* Buffers live until the end of the case, are 64-byte aligned, and have guard areas on both sides
 * that are checked at the end of the case. dtype TR_F32 etc.; ints and doubles as bytes. */
const void *check_input(struct check *c, enum tr_dtype dtype, size_t n, enum check_values values);
/* Like check_input, but may be written (in-place ops). */
void *check_inout(struct check *c, enum tr_dtype dtype, size_t n, enum check_values values);
void *check_output(struct check *c, enum tr_dtype dtype, size_t n); /* poisoned with NaNs */
void *check_bytes(struct check *c, size_t bytes);                   /* guarded, poisoned */
void *check_scratch(struct check *c, size_t bytes);                 /* zeroed, for references */
/* Makes the newest buffer an input: filled by the caller, may not change from here on. */
void check_freeze(struct check *c);

/* The case's generator: 32 random bits; a number in [0, n); a double in [0, 1). */
uint32_t check_random(struct check *c);
int64_t check_random_below(struct check *c, int64_t n);
double check_random_unit(struct check *c);

/* Verdicts; each failure prints op, tier, case, seed and the first differing elements. */
void check_ok(struct check *c, int error); /* a call's return value: must be 0 */
void check_equal(struct check *c, const char *what, enum tr_dtype dtype, const void *got,
                 const void *want, size_t n); /* bit for bit, NaN included */
/* The tolerance row is "op.what" by the first word of what. Of a 16-bit result, what its last
 * rounding explains is taken off the distance first. */
void check_close(struct check *c, const char *what, enum tr_dtype dtype, const void *got,
                 const double *want, size_t n);
/* A result moved towards what is wanted by as much as rounding to its dtype may have moved it. */
double check_unrounded(enum tr_dtype dtype, double got, double want);
void check_true(struct check *c, int ok, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));
/* 1 if the comparison finds a difference; prints and counts nothing (for mutants). */
int check_differs(const void *a, const void *b, size_t bytes);

/* Runs the statement that follows many times under --bench and prints one line; else never. */
struct check_bench {
    struct check *c;
    double bytes, flops; /* moved and done by one run; 0: not counted */
    double start, total, best, sum2;
    int runs, batch, left; /* batch: runs between two looks at the clock; left: of this one */
};

struct check_bench check_bench_begin(struct check *c, double bytes, double flops);
int check_bench_next(struct check_bench *b);

#define CHECK_BENCH(c, bytes, flops)                                                               \
    for (struct check_bench bench_ = check_bench_begin(c, bytes, flops); check_bench_next(&bench_);)

/* For cases that are worth only timing (large shapes). */
int check_bench_on(const struct check *c);

/* For main.c: what all checks share. check_close_all prints the closing line and returns the number
 * of failed cases; it is called after a failure to open, too. */
int check_open(struct check **out, const struct check_options *options);
int check_close_all(struct check *c);
void check_run_op(struct check *c, const char *op, void (*fn)(struct check *c),
                  enum tr_cpu_tier tier);
/* 1 if fn's cases find anything wrong, quietly, up to the first that does. */
int check_finds_fault(struct check *c, const char *op, void (*fn)(struct check *c));

#define CHECK_DECLARE(name) void check_##name(struct check *c);
CHECK_OPS(CHECK_DECLARE)
CHECK_DECLARE(harness) /* the checker itself: faults that it must find */

#endif
