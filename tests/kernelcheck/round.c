/* SPDX-License-Identifier: Apache-2.0
 *
 * Rounding in place to a dtype's grid, bit for bit; f32 leaves all as it is.
 */
#include <string.h>

#include "tests/kernelcheck/variant.h"

static void one(struct check *c, enum tr_dtype dtype, int64_t n)
{
    size_t bytes = (size_t)n * 4;

    while (check_case(c, "%s n=%d", tr_dtype_name(dtype), (int)n)) {
        const float *x = check_input(c, TR_F32, (size_t)n, CHECK_SPECIAL);
        float *want = check_scratch(c, bytes), one_value;

        for (int64_t i = 0; i < n; i++) {
            tr_store_f32(&one_value, dtype, 0, x[i]);
            want[i] = tr_load_f32(&one_value, dtype, 0);
        }
        struct tr_op_round op = {.x = check_bytes(c, bytes), .n = n, .dtype = dtype};
        do {
            memcpy(op.x, x, bytes);
            check_run(c, TR_OP_ROUND, &op);
            check_equal(c, "x", TR_F32, op.x, want, (size_t)n);
        } while (check_variant(c));
        CHECK_BENCH(c, (double)bytes * 2, 0) check_run(c, TR_OP_ROUND, &op);
    }
}

void check_round(struct check *c)
{
    for (enum tr_dtype d = TR_F32; d < TR_DTYPES; d++) {
        one(c, d, 0);
        one(c, d, 1);
        one(c, d, 1027);
        one(c, d, check_bench_on(c) ? 16 << 20 : 40003);
    }
}
