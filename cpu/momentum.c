/* SPDX-License-Identifier: Apache-2.0
 *
 * SGD with momentum: the arithmetic of device.h, operation by operation. The momentum, beta1, is of
 * the plain kind, without damping of the new gradient and without a look ahead.
 */
#include <math.h>

#include "cpu/kernels.h"
#include "cpu/update.h"

static void momentum(float *x, const struct tr_op_update *op, int64_t begin, int64_t end)
{
    float decay = 1.0f - op->lr * op->weight_decay;

    for (int64_t i = begin; i < end; i++, x++) {
        float g = tr_update_gradient(op, i);

        if (op->weight_decay != 0)
            *x = *x * decay;
        op->m[i] = fmaf(op->beta1, op->m[i], g);
        *x = fmaf(-op->lr, op->m[i], *x);
    }
}

void tr_momentum_init_c(struct tr_cpu_kernels *k)
{
    k->momentum = momentum;
}

int tr_cpu_momentum(const struct tr_cpu *cpu, const struct tr_op_update *op)
{
    return tr_update_run(cpu, op, cpu->kernels->momentum);
}
