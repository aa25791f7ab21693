/* SPDX-License-Identifier: Apache-2.0
 *
 * Gradients of a device's ops, f32 all of them, against finite differences of the ops themselves:
 * the cpu device's functions, or any device through its table. A case gives a scalar loss as a
 * function of arrays that it owns, and the gradient that the op made for each array; the checker
 * moves single elements (and all at once, along a random direction) and compares. Differences are
 * central with one Richardson step, so that f32 outputs suffice: the step may be large enough to
 * stand far above rounding. Every case is also judged with a gradient that is wrong on purpose,
 * which must fail.
 */
#ifndef TR_TESTS_GRADCHECK_GRAD_H
#define TR_TESTS_GRADCHECK_GRAD_H

#include <stddef.h>
#include <stdint.h>

#include "src/base/device.h"

struct grad_array {
    const char *name;
    float *value;          /* moved by the checker, put back after */
    const float *gradient; /* d loss / d value */
    int64_t n;
};

struct grad_case {
    const char *name;
    double (*loss)(void *arg);
    void *arg;
    struct grad_array arrays[4]; /* ends with a NULL name */
};

/* Runs an op on what is under test; it must not fail. op: the struct of that kind, whose pointers
 * (but ranges) lead into arrays made here. */
void grad_run(enum tr_op_kind kind, const void *op);

/* n normal values that live until the program ends. */
float *grad_values(int64_t n);
float *grad_zeros(int64_t n);
int32_t *grad_ints(const int32_t *values, int64_t n); /* a copy */
uint32_t grad_random(void);

/* sum of a[i] * b[i] */
double grad_dot(const float *a, const float *b, int64_t n);

/* Judges the case and its mutants. Counts failures for the exit status. */
void grad_judge(const struct grad_case *c);
void grad_embed(void);
void grad_matmul(void);
void grad_bias(void);
void grad_rmsnorm(void);
void grad_rope(void);
void grad_attention(void);
void grad_swiglu(void);
void grad_xent(void);

#endif
