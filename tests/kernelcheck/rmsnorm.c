/* SPDX-License-Identifier: Apache-2.0
 *
 * rmsnorm over rows and per head, forward and backward, against double, in every storage dtype;
 * added to and in place; the same bits for any threads, on any tier, and for grains one at a time
 * (invariant 1).
 */
#include <math.h>
#include <string.h>

#include "tests/kernelcheck/variant.h"

struct shape {
    int32_t start[4]; /* tokens of three grains */
    int64_t rows_per_token, cols;
    enum tr_dtype x_dtype, w_dtype;
};

struct wanted {
    double *y, *rstd, *dx, *dw;
};

static void reference_row(const struct tr_op_rmsnorm *op, const struct wanted *w, int64_t r)
{
    double sum = 0, along = 0;

    for (int64_t i = 0; i < op->cols; i++) {
        double x = tr_load_f32(op->x, op->x_dtype, (size_t)(r * op->cols + i));
        sum += x * x;
    }
    double rstd = w->rstd[r] = 1 / sqrt(sum / (double)op->cols + op->eps);
    for (int64_t i = 0; i < op->cols; i++) {
        double xhat = tr_load_f32(op->x, op->x_dtype, (size_t)(r * op->cols + i)) * rstd;
        double weight = tr_load_f32(op->w, op->w_dtype, (size_t)i);
        double dy = ((const float *)op->dy)[r * op->cols + i];
        w->y[r * op->cols + i] = xhat * weight;
        w->dx[r * op->cols + i] = rstd * dy * weight;
        w->dw[i] += dy * xhat;
        along += dy * weight * xhat / (double)op->cols;
    }
    for (int64_t i = 0; i < op->cols; i++)
        w->dx[r * op->cols + i] -=
            rstd * along * rstd * tr_load_f32(op->x, op->x_dtype, (size_t)(r * op->cols + i));
}

static struct wanted reference(struct check *c, const struct tr_op_rmsnorm *op)
{
    size_t n = (size_t)(op->rows * op->cols) * 8;
    struct wanted w = {check_scratch(c, n), check_scratch(c, (size_t)op->rows * 8),
                       check_scratch(c, n), check_scratch(c, (size_t)op->cols * 8)};

    for (int64_t r = 0; r < op->rows; r++)
        reference_row(op, &w, r);
    return w;
}

static void open_outputs(struct check *c, struct tr_op_rmsnorm *op)
{
    size_t n = (size_t)(op->rows * op->cols);

    op->y = check_output(c, TR_F32, n);
    op->rstd = check_output(c, TR_F32, (size_t)op->rows);
    op->dx = check_output(c, TR_F32, n);
    op->dw = check_output(c, TR_F32, (size_t)op->cols);
}

static void same_bits(struct check *c, const struct tr_op_rmsnorm *op)
{
    size_t n = (size_t)(op->rows * op->cols);
    const struct tr_cpu *cpu;

    for (int v = 0; (cpu = check_variant(c, v)); v++) {
        struct tr_op_rmsnorm other = *op;

        open_outputs(c, &other);
        check_ok(c, tr_cpu_rmsnorm(cpu, &other));
        check_ok(c, tr_cpu_rmsnorm_grad(cpu, &other));
        check_equal(c, "y", TR_F32, other.y, op->y, n);
        check_equal(c, "dx", TR_F32, other.dx, op->dx, n);
        check_equal(c, "dw", TR_F32, other.dw, op->dw, (size_t)op->cols);
    }
}

/* Grain by grain, as separate micro-batches would do it; then the tail rows must still agree. */
static void by_grain(struct check *c, const struct tr_op_rmsnorm *op)
{
    size_t x_size = tr_dtype_size(op->x_dtype);
    struct tr_op_rmsnorm all = *op;

    open_outputs(c, &all);
    for (int g = 0; g < op->grains.n; g++) {
        const int32_t *start = op->grains.start + g;
        int32_t own[2] = {0, start[1] - start[0]};
        int64_t row = start[0] * op->rows_per_token, at = row * op->cols;
        struct tr_op_rmsnorm part = all;

        part.rows = own[1] * op->rows_per_token;
        part.grains = (struct tr_ranges){1, own};
        part.x = (const char *)op->x + (size_t)at * x_size;
        part.y = (float *)all.y + at;
        part.rstd += row;
        part.dy = (const float *)all.dy + at;
        part.dx = (float *)all.dx + at;
        part.add_dw = g > 0;
        check_ok(c, tr_cpu_rmsnorm(c->cpu, &part));
        check_ok(c, tr_cpu_rmsnorm_grad(c->cpu, &part));
    }
    check_equal(c, "y by grain", TR_F32, all.y, op->y, (size_t)(op->rows * op->cols));
    check_equal(c, "dx by grain", TR_F32, all.dx, op->dx, (size_t)(op->rows * op->cols));
    check_equal(c, "dw by grain", TR_F32, all.dw, op->dw, (size_t)op->cols);
}

/* dx as dy, dx added to, y as x: against the separate results. */
static void aliases(struct check *c, const struct tr_op_rmsnorm *op)
{
    size_t n = (size_t)(op->rows * op->cols);
    struct tr_op_rmsnorm other = *op;
    float *base = check_inout(c, TR_F32, n, CHECK_NORMAL), *sum = check_scratch(c, n * 4);

    other.dx = memcpy(check_bytes(c, n * 4), op->dy, n * 4);
    other.dy = other.dx;
    other.dw = check_output(c, TR_F32, (size_t)op->cols);
    check_ok(c, tr_cpu_rmsnorm_grad(c->cpu, &other));
    check_equal(c, "dx as dy", TR_F32, other.dx, op->dx, n);
    check_equal(c, "dw with dx as dy", TR_F32, other.dw, op->dw, (size_t)op->cols);
    for (size_t i = 0; i < n; i++)
        sum[i] = base[i] + ((const float *)op->dx)[i];
    other.dy = op->dy;
    other.dx = base;
    other.add_dx = 1;
    check_ok(c, tr_cpu_rmsnorm_grad(c->cpu, &other));
    check_equal(c, "dx added to", TR_F32, base, sum, n);
    if (op->x_dtype != TR_F32)
        return;
    other.y = memcpy(check_bytes(c, n * 4), op->x, n * 4);
    other.x = other.y;
    check_ok(c, tr_cpu_rmsnorm(c->cpu, &other));
    check_equal(c, "y as x", TR_F32, other.y, op->y, n);
}

static void one(struct check *c, const struct shape *s)
{
    while (check_case(c, "tokens=%d rows_per_token=%d cols=%d x %s w %s", s->start[3],
                      (int)s->rows_per_token, (int)s->cols, tr_dtype_name(s->x_dtype),
                      tr_dtype_name(s->w_dtype))) {
        struct tr_op_rmsnorm op = {.x_dtype = s->x_dtype, .w_dtype = s->w_dtype, .eps = 1e-5f};

        op.rows_per_token = s->rows_per_token;
        op.rows = s->start[3] * s->rows_per_token;
        op.cols = s->cols;
        op.grains = (struct tr_ranges){3, s->start};
        size_t n = (size_t)(op.rows * op.cols);
        op.x = check_input(c, op.x_dtype, n, CHECK_NORMAL);
        op.w = check_input(c, op.w_dtype, (size_t)op.cols, CHECK_UNIFORM);
        op.dy = check_input(c, TR_F32, n, CHECK_NORMAL);
        open_outputs(c, &op);
        struct wanted want = reference(c, &op);
        check_ok(c, tr_cpu_rmsnorm(c->cpu, &op));
        check_ok(c, tr_cpu_rmsnorm_grad(c->cpu, &op));
        check_close(c, "y", op.y, want.y, n);
        check_close(c, "rstd", op.rstd, want.rstd, (size_t)op.rows);
        check_close_as(c, "grad", "dx", op.dx, want.dx, n);
        check_close_as(c, "grad", "dw", op.dw, want.dw, (size_t)op.cols);
        same_bits(c, &op);
        by_grain(c, &op);
        aliases(c, &op);
        double bytes = (double)n * tr_dtype_size(op.x_dtype);
        CHECK_BENCH(c, bytes + (double)n * 4, 0) tr_cpu_rmsnorm(c->cpu, &op);
        CHECK_BENCH(c, bytes + (double)n * 8, 0) tr_cpu_rmsnorm_grad(c->cpu, &op);
    }
}

void check_rmsnorm(struct check *c)
{
    for (enum tr_dtype d = TR_F32; d < TR_DTYPES; d++) {
        one(c, &(struct shape){{0, 1, 2, 3}, 1, 5, d, d});
        one(c, &(struct shape){{0, 33, 40, 101}, 1, 37, d, d});
        one(c, &(struct shape){{0, 5, 17, 40}, 3, 64, TR_F32, d});
    }
    one(c, &(struct shape){{0, 40, 90, 100}, 1, 777, TR_BF16, TR_F32});
    if (check_bench_on(c)) {
        one(c, &(struct shape){{0, 512, 1024, 1536}, 1, 2048, TR_BF16, TR_BF16});
        one(c, &(struct shape){{0, 512, 1024, 1536}, 32, 64, TR_F32, TR_BF16});
    }
}
