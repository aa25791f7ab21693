/* SPDX-License-Identifier: Apache-2.0
 *
 * The embedding is a copy, and its gradient a sum in token order: both bit for bit, with the table
 * whole and in slices (rows of foreign ids stay poisoned until their slice comes); fused, one
 * multiply-add a token.
 */
#include <math.h>
#include <string.h>

#include "tests/kernelcheck/variant.h"

static int32_t *draw_ids(struct check *c, int64_t n, int64_t vocabulary)
{
    int32_t *ids = check_bytes(c, (size_t)n * 4);

    for (int64_t t = 0; t < n; t++)
        ids[t] = (int32_t)check_random_below(c, vocabulary);
    check_freeze(c);
    return ids;
}

static void in_slices(struct check *c, struct tr_op_embed op, int64_t vocabulary)
{
    const char *table = op.table;
    float *grad = op.grad;

    for (op.row0 = 0; op.row0 < vocabulary; op.row0 += op.rows) {
        op.rows = (vocabulary + 2) / 3;
        if (op.rows > vocabulary - op.row0)
            op.rows = vocabulary - op.row0;
        op.table = table + (size_t)(op.row0 * op.cols) * tr_dtype_size(op.dtype);
        op.grad = grad + op.row0 * op.cols;
        check_run(c, TR_OP_EMBED, &op);
        check_run(c, TR_OP_EMBED_GRAD, &op);
    }
}

static void one(struct check *c, const struct tr_op_embed *shape, int64_t vocabulary)
{
    size_t n = (size_t)(shape->n * shape->cols), rows = (size_t)(vocabulary * shape->cols);

    while (check_case(c, "%s n=%d vocabulary=%d cols=%d", tr_dtype_name(shape->dtype),
                      (int)shape->n, (int)vocabulary, (int)shape->cols)) {
        struct tr_op_embed op = *shape;

        op.table = check_input(c, op.dtype, rows, CHECK_SPECIAL);
        op.ids = draw_ids(c, op.n, vocabulary);
        op.dy = check_input(c, TR_F32, n, CHECK_NORMAL);
        op.rows = vocabulary;
        op.lr = 0.3f;
        char *want = check_scratch(c, n * 4);
        float *sum = check_scratch(c, rows * 4), *fused = check_scratch(c, rows * 4);
        for (size_t i = 0; i < n; i++) {
            size_t at = (size_t)(op.ids[i / (size_t)op.cols] * op.cols) + i % (size_t)op.cols;
            size_t bytes = tr_dtype_size(op.dtype);
            memcpy(want + i * bytes, (const char *)op.table + at * bytes, bytes);
            sum[at] += op.dy[i];
            fused[at] = fmaf(-op.lr, op.dy[i], fused[at]);
        }
        do {
            op.out = check_output(c, op.dtype, n);
            op.grad = check_scratch(c, rows * 4);
            in_slices(c, op, vocabulary);
            check_equal(c, "out", op.dtype, op.out, want, n);
            check_equal(c, "grad", TR_F32, op.grad, sum, rows);
            op.fused = 1;
            op.grad = check_scratch(c, rows * 4);
            in_slices(c, op, vocabulary);
            check_equal(c, "fused", TR_F32, op.grad, fused, rows);
            op.fused = 0;
        } while (check_variant(c));
        CHECK_BENCH(c, (double)n * 2 * tr_dtype_size(op.dtype), 0) check_run(c, TR_OP_EMBED, &op);
        CHECK_BENCH(c, (double)n * 12, 0) check_run(c, TR_OP_EMBED_GRAD, &op);
    }
}

void check_embed(struct check *c)
{
    for (enum tr_dtype d = TR_F32; d < TR_DTYPES; d++) {
        one(c, &(struct tr_op_embed){.dtype = d, .n = 0, .cols = 3}, 5);
        one(c, &(struct tr_op_embed){.dtype = d, .n = 1, .cols = 1}, 1);
        one(c, &(struct tr_op_embed){.dtype = d, .n = 37, .cols = 19}, 11);
        one(c, &(struct tr_op_embed){.dtype = d, .n = 200, .cols = 96}, 50);
    }
    if (check_bench_on(c))
        one(c, &(struct tr_op_embed){.dtype = TR_BF16, .n = 8192, .cols = 4096}, 4096);
}
