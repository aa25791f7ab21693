/* SPDX-License-Identifier: Apache-2.0
 *
 * y = x * rstd * w, rstd = 1 / sqrt(mean(x^2) + eps), over rows; also per head, with a row a head.
 * Backward, with xhat = x * rstd and c = mean(dy * w * xhat): dx = rstd * (dy * w - xhat * c),
 * dw = column sums of dy * xhat in the order of cpu/columns.h. dw is summed before dx is written,
 * because dx may be dy. Rows in 16-bit storage are widened into the worker's scratch.
 */
#include "cpu/cpu.h"

#include <math.h>

#include "cpu/columns.h"
#include "cpu/kernels.h"
#include "cpu/split.h"
#include "src/base/err.h"

struct job {
    const struct tr_cpu *cpu;
    const struct tr_op_rmsnorm *op;
};

/* Row kernels in plain C: the definition of those in cpu/rmsnorm_simd.h. */
static float row_sumsq(const float *x, int64_t n)
{
    float lanes[TR_LANES] = {0};

    for (int64_t i = 0; i < n; i++)
        lanes[i % TR_LANES] += x[i] * x[i];
    return tr_lanes_sum(lanes);
}

static void row_scale(float *y, const float *x, const float *w, float rstd, int64_t n)
{
    for (int64_t i = 0; i < n; i++)
        y[i] = x[i] * rstd * w[i];
}

static float row_dot(const float *dy, const float *w, const float *x, int64_t n)
{
    float lanes[TR_LANES] = {0};

    for (int64_t i = 0; i < n; i++)
        lanes[i % TR_LANES] += dy[i] * w[i] * x[i];
    return tr_lanes_sum(lanes);
}

static void row_dx(const struct tr_rmsnorm_row *r)
{
    for (int64_t i = 0; i < r->n; i++) {
        float dx = r->rstd * (r->dy[i] * r->w[i] - r->x[i] * r->rstd * r->mean);

        r->dx[i] = r->add ? r->dx[i] + dx : dx;
    }
}

static void row_dw(float *acc, const float *dy, const float *x, float rstd, int64_t n)
{
    for (int64_t i = 0; i < n; i++)
        acc[i] += dy[i] * (x[i] * rstd);
}

void tr_rmsnorm_init_c(struct tr_cpu_kernels *k)
{
    k->rmsnorm_sumsq = row_sumsq;
    k->rmsnorm_scale = row_scale;
    k->rmsnorm_dot = row_dot;
    k->rmsnorm_dx = row_dx;
    k->rmsnorm_dw = row_dw;
}

/* Elements [begin, begin + n) of p as f32: in place, or widened into buffer. */
static const float *widen(const struct tr_cpu_kernels *k, const void *p, enum tr_dtype dtype,
                          const int64_t range[2], float *buffer)
{
    if (dtype == TR_F32)
        return (const float *)p + range[0];
    k->to_f32[dtype](buffer, (const char *)p + (size_t)range[0] * tr_dtype_size(dtype), range[1]);
    return buffer;
}

static const float *widen_row(const struct job *j, int64_t row, float *buffer)
{
    const struct tr_op_rmsnorm *op = j->op;
    int64_t range[2] = {row * op->cols, op->cols};

    return widen(j->cpu->kernels, op->x, op->x_dtype, range, buffer);
}

static const float *widen_w(const struct job *j, float *buffer)
{
    return widen(j->cpu->kernels, j->op->w, j->op->w_dtype, (int64_t[2]){0, j->op->cols}, buffer);
}

/* A lane that adds up a whole long row loses more than its mean may be off: rows are summed in
 * pieces, and those are added. */
#define PIECE 2048

static float sum_squares(const struct tr_cpu_kernels *k, const float *x, int64_t n)
{
    float sum = 0;

    for (int64_t at = 0; at < n; at += PIECE)
        sum += k->rmsnorm_sumsq(x + at, n - at < PIECE ? n - at : PIECE);
    return sum;
}

static float sum_dot(const struct tr_cpu_kernels *k, const struct tr_rmsnorm_row *row)
{
    float sum = 0;

    for (int64_t at = 0; at < row->n; at += PIECE)
        sum += k->rmsnorm_dot(row->dy + at, row->w + at, row->x + at,
                              row->n - at < PIECE ? row->n - at : PIECE);
    return sum;
}

static void forward(void *arg, int64_t begin, int64_t end, int worker)
{
    const struct job *j = arg;
    const struct tr_op_rmsnorm *op = j->op;
    const struct tr_cpu_kernels *k = j->cpu->kernels;
    float *scratch = tr_cpu_scratch(j->cpu, worker);
    const float *w = widen_w(j, scratch);

    for (int64_t r = begin; r < end; r++) {
        const float *x = widen_row(j, r, scratch + op->cols);
        float mean = sum_squares(k, x, op->cols) / (float)op->cols;

        op->rstd[r] = 1.0f / sqrtf(mean + op->eps);
        k->rmsnorm_scale((float *)op->y + r * op->cols, x, w, op->rstd[r], op->cols);
    }
}

/* dx of rows [begin, end). dy's row is read whole before dx's is written: they may be one. */
static void backward(void *arg, int64_t begin, int64_t end, int worker)
{
    const struct job *j = arg;
    const struct tr_op_rmsnorm *op = j->op;
    const struct tr_cpu_kernels *k = j->cpu->kernels;
    float *scratch = tr_cpu_scratch(j->cpu, worker);
    struct tr_rmsnorm_row row = {.w = widen_w(j, scratch), .n = op->cols, .add = op->add_dx};

    for (int64_t r = begin; r < end; r++) {
        row.x = widen_row(j, r, scratch + op->cols);
        row.dy = (const float *)op->dy + r * op->cols;
        row.dx = (float *)op->dx + r * op->cols;
        row.rstd = op->rstd[r];
        row.mean = sum_dot(k, &row) * row.rstd / (float)op->cols;
        k->rmsnorm_dx(&row);
    }
}

static void add_row(const struct tr_columns *c, float *acc, int64_t r, int64_t begin, int64_t n)
{
    const struct tr_op_rmsnorm *op = c->op;
    float buffer[TR_COLUMN_BLOCK];
    int64_t at = r * op->cols + begin;
    const float *x = widen(c->k, op->x, op->x_dtype, (int64_t[2]){at, n}, buffer);

    c->k->rmsnorm_dw(acc, (const float *)op->dy + at, x, op->rstd[r], n);
}

/* Two rows of scratch: the weight and x, where they have to be widened. */
static int check_cols(const struct tr_cpu *cpu, const struct tr_op_rmsnorm *op)
{
    int wide = op->x_dtype == TR_F32 && op->w_dtype == TR_F32;

    if (!wide && op->cols > (int64_t)(tr_cpu_scratch_bytes(cpu->f32_only) / sizeof(float) / 2))
        return tr_error(-EINVAL, "rmsnorm: rows of %lld elements exceed the cpu device's scratch",
                        (long long)op->cols);
    return 0;
}

int tr_cpu_rmsnorm(const struct tr_cpu *cpu, const struct tr_op_rmsnorm *op)
{
    struct job j = {cpu, op};
    int ret = check_cols(cpu, op);

    if (!ret)
        tr_pool_run(cpu->pool, op->rows, tr_split_grain(op->cols), forward, &j);
    return ret;
}

int tr_cpu_rmsnorm_grad(const struct tr_cpu *cpu, const struct tr_op_rmsnorm *op)
{
    struct job j = {cpu, op};
    struct tr_columns c = {.k = cpu->kernels,
                           .add_row = add_row,
                           .op = op,
                           .grains = &op->grains,
                           .rows_per_token = op->rows_per_token,
                           .cols = op->cols,
                           .out = op->dw,
                           .add = op->add_dw};
    int ret = check_cols(cpu, op);

    if (ret)
        return ret;
    if (op->dw)
        tr_columns_sum(cpu, &c);
    tr_pool_run(cpu->pool, op->rows, tr_split_grain(op->cols), backward, &j);
    return 0;
}
