/* SPDX-License-Identifier: Apache-2.0
 *
 * Column sums: against double; the same bits for any threads, on any tier, and for grains one at a
 * time continued with add (invariant 1). Moving a grain's edge must show.
 */
#include <string.h>

#include "tests/kernelcheck/variant.h"

/* Grain by grain, as separate micro-batches would do it. */
static void by_grain(struct check *c, const struct tr_op_bias_grad *op, const int32_t *start)
{
    for (int g = 0; g < 3; g++) {
        int32_t own[2] = {0, start[g + 1] - start[g]};
        struct tr_op_bias_grad part = *op;

        part.dy = (const float *)op->dy + start[g] * op->m;
        part.n = own[1];
        part.grains = (struct tr_ranges){1, own};
        part.add = g > 0;
        check_ok(c, tr_cpu_bias_grad(c->cpu, &part));
    }
}

static void one(struct check *c, const int32_t start[4], int64_t m)
{
    while (check_case(c, "n=%d m=%d", start[3], (int)m)) {
        struct tr_op_bias_grad op = {.n = start[3], .m = m, .grains = {3, start}};
        size_t bytes = (size_t)m * 4;
        double *want = check_scratch(c, (size_t)m * sizeof(double));
        const struct tr_cpu *cpu;

        op.dy = check_input(c, TR_F32, (size_t)(op.n * m), CHECK_NORMAL);
        for (int64_t i = 0; i < op.n * m; i++)
            want[i % m] += ((const float *)op.dy)[i];
        float *got = check_output(c, TR_F32, (size_t)m);
        op.db = got;
        check_ok(c, tr_cpu_bias_grad(c->cpu, &op));
        check_close(c, "db", got, want, (size_t)m);
        for (int v = 0; (cpu = check_variant(c, v)); v++) {
            op.db = check_output(c, TR_F32, (size_t)m);
            check_ok(c, tr_cpu_bias_grad(cpu, &op));
            check_equal(c, "db", TR_F32, op.db, got, (size_t)m);
        }
        op.db = check_output(c, TR_F32, (size_t)m);
        by_grain(c, &op, start);
        check_equal(c, "db by grain", TR_F32, op.db, got, (size_t)m);
        int32_t moved[4] = {0, start[1] + 1, start[2], start[3]};
        op.grains.start = moved;
        check_ok(c, tr_cpu_bias_grad(c->cpu, &op));
        check_true(c, op.n < 40 || check_differs(op.db, got, bytes), "a moved grain is not seen");
        CHECK_BENCH(c, (double)(op.n * m) * 4, 0) tr_cpu_bias_grad(c->cpu, &op);
    }
}

void check_bias_grad(struct check *c)
{
    one(c, (int32_t[]){0, 1, 2, 4}, 1);
    one(c, (int32_t[]){0, 33, 70, 101}, 19);
    one(c, (int32_t[]){0, 128, 300, 417}, 600);
    if (check_bench_on(c))
        one(c, (int32_t[]){0, 512, 1024, 1536}, 2048);
}
