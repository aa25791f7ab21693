/* SPDX-License-Identifier: Apache-2.0
 *
 * How AdaLomo's ops pass numbers to one another: where they lie in sums and factor.
 */
#ifndef TR_CPU_ADALOMO_H
#define TR_CPU_ADALOMO_H

#include <math.h>

#include "cpu/kernels.h"

#define TR_ADALOMO_SUMS (2 * TR_LANES) /* before those of columns */

static inline float tr_adalomo_row_factor(const struct tr_op_update *op, int64_t row)
{
    return op->factored ? 1.0f / sqrtf(op->m[row] / op->factor[op->block]) : 1.0f;
}

static inline float tr_adalomo_rate(const struct tr_op_update *op)
{
    return op->factor[op->block + 1];
}

static inline float tr_adalomo_decay(const struct tr_op_update *op)
{
    return op->factor[op->block + 2];
}

#endif
