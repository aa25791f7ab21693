/* SPDX-License-Identifier: Apache-2.0
 *
 * The edges of the picture in slots.h, one function each.
 */
#include "offload/slots.h"

#include <assert.h>
#include <string.h>

#include "src/base/err.h"
#include "src/base/mem.h"

int tr_slots_open(struct tr_slots *s, const struct tr_slot_pool *pools, uint32_t n_pools,
                  uint32_t n_spans)
{
    uint32_t n = 0;

    memset(s, 0, sizeof(*s));
    for (uint32_t p = 0; p < n_pools; p++)
        n += pools[p].n_slots;
    s->slot = tr_alloc_array(TR_MEM_MISC, n, sizeof(*s->slot));
    s->of_span = tr_alloc_array(TR_MEM_MISC, n_spans, sizeof(*s->of_span));
    if (!s->slot || !s->of_span) {
        tr_slots_close(s);
        return -ENOMEM;
    }
    for (uint32_t p = 0; p < n_pools; p++)
        for (uint32_t i = 0; i < pools[p].n_slots; i++)
            s->slot[s->n++] = (struct tr_slot){
                .base = pools[p].base + i * pools[p].slot_bytes, .pool = p, .span = TR_NONE};
    for (uint32_t i = 0; i < n_spans; i++)
        s->of_span[i] = TR_NONE;
    s->n_spans = s->first_scratch = n_spans;
    return 0;
}

void tr_slots_close(struct tr_slots *s)
{
    tr_free(TR_MEM_MISC, s->slot);
    tr_free(TR_MEM_MISC, s->of_span);
    memset(s, 0, sizeof(*s));
}

static void check_slot(const struct tr_slots *s, uint32_t i)
{
    const struct tr_slot *slot = &s->slot[i];

    assert((slot->state == TR_SLOT_FREE) == (slot->span == TR_NONE));
    assert(slot->span == TR_NONE || s->of_span[slot->span] == i);
    assert(!slot->pins || (slot->state != TR_SLOT_FREE && slot->state != TR_SLOT_READING));
    assert(!slot->newer || slot->state == TR_SLOT_READY);
    assert((slot->state == TR_SLOT_IN_USE) == (slot->changes > 0) && slot->changes <= slot->pins);
    (void)slot;
}

void tr_slots_check(const struct tr_slots *s)
{
    for (uint32_t i = 0; i < s->n; i++)
        check_slot(s, i);
}

/* The check of one step of one slot: all of them at every entry costs more than the step. */
static struct tr_slot *enter(struct tr_slots *s, uint32_t slot)
{
    assert(slot < s->n);
    check_slot(s, slot);
    return &s->slot[slot];
}

int tr_slot_may_load(const struct tr_slots *s, uint32_t slot)
{
    const struct tr_slot *t = &s->slot[slot];

    return (t->state == TR_SLOT_FREE || t->state == TR_SLOT_READY) && !t->newer && !t->pins;
}

static int holds_scratch(const struct tr_slots *s, const struct tr_slot *t)
{
    return t->span != TR_NONE && t->span >= s->first_scratch;
}

int tr_slot_may_pin(const struct tr_slots *s, uint32_t slot, int changes)
{
    const struct tr_slot *t = &s->slot[slot];
    enum tr_slot_state state = t->state;

    if (changes)
        return state == TR_SLOT_READY || (holds_scratch(s, t) && state == TR_SLOT_IN_USE);
    return state == TR_SLOT_READY || state == TR_SLOT_IN_USE || state == TR_SLOT_DIRTY ||
           state == TR_SLOT_WRITING;
}

void tr_slot_load(struct tr_slots *s, uint32_t slot, uint32_t span)
{
    struct tr_slot *t = enter(s, slot);

    assert(tr_slot_may_load(s, slot));
    assert(span < s->n_spans && s->of_span[span] == TR_NONE);
    if (t->span != TR_NONE)
        s->of_span[t->span] = TR_NONE;
    t->span = span;
    s->of_span[span] = slot;
    t->state = TR_SLOT_READING;
}

void tr_slot_loaded(struct tr_slots *s, uint32_t slot)
{
    struct tr_slot *t = enter(s, slot);

    assert(t->state == TR_SLOT_READING);
    t->state = TR_SLOT_READY;
}

void tr_slot_pin(struct tr_slots *s, uint32_t slot, int changes)
{
    struct tr_slot *t = enter(s, slot);

    assert(tr_slot_may_pin(s, slot, changes));
    t->pins++;
    if (!changes)
        return;
    t->changes++;
    t->newer = 0;
    t->state = TR_SLOT_IN_USE;
}

void tr_slot_unpin(struct tr_slots *s, uint32_t slot, enum tr_slot_left left)
{
    struct tr_slot *t = enter(s, slot);

    assert(t->pins);
    t->pins--;
    if (left == TR_LEFT_ALONE)
        return;
    assert(t->state == TR_SLOT_IN_USE);
    if (--t->changes)
        return;
    t->state = left == TR_LEFT_DIRTY ? TR_SLOT_DIRTY : TR_SLOT_READY;
    t->newer = left == TR_LEFT_NEWER;
    t->due = 0;
}

enum tr_slot_left tr_slot_leaves(const struct tr_slots *s, uint32_t slot, int changed, int saved)
{
    const struct tr_slot *t = &s->slot[slot];

    if (!changed)
        return TR_LEFT_ALONE;
    if (holds_scratch(s, t))
        return saved ? TR_LEFT_DIRTY : TR_LEFT_READY;
    return t->due ? TR_LEFT_DIRTY : TR_LEFT_NEWER;
}

static int will_be_newer(const struct tr_slots *s, const struct tr_slot *t)
{
    return t->state == TR_SLOT_IN_USE && !t->due && !holds_scratch(s, t);
}

int tr_slot_is_newer(const struct tr_slots *s, uint32_t slot)
{
    return s->slot[slot].newer || will_be_newer(s, &s->slot[slot]);
}

int tr_slot_want_left(struct tr_slots *s, uint32_t slot)
{
    struct tr_slot *t = enter(s, slot);

    if (!will_be_newer(s, t))
        return 0;
    t->due = 1;
    return 1;
}

int tr_slot_want(struct tr_slots *s, uint32_t slot)
{
    struct tr_slot *t = enter(s, slot);

    if (!t->newer)
        return 0;
    t->newer = 0;
    t->state = TR_SLOT_DIRTY;
    return 1;
}

void tr_slot_write(struct tr_slots *s, uint32_t slot)
{
    struct tr_slot *t = enter(s, slot);

    assert(t->state == TR_SLOT_DIRTY);
    t->state = TR_SLOT_WRITING;
}

void tr_slot_written(struct tr_slots *s, uint32_t slot)
{
    struct tr_slot *t = enter(s, slot);

    assert(t->state == TR_SLOT_WRITING);
    t->state = TR_SLOT_READY;
}

void tr_slot_fail(struct tr_slots *s, uint32_t slot)
{
    struct tr_slot *t = enter(s, slot);

    assert(t->state == TR_SLOT_READING || t->state == TR_SLOT_WRITING);
    t->state = TR_SLOT_ERROR;
}

void tr_slot_drop(struct tr_slots *s, uint32_t slot)
{
    struct tr_slot *t = enter(s, slot);

    assert(t->state == TR_SLOT_READY && !t->pins);
    s->of_span[t->span] = TR_NONE;
    t->span = TR_NONE;
    t->newer = 0;
    t->state = TR_SLOT_FREE;
}
