/* SPDX-License-Identifier: Apache-2.0
 *
 * How ops share work among the pool: the `grain` of tr_pool_run, so that a part is worth waking a
 * worker for. It decides who computes an item and never what the item's value is.
 */
#ifndef TR_CPU_SPLIT_H
#define TR_CPU_SPLIT_H

#include <stdint.h>

/* Items of about `elements` elements each. */
static inline int64_t tr_split_grain(int64_t elements)
{
    return elements > 0 && elements < 16384 ? 16384 / elements : 1;
}

static inline int64_t tr_min64(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

#endif
