/* SPDX-License-Identifier: Apache-2.0
 *
 * Write-back: when the compute of a visit has passed, the slots that it changed become dirty and
 * are written in that order, each to the generation that the durable commit does not name. Every
 * change is written, whatever the tiers hold: they save reads, never writes. A span that is
 * changed again while its home is still being written waits in its slot, and the queue behind it.
 */
#include "offload/engine.h"

void tr_writeback_passed(struct tr_offload *o, const struct tr_ticket *t)
{
    for (uint32_t k = 0; k < t->n; k++) {
        int changed = t->changed >> k & 1;

        tr_slot_unpin(&o->slots, t->slot[k], changed);
        if (!changed)
            continue;
        o->slots.slot[t->slot[k]].epoch = t->epoch;
        o->dirty[(o->dirty_first + o->n_dirty++) % o->slots.n] = t->slot[k];
    }
    o->passed++;
}

void tr_writeback_advance(struct tr_offload *o)
{
    while (o->n_dirty) {
        uint32_t slot = o->dirty[o->dirty_first];
        const struct tr_home *home = tr_home_of(&o->homes, o->slots.slot[slot].span);

        if (home && home->writing) /* the change before this one is not on disk yet */
            return;
        if (tr_flush_gates(o, o->slots.slot[slot].epoch))
            return;
        if (tr_store_needs_mark(o->store)) {
            tr_flush_mark(o);
            return;
        }
        o->dirty_first = (o->dirty_first + 1) % o->slots.n;
        o->n_dirty--;
        tr_slot_write(&o->slots, slot);
        tr_move_start(o, TR_IO_WRITE, slot);
    }
}
