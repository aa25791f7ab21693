/* SPDX-License-Identifier: Apache-2.0
 *
 * tr_update_gradient of cpu/update.h in sixteen lanes, for the optimizers.
 */
#ifndef TR_CPU_UPDATE_SIMD_H
#define TR_CPU_UPDATE_SIMD_H

static inline v16 update_gradient(const struct tr_op_update *op, int64_t i, int64_t n)
{
    v16 g = v16_mul(v16_load(op->g + i, n), v16_set(op->unscale));

    if (op->clip_value > 0) {
        g = v16_max(v16_set(-op->clip_value), g);
        g = v16_min(v16_set(op->clip_value), g);
    }
    return v16_mul(g, v16_set(op->coefficient));
}

/* The weights after decoupled decay. */
static inline v16 update_decayed(const struct tr_op_update *op, const float *x, int64_t n)
{
    v16 w = v16_load(x, n);

    return op->weight_decay != 0 ? v16_mul(w, v16_set(1.0f - op->lr * op->weight_decay)) : w;
}

#endif
