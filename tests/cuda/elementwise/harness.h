/* SPDX-License-Identifier: Apache-2.0
 *
 * What the tests of the kernels share: guarded buffers with repeatable contents, an op on either
 * device, and comparisons. All compared results go into one sum, so that main can ask for the same
 * bits in every order of threads.
 */
#ifndef TR_TESTS_CUDA_HARNESS_H
#define TR_TESTS_CUDA_HARNESS_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "kernels/cuda.h"

#define COUNT(a) (sizeof(a) / sizeof((a)[0]))

/* Buffers live until the end of the test, which checks the bytes around them. They begin on 64
 * bytes, or `shift` elements behind that. */
void harness_shift(int elements);
void *make(enum tr_dtype dtype, size_t n, float scale); /* random, on the dtype's grid */
void *make_poison(enum tr_dtype dtype, size_t n);       /* for results */
int32_t *make_ints(size_t n, int32_t low, int32_t end);
void *make_copy(enum tr_dtype dtype, const void *p, size_t n);
float *make_wide(enum tr_dtype dtype, const void *p, size_t n); /* as f32 */
uint32_t harness_random(void);

void run_cpu(const struct tr_op *op);
void run_cuda(const struct tr_op *op);

void expect_bits(const char *what, const void *got, const void *want, size_t bytes);
/* |got - want| <= rel * |want| + abs, and what rounding to the dtype of `got` adds. */
struct nearness {
    enum tr_dtype dtype;
    double rel, abs;
};
void expect_near(const char *what, struct nearness near, const void *got, const float *want,
                 size_t n);

int harness_begin(void **state); /* setup and teardown of each test */
int harness_end(void **state);
uint64_t harness_sum(void); /* of all results since the last call */

extern const struct CMUnitTest map_tests[], update_tests[], rows_tests[], embed_tests[],
    xent_tests[];
extern const size_t map_count, update_count, rows_count, embed_count, xent_count;

#define HARNESS_TEST(f) cmocka_unit_test_setup_teardown(f, harness_begin, harness_end)

#endif
