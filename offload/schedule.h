/* SPDX-License-Identifier: Apache-2.0
 *
 * The schedule of one step, a pure function: from the visits of the step, those that follow, and
 * what the slots hold now, the list of loads with their slots. Exact, as the whole order is known:
 * a span is loaded only when it is in no slot, and what is needed last is dropped for it (Belady's
 * rule). No schedule with so many slots has fewer loads. What lies at the turn from forward to
 * backward and at the step's boundary is therefore never loaded again.
 *
 * Optimizer state is the case where fewest is not fastest. A step needs each span of it once, in
 * the same order every step, so that what is needed last is what has just been used: all loads
 * would go through one slot, each waiting for the write-back of the change before it. A pool that
 * spares keeps what the last visit of it used for one visit more. Of all schedules that do so this
 * one has the fewest loads, and never more than the fewest there would be with that many slots
 * less.
 *
 * Scratch spans live within the step: a visit that marks one fresh needs no load of it, what it
 * held before is dropped first of all, and what it has become is saved only where it must be
 * dropped before its last use: after the last change before that, so that its way out has as much
 * time as there is. Where not every step is durable (lazy) the same goes for what a visit changes
 * in the store: only what is dropped is written, and what stays in its slot waits for a commit.
 * What earlier steps have left so and this one drops is named, to be written when it begins.
 *
 * A span of the store that a later visit of the step changes again, and finds in its slot, has no
 * need to be written in between, durable step or not: a commit is of whole steps. (Adapters whose
 * gradients wait for the next step: its forward pass applies those, its backward pass leaves new
 * ones.)
 */
#ifndef TR_OFFLOAD_SCHEDULE_H
#define TR_OFFLOAD_SCHEDULE_H

#include <stddef.h>
#include <stdint.h>

#include "offload/offload.h"

struct tr_load {
    uint32_t visit; /* the first that needs it */
    uint32_t span;
    uint32_t slot;
    uint32_t after; /* may begin when the compute of this many visits of the step has passed */
    int fresh;      /* no bytes are moved: the slot is taken for what the visit makes */
};

struct tr_schedule {
    struct tr_load *loads; /* in the order of need */
    uint32_t n_loads;
    uint32_t *slot;  /* (visits, TR_VISIT_SPANS): where each visit finds each of its spans */
    uint32_t *saved; /* (visits): bit k: scratch, or where lazy any span, to be saved after it */
    uint32_t *again; /* (visits): bit k: of the store, and changed again before it is dropped */
    unsigned char *carried; /* (slots): newer than the store, and dropped before it is changed */
    uint32_t n_visits;
};

struct tr_schedule_params {
    const struct tr_visit *visits;
    uint32_t n;
    const struct tr_visit *next; /* only inform */
    uint32_t n_next;
    const struct tr_span *spans; /* whose pool counts */
    uint32_t n_spans;
    uint32_t n_scratch;               /* the last so many of the spans are scratch */
    const struct tr_slot_pool *pools; /* n_slots, shares, spare */
    uint32_t n_pools;
    const uint32_t *holds; /* (slots, pool by pool): the span in it now, or TR_NONE */
    int lazy;
    const unsigned char *newer; /* (slots): what it holds is newer than the store; NULL: none is */
};

/* Where this visit finds its k-th span. */
static inline uint32_t tr_schedule_slot(const struct tr_schedule *s, uint32_t visit, uint32_t k)
{
    return s->slot[(size_t)visit * TR_VISIT_SPANS + k];
}

/* -ENOSPC where a visit needs more slots of a pool at once than there are; -EINVAL for a span that
 * does not exist or is named twice in one visit, or scratch that is used before it is made. */
int tr_schedule_make(struct tr_schedule *out, const struct tr_schedule_params *p);
void tr_schedule_free(struct tr_schedule *s);
/* What the step leaves: the span in each slot, and whether it is newer than the store (NULL: not
 * asked for). Both are what p->holds and p->newer were when the schedule was made. */
void tr_schedule_leave(const struct tr_schedule *s, const struct tr_schedule_params *p,
                       uint32_t *holds, unsigned char *newer);

#endif
