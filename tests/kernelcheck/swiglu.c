/* SPDX-License-Identifier: Apache-2.0
 *
 * silu(gate) * up and its gradient: a few ULP of a double reference, over the range where exp
 * overflows and underflows too; NaN comes through; the same bits everywhere, apart, in place, and
 * for an element wherever it lies in the call.
 */
#include <math.h>
#include <string.h>

#include "tests/kernelcheck/variant.h"

struct wanted {
    double *out, *dgate, *dup;
};

static struct wanted reference(struct check *c, const struct tr_op_swiglu *op)
{
    size_t n = (size_t)op->n, bytes = n * sizeof(double);
    struct wanted w = {check_scratch(c, bytes), check_scratch(c, bytes), check_scratch(c, bytes)};

    for (size_t i = 0; i < n; i++) {
        double x = tr_load_f32(op->gate, op->dtype, i), s = 1 / (1 + exp(-x));
        double up = tr_load_f32(op->up, op->dtype, i), dout = tr_load_f32(op->dout, op->dtype, i);

        w.out[i] = x * s * up;
        w.dgate[i] = dout * up * s * (1 + x * (1 - s));
        w.dup[i] = dout * x * s;
    }
    return w;
}

static void open_outputs(struct check *c, struct tr_op_swiglu *op)
{
    op->out = check_output(c, op->dtype, (size_t)op->n);
    op->dgate = check_output(c, op->dtype, (size_t)op->n);
    op->dup = check_output(c, op->dtype, (size_t)op->n);
}

static void run(struct check *c, const struct tr_op_swiglu *op)
{
    check_run(c, TR_OP_SWIGLU, op);
    check_run(c, TR_OP_SWIGLU_GRAD, op);
}

static void compare(struct check *c, const struct tr_op_swiglu *op, const struct tr_op_swiglu *want)
{
    check_equal(c, "out", op->dtype, op->out, want->out, (size_t)op->n);
    check_equal(c, "dgate", op->dtype, op->dgate, want->dgate, (size_t)op->n);
    check_equal(c, "dup", op->dtype, op->dup, want->dup, (size_t)op->n);
}

/* The first third and the rest, each as a call of its own. */
static void in_parts(struct check *c, const struct tr_op_swiglu *want)
{
    struct tr_op_swiglu whole = *want, part;
    size_t skip = (size_t)(want->n / 3) * tr_dtype_size(want->dtype);

    open_outputs(c, &whole);
    part = whole;
    part.n = whole.n / 3;
    run(c, &part);
    part.n = whole.n - part.n;
    part.gate = (const char *)whole.gate + skip;
    part.up = (const char *)whole.up + skip;
    part.dout = (const char *)whole.dout + skip;
    part.out = (char *)whole.out + skip;
    part.dgate = (char *)whole.dgate + skip;
    part.dup = (char *)whole.dup + skip;
    run(c, &part);
    compare(c, &whole, want);
}

/* dgate as gate and dup as up; then dgate as dout. */
static void aliases(struct check *c, const struct tr_op_swiglu *want)
{
    size_t n = (size_t)want->n, bytes = n * tr_dtype_size(want->dtype);
    struct tr_op_swiglu op = *want;

    op.gate = op.dgate = memcpy(check_bytes(c, bytes), want->gate, bytes);
    op.up = op.dup = memcpy(check_bytes(c, bytes), want->up, bytes);
    check_run(c, TR_OP_SWIGLU_GRAD, &op);
    check_equal(c, "dgate in place", op.dtype, op.dgate, want->dgate, n);
    check_equal(c, "dup in place", op.dtype, op.dup, want->dup, n);
    op = *want;
    op.dout = op.dgate = memcpy(check_bytes(c, bytes), want->dout, bytes);
    check_run(c, TR_OP_SWIGLU_GRAD, &op);
    check_equal(c, "dgate as dout", op.dtype, op.dgate, want->dgate, n);
}

static void one(struct check *c, enum tr_dtype dtype, int64_t size, float spread)
{
    size_t n = (size_t)size;

    while (check_case(c, "%s n=%d spread=%g", tr_dtype_name(dtype), (int)n, (double)spread)) {
        struct tr_op_swiglu op = {.dtype = dtype, .n = size}, other;
        void *gate = check_inout(c, dtype, n, CHECK_NORMAL);

        for (size_t i = 0; i < n; i++)
            tr_store_f32(gate, dtype, i, tr_load_f32(gate, dtype, i) * spread);
        check_freeze(c);
        op.gate = gate;
        op.up = check_input(c, dtype, n, CHECK_NORMAL);
        op.dout = check_input(c, dtype, n, CHECK_NORMAL);
        open_outputs(c, &op);
        struct wanted want = reference(c, &op);
        run(c, &op);
        check_close(c, "out", dtype, op.out, want.out, n);
        check_close(c, "dgate", dtype, op.dgate, want.dgate, n);
        check_close(c, "dup", dtype, op.dup, want.dup, n);
        other = op;
        while (check_variant(c)) {
            open_outputs(c, &other);
            run(c, &other);
            compare(c, &other, &op);
        }
        in_parts(c, &op);
        aliases(c, &op);
        double bytes = (double)(n * tr_dtype_size(dtype));
        CHECK_BENCH(c, bytes * 3, 0) check_run(c, TR_OP_SWIGLU, &op);
        CHECK_BENCH(c, bytes * 5, 0) check_run(c, TR_OP_SWIGLU_GRAD, &op);
    }
}

static void nan_comes_through(struct check *c, enum tr_dtype dtype)
{
    static const float gates[3] = {NAN, 1, -INFINITY}, ups[3] = {1, NAN, 1};

    while (check_case(c, "%s NaN", tr_dtype_name(dtype))) {
        void *gate = check_output(c, dtype, 3), *up = check_output(c, dtype, 3);
        struct tr_op_swiglu op = {.dtype = dtype, .gate = gate, .up = up, .n = 3};

        for (size_t i = 0; i < 3; i++) {
            tr_store_f32(gate, dtype, i, gates[i]);
            tr_store_f32(up, dtype, i, ups[i]);
        }
        op.out = check_scratch(c, 3 * tr_dtype_size(dtype));
        check_run(c, TR_OP_SWIGLU, &op);
        for (size_t i = 0; i < 3; i++)
            check_true(c, isnan(tr_load_f32(op.out, dtype, i)), "element %zu is %g", i,
                       (double)tr_load_f32(op.out, dtype, i));
    }
}

void check_swiglu(struct check *c)
{
    for (enum tr_dtype d = TR_F32; d < TR_DTYPES; d++) {
        if (!check_computes(c, d))
            continue;
        one(c, d, 1, 1);
        one(c, d, 37, 1);
        one(c, d, check_small(c) ? 5003 : 20011, 2);
        one(c, d, 4099, 60);
        nan_comes_through(c, d);
        if (check_bench_on(c))
            one(c, d, (c->device ? 4096 : 1024) * 5632, 1);
    }
}
