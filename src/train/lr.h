/* SPDX-License-Identifier: Apache-2.0
 *
 * Learning rate of a step. linear and constant are LOMO's own (its trainer's two schedules, the
 * peak at the end of warm-up, exactly 0 at the last step of linear); cosine falls from the same
 * peak to 0.
 */
#ifndef TR_SRC_TRAIN_LR_H
#define TR_SRC_TRAIN_LR_H

#include <stdint.h>

#include "src/tailrace.h"

/* Of step `step` (first is 1) of `steps`. warmup: below 1 a share of steps, else steps; 0: none. */
double tr_lr_at(enum tr_lr_schedule schedule, double peak, double warmup, int64_t step,
                int64_t steps);

/* The default peak: by optimizer, falling log-linearly from models of 10M to 7B parameters. At 7B
 * it is that of the authors' recipes, at 10M the best of a sweep by factors of 3. */
double tr_lr_default(enum tr_optimizer optimizer, uint64_t n_params);

#endif
