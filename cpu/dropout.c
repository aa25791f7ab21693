/* SPDX-License-Identifier: Apache-2.0
 *
 * Dropout of a block of values at a time: widened, scaled, and where it is drawn set to zero. The
 * draw of an element follows from its place alone, so whoever asks again gets the same mask.
 */
#include "cpu/cpu.h"

#include "cpu/kernels.h"
#include "cpu/split.h"
#include "src/base/philox.h"

struct job {
    const struct tr_cpu_kernels *k;
    const struct tr_op_dropout *op;
};

static void drop(const struct tr_op_dropout *op, float *x, uint64_t first, int64_t n)
{
    struct tr_philox r = {{0}};

    for (int64_t i = 0; i < n; i++) {
        uint64_t at = first + (uint64_t)i;

        if (i == 0 || at % 4 == 0)
            r = tr_philox_drop(at, op->step, op->seed, op->name);
        if (r.v[at % 4] < op->threshold)
            x[i] = 0;
    }
}

static void drop_blocks(void *arg, int64_t begin, int64_t end, int worker)
{
    const struct job *j = arg;
    const struct tr_op_dropout *op = j->op;
    size_t size = tr_dtype_size(op->from_dtype);
    float block[TR_BLOCK];

    (void)worker;
    for (int64_t i = begin; i < end; i += TR_BLOCK) {
        int64_t n = tr_min64(TR_BLOCK, end - i);

        j->k->to_f32[op->from_dtype](block, (const char *)op->from + (size_t)i * size, n);
        for (int64_t k = 0; k < n; k++)
            op->to[i + k] = block[k] * op->scale;
        if (op->threshold)
            drop(op, op->to + i, (uint64_t)(op->first + i), n);
    }
}

int tr_cpu_dropout(const struct tr_cpu *cpu, const struct tr_op_dropout *op)
{
    struct job j = {cpu->kernels, op};

    tr_pool_run(cpu->pool, op->n, tr_split_grain(op->threshold ? 8 : 1), drop_blocks, &j);
    return 0;
}
