/* SPDX-License-Identifier: Apache-2.0
 *
 * Rotate-half against double (each half of a head apart, so that swapped layouts fail), back again
 * with inverse, the same bits on every tier and thread count.
 */
#include <math.h>
#include <string.h>

#include "tests/kernelcheck/variant.h"

#define POSITIONS 64

static void fill_angles(float *cos_table, float *sin_table, int64_t half)
{
    for (int64_t i = 0; i < POSITIONS * half; i++) {
        double angle = (double)(i / half) * pow(10000, -(double)(i % half) / (double)half);

        cos_table[i] = (float)cos(angle);
        sin_table[i] = (float)sin(angle);
    }
}

static void reference(double *want, const struct tr_op_rope *op, const float *x)
{
    int64_t half = op->head_dim / 2;

    for (int64_t i = 0; i < op->n * op->heads * op->head_dim; i++) {
        int64_t lane = i % op->head_dim, t = i / op->head_dim / op->heads;
        int64_t at = op->position[t] * half + lane % half;

        want[i] = lane < half ? (double)x[i] * op->cos[at] - (double)x[i + half] * op->sin[at]
                              : (double)x[i] * op->cos[at] + (double)x[i - half] * op->sin[at];
    }
}

static void one(struct check *c, int64_t n, int64_t heads, int64_t head_dim)
{
    while (check_case(c, "n=%d heads=%d head_dim=%d", (int)n, (int)heads, (int)head_dim)) {
        size_t all = (size_t)(n * heads * head_dim), table = (size_t)(POSITIONS * head_dim / 2);
        struct tr_op_rope op = {.n = n, .heads = heads, .head_dim = head_dim};
        const float *x = check_input(c, TR_F32, all, CHECK_NORMAL);
        int32_t *position = check_bytes(c, (size_t)n * 4);
        float *cos_table = check_bytes(c, table * 4), *sin_table = check_bytes(c, table * 4);
        double *want = check_scratch(c, all * sizeof(double));
        const struct tr_cpu *cpu;

        for (int64_t t = 0; t < n; t++)
            position[t] = (int32_t)check_random_below(c, POSITIONS);
        fill_angles(cos_table, sin_table, head_dim / 2);
        op.position = position;
        op.cos = cos_table;
        op.sin = sin_table;
        reference(want, &op, x);
        float *got = op.x = memcpy(check_bytes(c, all * 4), x, all * 4);
        check_ok(c, tr_cpu_rope(c->cpu, &op));
        check_close(c, "x", got, want, all);
        op.x = check_bytes(c, all * 4);
        for (int v = 0; (cpu = check_variant(c, v)); v++) {
            memcpy(op.x, x, all * 4);
            check_ok(c, tr_cpu_rope(cpu, &op));
            check_equal(c, "x", TR_F32, op.x, got, all);
        }
        memcpy(op.x, got, all * 4);
        op.inverse = 1;
        check_ok(c, tr_cpu_rope(c->cpu, &op));
        for (size_t i = 0; i < all; i++)
            want[i] = x[i];
        check_close(c, "back", op.x, want, all);
        CHECK_BENCH(c, (double)all * 8, (double)all * 3) tr_cpu_rope(c->cpu, &op);
    }
}

void check_rope(struct check *c)
{
    one(c, 1, 1, 2);
    one(c, 13, 3, 14);
    one(c, 70, 5, 64);
    one(c, 9, 2, 144);
    if (check_bench_on(c))
        one(c, 1024, 32, 64);
}
