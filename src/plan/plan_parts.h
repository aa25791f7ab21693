/* SPDX-License-Identifier: Apache-2.0
 *
 * Between the three files of the planner: plan.c chooses, arena.c says where each buffer lies with
 * what is chosen, gradients.c how many gradients there are at once and where.
 */
#ifndef TR_SRC_PLAN_PLAN_PARTS_H
#define TR_SRC_PLAN_PLAN_PARTS_H

#include "src/plan/plan.h"

static inline uint64_t plan_max(uint64_t a, uint64_t b)
{
    return a > b ? a : b;
}

static inline uint64_t plan_aligned(uint64_t bytes)
{
    return tr_round_up(bytes, TR_STORE_ALIGN);
}

/* m: tokens of the frame; parts: of the shared one where blocks stream part by part. */
void plan_lay_frame(struct tr_frame *f, const struct tr_plan *p, uint64_t m, int parts);
/* Sets the place of every buffer, peak and host_bytes by the plan's tokens, ways and slots. */
void plan_place(struct tr_plan *p);

/* Floats of the block gradients that are there at once, at most. */
uint64_t plan_block_grad_floats(const struct tr_plan *p);
/* Floats of plan->grad; slice_rows: of the slices of a table that is trained, else 0. */
uint64_t plan_grad_floats(const struct tr_plan *p, uint64_t slice_rows);

#endif
