/* SPDX-License-Identifier: Apache-2.0
 *
 * A block of columns is summed from first grain to last by one worker, in buffers on the stack.
 */
#include "cpu/columns.h"

#include <string.h>

#include "cpu/kernels.h"
#include "cpu/split.h"

/* Rows [row, end) of a grain into sum. */
static void sum_grain(const struct tr_columns *c, float *sum, const int64_t rows[2],
                      const int64_t cols[2])
{
    float part[TR_COLUMN_BLOCK];
    int64_t n = cols[1] - cols[0];

    memset(sum, 0, (size_t)n * sizeof(float));
    for (int64_t r = rows[0]; r < rows[1]; r += TR_COLUMN_ROWS) {
        int64_t end = tr_min64(r + TR_COLUMN_ROWS, rows[1]);

        memset(part, 0, (size_t)n * sizeof(float));
        for (int64_t i = r; i < end; i++)
            c->add_row(c, part, i, cols[0], n);
        c->k->add(sum, sum, part, n);
    }
}

static void sum_block(const struct tr_columns *c, const int64_t cols[2])
{
    const struct tr_ranges *g = c->grains;
    float sum[TR_COLUMN_BLOCK], *out = c->out + cols[0];
    size_t bytes = (size_t)(cols[1] - cols[0]) * sizeof(float);

    if (!c->add && g->n == 0)
        memset(out, 0, bytes);
    for (int32_t i = 0; i < g->n; i++) {
        int64_t rows[2] = {g->start[i] * c->rows_per_token, g->start[i + 1] * c->rows_per_token};

        sum_grain(c, sum, rows, cols);
        if (i == 0 && !c->add)
            memcpy(out, sum, bytes);
        else
            c->k->add(out, out, sum, cols[1] - cols[0]);
    }
}

static void sum_columns(void *arg, int64_t begin, int64_t end, int worker)
{
    (void)worker;
    for (int64_t i = begin; i < end; i += TR_COLUMN_BLOCK)
        sum_block(arg, (int64_t[2]){i, tr_min64(i + TR_COLUMN_BLOCK, end)});
}

void tr_columns_sum(const struct tr_cpu *cpu, const struct tr_columns *c)
{
    int64_t rows = c->grains->n ? c->grains->start[c->grains->n] * c->rows_per_token : 0;
    int64_t grain = (tr_split_grain(rows) + TR_LANES - 1) / TR_LANES * TR_LANES;

    tr_pool_run(cpu->pool, c->cols, grain, sum_columns, (void *)c);
}
