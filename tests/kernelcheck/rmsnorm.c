/* SPDX-License-Identifier: Apache-2.0
 *
 * rmsnorm over rows and per head, forward and backward, against double, in the dtypes that norms of
 * a model have on this device; added to and in place; the same bits in every variant, and for
 * grains one at a time (invariant 1): rows wherever they lie, and the sum over tokens.
 */
#include <math.h>
#include <string.h>

#include "tests/kernelcheck/variant.h"

struct shape {
    int32_t start[4]; /* tokens of three grains */
    int64_t rows_per_token, cols;
};

/* y: of the result; grad: of dy and dx, whose norm may be of the residual stream (f32). */
struct dtypes {
    enum tr_dtype x, w, y, grad;
};

struct wanted {
    double *y, *rstd, *dx, *dw;
};

/* The op with the dtype that its direction goes by. */
static void forward(struct check *c, const struct tr_op_rmsnorm *op, const struct dtypes *d)
{
    struct tr_op_rmsnorm forth = *op;

    forth.y_dtype = d->y;
    check_run(c, TR_OP_RMSNORM, &forth);
}

static void backward(struct check *c, const struct tr_op_rmsnorm *op, const struct dtypes *d)
{
    struct tr_op_rmsnorm back = *op;

    back.y_dtype = d->grad;
    check_run(c, TR_OP_RMSNORM_GRAD, &back);
}

static void reference_row(const struct tr_op_rmsnorm *op, const struct dtypes *d,
                          const struct wanted *w, int64_t r)
{
    double sum = 0, along = 0;
    size_t at = (size_t)(r * op->cols);

    for (int64_t i = 0; i < op->cols; i++) {
        double x = tr_load_f32(op->x, d->x, at + (size_t)i);
        sum += x * x;
    }
    double rstd = w->rstd[r] = 1 / sqrt(sum / (double)op->cols + op->eps);
    for (size_t i = 0; i < (size_t)op->cols; i++) {
        double xhat = tr_load_f32(op->x, d->x, at + i) * rstd;
        double weight = tr_load_f32(op->w, d->w, i), dy = tr_load_f32(op->dy, d->grad, at + i);
        w->y[at + i] = xhat * weight;
        w->dx[at + i] = rstd * dy * weight;
        w->dw[i] += dy * xhat;
        along += dy * weight * xhat / (double)op->cols;
    }
    for (size_t i = 0; i < (size_t)op->cols; i++)
        w->dx[at + i] -= rstd * along * rstd * tr_load_f32(op->x, d->x, at + i);
}

static struct wanted reference(struct check *c, const struct tr_op_rmsnorm *op,
                               const struct dtypes *d)
{
    size_t n = (size_t)(op->rows * op->cols) * 8;
    struct wanted w = {check_scratch(c, n), check_scratch(c, (size_t)op->rows * 8),
                       check_scratch(c, n), check_scratch(c, (size_t)op->cols * 8)};

    for (int64_t r = 0; r < op->rows; r++)
        reference_row(op, d, &w, r);
    return w;
}

static void open_outputs(struct check *c, struct tr_op_rmsnorm *op, const struct dtypes *d)
{
    size_t n = (size_t)(op->rows * op->cols);

    op->y = check_output(c, d->y, n);
    op->rstd = check_output(c, TR_F32, (size_t)op->rows);
    op->dx = check_output(c, d->grad, n);
    op->dw = check_output(c, TR_F32, (size_t)op->cols);
}

static void compare(struct check *c, const struct tr_op_rmsnorm *op, const struct dtypes *d,
                    const struct tr_op_rmsnorm *want)
{
    size_t n = (size_t)(op->rows * op->cols);

    check_equal(c, "y", d->y, op->y, want->y, n);
    check_equal(c, "rstd", TR_F32, op->rstd, want->rstd, (size_t)op->rows);
    check_equal(c, "dx", d->grad, op->dx, want->dx, n);
    check_equal(c, "dw", TR_F32, op->dw, want->dw, (size_t)op->cols);
}

static void same_bits(struct check *c, const struct tr_op_rmsnorm *op, const struct dtypes *d)
{
    while (check_variant(c)) {
        struct tr_op_rmsnorm other = *op;

        open_outputs(c, &other, d);
        forward(c, &other, d);
        backward(c, &other, d);
        compare(c, &other, d, op);
    }
}

/* Grain by grain, as separate micro-batches would do it. */
static void by_grain(struct check *c, const struct tr_op_rmsnorm *op, const struct dtypes *d)
{
    struct tr_op_rmsnorm all = *op;

    open_outputs(c, &all, d);
    for (int g = 0; g < op->grains.n; g++) {
        const int32_t *start = op->grains.start + g;
        int32_t own[2] = {0, start[1] - start[0]};
        int64_t row = start[0] * op->rows_per_token;
        size_t at = (size_t)(row * op->cols), grad_at = at * tr_dtype_size(d->grad);
        struct tr_op_rmsnorm part = all;

        part.rows = own[1] * op->rows_per_token;
        part.grains = (struct tr_ranges){1, own};
        part.x = (const char *)op->x + at * tr_dtype_size(d->x);
        part.y = (char *)all.y + at * tr_dtype_size(d->y);
        part.rstd += row;
        part.dy = (const char *)all.dy + grad_at;
        part.dx = (char *)all.dx + grad_at;
        part.add_dw = g > 0;
        forward(c, &part, d);
        backward(c, &part, d);
    }
    compare(c, &all, d, op);
}

/* A grain's edge moved by half a grain must show in the sum: one token alone may round away in
 * every column. */
static void moved_grain(struct check *c, const struct tr_op_rmsnorm *op, const struct dtypes *d)
{
    const int32_t *start = op->grains.start;
    int32_t moved[4] = {0, start[1] / 2, start[2], start[3]};
    struct tr_op_rmsnorm other = *op;

    open_outputs(c, &other, d);
    other.rstd = op->rstd;
    other.grains.start = moved;
    backward(c, &other, d);
    check_true(c, check_differs(other.dw, op->dw, (size_t)op->cols * 4),
               "a moved grain is not seen");
}

/* dx added to: on the cpu the very sum of the two. */
static void added(struct check *c, const struct tr_op_rmsnorm *op, const struct dtypes *d,
                  const struct wanted *want)
{
    size_t n = (size_t)(op->rows * op->cols);
    struct tr_op_rmsnorm other = *op;
    float *dx = check_inout(c, TR_F32, n, CHECK_NORMAL), *sum = check_scratch(c, n * 4);
    double *near = check_scratch(c, n * sizeof(double));

    for (size_t i = 0; i < n; i++) {
        sum[i] = dx[i] + ((const float *)op->dx)[i];
        near[i] = dx[i] + want->dx[i];
    }
    other.dw = check_output(c, TR_F32, (size_t)op->cols);
    other.dx = dx;
    other.add_dx = 1;
    backward(c, &other, d);
    check_close(c, "grad dx added to", TR_F32, dx, near, n);
    if (!c->device)
        check_equal(c, "dx added to", TR_F32, dx, sum, n);
}

/* dx as dy, y as x: against the separate results. */
static void aliases(struct check *c, const struct tr_op_rmsnorm *op, const struct dtypes *d)
{
    size_t n = (size_t)(op->rows * op->cols), bytes = n * tr_dtype_size(d->grad);
    struct tr_op_rmsnorm other = *op;

    other.dx = memcpy(check_bytes(c, bytes), op->dy, bytes);
    other.dy = other.dx;
    other.dw = check_output(c, TR_F32, (size_t)op->cols);
    backward(c, &other, d);
    check_equal(c, "dx as dy", d->grad, other.dx, op->dx, n);
    check_equal(c, "dw with dx as dy", TR_F32, other.dw, op->dw, (size_t)op->cols);
    if (d->x != d->y)
        return;
    bytes = n * tr_dtype_size(d->x);
    other.y = memcpy(check_bytes(c, bytes), op->x, bytes);
    other.x = other.y;
    other.rstd = check_output(c, TR_F32, (size_t)op->rows);
    forward(c, &other, d);
    check_equal(c, "y as x", d->y, other.y, op->y, n);
}

static struct tr_op_rmsnorm open_case(struct check *c, const struct shape *s,
                                      const struct dtypes *d)
{
    struct tr_op_rmsnorm op = {.x_dtype = d->x, .w_dtype = d->w, .eps = 1e-5f};
    size_t n;

    op.rows_per_token = s->rows_per_token;
    op.rows = s->start[3] * s->rows_per_token;
    op.cols = s->cols;
    op.grains = (struct tr_ranges){3, s->start};
    n = (size_t)(op.rows * op.cols);
    op.x = check_input(c, d->x, n, CHECK_NORMAL);
    op.w = check_input(c, d->w, (size_t)op.cols, CHECK_UNIFORM);
    op.dy = check_input(c, d->grad, n, CHECK_NORMAL);
    open_outputs(c, &op, d);
    return op;
}

static void one(struct check *c, const struct shape *s, const struct dtypes *d)
{
    while (check_case(c, "tokens=%d rows_per_token=%d cols=%d x %s w %s y %s grad %s", s->start[3],
                      (int)s->rows_per_token, (int)s->cols, tr_dtype_name(d->x),
                      tr_dtype_name(d->w), tr_dtype_name(d->y), tr_dtype_name(d->grad))) {
        struct tr_op_rmsnorm op = open_case(c, s, d);
        struct wanted want = reference(c, &op, d);
        size_t n = (size_t)(op.rows * op.cols);

        forward(c, &op, d);
        backward(c, &op, d);
        check_close(c, "y", d->y, op.y, want.y, n);
        check_close(c, "rstd", TR_F32, op.rstd, want.rstd, (size_t)op.rows);
        check_close(c, "grad dx", d->grad, op.dx, want.dx, n);
        check_close(c, "grad dw", TR_F32, op.dw, want.dw, (size_t)op.cols);
        same_bits(c, &op, d);
        by_grain(c, &op, d);
        if (s->start[3] > 40 && s->start[1] < s->start[2])
            moved_grain(c, &op, d);
        if (d->grad == TR_F32)
            added(c, &op, d, &want);
        aliases(c, &op, d);
        double x_bytes = (double)(n * tr_dtype_size(d->x));
        double grad_bytes = (double)(n * tr_dtype_size(d->grad));
        CHECK_BENCH(c, x_bytes + (double)(n * tr_dtype_size(d->y)), 0) forward(c, &op, d);
        CHECK_BENCH(c, x_bytes + 2 * grad_bytes, 0) backward(c, &op, d);
    }
}

static void bench(struct check *c, enum tr_dtype storage)
{
    enum tr_dtype compute = check_compute(c, storage);
    struct dtypes block = {storage, storage, compute, TR_F32};
    struct dtypes head = {compute, storage, compute, compute};

    one(c, &(struct shape){{0, 512, 1024, 1536}, 1, 2048}, &block);
    one(c, &(struct shape){{0, 512, 1024, 1536}, 32, 64}, &head);
    if (c->device)
        one(c, &(struct shape){{0, 2048, 4096, 8192}, 1, 4096}, &block);
}

/* The norms of a model: over a block's input, over the residual stream inside it, over heads. */
void check_rmsnorm(struct check *c)
{
    for (enum tr_dtype s = TR_F32; s < TR_DTYPES; s++) {
        enum tr_dtype compute = check_compute(c, s);
        struct dtypes block = {s, s, compute, TR_F32}, middle = {TR_F32, s, compute, TR_F32};
        struct dtypes head = {compute, s, compute, compute};

        one(c, &(struct shape){{0, 0, 0, 0}, 1, 5}, &block);
        one(c, &(struct shape){{0, 1, 2, 3}, 1, 5}, &block);
        one(c, &(struct shape){{0, 33, 40, 101}, 1, 37}, &block);
        one(c, &(struct shape){{0, 33, 33, 101}, 1, 72}, &middle); /* a grain of no tokens */
        one(c, &(struct shape){{0, 5, 17, 41}, 3, 64}, &head);
        one(c, &(struct shape){{0, 40, 90, 100}, 1, check_small(c) ? 300 : 777}, &block);
        if (!check_small(c)) /* as wide as models are: sums that are long */
            one(c, &(struct shape){{0, 3, 3, 5}, 1, 8192}, &block);
        if (check_bench_on(c) && s != TR_F16)
            bench(c, s);
    }
}
