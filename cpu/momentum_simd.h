/* SPDX-License-Identifier: Apache-2.0
 *
 * SGD with momentum in sixteen lanes.
 */
#include "cpu/update_simd.h"

static inline void update(const struct tr_update_values *values, const struct tr_op_update *op,
                          int64_t begin, int64_t at, int64_t n)
{
    float *x = values->x + at;
    v16 g = update_gradient(op, begin + at, n), w = update_decayed(op, x, n);
    v16 m = v16_fma(v16_set(op->beta1), v16_load(values->m + at, n), g);

    v16_store(values->m + at, m, n);
    v16_store(x, v16_fma(v16_set(-op->lr), m, w), n);
}

static void momentum(const struct tr_update_values *values, const struct tr_op_update *op,
                     int64_t begin, int64_t end)
{
#define BODY(i, count) update(values, op, begin, i, count)
    V16_LOOP(end - begin, BODY);
#undef BODY
}

void TR_TIER_INIT(momentum)(struct tr_cpu_kernels *k)
{
    k->momentum = momentum;
}
