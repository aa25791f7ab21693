/* SPDX-License-Identifier: Apache-2.0
 *
 * The product behind cublasLtMatmul: d = alpha a b + beta c (+ bias) with f32 sums. An element is
 * the sum over k in ascending order of products of rounded inputs, so that its bits depend on its
 * row of a, its column of b and k alone; with parts > 1, k is cut into so many sums that are added
 * in order.
 */
#ifndef TR_TESTS_CUDA_PRODUCT_H
#define TR_TESTS_CUDA_PRODUCT_H

#include <stdint.h>

#include "src/base/dtype.h"

/* Element (i, j) is at data[i * row + j * column]. */
struct fake_matrix {
    void *data;
    enum tr_dtype dtype;
    int64_t row, column, batch;
};

struct fake_product {
    int64_t m, n, k, batches, parts;
    float alpha, beta;
    struct fake_matrix a, b, c, d; /* (m, k), (k, n), (m, n), (m, n); c is not read if beta is 0 */
    const void *bias;              /* (m), or NULL */
    enum tr_dtype bias_dtype;
    float *sums; /* (m, n) f32 on the way, in the workspace; NULL: none */
};

/* 0, or -1 without memory. */
int fake_product_run(const struct fake_product *p);

#endif
