/* SPDX-License-Identifier: Apache-2.0
 *
 * AdamW in sixteen lanes.
 */
#include "cpu/update_simd.h"

static inline void update(const struct tr_update_values *values, const struct tr_op_update *op,
                          int64_t begin, int64_t at, int64_t n)
{
    float *x = values->x + at;
    v16 g = update_gradient(op, begin + at, n), w = update_decayed(op, x, n);
    v16 m = v16_load(values->m + at, n), v = v16_load(values->v + at, n);

    m = v16_fma(v16_set(1.0f - op->beta1), v16_sub(g, m), m);
    v = v16_fma(v16_mul(v16_set(1.0f - op->beta2), g), g, v16_mul(v16_set(op->beta2), v));
    v16 denom = v16_add(v16_div(v16_sqrt(v), v16_set(op->sqrt_bias2)), v16_set(op->eps));
    v16_store(values->m + at, m, n);
    v16_store(values->v + at, v, n);
    v16_store(x, v16_fma(v16_set(-op->step_size), v16_div(m, denom), w), n);
}

static void adamw(const struct tr_update_values *values, const struct tr_op_update *op,
                  int64_t begin, int64_t end)
{
#define BODY(i, count) update(values, op, begin, i, count)
    V16_LOOP(end - begin, BODY);
#undef BODY
}

void TR_TIER_INIT(adamw)(struct tr_cpu_kernels *k)
{
    k->adamw = adamw;
}
