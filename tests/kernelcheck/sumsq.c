/* SPDX-License-Identifier: Apache-2.0
 *
 * The sum of squares: within f64 rounding of a long double sum, the same bits on every tier, thread
 * count and size of the scratch, and one changed element is seen.
 */
#include <math.h>

#include "tests/kernelcheck/variant.h"

static void one(struct check *c, int64_t n)
{
    while (check_case(c, "n=%lld", (long long)n)) {
        float *x = check_inout(c, TR_F32, (size_t)n, CHECK_NORMAL);
        double *out = check_bytes(c, sizeof(double)), got;
        struct tr_op_sumsq op = {.x = x, .n = n, .out = out};
        const struct tr_cpu *cpu;
        struct tr_cpu small;
        long double want = 0;

        for (int64_t i = 0; i < n; i++)
            want += (long double)x[i] * x[i];
        check_ok(c, tr_cpu_sumsq(c->cpu, &op));
        got = *out;
        check_true(c, fabsl(got - want) <= 1e-13L * want, "%.17g, want %.17g", got, (double)want);
        for (int v = 0; (cpu = check_variant(c, v)); v++) {
            check_ok(c, tr_cpu_sumsq(cpu, &op));
            check_true(c, *out == got, "variant %d gives %.17g, not %.17g", v, *out, got);
        }
        small = *c->cpu;
        small.scratch_bytes = 64; /* eight chunks at a time */
        check_ok(c, tr_cpu_sumsq(&small, &op));
        check_true(c, *out == got, "%.17g with little scratch, not %.17g", *out, got);
        CHECK_BENCH(c, (double)n * 4, (double)n * 2) tr_cpu_sumsq(c->cpu, &op);
        if (n == 0)
            continue;
        x[n - 1] = 2 * x[n - 1] + 1;
        check_ok(c, tr_cpu_sumsq(c->cpu, &op));
        check_true(c, *out != got, "a changed last element is not seen");
        x[n / 2] = NAN;
        check_ok(c, tr_cpu_sumsq(c->cpu, &op));
        check_true(c, isnan(*out), "NaN is lost");
    }
}

void check_sumsq(struct check *c)
{
    static const int64_t sizes[] = {0, 1, 15, 4095, 4096, 4097, 100003};

    for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++)
        one(c, sizes[i]);
    if (check_bench_on(c))
        one(c, 16 << 20);
}
