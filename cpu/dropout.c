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

static void dropout(float *to, const float *x, int64_t n, const struct tr_dropout_draw *draw)
{
    const struct tr_op_dropout *op = draw->op;
    struct tr_philox r = {{0}};

    for (int64_t i = 0; i < n; i++) {
        uint64_t at = draw->first + (uint64_t)i;

        if (i == 0 || at % 4 == 0)
            r = tr_philox_drop(at, op->step, op->seed, op->name);
        to[i] = r.v[at % 4] < op->threshold ? 0 : x[i] * op->scale;
    }
}

void tr_dropout_init_c(struct tr_cpu_kernels *k)
{
    k->dropout = dropout;
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
        if (op->threshold)
            j->k->dropout(op->to + i, block, n,
                          &(struct tr_dropout_draw){op, (uint64_t)(op->first + i)});
        for (int64_t k = 0; k < n && !op->threshold; k++)
            op->to[i + k] = block[k] * op->scale;
    }
}

int tr_cpu_dropout(const struct tr_cpu *cpu, const struct tr_op_dropout *op)
{
    struct job j = {cpu->kernels, op};

    tr_pool_run(cpu->pool, op->n, tr_split_grain(op->threshold ? 8 : 1), drop_blocks, &j);
    return 0;
}
