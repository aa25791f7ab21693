/* SPDX-License-Identifier: Apache-2.0
 *
 * State in 8 bits as the words of src/base/code8.h have it, in double: what a byte stands for by
 * its exponent and mantissa, and rounding by the position between two neighbours.
 */
#ifndef TR_TESTS_KERNELCHECK_CODE8_H
#define TR_TESTS_KERNELCHECK_CODE8_H

#include "src/base/code8.h"
#include "src/base/device.h"

double check_code8_value(unsigned code, enum tr_code8 kind);

/* n elements from the start of a block; those of store are element op->first and following, with
 * the random bits of `name`. */
void check_code8_load(float *to, const void *state, int64_t n, enum tr_code8 kind);

struct check_code8 {
    const struct tr_op_update *op;
    uint32_t name;
    enum tr_code8 kind;
};
void check_code8_store(const struct check_code8 *c, void *state, const float *x, int64_t n);

#endif
