/* SPDX-License-Identifier: Apache-2.0
 *
 * The host tier: which spans stay in pinned host memory between their uses, so that the device need
 * not wait for the drive. A pure function of the step's visits, the device slots and a budget.
 *
 * The choice is static. The visits of a step sweep up and down, and a sweep that cannot be held as
 * a whole is served best by holding a fixed part of it: every exchange would drop what is needed
 * sooner than what it brings. What the device slots hold over the turns is loaded least and so
 * comes last here.
 */
#ifndef TR_SRC_TIER_H
#define TR_SRC_TIER_H

#include "offload/offload.h"
#include "src/visits.h"

struct tr_tier_params {
    const struct tr_visits *visits;
    const struct tr_layout *layout;
    const struct tr_slot_pool *pools; /* only n_slots counts */
    uint32_t n_pools;
    uint64_t budget; /* bytes */
};

/* Sets in_host[span] to 1 for the spans that the schedule loads most often in a step, as many as
 * the budget holds, else to 0. Returns their bytes, or a negative errno. */
int64_t tr_tier_choose(const struct tr_tier_params *p, unsigned char *in_host);

#endif
