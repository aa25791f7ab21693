/* SPDX-License-Identifier: Apache-2.0
 *
 * A device that computes nothing: it adds up what the ops queued on it would cost on a machine of
 * given figures. So a step is predicted by the code that does it. Its arena is a range of addresses
 * without memory behind them; a touch faults.
 */
#ifndef TR_SRC_PLAN_COUNTER_H
#define TR_SRC_PLAN_COUNTER_H

#include "src/plan/figures.h"

struct tr_counter {
    struct tr_device device; /* first */
    const struct tr_figures *figures;
    struct tr_device_info info;
    char *arena;
    double seconds; /* of all that was queued so far */
    uint64_t ops;
    uint64_t out_bytes; /* of copies from the device */
    double out_until;   /* when the last of them is there, if they begin as soon as they may */
};

/* info: what it says of itself; arena_bytes is the range of addresses. The figures outlive it. */
int tr_counter_open(struct tr_counter **out, const struct tr_figures *figures,
                    const struct tr_device_info *info);
/* What the device of a named machine says of itself, with a budget of so many bytes and where so
 * many of host memory may be pinned. */
int tr_counter_info(const struct tr_figures *figures, uint64_t budget, uint64_t pinned,
                    struct tr_device_info *info);

#endif
