/* SPDX-License-Identifier: Apache-2.0
 *
 * A random start: matrices normal(0, initializer_range), norms 1, biases 0. A value is a function
 * of (seed, name of the tensor, index of the element) alone, so that any part of a model can be
 * made by any number of threads, in any order, on any machine, with the same bits.
 */
#ifndef TR_SRC_MODEL_RANDOM_INIT_H
#define TR_SRC_MODEL_RANDOM_INIT_H

#include "src/base/pool.h"
#include "src/model/model.h"

struct tr_random_init {
    uint64_t seed;
    double std;
    struct tr_pool *pool;
};

int tr_random_init_open(struct tr_random_init *r, const struct tr_model_config *c, uint64_t seed,
                        int threads);
void tr_random_init_close(struct tr_random_init *r);

/* A tr_fill_fn (src/checkpoint/shards.h): elements [from, from + n) of the tensor as `type`; arg is
 * a struct tr_random_init. */
int tr_random_init_fill(void *arg, const struct tr_tensor *t, uint64_t from, size_t n,
                        enum tr_dtype type, void *buf);

#endif
