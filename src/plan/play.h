/* SPDX-License-Identifier: Apache-2.0
 *
 * A run's step as the simulator takes it: its visits, each with the seconds that its ops take on a
 * device that only counts, the spans, the slots and the machine's rates.
 */
#ifndef TR_SRC_PLAN_PLAY_H
#define TR_SRC_PLAN_PLAY_H

#include "src/plan/figures.h"
#include "src/model/model.h"
#include "src/plan/simulate.h"
#include "src/text/data.h"

struct tr_run;

struct play {
    struct tr_sim_params p;
    struct tr_slot_pool pools[TR_SLOT_POOLS];
    double *seconds, *beside;
    uint32_t *after;
    unsigned char *pass;
    struct tr_stripes stripes, spills; /* of a store that is still to be made */
};

/* As run_predict (src/plan/predict.h) wants the run; the rest of `p` may be changed. To be closed
 * in any case. */
int play_open(struct play *y, struct tr_run *run, const struct tr_figures *figures,
              const struct tr_batch *batch);
void play_close(struct play *y);

#endif
