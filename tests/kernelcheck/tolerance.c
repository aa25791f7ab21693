/* SPDX-License-Identifier: Apache-2.0
 *
 * The policy: moves, casts and updates are exact; element-wise math is judged in ULPs; sums in f32
 * by their distance from a double reference relative to what the sum can lose. A row is loosened
 * only with a reason written beside it.
 *
 * A 16-bit result is judged by the same rows after its last rounding, which the comparison takes
 * off: the ops compute in f32. Where something in between is rounded too there is a row "16-bit
 * op", in units of the dtype's rounding (2^-8 of a bf16 value, 2^-11 of an f16 value; squared for
 * TOLERANCE_NMSE).
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
    {"attention_cached", TOLERANCE_NMSE, 1e-12, 1e-4},
    {"attention.cancelled", TOLERANCE_ABS_REL, 0, 3e-5},
    {"attention.lse", TOLERANCE_ABS_REL, 1e-6, 2e-6},
    /* Probabilities, and in the gradient their own gradients, are rounded to the dtype before they
     * are multiplied: 0.4 units of each term in the rms, and again as much through rowsum(d_o * o)
     * of an o that is rounded. The first rows of a document are sums of few terms and far larger
     * than the rms. */
    {"16-bit attention", TOLERANCE_NMSE, 0.1, 8},
    {"16-bit attention.grad", TOLERANCE_NMSE, 0.5, 20},
    {"16-bit attention.cancelled", TOLERANCE_ABS_REL, 0, 0.02},
    {"swiglu", TOLERANCE_ULP, 8, 1e-36}, /* exp within 2, then five roundings */
    /* The slope 1 + x (1 - s) has a zero near x = -1.28 and cancels for large -x. */
    {"swiglu.dgate", TOLERANCE_ABS_REL, 2e-5, 1e-6},
    {"xent", TOLERANCE_ABS_REL, 1e-6, 4e-6},
    /* exp(x - lse): the rounding of x - lse, up to |lse| * 2^-24, is relative to the result. */
    {"xent.grad", TOLERANCE_ABS_REL, 1e-5, 1e-6},
    {"xent.exp", TOLERANCE_ULP, 2, 2.8e-38}, /* smaller results are 0 */
    {"sgd.published", TOLERANCE_ABS_REL, 1e-6, 0},
    {"adamw", TOLERANCE_ABS_REL, 1e-6, 2e-6}, /* twenty steps of f32 against double */
    {"momentum", TOLERANCE_ABS_REL, 1e-6, 1e-6},
    {"adam_mini", TOLERANCE_ABS_REL, 1e-6, 0},
    {"adalomo.published", TOLERANCE_ABS_REL, 1e-6, 0},
};

/* "prefix op.what", else "prefix op". */
static const struct tolerance *find(const char *prefix, const struct tolerance_of *of)
{
    const struct tolerance *found = NULL;
    size_t word = strcspn(of->what, " ");
    char op[96], name[192];

    snprintf(op, sizeof(op), "%s%s%s", prefix, *prefix ? " " : "", of->op);
    snprintf(name, sizeof(name), "%s.%.*s", op, (int)word, of->what);
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        if (!strcmp(rows[i].row, name))
            return &rows[i];
        if (!strcmp(rows[i].row, op))
            found = &rows[i];
    }
    return found;
}

int tolerance_find(const struct tolerance_of *of, struct tolerance *found)
{
    const struct tolerance *t = of->dtype != TR_F32 ? find("16-bit", of) : NULL;
    double unit = of->dtype == TR_BF16 ? 0x1p-8 : 0x1p-11;

    if (t) {
        *found = *t;
        found->limit *= t->kind == TOLERANCE_NMSE ? unit * unit : unit;
        found->abs *= unit;
        return 1;
    }
    if (of->device)
        t = find(of->device, of);
    if (!t)
        t = find("", of);
    if (t)
        *found = *t;
    return t != NULL;
}
