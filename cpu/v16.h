/* SPDX-License-Identifier: Apache-2.0
 *
 * What both tiers' sixteen lanes share; included by cpu/v16_avx2.h and cpu/v16_avx512.h.
 */
#ifndef TR_CPU_V16_H
#define TR_CPU_V16_H

#include "cpu/exp.h"
#include "cpu/kernels.h"

/* Calls body(i, count) over [0, n): count is a constant 16 but for the tail. */
#define V16_LOOP(n, body)                                                                          \
    do {                                                                                           \
        int64_t at_ = 0;                                                                           \
        for (; at_ + 16 <= (n); at_ += 16)                                                         \
            body(at_, 16);                                                                         \
        if (at_ < (n))                                                                             \
            body(at_, (n)-at_);                                                                    \
    } while (0)

/* tr_exp of cpu/exp.h, line by line. */
static inline v16 v16_exp(v16 x)
{
    /* Clamped below too, although those lanes are dropped: they must not become subnormal. */
    v16 kept = x;
    x = v16_max(v16_set(TR_EXP_LOW), x);
    x = v16_min(v16_set(TR_EXP_HIGH), x);
    v16 magic = v16_set(TR_EXP_MAGIC);
    v16 t = v16_add(v16_mul(x, v16_set(TR_EXP_LOG2E)), magic), n = v16_sub(t, magic);
    v16 r =
        v16_sub(v16_sub(x, v16_mul(n, v16_set(TR_EXP_LN2_HI))), v16_mul(n, v16_set(TR_EXP_LN2_LO)));
    v16 p = v16_add(v16_mul(v16_set(TR_EXP_C7), r), v16_set(TR_EXP_C6));
    p = v16_add(v16_mul(p, r), v16_set(TR_EXP_C5));
    p = v16_add(v16_mul(p, r), v16_set(TR_EXP_C4));
    p = v16_add(v16_mul(p, r), v16_set(TR_EXP_C3));
    p = v16_add(v16_mul(p, r), v16_set(TR_EXP_C2));
    p = v16_add(v16_add(v16_mul(p, v16_mul(r, r)), r), v16_set(1.0f));
    return v16_zero_below(v16_scale(p, t, n), kept, TR_EXP_LOW);
}

#endif
