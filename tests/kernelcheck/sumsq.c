/* SPDX-License-Identifier: Apache-2.0
 *
 * The sum of squares: within f64 rounding of a long double sum, the same bits in every variant, and
 * one changed element is seen. The largest size is more than the cpu's scratch takes at a time.
 */
#include <math.h>
#include <string.h>

#include "tests/kernelcheck/variant.h"

/* The sum with element i changed to that value. */
static double with(struct check *c, const struct tr_op_sumsq *op, int64_t i, float value)
{
    size_t bytes = (size_t)op->n * sizeof(float);
    float *x = memcpy(check_bytes(c, bytes), op->x, bytes);
    struct tr_op_sumsq other = {.x = x, .n = op->n};

    x[i] = value;
    check_freeze(c);
    other.out = check_bytes(c, sizeof(double));
    check_run(c, TR_OP_SUMSQ, &other);
    return *other.out;
}

static void one(struct check *c, int64_t n)
{
    while (check_case(c, "n=%lld", (long long)n)) {
        const float *x = check_input(c, TR_F32, (size_t)n, CHECK_NORMAL);
        double *out = check_bytes(c, sizeof(double)), got;
        struct tr_op_sumsq op = {.x = x, .n = n, .out = out};
        long double want = 0;

        for (int64_t i = 0; i < n; i++)
            want += (long double)x[i] * x[i];
        check_run(c, TR_OP_SUMSQ, &op);
        got = *out;
        check_true(c, fabsl(got - want) <= 1e-13L * want, "%.17g, want %.17g", got, (double)want);
        while (check_variant(c)) {
            check_run(c, TR_OP_SUMSQ, &op);
            check_true(c, *out == got, "variant %d gives %.17g, not %.17g", c->variant, *out, got);
        }
        CHECK_BENCH(c, (double)n * 4, (double)n * 2) check_run(c, TR_OP_SUMSQ, &op);
        if (n == 0)
            continue;
        check_true(c, with(c, &op, n - 1, 2 * x[n - 1] + 1) != got,
                   "a changed last element is not seen");
        check_true(c, isnan(with(c, &op, n / 2, NAN)), "NaN is lost");
    }
}

void check_sumsq(struct check *c)
{
    static const int64_t sizes[] = {0, 1, 15, 4095, 4096, 4097, 100003, (1 << 20) + 4097};

    for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++)
        one(c, sizes[i]);
    if (check_bench_on(c))
        one(c, 64 << 20);
}
