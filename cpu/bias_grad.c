/* SPDX-License-Identifier: Apache-2.0
 *
 * The gradient of a bias: column sums of dy in the fixed order of cpu/columns.h.
 */
#include "cpu/columns.h"
#include "cpu/kernels.h"

static void add_row(const struct tr_columns *c, float *acc, int64_t r, int64_t begin, int64_t n)
{
    const struct tr_op_bias_grad *op = c->op;

    c->k->add(acc, acc, (const float *)op->dy + r * op->m + begin, n);
}

int tr_cpu_bias_grad(const struct tr_cpu *cpu, const struct tr_op_bias_grad *op)
{
    struct tr_columns c = {.k = cpu->kernels,
                           .add_row = add_row,
                           .op = op,
                           .grains = &op->grains,
                           .rows_per_token = 1,
                           .cols = op->m,
                           .out = op->db,
                           .add = op->add};

    tr_columns_sum(cpu, &c);
    return 0;
}
