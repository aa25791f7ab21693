/* SPDX-License-Identifier: Apache-2.0
 *
 * out = round(a + b) in every pair of dtypes, bit for bit, apart and with out being a or b.
 */
#include <string.h>

#include "tests/kernelcheck/variant.h"

#define BENCH_N (16 << 20)

static void in_place(struct check *c, const struct tr_op_add *op, const void *want)
{
    struct tr_op_add same = *op;
    size_t n = (size_t)op->n, bytes = n * tr_dtype_size(op->out_dtype);

    if (op->a_dtype == op->out_dtype) {
        same.out = check_bytes(c, bytes);
        same.a = memcpy(same.out, op->a, bytes);
        check_run(c, TR_OP_ADD, &same);
        check_equal(c, "out as a", op->out_dtype, same.out, want, n);
    }
    if (op->out_dtype == TR_F32) {
        same = *op;
        same.out = check_bytes(c, bytes);
        same.b = memcpy(same.out, op->b, bytes);
        check_run(c, TR_OP_ADD, &same);
        check_equal(c, "out as b", TR_F32, same.out, want, n);
    }
}

static void one(struct check *c, enum tr_dtype a, enum tr_dtype out, int64_t n)
{
    enum check_values values = check_bench_on(c) ? CHECK_NORMAL : CHECK_PATHOLOGICAL;

    while (check_case(c, "%s + f32 = %s n=%d", tr_dtype_name(a), tr_dtype_name(out), (int)n)) {
        struct tr_op_add op = {.a_dtype = a, .out_dtype = out, .n = n};
        void *want = check_scratch(c, (size_t)n * 4);

        op.a = check_input(c, a, (size_t)n, values);
        op.b = check_input(c, TR_F32, (size_t)n, values);
        for (int64_t i = 0; i < n; i++)
            tr_store_f32(want, out, (size_t)i, tr_load_f32(op.a, a, (size_t)i) + op.b[i]);
        do {
            op.out = check_output(c, out, (size_t)n);
            check_run(c, TR_OP_ADD, &op);
            check_equal(c, "out", out, op.out, want, (size_t)n);
        } while (check_variant(c));
        in_place(c, &op, want);
        CHECK_BENCH(c, (double)n * (4 + tr_dtype_size(a) + tr_dtype_size(out)), 0)
        check_run(c, TR_OP_ADD, &op);
    }
}

void check_add(struct check *c)
{
    for (enum tr_dtype a = TR_F32; a < TR_DTYPES; a++)
        for (enum tr_dtype out = TR_F32; out < TR_DTYPES; out++) {
            one(c, a, out, 0);
            one(c, a, out, 1);
            one(c, a, out, 37);
            one(c, a, out, check_bench_on(c) ? BENCH_N : check_small(c) ? 5003 : 40003);
        }
}
