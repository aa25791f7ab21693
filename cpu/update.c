/* SPDX-License-Identifier: Apache-2.0
 *
 * Blocks of TR_BLOCK elements pass through a buffer on the stack: storage to f32, the optimizer's
 * kernel, f32 to storage. f32 weights are updated where they lie.
 */
#include "cpu/update.h"

#include "cpu/kernels.h"
#include "cpu/split.h"
#include "src/base/err.h"

struct job {
    const struct tr_cpu_kernels *k;
    const struct tr_op_update *op;
    tr_update_kernel *kernel;
};

/* Random numbers come in groups of eight elements; a block may begin inside one. */
static void store_stochastic(const struct job *j, int64_t begin, const float *x, int64_t n)
{
    uint16_t random[TR_BLOCK + 16];
    uint64_t first = (uint64_t)(j->op->first + begin), group = first / 8;
    int64_t groups = (int64_t)((first + (uint64_t)n + 7) / 8 - group);

    j->k->random(random, group, groups, j->op);
    j->k->to_bf16_stochastic((uint16_t *)j->op->w + begin, x, random + first % 8, n);
}

static void update_blocks(void *arg, int64_t begin, int64_t end, int worker)
{
    const struct job *j = arg;
    const struct tr_op_update *op = j->op;
    size_t size = tr_dtype_size(op->dtype);
    float block[TR_BLOCK];

    (void)worker;
    for (int64_t i = begin; i < end; i += TR_BLOCK) {
        int64_t n = tr_min64(TR_BLOCK, end - i);
        void *w = (char *)op->w + (size_t)i * size;
        float *x = op->dtype == TR_F32 ? w : block;

        if (x == block)
            j->k->to_f32[op->dtype](x, w, n);
        j->kernel(x, op, i, i + n);
        if (x == block && op->rounding == TR_ROUND_STOCHASTIC)
            store_stochastic(j, i, x, n);
        else if (x == block)
            j->k->from_f32[op->dtype](w, x, n);
    }
}

int tr_update_check(const struct tr_op_update *op)
{
    if (op->rounding == TR_ROUND_STOCHASTIC && op->dtype == TR_F16)
        return tr_error(-EINVAL, "stochastic rounding is defined for bf16, not for f16");
    return 0;
}

int tr_update_run(const struct tr_cpu *cpu, const struct tr_op_update *op, tr_update_kernel *kernel)
{
    struct job j = {cpu->kernels, op, kernel};
    int r = tr_update_check(op);

    if (r < 0)
        return r;
    tr_pool_run(cpu->pool, op->n, tr_split_grain(2), update_blocks, &j);
    return 0;
}
