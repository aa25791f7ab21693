/* SPDX-License-Identifier: Apache-2.0
 *
 * How far a result may be from its reference: one row per op in tolerance.c, with the reason.
 */
#ifndef TR_TESTS_KERNELCHECK_TOLERANCE_H
#define TR_TESTS_KERNELCHECK_TOLERANCE_H

#include "src/base/dtype.h"

enum tolerance_kind {
    TOLERANCE_EXACT,   /* equal to the reference rounded to f32 */
    TOLERANCE_ULP,     /* limit ULPs of f32, or abs */
    TOLERANCE_ABS_REL, /* |got - want| <= abs + limit * |want| */
    TOLERANCE_NMSE     /* sum (got - want)^2 / sum want^2 <= limit, and no element off by more than
                          abs * the rms of want */
};

struct tolerance {
    const char *row; /* "op" or "op.what", of a device or dtype: "cuda op.what", "16-bit op" */
    enum tolerance_kind kind;
    double limit, abs;
};

/* What is judged. */
struct tolerance_of {
    const char *device; /* NULL: the cpu's functions */
    const char *op, *what;
    enum tr_dtype dtype;
};

/* The row of "op.what", else of "op"; first those of 16-bit results, whose limits are given in
 * units of the dtype's rounding (see tolerance.c), then those of the device, then the rest. 0: none
 * exists. */
int tolerance_find(const struct tolerance_of *of, struct tolerance *found);

#endif
