/* SPDX-License-Identifier: Apache-2.0
 *
 * Adam-mini in sixteen lanes, and the sums of its squares in sixteen f64 lanes.
 */
#include "cpu/split.h"
#include "cpu/update.h"
#include "cpu/update_simd.h"

static inline void update(float *x, const struct tr_op_update *op, int64_t i, int64_t n, v16 scale)
{
    v16 g = update_gradient(op, i, n), w = update_decayed(op, x, n);
    v16 m = v16_load(op->m + i, n);

    m = v16_fma(v16_set(1.0f - op->beta1), v16_sub(g, m), m);
    v16_store(op->m + i, m, n);
    v16_store(x, v16_fma(scale, m, w), n);
}

static void adam_mini(float *x, const struct tr_op_update *op, int64_t begin, int64_t end)
{
    for (int64_t i = begin; i < end;) {
        int64_t n = tr_min64(end, (i / op->block + 1) * op->block) - i;
        v16 scale = v16_set(-tr_adam_mini_scale(op, i / op->block));

#define BODY(at, count) update(x + (at), op, i + (at), count, scale)
        V16_LOOP(n, BODY);
#undef BODY
        i += n;
        x += n;
    }
}

static double gradient_sumsq(const struct tr_op_update *op, int64_t begin, int64_t n)
{
    double lanes[TR_LANES];
    v16d sum = v16d_zero();

#define BODY(i, count) sum = v16d_add_square(sum, update_gradient(op, begin + (i), count))
    V16_LOOP(n, BODY);
#undef BODY
    v16d_store(lanes, sum);
    return tr_lanes_sum_f64(lanes);
}

void TR_TIER_INIT(adam_mini)(struct tr_cpu_kernels *k)
{
    k->adam_mini = adam_mini;
    k->gradient_sumsq = gradient_sumsq;
}
