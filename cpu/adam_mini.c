/* SPDX-License-Identifier: Apache-2.0
 *
 * Adam-mini: Adam whose second moment is one number for each block of elements, the mean of their
 * squared gradients. First the new second moments: the workers sum pieces of blocks into the
 * scratch, this thread adds them in order, so that a block as large as a matrix is shared among all
 * of them and its sum is still the same on any number. Then the elements, like any other update.
 */
#include <math.h>

#include "cpu/kernels.h"
#include "cpu/split.h"
#include "cpu/update.h"
#include "src/base/err.h"

#define BATCH 8192 /* pieces whose sums are in the scratch at a time */

struct job {
    const struct tr_cpu_kernels *k;
    const struct tr_op_update *op;
    int64_t pieces; /* of a block */
    int64_t first;  /* piece of this batch */
    double *sum;
};

static double gradient_sumsq(const struct tr_op_update *op, int64_t begin, int64_t n)
{
    double lanes[TR_LANES] = {0};

    for (int64_t i = 0; i < n; i++) {
        double g = tr_update_gradient(op, begin + i);

        lanes[i % TR_LANES] += g * g;
    }
    return tr_lanes_sum_f64(lanes);
}

static void adam_mini(float *x, const struct tr_op_update *op, int64_t begin, int64_t end)
{
    float decay = 1.0f - op->lr * op->weight_decay, rest1 = 1.0f - op->beta1;

    for (int64_t i = begin; i < end;) {
        int64_t stop = tr_min64(end, (i / op->block + 1) * op->block);
        float scale = tr_adam_mini_scale(op, i / op->block);

        for (; i < stop; i++, x++) {
            float g = tr_update_gradient(op, i);

            if (op->weight_decay != 0)
                *x = *x * decay;
            op->m[i] = fmaf(rest1, g - op->m[i], op->m[i]);
            *x = fmaf(-scale, op->m[i], *x);
        }
    }
}

void tr_adam_mini_init_c(struct tr_cpu_kernels *k)
{
    k->adam_mini = adam_mini;
    k->gradient_sumsq = gradient_sumsq;
}

static void sum_pieces(void *arg, int64_t begin, int64_t end, int worker)
{
    const struct job *j = arg;
    const struct tr_op_update *op = j->op;

    (void)worker;
    for (int64_t i = begin; i < end; i++) {
        int64_t block = (j->first + i) / j->pieces;
        int64_t at = (j->first + i) % j->pieces * TR_BLOCK;

        j->sum[i] =
            j->k->gradient_sumsq(op, block * op->block + at, tr_min64(TR_BLOCK, op->block - at));
    }
}

static void set_second_moment(const struct tr_op_update *op, int64_t block, double sum)
{
    float mean = (float)(sum / (double)op->block);

    op->v[block] = fmaf(1.0f - op->beta2, mean, op->beta2 * op->v[block]);
}

int tr_cpu_adam_mini(const struct tr_cpu *cpu, const struct tr_op_update *op)
{
    struct job j = {cpu->kernels, op, (op->block + TR_BLOCK - 1) / TR_BLOCK, 0,
                    tr_cpu_scratch(cpu, 0)};
    int r = tr_update_check(op);
    double sum = 0;
    int64_t all;

    if (r == 0 && op->n && (op->block < 1 || op->n % op->block))
        r = tr_error(-EINVAL, "%lld elements are not whole blocks of %lld", (long long)op->n,
                     (long long)op->block);
    if (r < 0 || !op->n)
        return r;
    all = op->n / op->block * j.pieces;
    for (; j.first < all; j.first += BATCH) {
        int64_t n = tr_min64(BATCH, all - j.first);

        tr_pool_run(cpu->pool, n, tr_split_grain(tr_min64(TR_BLOCK, op->block)), sum_pieces, &j);
        for (int64_t i = 0; i < n; i++) {
            sum += j.sum[i];
            if ((j.first + i + 1) % j.pieces)
                continue;
            set_second_moment(op, (j.first + i) / j.pieces, sum);
            sum = 0;
        }
    }
    return tr_update_run(cpu, op, cpu->kernels->adam_mini);
}
