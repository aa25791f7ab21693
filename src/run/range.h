/* SPDX-License-Identifier: Apache-2.0
 *
 * --lr auto: a range test before the first step. The rate rises exponentially from a hundredth of
 * the optimizer's default to a hundred times it, a step each, on the run's first batches, until the
 * loss has risen clearly above its lowest. Losses are smoothed, as each is of another batch; the
 * rate at the lowest smoothed loss, divided by TR_RANGE_BACK, is chosen: beyond the lowest point
 * lies divergence, and the smoothing lags behind. Losses alone decide, so placement does not
 * (invariant 1).
 *
 * Then all of it is given up: no step of it is committed, the commit of the import still names what
 * was before, and the run starts from there with the first batch.
 */
#ifndef TR_SRC_RUN_RANGE_H
#define TR_SRC_RUN_RANGE_H

#include "src/run/run.h"

#define TR_RANGE_STEPS  40
#define TR_RANGE_FACTOR 1e4 /* from the first rate to the last */
#define TR_RANGE_BACK   2
#define TR_RANGE_MEMORY 0.8 /* of the smoothing: the share of what was before */
#define TR_RANGE_RISEN  1.2 /* times the lowest: the test ends */

/* The rate of step i of the test, whose middle is the default rate. */
double tr_range_rate(double middle, int i);
/* Follows the losses one by one; 1: enough has been seen. */
struct tr_range {
    int n, best;
    double mean, lowest, first; /* smoothed */
};
int tr_range_add(struct tr_range *range, double loss);

/* Finds params.lr where it is to be found, writes it to run.yaml and says so. */
int run_find_rate(struct tr_run *run);

#endif
