/* SPDX-License-Identifier: Apache-2.0
 *
 * SGD with momentum in sixteen lanes.
 */
#include "cpu/update_simd.h"

static inline void update(float *x, const struct tr_op_update *op, int64_t i, int64_t n)
{
    v16 g = update_gradient(op, i, n), w = update_decayed(op, x, n);
    v16 m = v16_fma(v16_set(op->beta1), v16_load(op->m + i, n), g);

    v16_store(op->m + i, m, n);
    v16_store(x, v16_fma(v16_set(-op->lr), m, w), n);
}

static void momentum(float *x, const struct tr_op_update *op, int64_t begin, int64_t end)
{
#define BODY(i, count) update(x + (i), op, begin + (i), count)
    V16_LOOP(end - begin, BODY);
#undef BODY
}

void TR_TIER_INIT(momentum)(struct tr_cpu_kernels *k)
{
    k->momentum = momentum;
}
