/* SPDX-License-Identifier: Apache-2.0
 *
 * AdaLomo: Adafactor's factored second moment without a first, its update normalised by its own
 * rms over the tensor and scaled by the rms of the weights. Three ops, because the update of every
 * element needs sums over all of them, and a table comes in slices: sum, factor, update.
 *
 * The rms of the update is no third sweep. Its square sums G^2 / r over rows before the columns'
 * factors are known, so that the sums carry each column's G^2 also divided by its rows' r.
 *
 * In the sum workers first take rows, for what is summed along them; then columns, each worker all
 * rows of its own columns, the last row first as device.h has it.
 */
#include "cpu/adalomo.h"

#include <string.h>

#include "cpu/split.h"
#include "cpu/update.h"
#include "src/base/err.h"

#define BATCH 2048 /* rows whose sums are in the scratch at a time */
#define WIDTH 128  /* columns that are worth a visit of a row */

struct job {
    const struct tr_cpu_kernels *k;
    const struct tr_op_update *op;
    int64_t row0, rows; /* of the batch, counted in the op */
    double *weights;    /* (rows) sum of squares of the weights */
    float *inverse;     /* (rows) */
};

static void adalomo(const struct tr_update_values *values, const struct tr_op_update *op,
                    int64_t begin, int64_t end)
{
    float *x = values->x;
    float rate = tr_adalomo_rate(op), decay = tr_adalomo_decay(op);

    for (int64_t i = begin; i < end;) {
        int64_t row = i / op->block, stop = tr_min64(end, (row + 1) * op->block);
        float a = tr_adalomo_row_factor(op, row);

        for (; i < stop; i++, x++) {
            float f = a * op->factor[i - row * op->block];

            if (op->weight_decay != 0)
                *x = *x * decay;
            *x = fmaf(-rate, f * tr_update_gradient(op, i), *x);
        }
    }
}

static void adalomo_columns(const struct tr_op_update *op, const struct tr_adalomo_row *row)
{
    for (int64_t j = 0; j < row->n; j++) {
        double g = tr_update_gradient(op, row->begin + j), square = g * g;

        row->plain[j] += square;
        row->weighted[j] = fma(square, row->inverse, row->weighted[j]);
    }
}

void tr_adalomo_init_c(struct tr_cpu_kernels *k)
{
    k->adalomo = adalomo;
    k->adalomo_columns = adalomo_columns;
}

static double sum_weights(const struct job *j, int64_t begin, int64_t n)
{
    float block[TR_BLOCK];

    tr_update_load(j->k, j->op, begin, block, n);
    return j->k->sumsq(block, n);
}

static void sum_row(const struct job *j, int64_t row)
{
    const struct tr_op_update *op = j->op;
    int64_t index = j->row0 + row, begin = index * op->block;
    double q = 0, s = 0;

    for (int64_t at = 0; at < op->block; at += TR_BLOCK) {
        int64_t n = tr_min64(TR_BLOCK, op->block - at);

        q += j->k->gradient_sumsq(op, begin + at, n);
        s += sum_weights(j, begin + at, n);
    }
    j->weights[row] = s;
    j->inverse[row] = 1;
    if (!op->factored)
        return;
    op->m[index] =
        fmaf(op->beta1, (float)(q / (double)op->block + (double)op->eps), op->beta2 * op->m[index]);
    j->inverse[row] = 1.0f / op->m[index];
}

static void sum_rows(void *arg, int64_t begin, int64_t end, int worker)
{
    const struct job *j = arg;

    (void)worker;
    for (int64_t row = begin; row < end; row++)
        sum_row(j, row);
}

static int lane_of(const struct tr_op_update *op, int64_t row)
{
    return (int)((op->first / op->block + row) % TR_LANES);
}

/* Items are parts of WIDTH columns. */
static void sum_columns(void *arg, int64_t begin, int64_t end, int worker)
{
    const struct job *j = arg;
    const struct tr_op_update *op = j->op;

    (void)worker;
    for (int64_t part = begin; part < end; part++)
        for (int64_t row = j->rows - 1; row >= 0; row--) {
            int64_t column = part * WIDTH, index = j->row0 + row;
            double *sums = op->sums + TR_ADALOMO_SUMS + lane_of(op, index) * op->block + column;

            j->k->adalomo_columns(
                op, &(struct tr_adalomo_row){.begin = index * op->block + column,
                                             .n = tr_min64(WIDTH, op->block - column),
                                             .inverse = j->inverse[row],
                                             .plain = sums,
                                             .weighted = sums + TR_LANES * op->block});
        }
}

static void sum_lanes(const struct job *j)
{
    const struct tr_op_update *op = j->op;

    for (int64_t row = j->rows - 1; row >= 0; row--) {
        int lane = lane_of(op, j->row0 + row);

        if (op->factored)
            op->sums[lane] += (double)op->m[j->row0 + row];
        op->sums[TR_LANES + lane] += j->weights[row];
    }
}

static int check(const struct tr_op_update *op)
{
    if (!op->n || (op->block > 0 && op->n % op->block == 0 && op->first % op->block == 0))
        return 0;
    return tr_error(-EINVAL, "%lld elements from %lld on are not whole rows of %lld",
                    (long long)op->n, (long long)op->first, (long long)op->block);
}

int tr_cpu_adalomo_sum(const struct tr_cpu *cpu, const struct tr_op_update *op)
{
    struct job j = {.k = cpu->kernels, .op = op, .weights = tr_cpu_scratch(cpu, 0)};
    int r = check(op);

    if (r < 0 || !op->n)
        return r;
    j.inverse = (float *)(j.weights + BATCH);
    if (!op->add)
        memset(op->sums, 0,
               (size_t)(TR_ADALOMO_SUMS + 2 * TR_LANES * op->block) * sizeof(*op->sums));
    for (int64_t left = op->n / op->block; left > 0; left = j.row0) {
        j.rows = tr_min64(BATCH, left);
        j.row0 = left - j.rows;
        tr_pool_run(cpu->pool, j.rows, tr_split_grain(op->block), sum_rows, &j);
        sum_lanes(&j);
        tr_pool_run(cpu->pool, (op->block + WIDTH - 1) / WIDTH, 1, sum_columns, &j);
    }
    return 0;
}

static double fold(const double *sums, int64_t stride)
{
    double lanes[TR_LANES];

    for (int l = 0; l < TR_LANES; l++)
        lanes[l] = sums[l * stride];
    return tr_lanes_sum_f64(lanes);
}

/* One thread: that is a row's worth of work. */
int tr_cpu_adalomo_factor(const struct tr_cpu *cpu, const struct tr_op_update *op)
{
    const double *columns = op->sums + TR_ADALOMO_SUMS;
    double lanes[TR_LANES] = {0}, rows, u, x;
    float mean = 1, rate;

    (void)cpu;
    if (!op->n)
        return 0;
    rows = (double)(op->n / op->block);
    if (op->factored)
        mean = (float)(fold(op->sums, 1) / rows);
    for (int64_t j = 0; j < op->block; j++) {
        double q = fold(columns + j, op->block) / rows + (double)op->eps, f;

        op->v[j] = fmaf(op->beta1, (float)q, op->beta2 * op->v[j]);
        f = op->factor[j] = 1.0f / sqrtf(op->v[j]);
        lanes[j % TR_LANES] += f * f * fold(columns + TR_LANES * op->block + j, op->block);
    }
    u = sqrt((double)mean * tr_lanes_sum_f64(lanes) / (double)op->n);
    x = sqrt(fold(op->sums + TR_LANES, 1) / (double)op->n);
    rate = (float)((double)op->lr * (x > (double)op->eps2 ? x : (double)op->eps2));
    op->factor[op->block] = mean;
    op->factor[op->block + 1] = (float)((double)rate / (u <= 1 ? 1 : u)); /* NaN goes through */
    op->factor[op->block + 2] = 1.0f - rate * op->weight_decay;
    return 0;
}

int tr_cpu_adalomo(const struct tr_cpu *cpu, const struct tr_op_update *op)
{
    int r = check(op);

    return r < 0 ? r : tr_update_run(cpu, op, cpu->kernels->adalomo, 0);
}
