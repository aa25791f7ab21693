/* SPDX-License-Identifier: Apache-2.0
 *
 * How far a result may be from its reference: one row per op in tolerance.c, with the reason.
 */
#ifndef TR_TESTS_KERNELCHECK_TOLERANCE_H
#define TR_TESTS_KERNELCHECK_TOLERANCE_H

enum tolerance_kind {
    TOLERANCE_EXACT,   /* equal to the reference rounded to f32 */
    TOLERANCE_ULP,     /* limit ULPs of f32, or abs */
    TOLERANCE_ABS_REL, /* |got - want| <= abs + limit * |want| */
    TOLERANCE_NMSE     /* sum (got - want)^2 / sum want^2 <= limit, and no element off by more than
                          abs * the rms of want */
};

struct tolerance {
    const char *row; /* "op" or "op.what" */
    enum tolerance_kind kind;
    double limit, abs;
};

/* The row of "op.what", else of "op"; NULL where neither exists. */
const struct tolerance *tolerance_find(const char *op, const char *what);

#endif
