/* SPDX-License-Identifier: Apache-2.0
 *
 * Rotary positions in the rotate-half layout: pair (i, i + head_dim / 2) of every head is turned by
 * the angle of its token's position. The gradient turns back (inverse). No fma: same bits anywhere.
 */
#include "cpu/cpu.h"

#include "cpu/kernels.h"
#include "cpu/split.h"

struct job {
    const struct tr_cpu_kernels *k;
    const struct tr_op_rope *op;
};

static void rope(float *x, const float *cos, const float *sin, float sign, int64_t half)
{
    for (int64_t i = 0; i < half; i++) {
        float a = x[i], b = x[i + half], s = sin[i] * sign;

        x[i] = a * cos[i] - b * s;
        x[i + half] = b * cos[i] + a * s;
    }
}

void tr_rope_init_c(struct tr_cpu_kernels *k)
{
    k->rope = rope;
}

static void turn_tokens(void *arg, int64_t begin, int64_t end, int worker)
{
    const struct job *j = arg;
    const struct tr_op_rope *op = j->op;
    int64_t half = op->head_dim / 2;

    (void)worker;
    for (int64_t t = begin; t < end; t++) {
        const float *cos = op->cos + op->position[t] * half,
                    *sin = op->sin + op->position[t] * half;

        for (int64_t h = 0; h < op->heads; h++)
            j->k->rope((float *)op->x + (t * op->heads + h) * op->head_dim, cos, sin,
                       op->inverse ? -1.0f : 1.0f, half);
    }
}

int tr_cpu_rope(const struct tr_cpu *cpu, const struct tr_op_rope *op)
{
    struct job j = {cpu->kernels, op};

    tr_pool_run(cpu->pool, op->n, tr_split_grain(op->heads * op->head_dim), turn_tokens, &j);
    return 0;
}
