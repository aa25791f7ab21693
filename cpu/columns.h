/* SPDX-License-Identifier: Apache-2.0
 *
 * Sums down columns in the fixed order of gradients: within a grain, parts of TR_COLUMN_ROWS rows
 * are summed row by row and the parts added in order; grains are added to the result in order. The
 * two levels keep the error of long sums small. Workers share columns, so who sums never matters.
 */
#ifndef TR_CPU_COLUMNS_H
#define TR_CPU_COLUMNS_H

#include "cpu/cpu.h"

#define TR_COLUMN_ROWS  32
#define TR_COLUMN_BLOCK 256

struct tr_columns {
    const struct tr_cpu_kernels *k;
    /* Adds row r's terms of columns [begin, begin + n), n <= TR_COLUMN_BLOCK, to acc. */
    void (*add_row)(const struct tr_columns *c, float *acc, int64_t r, int64_t begin, int64_t n);
    const void *op;
    const struct tr_ranges *grains;
    int64_t rows_per_token, cols;
    float *out; /* (cols) */
    int add;    /* continue out's sum instead of starting it */
};

void tr_columns_sum(const struct tr_cpu *cpu, const struct tr_columns *c);

#endif
