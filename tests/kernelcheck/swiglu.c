/* SPDX-License-Identifier: Apache-2.0
 *
 * silu(gate) * up and its gradient: a few ULP of a double reference, over the range where exp
 * overflows and underflows too; NaN comes through; the same bits everywhere, apart and in place.
 */
#include <math.h>
#include <string.h>

#include "tests/kernelcheck/variant.h"

struct wanted {
    double *out, *dgate, *dup;
};

static struct wanted reference(struct check *c, const struct tr_op_swiglu *op)
{
    size_t bytes = (size_t)op->n * sizeof(double);
    struct wanted w = {check_scratch(c, bytes), check_scratch(c, bytes), check_scratch(c, bytes)};
    const float *gate = op->gate, *up = op->up, *dout = op->dout;

    for (int64_t i = 0; i < op->n; i++) {
        double x = gate[i], s = 1 / (1 + exp(-x));

        w.out[i] = x * s * up[i];
        w.dgate[i] = (double)dout[i] * up[i] * s * (1 + x * (1 - s));
        w.dup[i] = dout[i] * x * s;
    }
    return w;
}

static void same_bits(struct check *c, struct tr_op_swiglu op)
{
    const float *out = op.out, *dgate = op.dgate, *dup = op.dup;
    size_t n = (size_t)op.n;
    const struct tr_cpu *cpu;

    for (int v = 0; (cpu = check_variant(c, v)); v++) {
        op.out = check_output(c, TR_F32, n);
        op.dgate = check_output(c, TR_F32, n);
        op.dup = check_output(c, TR_F32, n);
        check_ok(c, tr_cpu_swiglu(cpu, &op));
        check_ok(c, tr_cpu_swiglu_grad(cpu, &op));
        check_equal(c, "out", TR_F32, op.out, out, n);
        check_equal(c, "dgate", TR_F32, op.dgate, dgate, n);
        check_equal(c, "dup", TR_F32, op.dup, dup, n);
    }
    op.dgate = memcpy(check_bytes(c, n * 4), op.gate, n * 4);
    op.dup = memcpy(check_bytes(c, n * 4), op.up, n * 4);
    op.gate = op.dgate;
    op.up = op.dup;
    check_ok(c, tr_cpu_swiglu_grad(c->cpu, &op));
    check_equal(c, "dgate in place", TR_F32, op.dgate, dgate, n);
    check_equal(c, "dup in place", TR_F32, op.dup, dup, n);
}

static void one(struct check *c, int64_t n, float spread)
{
    while (check_case(c, "n=%d spread=%g", (int)n, (double)spread)) {
        struct tr_op_swiglu op = {.n = n};
        float *gate = check_inout(c, TR_F32, (size_t)n, CHECK_NORMAL);

        for (int64_t i = 0; i < n; i++)
            gate[i] *= spread;
        check_freeze(c);
        op.gate = gate;
        op.up = check_input(c, TR_F32, (size_t)n, CHECK_NORMAL);
        op.dout = check_input(c, TR_F32, (size_t)n, CHECK_NORMAL);
        op.out = check_output(c, TR_F32, (size_t)n);
        op.dgate = check_output(c, TR_F32, (size_t)n);
        op.dup = check_output(c, TR_F32, (size_t)n);
        struct wanted want = reference(c, &op);
        check_ok(c, tr_cpu_swiglu(c->cpu, &op));
        check_ok(c, tr_cpu_swiglu_grad(c->cpu, &op));
        check_close(c, "out", op.out, want.out, (size_t)n);
        check_close(c, "dgate", op.dgate, want.dgate, (size_t)n);
        check_close(c, "dup", op.dup, want.dup, (size_t)n);
        same_bits(c, op);
        CHECK_BENCH(c, (double)n * 12, 0) tr_cpu_swiglu(c->cpu, &op);
        CHECK_BENCH(c, (double)n * 20, 0) tr_cpu_swiglu_grad(c->cpu, &op);
    }
}

static void nan_comes_through(struct check *c)
{
    while (check_case(c, "NaN")) {
        float gate[3] = {NAN, 1, -INFINITY}, up[3] = {1, NAN, 1}, out[3];
        struct tr_op_swiglu op = {.gate = gate, .up = up, .out = out, .n = 3};

        check_ok(c, tr_cpu_swiglu(c->cpu, &op));
        for (int i = 0; i < 3; i++)
            check_true(c, isnan(out[i]), "element %d is %g", i, (double)out[i]);
    }
}

void check_swiglu(struct check *c)
{
    one(c, 1, 1);
    one(c, 37, 1);
    one(c, 20011, 2);
    one(c, 4099, 60);
    nan_comes_through(c);
    if (check_bench_on(c))
        one(c, 1024 * 5632, 1);
}
