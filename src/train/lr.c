/* SPDX-License-Identifier: Apache-2.0 */
#include "src/train/lr.h"

#include <math.h>

double tr_lr_at(enum tr_lr_schedule schedule, double peak, double warmup, int64_t step,
                int64_t steps)
{
    double n = steps > 2 ? (double)steps : 2, w = warmup < 1 ? warmup : warmup / n,
           p = (double)step / n;

    if (w > 0 && p < w)
        return peak * p / w;
    if (schedule == TR_LR_CONSTANT)
        return peak;
    if (w >= 1)
        return peak;
    if (schedule == TR_LR_COSINE)
        return p >= 1 ? 0 : peak * 0.5 * (1 + cos(M_PI * (p - w) / (1 - w)));
    return p >= 1 ? 0 : peak * (p - 1) / (w - 1);
}

double tr_lr_default(enum tr_optimizer optimizer, uint64_t n_params)
{
    int adam = optimizer == TR_OPT_ADAMW || optimizer == TR_OPT_ADAM_MINI;
    int adalomo = optimizer == TR_OPT_ADALOMO;
    double small = adam ? 1e-3 : adalomo ? 3e-2 : 1, large = adam ? 1e-5 : adalomo ? 1e-3 : 0.03;
    double x = log((double)n_params / 1e7) / log(6.7e9 / 1e7);

    x = x < 0 ? 0 : x > 1 ? 1 : x;
    return small * pow(large / small, x);
}
