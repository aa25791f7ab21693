/* SPDX-License-Identifier: Apache-2.0
 *
 * AdamW with decoupled weight decay: the arithmetic of device.h, operation by operation, in f32
 * whatever the state is kept in. The caller's bias corrections come in step_size and sqrt_bias2.
 */
#include <math.h>

#include "cpu/kernels.h"
#include "cpu/update.h"

static void adamw(const struct tr_update_values *values, const struct tr_op_update *op,
                  int64_t begin, int64_t end)
{
    float *x = values->x, *m = values->m, *v = values->v;
    float decay = 1.0f - op->lr * op->weight_decay;
    float rest1 = 1.0f - op->beta1, rest2 = 1.0f - op->beta2;

    for (int64_t i = begin; i < end; i++, x++, m++, v++) {
        float g = tr_update_gradient(op, i);

        if (op->weight_decay != 0)
            *x = *x * decay;
        *m = fmaf(rest1, g - *m, *m);
        *v = fmaf(rest2 * g, g, op->beta2 * *v);
        *x = fmaf(-op->step_size, *m / (sqrtf(*v) / op->sqrt_bias2 + op->eps), *x);
    }
}

void tr_adamw_init_c(struct tr_cpu_kernels *k)
{
    k->adamw = adamw;
}

int tr_cpu_adamw(const struct tr_cpu *cpu, const struct tr_op_update *op)
{
    return tr_update_run(cpu, op, cpu->kernels->adamw, 2);
}
