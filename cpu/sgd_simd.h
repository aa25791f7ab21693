/* SPDX-License-Identifier: Apache-2.0
 *
 * LOMO's update in sixteen lanes.
 */
#include "cpu/update_simd.h"

static inline void update(const struct tr_update_values *values, const struct tr_op_update *op,
                          int64_t begin, int64_t at, int64_t n)
{
    float *x = values->x + at;
    v16 g = update_gradient(op, begin + at, n);

    v16_store(x, v16_fma(v16_set(-op->lr), g, update_decayed(op, x, n)), n);
}

static void sgd(const struct tr_update_values *values, const struct tr_op_update *op, int64_t begin,
                int64_t end)
{
#define BODY(i, count) update(values, op, begin, i, count)
    V16_LOOP(end - begin, BODY);
#undef BODY
}

void TR_TIER_INIT(sgd)(struct tr_cpu_kernels *k)
{
    k->sgd = sgd;
}
