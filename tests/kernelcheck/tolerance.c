/* SPDX-License-Identifier: Apache-2.0
 *
 * The policy: moves, casts and updates are exact; element-wise math is judged in ULPs; sums in f32
 * by their distance from a double reference relative to what the sum can lose. A row is loosened
 * only with a reason written beside it.
 */
#include "tests/kernelcheck/tolerance.h"

#include <stdio.h>
#include <string.h>

static const struct tolerance rows[] = {
    {"harness", TOLERANCE_ABS_REL, 1e-6, 1e-6}, /* one row of each kind, for its mutants */
    {"harness.exact", TOLERANCE_EXACT, 0, 0},
    {"harness.ulp", TOLERANCE_ULP, 2, 0},
    {"harness.nmse", TOLERANCE_NMSE, 1e-12, 1e-4},

    /* Relative to the sum of |terms|: blocked f32 sums lose far less than k * 2^-24 of it, while a
     * wrong or missing term is at least 1 / k. */
    {"matmul", TOLERANCE_ABS_REL, 0, 1e-6},
    {"bias_grad", TOLERANCE_NMSE, 1e-13, 3e-5},
    {"rmsnorm", TOLERANCE_ABS_REL, 6e-7, 1e-9}, /* the mean over a row, its root, two products */
    {"rmsnorm.grad", TOLERANCE_NMSE, 1e-12, 3e-5},
    /* Two products whose difference may cancel; angles are f32 already. */
    {"rope", TOLERANCE_ABS_REL, 0, 6e-7},
    {"rope.back", TOLERANCE_ABS_REL, 0, 2e-6}, /* cos^2 + sin^2 of f32 angles is not quite 1 */
    /* Two products, exp within 2 ULP, sums and a softmax in f32. */
    {"attention", TOLERANCE_NMSE, 1e-12, 1e-4},
    {"attention.cancelled", TOLERANCE_ABS_REL, 0, 3e-5},
    {"attention.lse", TOLERANCE_ABS_REL, 1e-6, 2e-6},
    {"swiglu", TOLERANCE_ULP, 8, 1e-36}, /* exp within 2, then five roundings */
    /* The slope 1 + x (1 - s) has a zero near x = -1.28 and cancels for large -x. */
    {"swiglu.dgate", TOLERANCE_ABS_REL, 2e-5, 1e-6},
    {"xent", TOLERANCE_ABS_REL, 1e-6, 4e-6},
    /* exp(x - lse): the rounding of x - lse, up to |lse| * 2^-24, is relative to the result. */
    {"xent.grad", TOLERANCE_ABS_REL, 1e-5, 1e-6},
    {"xent.exp", TOLERANCE_ULP, 2, 2.8e-38}, /* smaller results are 0 */
    {"sgd.published", TOLERANCE_ABS_REL, 1e-6, 0},
    {"adamw", TOLERANCE_ABS_REL, 1e-6, 2e-6}, /* twenty steps of f32 against double */
};

const struct tolerance *tolerance_find(const char *op, const char *what)
{
    const struct tolerance *found = NULL;
    char name[96];

    snprintf(name, sizeof(name), "%s.%s", op, what);
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        if (!strcmp(rows[i].row, name))
            return &rows[i];
        if (!strcmp(rows[i].row, op))
            found = &rows[i];
    }
    return found;
}
