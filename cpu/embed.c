/* SPDX-License-Identifier: Apache-2.0
 *
 * The embedding: rows of a slice of the table by token id, and the gradient added to the table's.
 * Ids outside the slice are someone else's: their rows stay untouched, so that a table visited in
 * slices gives the same bytes. The gradient adds in token order; workers share the columns. Fused,
 * it goes into the table itself, one rounding a token.
 */
#include "cpu/cpu.h"

#include <math.h>
#include <string.h>

#include "cpu/kernels.h"
#include "cpu/split.h"

struct job {
    const struct tr_cpu *cpu;
    const struct tr_op_embed *op;
};

static int in_slice(const struct tr_op_embed *op, int64_t token)
{
    int64_t row = op->ids[token] - op->row0;

    return row >= 0 && row < op->rows;
}

static void copy_rows(void *arg, int64_t begin, int64_t end, int worker)
{
    const struct tr_op_embed *op = ((const struct job *)arg)->op;
    size_t bytes = (size_t)op->cols * tr_dtype_size(op->dtype);

    (void)worker;
    for (int64_t t = begin; t < end; t++)
        if (in_slice(op, t))
            memcpy((char *)op->out + (size_t)t * bytes,
                   (const char *)op->table + (size_t)(op->ids[t] - op->row0) * bytes, bytes);
}

static void subtract(float *to, const float *dy, const int64_t range[2], float lr)
{
    for (int64_t i = range[0]; i < range[1]; i++)
        to[i] = fmaf(-lr, dy[i], to[i]);
}

static void add_columns(void *arg, int64_t begin, int64_t end, int worker)
{
    const struct job *j = arg;
    const struct tr_op_embed *op = j->op;

    (void)worker;
    for (int64_t t = 0; t < op->n; t++) {
        if (!in_slice(op, t))
            continue;
        float *to = op->grad + (op->ids[t] - op->row0) * op->cols;
        if (op->fused)
            subtract(to, op->dy + t * op->cols, (int64_t[2]){begin, end}, op->lr);
        else
            j->cpu->kernels->add(to + begin, to + begin, op->dy + t * op->cols + begin,
                                 end - begin);
    }
}

int tr_cpu_embed(const struct tr_cpu *cpu, const struct tr_op_embed *op)
{
    struct job j = {cpu, op};

    tr_pool_run(cpu->pool, op->n, tr_split_grain(op->cols), copy_rows, &j);
    return 0;
}

int tr_cpu_embed_grad(const struct tr_cpu *cpu, const struct tr_op_embed *op)
{
    struct job j = {cpu, op};
    int64_t grain = (tr_split_grain(op->n) + TR_LANES - 1) / TR_LANES * TR_LANES;

    tr_pool_run(cpu->pool, op->cols, grain, add_columns, &j);
    return 0;
}
