/* SPDX-License-Identifier: Apache-2.0
 *
 * The host tier: which spans stay in pinned host memory between their uses, so that the device need
 * not wait for the drive. A pure function of the step's visits, the device slots and a budget.
 *
 * The choice is static. The visits of a step sweep up and down, and a sweep that cannot be held as
 * a whole is served best by holding a fixed part of it: every exchange would drop what is needed
 * sooner than what it brings. What the device slots hold over the turns is loaded least and so
 * comes last here.
 *
 * What is weighed is the traffic of the disk that a byte of host memory saves in a step. Where
 * every step is durable a parameter saves its reads alone, for it is written whatever the tiers
 * hold; elsewhere it saves its write, too, if it leaves its slot, and so does a block input
 * that the slots cannot keep. Where they are even, what saves writes comes first: drives wear by
 * them. Activations that are kept to spend the time in host memory come before all of that: whether
 * they are worth their place there is for who keeps them to know (src/run/choose.c).
 */
#ifndef TR_SRC_PLAN_TIER_H
#define TR_SRC_PLAN_TIER_H

#include "offload/offload.h"
#include "src/plan/visits.h"

struct tr_tier_params {
    const struct tr_visits *visits;
    const struct tr_span *spans;
    uint32_t n_spans;
    uint32_t n_scratch;               /* the last so many of them */
    const struct tr_slot_pool *pools; /* n_slots, shares, spare */
    uint32_t n_pools;
    uint64_t budget;   /* bytes */
    int lazy;          /* not every step is durable */
    int scratch_first; /* what leaves the device of it, whatever else would save */
};

enum tr_tier { TR_TIER_NONE, TR_TIER_HOST, TR_TIER_SPILL };

/* Sets tier[span] to TR_TIER_HOST for the spans that save most, as many as the budget holds; to
 * TR_TIER_SPILL for scratch that leaves the device and is not among them; else to 0. Returns the
 * bytes in host memory, or a negative errno. */
int64_t tr_tier_choose(const struct tr_tier_params *p, unsigned char *tier);

#endif
