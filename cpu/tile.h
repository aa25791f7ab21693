/* SPDX-License-Identifier: Apache-2.0
 *
 * Tiles of the matmuls: functions of shapes alone, never of threads, budgets, or of how many grains
 * share an op (invariant 1). A length is cut into a power of two of even tiles, so that usual
 * thread counts divide them; rows are cut anew in every grain.
 */
#ifndef TR_CPU_TILE_H
#define TR_CPU_TILE_H

#include "src/base/device.h"
#include "src/base/mem.h"

struct tr_tiles {
    int64_t n, size, count;
};

/* At least `target` elements each and less than twice that, multiples of 16 but for the last. Short
 * lengths are one tile. */
static inline struct tr_tiles tr_tiles_of(int64_t n, int64_t target)
{
    struct tr_tiles t = {n, n, 1};

    while (t.count * 2 * target <= n)
        t.count *= 2;
    t.size = (int64_t)tr_round_up((size_t)((n + t.count - 1) / t.count), 16);
    t.count = n ? (n + t.size - 1) / t.size : 0;
    return t;
}

/* How wide the tiles of n columns should be: narrow ones pack the other factor again and again
 * inside sgemm, wide ones leave cores idle at the end of an op. Small matrices are cut for two
 * cores. */
static inline struct tr_tiles tr_tiles_across(int64_t n)
{
    return tr_tiles_of(n, n < 256 ? 64 : n < 512 ? 128 : 256);
}

#define TR_TILE_MAX 512 /* the widest of those */

/* At most `most` elements each (a multiple of 16), as even as may be. */
static inline struct tr_tiles tr_tiles_up_to(int64_t n, int64_t most)
{
    struct tr_tiles t = {n, n, (n + most - 1) / most};

    if (t.count)
        t.size = (int64_t)tr_round_up((size_t)((n + t.count - 1) / t.count), 16);
    t.count = n ? (n + t.size - 1) / t.size : 0;
    return t;
}

/* What the three matmuls refuse (in cpu/matmul.c): 0, or -EINVAL with a message. */
int tr_matmul_check(const struct tr_op_matmul *op);

static inline int64_t tr_tile_begin(const struct tr_tiles *t, int64_t i)
{
    return i * t->size;
}

static inline int64_t tr_tile_end(const struct tr_tiles *t, int64_t i)
{
    return (i + 1) * t->size < t->n ? (i + 1) * t->size : t->n;
}

#endif
