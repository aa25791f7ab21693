/* SPDX-License-Identifier: Apache-2.0
 *
 * LOMO's update (plain SGD without clipping): the arithmetic of device.h, operation by operation.
 */
#include <math.h>

#include "cpu/kernels.h"
#include "cpu/update.h"

static void sgd(const struct tr_update_values *values, const struct tr_op_update *op, int64_t begin,
                int64_t end)
{
    float *x = values->x;
    float decay = 1.0f - op->lr * op->weight_decay;

    for (int64_t i = begin; i < end; i++, x++) {
        float g = tr_update_gradient(op, i);

        if (op->weight_decay != 0)
            *x = *x * decay;
        *x = fmaf(-op->lr, g, *x);
    }
}

void tr_sgd_init_c(struct tr_cpu_kernels *k)
{
    k->sgd = sgd;
}

int tr_cpu_sgd(const struct tr_cpu *cpu, const struct tr_op_update *op)
{
    return tr_update_run(cpu, op, cpu->kernels->sgd, 0);
}
