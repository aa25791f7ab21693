/* SPDX-License-Identifier: Apache-2.0
 *
 * Two walks. Backwards over all visits, to know for each use of a span when the next one comes;
 * then forwards over this step's, dropping for each span that is missing the one whose next use is
 * last. Time is visits times slots; for a model of a hundred layers that is nothing beside one
 * read. In a pool that spares, what its last visit used is dropped only where all else is needed
 * now.
 *
 * To a span that is made afresh that use is no next use: before it the old bytes are dead, and
 * dropping them costs nothing (of a span of the store: no load; its changes are written all the
 * same).
 */
#include "offload/schedule.h"

#include <string.h>

#include "offload/slots.h"
#include "src/base/err.h"
#include "src/base/mem.h"

#define CARRIED UINT32_MAX /* changed before this step */

/* What is played through: the slots as they will be when each visit comes. */
struct play {
    const struct tr_schedule_params *p;
    uint32_t n_slots;
    uint32_t *span;     /* (slots) */
    uint32_t *next_use; /* (slots): of what it holds, as a visit number; TR_NONE: never again */
    uint32_t *used;     /* (slots): 1 + the last visit of this step that used it; 0: none */
    uint32_t *change;   /* (slots): 1 + (visit, k) of its last change; CARRIED; or 0 */
    uint32_t *slot_of;  /* (spans) */
    uint32_t *last;     /* (pools): 1 + the last visit of this step that used one of its slots */
    uint32_t *after;    /* (visits + next, TR_VISIT_SPANS): the next visit of the same span */
};

void tr_schedule_free(struct tr_schedule *s)
{
    tr_free(TR_MEM_MISC, s->loads);
    tr_free(TR_MEM_MISC, s->slot);
    tr_free(TR_MEM_MISC, s->saved);
    tr_free(TR_MEM_MISC, s->again);
    tr_free(TR_MEM_MISC, s->carried);
    memset(s, 0, sizeof(*s));
}

static int is_scratch(const struct tr_schedule_params *p, uint32_t span)
{
    return span >= p->n_spans - p->n_scratch;
}

static int check_visit(const struct tr_schedule_params *p, const struct tr_visit *v, uint32_t at)
{
    if (v->n_spans > TR_VISIT_SPANS)
        return tr_error(-EINVAL, "visit %u: %u spans, at most %d", at, v->n_spans, TR_VISIT_SPANS);
    for (uint32_t k = 0; k < v->n_spans; k++) {
        int fresh = v->fresh >> k & 1, changed = v->changed >> k & 1;

        if (fresh && !changed)
            return tr_error(-EINVAL, "visit %u: span %u is fresh, but it does not change it", at,
                            v->span[k]);
        if (v->span[k] >= p->n_spans || p->spans[v->span[k]].pool >= p->n_pools)
            return tr_error(-EINVAL, "visit %u: span %u or its pool does not exist", at,
                            v->span[k]);
        for (uint32_t j = 0; j < k; j++)
            if (v->span[j] == v->span[k])
                return tr_error(-EINVAL, "visit %u: names span %u twice", at, v->span[k]);
    }
    return 0;
}

static const struct tr_visit *visit_at(const struct tr_schedule_params *p, uint32_t v)
{
    return v < p->n ? &p->visits[v] : &p->next[v - p->n];
}

/* From the last visit to the first; what is left in `first` is each span's first use. */
static void find_next_uses(struct play *y, uint32_t *first)
{
    for (uint32_t i = 0; i < y->p->n_spans; i++)
        first[i] = TR_NONE;
    for (uint32_t v = y->p->n + y->p->n_next; v-- > 0;) {
        const struct tr_visit *visit = visit_at(y->p, v);

        for (uint32_t k = 0; k < visit->n_spans; k++) {
            y->after[(size_t)v * TR_VISIT_SPANS + k] = first[visit->span[k]];
            first[visit->span[k]] = visit->fresh >> k & 1 ? TR_NONE : v;
        }
    }
}

/* `first`: as found above. What a step leaves in a scratch span is of no use to the next one. */
static int check_scratch(const struct tr_schedule_params *p, const uint32_t *first)
{
    for (uint32_t i = p->n_spans - p->n_scratch; i < p->n_spans; i++)
        if (first[i] != TR_NONE)
            return tr_error(-EINVAL, "visit %u: uses scratch span %u before it is made", first[i],
                            i);
    return 0;
}

static void close_play(struct play *y)
{
    tr_free(TR_MEM_MISC, y->span);
    tr_free(TR_MEM_MISC, y->next_use);
    tr_free(TR_MEM_MISC, y->used);
    tr_free(TR_MEM_MISC, y->change);
    tr_free(TR_MEM_MISC, y->slot_of);
    tr_free(TR_MEM_MISC, y->last);
    tr_free(TR_MEM_MISC, y->after);
}

static int open_play(struct play *y, const struct tr_schedule_params *p)
{
    size_t visits = (size_t)p->n + p->n_next;
    int r;

    y->p = p;
    for (uint32_t i = 0; i < p->n_pools; i++)
        y->n_slots += p->pools[i].n_slots;
    y->span = tr_alloc_array(TR_MEM_MISC, y->n_slots, 4);
    y->next_use = tr_alloc_array(TR_MEM_MISC, y->n_slots, 4);
    y->used = tr_alloc_array(TR_MEM_MISC, y->n_slots, 4);
    y->change = tr_alloc_array(TR_MEM_MISC, y->n_slots, 4);
    y->slot_of = tr_alloc_array(TR_MEM_MISC, p->n_spans, 4);
    y->last = tr_alloc_array(TR_MEM_MISC, p->n_pools, 4);
    y->after = tr_alloc_array(TR_MEM_MISC, visits, TR_VISIT_SPANS * 4);
    if (!y->span || !y->next_use || !y->used || !y->change || !y->slot_of || !y->last || !y->after)
        return -ENOMEM;
    find_next_uses(y, y->slot_of);
    r = check_scratch(p, y->slot_of);
    if (r < 0)
        return r;
    for (uint32_t i = 0; i < y->n_slots; i++) {
        y->span[i] = p->holds[i];
        y->change[i] = p->newer && p->newer[i] ? CARRIED : 0;
        y->next_use[i] = p->holds[i] == TR_NONE ? TR_NONE : y->slot_of[p->holds[i]];
    }
    for (uint32_t i = 0; i < p->n_spans; i++)
        y->slot_of[i] = TR_NONE;
    for (uint32_t i = 0; i < y->n_slots; i++)
        if (y->span[i] != TR_NONE)
            y->slot_of[y->span[i]] = i;
    return 0;
}

/* Still busy, or on its way to the disk, when the next visit's loads could begin. */
static int is_spared(const struct play *y, uint32_t pool, uint32_t slot)
{
    return y->p->pools[pool].spare && y->last[pool] && y->used[slot] == y->last[pool];
}

/* Is a better than b to load over? What is spared comes last of all; empty first, then what is
 * needed last, then what is done with first: its load can begin first. */
static int better(const struct play *y, uint32_t pool, uint32_t a, uint32_t b)
{
    if (is_spared(y, pool, a) != is_spared(y, pool, b))
        return is_spared(y, pool, b);
    if ((y->span[a] == TR_NONE) != (y->span[b] == TR_NONE))
        return y->span[a] == TR_NONE;
    if (y->next_use[a] != y->next_use[b])
        return y->next_use[a] > y->next_use[b];
    return y->used[a] < y->used[b];
}

static uint32_t pool_of(const struct play *y, uint32_t span)
{
    uint32_t pool = y->p->spans[span].pool, shares = y->p->pools[pool].shares;

    return shares ? shares - 1 : pool;
}

static uint32_t choose(const struct play *y, uint32_t pool, uint32_t visit)
{
    uint32_t best = TR_NONE, first = 0;

    for (uint32_t i = 0; i < pool; i++)
        first += y->p->pools[i].n_slots;
    for (uint32_t i = first; i < first + y->p->pools[pool].n_slots; i++)
        if (y->used[i] != visit + 1 && (best == TR_NONE || better(y, pool, i, best)))
            best = i;
    return best;
}

static void mark(uint32_t *visits, uint32_t change)
{
    visits[(change - 1) / TR_VISIT_SPANS] |= 1u << (change - 1) % TR_VISIT_SPANS;
}

/* Is the last change of what goes to be saved? Of scratch where it is needed again; of the store
 * where not every change is written anyway. */
static int is_saved(const struct play *y, uint32_t slot)
{
    return is_scratch(y->p, y->span[slot]) ? y->next_use[slot] != TR_NONE : y->p->lazy;
}

/* What the slot holds goes. What has been changed since it was made, loaded or written is saved. */
static void drop(struct play *y, struct tr_schedule *out, uint32_t slot)
{
    uint32_t change = y->change[slot];

    if (y->span[slot] == TR_NONE)
        return;
    if (change == CARRIED)
        out->carried[slot] = 1;
    else if (change && is_saved(y, slot))
        mark(out->saved, change);
    y->change[slot] = 0;
    y->slot_of[y->span[slot]] = TR_NONE;
}

static int place(struct play *y, struct tr_schedule *out, uint32_t v, uint32_t k)
{
    uint32_t span = y->p->visits[v].span[k];
    uint32_t pool = pool_of(y, span), slot = choose(y, pool, v);

    if (slot == TR_NONE)
        return tr_error(-ENOSPC, "visit %u needs more than the %u slots of pool %u at once", v,
                        y->p->pools[pool].n_slots, pool);
    drop(y, out, slot);
    out->loads[out->n_loads++] = (struct tr_load){.visit = v,
                                                  .span = span,
                                                  .slot = slot,
                                                  .after = y->used[slot],
                                                  .fresh = y->p->visits[v].fresh >> k & 1};
    y->span[slot] = span;
    y->slot_of[span] = slot;
    y->used[slot] = v + 1;
    return 0;
}

/* What lies in this slot is changed by (visit, k), which `at` counts. */
static void change(struct play *y, struct tr_schedule *out, size_t at, uint32_t slot)
{
    uint32_t before = y->change[slot];

    if (before && before != CARRIED && !is_scratch(y->p, y->span[slot]))
        mark(out->again, before);
    y->change[slot] = (uint32_t)at + 1;
}

static int play_visit(struct play *y, struct tr_schedule *out, uint32_t v)
{
    const struct tr_visit *visit = visit_at(y->p, v);

    /* What is there already is taken first, so that it is not dropped for the others. */
    for (uint32_t k = 0; k < visit->n_spans; k++)
        if (y->slot_of[visit->span[k]] != TR_NONE)
            y->used[y->slot_of[visit->span[k]]] = v + 1;
    for (uint32_t k = 0; k < visit->n_spans; k++) {
        int r = y->slot_of[visit->span[k]] == TR_NONE ? place(y, out, v, k) : 0;

        if (r < 0)
            return r;
    }
    for (uint32_t k = 0; k < visit->n_spans; k++) {
        size_t at = (size_t)v * TR_VISIT_SPANS + k;

        out->slot[at] = y->slot_of[visit->span[k]];
        y->next_use[out->slot[at]] = y->after[at];
        y->last[pool_of(y, visit->span[k])] = v + 1;
        if (visit->changed >> k & 1)
            change(y, out, at, out->slot[at]);
    }
    return 0;
}

int tr_schedule_make(struct tr_schedule *out, const struct tr_schedule_params *p)
{
    struct play y = {0};
    int r = 0;

    memset(out, 0, sizeof(*out));
    for (uint32_t v = 0; v < p->n + p->n_next && r == 0; v++)
        r = check_visit(p, visit_at(p, v), v);
    if (r == 0)
        r = open_play(&y, p);
    out->n_visits = p->n;
    out->slot = tr_alloc_array(TR_MEM_MISC, p->n, TR_VISIT_SPANS * 4);
    out->loads = tr_alloc_array(TR_MEM_MISC, (size_t)p->n * TR_VISIT_SPANS, sizeof(*out->loads));
    out->saved = tr_alloc_array(TR_MEM_MISC, p->n, sizeof(*out->saved));
    out->again = tr_alloc_array(TR_MEM_MISC, p->n, sizeof(*out->again));
    out->carried = tr_alloc(TR_MEM_MISC, y.n_slots);
    if (r == 0 && (!out->slot || !out->loads || !out->saved || !out->again || !out->carried))
        r = -ENOMEM;
    for (uint32_t v = 0; v < p->n && r == 0; v++)
        r = play_visit(&y, out, v);
    close_play(&y);
    if (r < 0)
        tr_schedule_free(out);
    return r;
}

void tr_schedule_leave(const struct tr_schedule *s, const struct tr_schedule_params *p,
                       uint32_t *holds, unsigned char *newer)
{
    uint32_t next = 0;

    for (uint32_t v = 0; v < s->n_visits; v++) {
        for (; next < s->n_loads && s->loads[next].visit == v; next++) {
            holds[s->loads[next].slot] = s->loads[next].span;
            if (newer)
                newer[s->loads[next].slot] = 0;
        }
        for (uint32_t k = 0; newer && k < p->visits[v].n_spans; k++)
            if (p->visits[v].changed >> k & 1 && !is_scratch(p, p->visits[v].span[k]))
                newer[tr_schedule_slot(s, v, k)] = !(s->saved[v] >> k & 1);
    }
}
