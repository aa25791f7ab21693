/* SPDX-License-Identifier: Apache-2.0
 *
 * Samples become rows: each by itself, or packed by best fit into rows of at most row_tokens. A
 * pure function of lengths, seed and epoch. With shuffling: samples are shuffled, packed longest
 * first (equal lengths in shuffled order), and the rows are shuffled; the number of rows is then
 * the same in every epoch, because best fit looks at lengths alone. Without: best fit in file
 * order.
 */
#ifndef TR_SRC_TEXT_ROWS_H
#define TR_SRC_TEXT_ROWS_H

#include <stddef.h>
#include <stdint.h>

struct rows_params {
    const uint32_t *length; /* (n) 0: not in any row; at most row_tokens where pack */
    size_t n;
    uint32_t row_tokens;
    int pack, shuffle;
    uint64_t seed;
    int64_t epoch;
};

struct rows {
    uint32_t *sample; /* samples, row by row */
    uint32_t *start;  /* (n_rows + 1) offsets in sample */
    size_t n_rows;
};

int rows_make(struct rows *out, const struct rows_params *p);
void rows_free(struct rows *r);

#endif
