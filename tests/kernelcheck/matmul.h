/* SPDX-License-Identifier: Apache-2.0
 *
 * What the checks of the products and their timing share.
 */
#ifndef TR_TESTS_KERNELCHECK_MATMUL_H
#define TR_TESTS_KERNELCHECK_MATMUL_H

#include "tests/kernelcheck/check.h"

/* Token counts of up to three grains; 0 ends. */
struct matmul_shape {
    int32_t grains[3];
    int64_t m, k;
};

struct matmul_dtypes {
    enum tr_dtype w, in, out;
};

struct matmul_case {
    struct tr_op_matmul op;
    int32_t start[4];
};

/* Draws the inputs of a case; the op lives in t. */
struct tr_op_matmul *matmul_open(struct check *c, struct matmul_case *t,
                                 const struct matmul_shape *s, const struct matmul_dtypes *d);
/* New results, poisoned. */
void matmul_fresh(struct check *c, struct tr_op_matmul *op);

void matmul_bench(struct check *c, const struct matmul_dtypes *d);

#endif
