/* SPDX-License-Identifier: Apache-2.0
 *
 * In which order blocks, warps and lanes run. Random orders are a function of the seed alone, so
 * that a finding can be repeated.
 */
#ifndef TR_TESTS_CUDA_ORDER_H
#define TR_TESTS_CUDA_ORDER_H

#include <stdint.h>

enum shim_order_kind { SHIM_ASCENDING, SHIM_DESCENDING, SHIM_RANDOM };

struct shim_order {
    enum shim_order_kind kind;
    uint64_t state;
    uint64_t first, stride; // random: block i is (first + i * stride) mod n
};

/* The order set by tr_shim_set_order or TR_SHIM_ORDER, for a grid of n blocks; -EINVAL when the
 * variable is not one. */
int shim_order_begin(struct shim_order *o, uint64_t n_blocks);
uint64_t shim_order_block(const struct shim_order *o, uint64_t i, uint64_t n_blocks);
uint64_t shim_order_random(struct shim_order *o);

/* The bit of `set`, which is not empty, whose turn it is. */
static inline int shim_order_pick(struct shim_order *o, unsigned set)
{
    if (o->kind == SHIM_ASCENDING)
        return __builtin_ctz(set);
    if (o->kind == SHIM_DESCENDING)
        return 31 - __builtin_clz(set);
    for (int skip = (int)(shim_order_random(o) % (unsigned)__builtin_popcount(set)); skip; skip--)
        set &= set - 1;
    return __builtin_ctz(set);
}

#endif
