/* SPDX-License-Identifier: Apache-2.0
 *
 * Giving up what was changed since the last commit. With two generations nothing has to be undone
 * on the disk: the durable commit still names the other one, whole (invariant 3). What has to go is
 * everything that knows better: the loads of the next step, slots and homes that hold changed
 * bytes, and the generations and checksums that the next commit would have named.
 *
 * It is rare, so it waits for the write-backs under way rather than reach into them.
 */
#include "offload/engine.h"
#include "src/base/err.h"

static int is_busy(const struct tr_offload *o)
{
    if (o->tickets || o->pending[0] || o->pending[1] || o->flush.state != TR_FLUSH_IDLE)
        return 1;
    for (uint32_t i = 0; i < o->slots.n; i++)
        if (o->slots.slot[i].state == TR_SLOT_READING)
            return 1;
    return 0;
}

static void forget_span(struct tr_offload *o, uint32_t span)
{
    struct tr_home *home = tr_home_of(&o->homes, span);

    if (o->slots.of_span[span] != TR_NONE)
        tr_slot_drop(&o->slots, o->slots.of_span[span]);
    if (home)
        home->filled = home->dirty = 0;
}

static int is_newer(const struct tr_offload *o, uint32_t span)
{
    uint32_t slot = o->slots.of_span[span];

    return slot != TR_NONE && o->slots.slot[slot].newer;
}

/* What is written since a commit lies in the generation that the commit does not name, or in a home
 * or slot that has not been written at all. */
static void forget(struct tr_offload *o)
{
    struct tr_store *s = o->store;

    for (uint32_t i = 0; i < s->layout.n_spans; i++)
        if (s->next.generation[i] != s->durable.generation[i] || tr_home_is_dirty(&o->homes, i) ||
            is_newer(o, i))
            forget_span(o, i);
    tr_commit_copy(&s->next, &s->durable, &s->shape);
}

int tr_offload_abandon(struct tr_offload *o)
{
    int r;

    if (o->store->shape.generations < 2)
        return tr_error(-EINVAL, "%s: has one generation, which has been changed in place",
                        tr_store_folder(o->store));
    pthread_mutex_lock(&o->lock);
    r = tr_engine_error(o);
    if (r == 0 && o->acquired)
        r = tr_error(-EINVAL, "changes are given up while visit %u is acquired", o->at);
    if (r < 0)
        goto out;
    tr_schedule_free(&o->schedule); /* no load begins any more */
    while (!o->error && is_busy(o))
        tr_engine_wait(o);
    r = tr_engine_error(o);
    if (r == 0)
        forget(o);
out:
    pthread_mutex_unlock(&o->lock);
    return r;
}
