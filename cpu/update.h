/* SPDX-License-Identifier: Apache-2.0
 *
 * What all optimizers share: a block of weights is widened to f32, updated by the optimizer's
 * kernel, and rounded back, stochastically by the element's index in the whole tensor. Elements are
 * independent, so any split of a tensor into ranges and parts gives the same bytes.
 */
#ifndef TR_CPU_UPDATE_H
#define TR_CPU_UPDATE_H

#include <math.h>

#include "cpu/cpu.h"
#include "cpu/kernels.h"

/* 0, or -EINVAL with a message: what no optimizer does. */
int tr_update_check(const struct tr_op_update *op);
/* state: how many values an element has beside its weight, m and v. */
int tr_update_run(const struct tr_cpu *cpu, const struct tr_op_update *op, tr_update_kernel *kernel,
                  int state);

/* Elements [begin, begin + n) of the weights, or of their master, in f32. */
void tr_update_load(const struct tr_cpu_kernels *k, const struct tr_op_update *op, int64_t begin,
                    float *x, int64_t n);

/* The gradient as all optimizers see it. */
static inline float tr_update_gradient(const struct tr_op_update *op, int64_t i)
{
    float g = op->g[i] * op->unscale;

    if (op->clip_value > 0) {
        g = -op->clip_value > g ? -op->clip_value : g;
        g = op->clip_value < g ? op->clip_value : g;
    }
    return g * op->coefficient;
}

/* What the first moments of a block are multiplied with, as its second moment is now. */
static inline float tr_adam_mini_scale(const struct tr_op_update *op, int64_t block)
{
    return op->step_size / (sqrtf(op->v[block]) / op->sqrt_bias2 + op->eps);
}

#endif
