/* SPDX-License-Identifier: Apache-2.0
 *
 * Column sums: against double; the same bits in every variant, and for grains one at a time
 * continued with add (invariant 1). Moving a grain's edge must show.
 */
#include <math.h>

#include "tests/kernelcheck/variant.h"

/* Grain by grain, as separate micro-batches would do it. */
static void by_grain(struct check *c, const struct tr_op_bias_grad *op, const int32_t *start)
{
    for (int g = 0; g < 3; g++) {
        int32_t own[2] = {0, start[g + 1] - start[g]};
        struct tr_op_bias_grad part = *op;

        part.dy = (const char *)op->dy + (size_t)(start[g] * op->m) * tr_dtype_size(op->dtype);
        part.n = own[1];
        part.grains = (struct tr_ranges){1, own};
        part.add = g > 0;
        check_run(c, TR_OP_BIAS_GRAD, &part);
    }
}

/* Over so many sizes that sums of 16-bit values, too, are rounded: exact sums know no order. One
 * column has one sign: it could cancel, and its error is measured against nothing else. */
static const void *draw(struct check *c, const struct tr_op_bias_grad *op)
{
    size_t n = (size_t)(op->n * op->m);
    void *dy = check_inout(c, op->dtype, n, CHECK_NORMAL);

    for (size_t i = 0; i < n; i++) {
        float value = tr_load_f32(dy, op->dtype, i);

        tr_store_f32(
            dy, op->dtype, i,
            ldexpf(op->m == 1 ? fabsf(value) : value, (int)check_random_below(c, 21) - 10));
    }
    check_freeze(c);
    return dy;
}

/* A grain's edge moved by half a grain must show in the sum: one token alone may round away in
 * every column. */
static void moved_grain(struct check *c, const struct tr_op_bias_grad *op)
{
    const int32_t *start = op->grains.start;
    int32_t moved[4] = {0, start[1] / 2, start[2], start[3]};
    struct tr_op_bias_grad other = *op;

    other.grains.start = moved;
    other.db = check_output(c, TR_F32, (size_t)op->m);
    check_run(c, TR_OP_BIAS_GRAD, &other);
    check_true(c, check_differs(other.db, op->db, (size_t)op->m * 4), "a moved grain is not seen");
}

static void one(struct check *c, enum tr_dtype dtype, const int32_t start[4], int64_t m)
{
    while (check_case(c, "%s n=%d m=%d", tr_dtype_name(dtype), start[3], (int)m)) {
        struct tr_op_bias_grad op = {.dtype = dtype, .n = start[3], .m = m, .grains = {3, start}};
        size_t all = (size_t)(op.n * m);
        double *want = check_scratch(c, (size_t)m * sizeof(double));

        op.dy = draw(c, &op);
        for (size_t i = 0; i < all; i++)
            want[i % (size_t)m] += tr_load_f32(op.dy, dtype, i);
        float *got = check_output(c, TR_F32, (size_t)m);
        op.db = got;
        check_run(c, TR_OP_BIAS_GRAD, &op);
        check_close(c, "db", TR_F32, got, want, (size_t)m);
        while (check_variant(c)) {
            op.db = check_output(c, TR_F32, (size_t)m);
            check_run(c, TR_OP_BIAS_GRAD, &op);
            check_equal(c, "db", TR_F32, op.db, got, (size_t)m);
        }
        op.db = check_output(c, TR_F32, (size_t)m);
        by_grain(c, &op, start);
        check_equal(c, "db by grain", TR_F32, op.db, got, (size_t)m);
        if (op.n > 40 && start[1] < start[2])
            moved_grain(c, &op);
        CHECK_BENCH(c, (double)(all * tr_dtype_size(dtype)), 0) check_run(c, TR_OP_BIAS_GRAD, &op);
    }
}

void check_bias_grad(struct check *c)
{
    for (enum tr_dtype d = TR_F32; d < TR_DTYPES; d++) {
        if (!check_computes(c, d))
            continue;
        one(c, d, (int32_t[]){0, 0, 0, 0}, 3);
        one(c, d, (int32_t[]){0, 1, 2, 4}, 1);
        one(c, d, (int32_t[]){0, 33, 33, 101}, 19); /* a grain of no tokens */
        one(c, d, (int32_t[]){0, 33, 70, 101}, 72);
        one(c, d, (int32_t[]){0, 128, 300, 417}, check_small(c) ? 130 : 600);
        if (check_bench_on(c))
            one(c, d, (int32_t[]){0, 512, 1024, 1536}, 2048);
        if (check_bench_on(c) && c->device)
            one(c, d, (int32_t[]){0, 2048, 4096, 8192}, 4096);
    }
}
