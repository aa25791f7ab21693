/* SPDX-License-Identifier: Apache-2.0
 *
 * Cross-entropy over vocabulary slices: XENT folds a slice of logits into each token's running
 * maximum, sum of exponentials and target logit; XENT_LOSS closes; XENT_GRAD turns the slice, made
 * again, into the gradient. A token's values depend on its own row alone.
 */
#include "cpu/cpu.h"

#include <math.h>
#include <string.h>

#include "cpu/exp.h"
#include "cpu/kernels.h"
#include "cpu/split.h"

struct job {
    const struct tr_cpu_kernels *k;
    const struct tr_op_xent *op;
};

static float row_max(const float *x, float max, int64_t n)
{
    for (int64_t i = 0; i < n; i++)
        max = x[i] > max ? x[i] : max;
    return max;
}

static float row_sum(const float *x, float max, int64_t n)
{
    float lanes[TR_LANES] = {0};

    for (int64_t i = 0; i < n; i++)
        lanes[i % TR_LANES] += tr_exp(x[i] - max);
    return tr_lanes_sum(lanes);
}

static void row_grad(float *x, float lse, float scale, int64_t n)
{
    for (int64_t i = 0; i < n; i++)
        x[i] = tr_exp(x[i] - lse) * scale;
}

void tr_xent_init_c(struct tr_cpu_kernels *k)
{
    k->xent_max = row_max;
    k->xent_sum = row_sum;
    k->xent_grad = row_grad;
}

/* The target's column in this slice, or -1. */
static int64_t target_column(const struct tr_op_xent *op, int64_t t)
{
    int64_t column = op->targets[t] - op->row0;

    return op->targets[t] >= 0 && column >= 0 && column < op->rows ? column : -1;
}

/* The sum so far shrinks as the maximum grows. */
static void fold_rows(void *arg, int64_t begin, int64_t end, int worker)
{
    const struct job *j = arg;
    const struct tr_op_xent *op = j->op;

    (void)worker;
    for (int64_t t = begin; t < end; t++) {
        const float *x = op->logits + t * op->rows;
        int64_t column = target_column(op, t);
        float old = op->first ? -INFINITY : op->max[t];
        float max = j->k->xent_max(x, old, op->rows), sum = j->k->xent_sum(x, max, op->rows);

        op->sum[t] = op->first ? sum : sum + op->sum[t] * tr_exp(old - max);
        op->max[t] = max;
        if (op->first)
            op->target_logit[t] = 0;
        if (column >= 0)
            op->target_logit[t] = x[column];
    }
}

/* Tokens without weight give exact zeros whatever their logits, infinite ones included. The
 * target's element is made by the same arithmetic before its logit is overwritten. */
static void grad_rows(void *arg, int64_t begin, int64_t end, int worker)
{
    const struct job *j = arg;
    const struct tr_op_xent *op = j->op;

    (void)worker;
    for (int64_t t = begin; t < end; t++) {
        const float *logits = op->logits + t * op->rows;
        float *x = (float *)op->dlogits + t * op->rows, scale = op->scale[t], lse = op->lse[t];
        int64_t column = target_column(op, t);
        size_t bytes = (size_t)op->rows * sizeof(float);

        if (scale == 0) {
            memset(x, 0, bytes);
            continue;
        }
        if (x != logits)
            memcpy(x, logits, bytes);
        float target = column >= 0 ? (tr_exp(x[column] - lse) - 1.0f) * scale : 0;
        j->k->xent_grad(x, lse, scale, op->rows);
        if (column >= 0)
            x[column] = target;
    }
}

int tr_cpu_xent(const struct tr_cpu *cpu, const struct tr_op_xent *op)
{
    struct job j = {cpu->kernels, op};

    tr_pool_run(cpu->pool, op->n, tr_split_grain(op->rows * 4), fold_rows, &j);
    return 0;
}

int tr_cpu_xent_loss(const struct tr_cpu *cpu, const struct tr_op_xent *op)
{
    (void)cpu;
    for (int64_t t = 0; t < op->n; t++) {
        op->lse[t] = op->max[t] + logf(op->sum[t]);
        op->nll[t] = op->targets[t] >= 0 ? op->lse[t] - op->target_logit[t] : 0;
    }
    return 0;
}

int tr_cpu_xent_grad(const struct tr_cpu *cpu, const struct tr_op_xent *op)
{
    struct job j = {cpu->kernels, op};

    tr_pool_run(cpu->pool, op->n, tr_split_grain(op->rows * 2), grad_rows, &j);
    return 0;
}
