/* SPDX-License-Identifier: Apache-2.0
 *
 * Dropout and scaling, bit for bit against philox.h: a mask is a function of the element's place,
 * whatever part of an input an op is given, and about as many are dropped as were asked for.
 */
#include <string.h>

#include "src/base/philox.h"
#include "tests/kernelcheck/variant.h"

#define STEP 0x123456789abu
#define NAME 0xdeadbeefu

static void want_of(const struct tr_op_dropout *op, float *want)
{
    for (int64_t i = 0; i < op->n; i++) {
        uint64_t at = (uint64_t)(op->first + i);
        uint32_t word = tr_philox_drop(at, op->step, op->seed, op->name).v[at % 4];

        want[i] =
            word < op->threshold ? 0 : tr_load_f32(op->from, op->from_dtype, (size_t)i) * op->scale;
    }
}

static void one(struct check *c, enum tr_dtype dtype, int64_t first, int64_t n, double share)
{
    while (
        check_case(c, "%s first=%d n=%d p=%g", tr_dtype_name(dtype), (int)first, (int)n, share)) {
        size_t size = tr_dtype_size(dtype);
        const void *from = check_input(c, dtype, (size_t)n, CHECK_NORMAL);
        float *want = check_scratch(c, (size_t)n * 4);
        struct tr_op_dropout op = {.from = from,
                                   .from_dtype = dtype,
                                   .n = n,
                                   .first = first,
                                   .scale = 0.37f,
                                   .threshold = (uint32_t)(share * 0x1p32),
                                   .step = STEP,
                                   .seed = 42,
                                   .name = NAME};
        int64_t dropped = 0;

        want_of(&op, want);
        do {
            op.from = from;
            op.to = check_output(c, TR_F32, (size_t)n);
            check_run(c, TR_OP_DROPOUT, &op);
            check_equal(c, "to", TR_F32, op.to, want, (size_t)n);
        } while (check_variant(c));
        for (int64_t i = 0; i < n; i++)
            dropped += want[i] == 0;
        if (n > 10000)
            check_true(c,
                       dropped > (int64_t)((share - 0.02) * (double)n) &&
                           dropped < (int64_t)((share + 0.02) * (double)n),
                       "%d of %d are dropped", (int)dropped, (int)n);
        CHECK_BENCH(c, (double)n * (double)(4 + size), 0) check_run(c, TR_OP_DROPOUT, &op);
    }
}

static void in_place(struct check *c)
{
    while (check_case(c, "in place")) {
        const float *x = check_input(c, TR_F32, 1003, CHECK_NORMAL);
        float *want = check_scratch(c, 1003 * 4), *to = check_bytes(c, 1003 * 4);
        struct tr_op_dropout op = {.from = x,
                                   .n = 1003,
                                   .first = 6,
                                   .scale = 2,
                                   .threshold = 1u << 31,
                                   .step = STEP,
                                   .seed = 1,
                                   .name = NAME};

        want_of(&op, want);
        memcpy(to, x, 1003 * 4);
        op.from = op.to = to;
        check_run(c, TR_OP_DROPOUT, &op);
        check_equal(c, "to", TR_F32, to, want, 1003);
    }
}

void check_dropout(struct check *c)
{
    for (enum tr_dtype d = TR_F32; d < TR_DTYPES; d++) {
        one(c, d, 0, 0, 0.5);
        one(c, d, 0, 1, 0);
        one(c, d, 8, 4099, 0);
        one(c, d, 5, 1027, 0.1);
        one(c, d, 0x3fffffffd, check_bench_on(c) ? 16 << 20 : 40003, 0.25);
    }
    in_place(c);
}
