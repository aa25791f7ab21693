/* SPDX-License-Identifier: Apache-2.0
 *
 * Write-back: when the compute of a visit has passed, the slots that it changed become dirty and
 * are written in that order, each to the generation that the durable commit does not name. Where
 * every step is durable every change is written, whatever the tiers hold, but one that a later
 * visit of the step makes anew in the same slot; else a span with a home goes no further than that
 * until a commit asks for it (offload/home.h), and one without stays in its slot until the schedule
 * or a commit wants it written. A span that is changed again while its home is still being written
 * waits in its slot, and the queue behind it.
 *
 * Scratch is saved only where the schedule says so. It is no part of a commit, so it waits for none
 * and has a queue of its own.
 */
#include "offload/engine.h"

static void push(const struct tr_offload *o, struct tr_ring *ring, uint32_t slot)
{
    ring->slot[(ring->first + ring->n++) % o->slots.n] = slot;
}

int tr_writeback_waits(const struct tr_offload *o, uint32_t span)
{
    return o->lazy && !tr_home_of(&o->homes, span);
}

void tr_writeback_want(struct tr_offload *o, uint32_t slot)
{
    if (tr_slot_want(&o->slots, slot)) {
        o->slots.slot[slot].epoch = o->epoch;
        push(o, &o->dirty, slot);
    } else if (!tr_slot_want_left(&o->slots, slot)) {
        return;
    }
    o->pending[o->epoch & 1]++;
}

void tr_writeback_passed(struct tr_offload *o, const struct tr_ticket *t)
{
    for (uint32_t k = 0; k < t->n; k++) {
        struct tr_slot *slot = &o->slots.slot[t->slot[k]];
        int scratch = tr_is_scratch(o, slot->span);
        enum tr_slot_left left =
            tr_slot_leaves(&o->slots, t->slot[k], t->changed >> k & 1, t->saved >> k & 1);

        tr_slot_unpin(&o->slots, t->slot[k], left);
        if (left == TR_LEFT_NEWER)
            o->unmarked = 1;
        if (left != TR_LEFT_DIRTY)
            continue;
        slot->epoch = t->epoch;
        if (slot->state == TR_SLOT_DIRTY)
            push(o, scratch ? &o->saves : &o->dirty, t->slot[k]);
        else /* of a step that was given up, and made afresh by the one after */
            o->saving--;
    }
    o->passed++;
}

static void start(struct tr_offload *o, struct tr_ring *ring)
{
    uint32_t slot = ring->slot[ring->first];

    ring->first = (ring->first + 1) % o->slots.n;
    ring->n--;
    tr_slot_write(&o->slots, slot);
    tr_move_start(o, TR_IO_WRITE, slot);
}

void tr_writeback_advance(struct tr_offload *o)
{
    while (o->saves.n)
        start(o, &o->saves);
    if (o->unmarked && tr_store_needs_mark(o->store))
        tr_flush_mark(o);
    while (o->dirty.n) {
        uint32_t slot = o->dirty.slot[o->dirty.first];
        const struct tr_home *home = tr_home_of(&o->homes, o->slots.slot[slot].span);

        if (home && home->writing) /* the change before this one is not on disk yet */
            return;
        if (tr_flush_gates(o, o->slots.slot[slot].epoch))
            return;
        if (tr_store_needs_mark(o->store)) {
            tr_flush_mark(o);
            return;
        }
        start(o, &o->dirty);
    }
}
