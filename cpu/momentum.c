/* SPDX-License-Identifier: Apache-2.0
 *
 * SGD with momentum: the arithmetic of device.h, operation by operation. The momentum, beta1, is of
 * the plain kind, without damping of the new gradient and without a look ahead.
 */
#include <math.h>

#include "cpu/kernels.h"
#include "cpu/update.h"

static void momentum(const struct tr_update_values *values, const struct tr_op_update *op,
                     int64_t begin, int64_t end)
{
    float *x = values->x, *m = values->m;
    float decay = 1.0f - op->lr * op->weight_decay;

    for (int64_t i = begin; i < end; i++, x++, m++) {
        float g = tr_update_gradient(op, i);

        if (op->weight_decay != 0)
            *x = *x * decay;
        *m = fmaf(op->beta1, *m, g);
        *x = fmaf(-op->lr, *m, *x);
    }
}

void tr_momentum_init_c(struct tr_cpu_kernels *k)
{
    k->momentum = momentum;
}

int tr_cpu_momentum(const struct tr_cpu *cpu, const struct tr_op_update *op)
{
    return tr_update_run(cpu, op, cpu->kernels->momentum, 1);
}
