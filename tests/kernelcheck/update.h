/* SPDX-License-Identifier: Apache-2.0
 *
 * What the checks of the optimizers share: one update by its written order of arithmetic against
 * the op, bit for bit, in every dtype and rounding, in every variant and over split ranges.
 */
#ifndef TR_TESTS_KERNELCHECK_UPDATE_H
#define TR_TESTS_KERNELCHECK_UPDATE_H

#include "tests/kernelcheck/check.h"

struct update_check {
    enum tr_op_kind kind;
    /* NULL, or what comes before the elements. */
    void (*prepare)(const struct tr_op_update *op);
    /* The new f32 value of element i, before rounding; updates op's m and v. */
    float (*element)(const struct tr_op_update *op, int64_t i, float x);
    struct tr_op_update settings; /* block 0: all elements are one */
};

void check_update(struct check *c, const struct update_check *u, enum tr_dtype dtype, int64_t n);
/* All dtypes, roundings and sizes; and timing. */
void check_update_all(struct check *c, const struct update_check *u);

/* The update by `element`, rounded to op's dtype, or with its master. */
void check_update_reference(const struct update_check *u, const struct tr_op_update *op);

/* G and the first X of device.h. */
float check_update_gradient(const struct tr_op_update *op, int64_t i);
float check_update_load(const struct tr_op_update *op, int64_t i);

/* How weights are stored, in words. */
const char *check_update_way(const struct tr_op_update *op);
/* Of op's kind: any bits; a copy, where there is one; the master of what lies n elements on. */
void check_update_draw_master(struct check *c, struct tr_op_update *op);
void check_update_copy_master(struct check *c, struct tr_op_update *op,
                              const struct tr_op_update *from);
void check_update_shift_master(struct tr_op_update *op, int64_t n);
/* Weights, and masters, are the same; of NaN, which with a master may have any bits, all are made
 * zero. */
void check_update_judge(struct check *c, const struct tr_op_update *got,
                        const struct tr_op_update *want);

#endif
