/* SPDX-License-Identifier: Apache-2.0
 *
 * f32 values rounded in place to the grid of a storage dtype (gradients of f16 runs, so that their
 * overflow is real on this device too).
 */
#include "cpu/cpu.h"

#include "cpu/kernels.h"
#include "cpu/split.h"

struct job {
    const struct tr_cpu_kernels *k;
    const struct tr_op_round *op;
};

static void round_blocks(void *arg, int64_t begin, int64_t end, int worker)
{
    const struct job *j = arg;
    uint16_t block[TR_BLOCK];

    (void)worker;
    for (int64_t i = begin; i < end; i += TR_BLOCK) {
        int64_t n = tr_min64(TR_BLOCK, end - i);

        j->k->from_f32[j->op->dtype](block, j->op->x + i, n);
        j->k->to_f32[j->op->dtype](j->op->x + i, block, n);
    }
}

int tr_cpu_round(const struct tr_cpu *cpu, const struct tr_op_round *op)
{
    struct job j = {cpu->kernels, op};

    if (op->dtype != TR_F32)
        tr_pool_run(cpu->pool, op->n, tr_split_grain(1), round_blocks, &j);
    return 0;
}
