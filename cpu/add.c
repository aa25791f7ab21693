/* SPDX-License-Identifier: Apache-2.0
 *
 * out = round(a + b): the residual stream. A block is widened, added and rounded in buffers on the
 * stack, so out may be a or b.
 */
#include "cpu/cpu.h"

#include "cpu/kernels.h"
#include "cpu/split.h"

struct job {
    const struct tr_cpu_kernels *k;
    const struct tr_op_add *op;
};

static void add(float *to, const float *a, const float *b, int64_t n)
{
    for (int64_t i = 0; i < n; i++)
        to[i] = a[i] + b[i];
}

void tr_add_init_c(struct tr_cpu_kernels *k)
{
    k->add = add;
}

static void add_blocks(void *arg, int64_t begin, int64_t end, int worker)
{
    const struct job *j = arg;
    const struct tr_op_add *op = j->op;
    size_t a_size = tr_dtype_size(op->a_dtype), out_size = tr_dtype_size(op->out_dtype);
    float block[TR_BLOCK];

    (void)worker;
    for (int64_t i = begin; i < end; i += TR_BLOCK) {
        int64_t n = tr_min64(TR_BLOCK, end - i);
        const void *a = (const char *)op->a + (size_t)i * a_size;
        void *out = (char *)op->out + (size_t)i * out_size;

        if (op->a_dtype == TR_F32 && op->out_dtype == TR_F32) {
            j->k->add(out, a, op->b + i, n);
            continue;
        }
        j->k->to_f32[op->a_dtype](block, a, n);
        j->k->add(block, block, op->b + i, n);
        j->k->from_f32[op->out_dtype](out, block, n);
    }
}

int tr_cpu_add(const struct tr_cpu *cpu, const struct tr_op_add *op)
{
    struct job j = {cpu->kernels, op};

    tr_pool_run(cpu->pool, op->n, tr_split_grain(1), add_blocks, &j);
    return 0;
}
