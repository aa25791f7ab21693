/* SPDX-License-Identifier: Apache-2.0
 *
 * Slots: places in device (or host) memory that hold one span at a time. A slot is a state machine:
 *
 *          tr_slot_load        tr_slot_loaded       tr_slot_pin(changes)
 *   FREE ───────────────▶ READING ─────────▶ READY ───────────────▶ IN_USE
 *                          │  ▲               │ ▲                     │ tr_slot_unpin(changed):
 *             tr_slot_fail │  └───────────────┘ │ tr_slot_written     ▼ its compute has passed
 *                          ▼   tr_slot_load     └───── WRITING ◀──── DIRTY
 *                        ERROR ◀───────────────────────┘      tr_slot_write
 *                               tr_slot_fail
 *
 * READY    the bytes that the store has, or will have once their home in host memory has been
 *          written (offload/home.h); IN_USE: being changed by a visit; DIRTY: newer than the store.
 *
 * A visit that only reads pins a slot and leaves its state: it may share READY, IN_USE (the stream
 * of compute runs in order), DIRTY and WRITING (what writes it only reads it, too). A visit that
 * changes a slot needs it READY, for what is DIRTY or WRITING belongs to a commit under way. A slot
 * is loaded over only when it is FREE or READY and not pinned: so a span is never read from the
 * store while newer bytes of it are on their way there, unless from a home, which is loaded from
 * instead.
 *
 * Where not every step is durable, a READY slot may be newer than the store (tr_slot_unpin,
 * TR_LEFT_NEWER): it can be changed again, and is written when the schedule wants its place or a
 * commit its bytes (tr_slot_want: DIRTY), and not loaded over before.
 *
 * Scratch (offload.h) is READY as soon as its slot is taken, when a visit makes it afresh; what a
 * visit has changed in it goes back to READY, or where it is to be saved to DIRTY. Several visits
 * may change it while none of them has passed, for the stream of compute runs in order and nothing
 * is written before the last.
 *
 * A slot keeps its span when it is done with; later steps find it there. tr_slot_drop makes a READY
 * one FREE: its bytes are not those of the store any more.
 * Threads: none of its own; the engine's lock guards all of it.
 */
#ifndef TR_OFFLOAD_SLOTS_H
#define TR_OFFLOAD_SLOTS_H

#include <stdint.h>

#include "offload/offload.h"

enum tr_slot_state {
    TR_SLOT_FREE,
    TR_SLOT_READING,
    TR_SLOT_READY,
    TR_SLOT_IN_USE,
    TR_SLOT_DIRTY,
    TR_SLOT_WRITING,
    TR_SLOT_ERROR
};

struct tr_slot {
    char *base;
    uint32_t pool;
    uint32_t span;    /* TR_NONE when FREE */
    uint32_t pins;    /* visits whose compute has not passed yet */
    uint32_t changes; /* of them, those that change it */
    enum tr_slot_state state;
    int newer;      /* READY, with bytes that the store does not have */
    int due;        /* IN_USE: what the visit leaves is to be written */
    uint64_t epoch; /* the commit that the change of a DIRTY or WRITING slot belongs to */
};

struct tr_slots {
    struct tr_slot *slot; /* pool by pool */
    uint32_t n;
    uint32_t *of_span; /* (spans): the slot that holds it, or TR_NONE */
    uint32_t n_spans;
    uint32_t first_scratch; /* spans from here on are scratch; n_spans: none */
};

/* What a visit leaves in a slot that it lets go of. */
enum tr_slot_left { TR_LEFT_ALONE, TR_LEFT_DIRTY, TR_LEFT_READY, TR_LEFT_NEWER };

int tr_slots_open(struct tr_slots *s, const struct tr_slot_pool *pools, uint32_t n_pools,
                  uint32_t n_spans);
void tr_slots_close(struct tr_slots *s);

void tr_slot_load(struct tr_slots *s, uint32_t slot, uint32_t span);
void tr_slot_loaded(struct tr_slots *s, uint32_t slot);
void tr_slot_pin(struct tr_slots *s, uint32_t slot, int changes);
/* The slot is DIRTY or READY afterwards, or IN_USE still where other visits change it, too. */
void tr_slot_unpin(struct tr_slots *s, uint32_t slot, enum tr_slot_left left);
/* What a visit that lets go of it leaves there; saved: scratch, which is to be saved. */
enum tr_slot_left tr_slot_leaves(const struct tr_slots *s, uint32_t slot, int changed, int saved);
/* Does it hold bytes that the store lacks and nobody has asked for, or will it when the visit that
 * changes it has passed? */
int tr_slot_is_newer(const struct tr_slots *s, uint32_t slot);
/* Asks for them: a newer slot is DIRTY now; 0: it is not newer. */
int tr_slot_want(struct tr_slots *s, uint32_t slot);
/* Asks for those that are to come: it will be DIRTY; 0: there are none, or they are asked for. */
int tr_slot_want_left(struct tr_slots *s, uint32_t slot);
void tr_slot_write(struct tr_slots *s, uint32_t slot);
void tr_slot_written(struct tr_slots *s, uint32_t slot);
void tr_slot_fail(struct tr_slots *s, uint32_t slot);
void tr_slot_drop(struct tr_slots *s, uint32_t slot);

int tr_slot_may_load(const struct tr_slots *s, uint32_t slot);
int tr_slot_may_pin(const struct tr_slots *s, uint32_t slot, int changes);

/* Asserts what holds for all slots at any time. Every function above asserts it of its own slot
 * when it is entered, and the engine of all of them when a step begins and when a visit is
 * acquired. */
void tr_slots_check(const struct tr_slots *s);

#endif
