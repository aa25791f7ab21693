/* SPDX-License-Identifier: Apache-2.0
 *
 * The calls of the engine, on the caller's thread: they check, wait and hand over; nothing is moved
 * here. A caller waits for three things only: that its spans are in their slots (acquire), that a
 * commit is durable (commit, commit_wait), that all is written (drain, and everything in serial
 * mode). Each wait ends with the engine's first error, too, whatever it was, and with an error of
 * the device, which may have lost the callback that the wait is for.
 */
#include "offload/offload.h"

#include <stdio.h>
#include <string.h>

#include "offload/engine.h"
#include "src/base/clock.h"
#include "src/base/err.h"
#include "src/base/mem.h"

static int make_schedule(struct tr_offload *o, struct tr_schedule *schedule,
                         const struct tr_schedule_params *visits)
{
    struct tr_schedule_params p = *visits;
    uint32_t *holds = tr_alloc_array(TR_MEM_MISC, o->slots.n, sizeof(*holds) + 1);
    unsigned char *newer = (unsigned char *)(holds + o->slots.n);
    int r;

    if (!holds)
        return -ENOMEM;
    /* Without a schedule no load begins: what the slots hold stands still until the new one. */
    pthread_mutex_lock(&o->lock);
    tr_slots_check(&o->slots);
    tr_schedule_free(&o->schedule);
    for (uint32_t i = 0; i < o->slots.n; i++) {
        holds[i] = o->slots.slot[i].span;
        newer[i] = (unsigned char)tr_slot_is_newer(&o->slots, i);
    }
    pthread_mutex_unlock(&o->lock);
    p.spans = o->layout.spans;
    p.n_spans = o->layout.n_spans;
    p.n_scratch = o->layout.n_spans - o->slots.first_scratch;
    p.pools = o->pools;
    p.n_pools = o->n_pools;
    p.holds = holds;
    p.newer = newer;
    p.lazy = o->lazy;
    r = tr_schedule_make(schedule, &p);
    tr_free(TR_MEM_MISC, holds);
    if (r == 0 && (r = tr_scratch_check_saves(o, p.visits, schedule)) < 0)
        tr_schedule_free(schedule);
    return r;
}

static int changes_store(const struct tr_offload *o, const struct tr_visit *v)
{
    int changes = 0;

    for (uint32_t k = 0; k < v->n_spans && k < TR_VISIT_SPANS; k++)
        changes |= v->changed >> k & 1 && !tr_is_scratch(o, v->span[k]);
    return changes;
}

static int check_begin(struct tr_offload *o, const struct tr_visit *visits, uint32_t n)
{
    int r;

    pthread_mutex_lock(&o->lock);
    r = tr_engine_error(o);
    if (r == 0 && o->acquired)
        r = tr_error(-EINVAL, "a step begins while visit %u is acquired", o->at);
    pthread_mutex_unlock(&o->lock);
    for (uint32_t i = 0; i < n && r == 0; i++)
        if (changes_store(o, &visits[i]) && o->store->mode != TR_STORE_WRITE)
            r = tr_error(-EROFS,
                         "%s: visit %u changes a span, but the store was opened for reading",
                         tr_store_folder(o->store), i);
    return r;
}

int tr_offload_begin(struct tr_offload *o, const struct tr_visit *visits, uint32_t n,
                     const struct tr_visit *next, uint32_t n_next)
{
    struct tr_schedule_params p = {.visits = visits, .n = n, .next = next, .n_next = n_next};
    struct tr_schedule schedule;
    struct tr_visit *copy;
    unsigned char *started;
    int r = check_begin(o, visits, n);

    if (r < 0)
        return r;
    r = make_schedule(o, &schedule, &p);
    if (r < 0)
        return r;
    copy = tr_alloc_array(TR_MEM_MISC, n, sizeof(*copy));
    started = tr_alloc(TR_MEM_MISC, schedule.n_loads);
    if (!copy || !started) {
        tr_free(TR_MEM_MISC, copy);
        tr_free(TR_MEM_MISC, started);
        tr_schedule_free(&schedule);
        return -ENOMEM;
    }
    if (n)
        memcpy(copy, visits, n * sizeof(*copy));
    pthread_mutex_lock(&o->lock);
    tr_free(TR_MEM_MISC, o->visits);
    tr_free(TR_MEM_MISC, o->started);
    o->visits = copy;
    o->started = started;
    o->schedule = schedule;
    o->base += o->at;
    o->at = o->wanted = o->first_load = 0;
    for (uint32_t i = 0; i < o->slots.n; i++)
        if (schedule.carried[i])
            tr_writeback_want(o, i);
    tr_engine_kick(o);
    pthread_mutex_unlock(&o->lock);
    return 0;
}

static int is_ready(const struct tr_offload *o, uint32_t visit)
{
    const struct tr_visit *v = &o->visits[visit];

    for (uint32_t k = 0; k < v->n_spans; k++) {
        uint32_t slot = tr_schedule_slot(&o->schedule, visit, k);

        if (o->slots.slot[slot].span != v->span[k] ||
            !tr_slot_may_pin(&o->slots, slot, v->changed >> k & 1))
            return 0;
    }
    return 1;
}

static void pin(struct tr_offload *o, uint32_t visit, void *at[TR_VISIT_SPANS])
{
    const struct tr_visit *v = &o->visits[visit];

    tr_slots_check(&o->slots);
    for (uint32_t k = 0; k < v->n_spans; k++) {
        uint32_t slot = tr_schedule_slot(&o->schedule, visit, k);

        tr_slot_pin(&o->slots, slot, v->changed >> k & 1);
        at[k] = o->slots.slot[slot].base;
    }
    o->acquired = 1;
}

int tr_offload_acquire(struct tr_offload *o, uint32_t visit, void *at[TR_VISIT_SPANS])
{
    uint64_t from = 0;
    int r;

    pthread_mutex_lock(&o->lock);
    r = tr_engine_error(o);
    if (r == 0 && (o->acquired || visit != o->at || visit >= o->schedule.n_visits))
        r = tr_error(-EINVAL, "visit %u acquired, the next is %u of %u", visit, o->at,
                     o->schedule.n_visits);
    if (r < 0)
        goto out;
    o->wanted = visit + 1;
    tr_engine_kick(o);
    while (!o->error && !is_ready(o, visit)) {
        if (!from && !o->tickets) /* only now does the device have nothing to do */
            from = tr_now_ns();
        tr_engine_wait(o);
    }
    if (from)
        o->stats.wait_load_ns += tr_now_ns() - from;
    r = tr_engine_error(o);
    if (r == 0)
        pin(o, visit, at);
out:
    pthread_mutex_unlock(&o->lock);
    return r;
}

/* On the device's thread. The engine may be closed as soon as the lock is given back. */
static void passed(void *arg)
{
    struct tr_ticket *t = arg;
    struct tr_offload *o = t->o;

    pthread_mutex_lock(&o->lock);
    if (!o->abandoned)
        tr_writeback_passed(o, t);
    o->tickets--;
    t->next = o->free_tickets;
    o->free_tickets = t;
    tr_engine_called(o);
}

static struct tr_ticket *take_ticket(struct tr_offload *o)
{
    struct tr_ticket *t = o->free_tickets;

    if (!t)
        return tr_alloc(TR_MEM_MISC, sizeof(*t));
    o->free_tickets = t->next;
    return t;
}

/* Fills the ticket of the acquired visit; from here on it counts as released. */
static void release(struct tr_offload *o, struct tr_ticket *t)
{
    const struct tr_visit *v = &o->visits[o->at];
    uint32_t last = v->changed & ~o->schedule.again[o->at]; /* of the changes of the step */

    t->o = o;
    t->n = v->n_spans;
    t->changed = v->changed;
    t->saved = o->schedule.saved[o->at];
    t->epoch = o->epoch;
    for (uint32_t k = 0; k < v->n_spans; k++) {
        int saved = t->saved >> k & 1;

        t->slot[k] = tr_schedule_slot(&o->schedule, o->at, k);
        if (tr_is_scratch(o, v->span[k]))
            o->saving += saved;
        else if (last >> k & 1 && (saved || !tr_writeback_waits(o, v->span[k])))
            tr_writeback_want(o, t->slot[k]);
    }
    o->tickets++;
    o->calls++;
    o->at++;
    o->acquired = 0;
}

/* Waits until all compute of released visits has passed and all changes are written; lock held. */
static int wait_written(struct tr_offload *o)
{
    while (!o->error && (o->tickets || o->saving || o->pending[0] || o->pending[1]))
        tr_engine_wait(o);
    return tr_engine_error(o);
}

int tr_offload_release(struct tr_offload *o, uint32_t visit)
{
    struct tr_ticket *t = NULL;
    int r = 0;

    pthread_mutex_lock(&o->lock);
    if (!o->acquired || visit != o->at)
        r = tr_error(-EINVAL, "visit %u released, but not acquired", visit);
    else if (!(t = take_ticket(o)))
        r = -ENOMEM;
    else
        release(o, t);
    pthread_mutex_unlock(&o->lock);
    if (r < 0)
        return r;
    r = o->device->ops->call(o->device, TR_STREAM_COMPUTE, passed, t);
    pthread_mutex_lock(&o->lock);
    if (r < 0) {
        tr_engine_fail(o, r);
        o->tickets--; /* will never pass */
        o->calls--;
        t->next = o->free_tickets;
        o->free_tickets = t;
    } else if (o->serial) {
        r = wait_written(o);
    }
    pthread_mutex_unlock(&o->lock);
    return r;
}

int tr_offload_drain(struct tr_offload *o)
{
    int r;

    pthread_mutex_lock(&o->lock);
    r = wait_written(o);
    pthread_mutex_unlock(&o->lock);
    return r;
}

/* Lock held. */
static int wait_committed(struct tr_offload *o)
{
    uint64_t from = tr_now_ns();

    while (!o->error && o->flush.state != TR_FLUSH_IDLE)
        tr_engine_wait(o);
    o->stats.wait_commit_ns += tr_now_ns() - from;
    return tr_engine_error(o);
}

int tr_offload_commit(struct tr_offload *o, const void *payload, size_t bytes)
{
    int r;

    if (bytes > TR_PAYLOAD_BYTES)
        return tr_error(-EINVAL, "a commit's payload has at most %u bytes, not %zu",
                        TR_PAYLOAD_BYTES, bytes);
    if (o->store->mode != TR_STORE_WRITE)
        return tr_error(-EROFS, "%s: opened for reading only", tr_store_folder(o->store));
    pthread_mutex_lock(&o->lock);
    r = wait_committed(o);
    if (r == 0) {
        memset(o->flush.payload, 0, sizeof(o->flush.payload));
        memcpy(o->flush.payload, payload, bytes);
        o->flush.payload_bytes = (uint32_t)bytes;
        for (uint32_t i = 0; i < o->slots.n; i++)
            tr_writeback_want(o, i);
        o->unmarked = 0;
        o->flush.epoch = o->epoch++;
        o->flush.state = TR_FLUSH_WRITES;
        tr_engine_kick(o);
        if (o->serial)
            r = wait_committed(o);
    }
    pthread_mutex_unlock(&o->lock);
    return r;
}

int tr_offload_commit_wait(struct tr_offload *o)
{
    int r;

    pthread_mutex_lock(&o->lock);
    r = wait_committed(o);
    pthread_mutex_unlock(&o->lock);
    return r;
}

int tr_offload_committed(struct tr_offload *o)
{
    int r;

    pthread_mutex_lock(&o->lock);
    r = tr_engine_error(o);
    if (r == 0)
        r = o->flush.state == TR_FLUSH_IDLE;
    pthread_mutex_unlock(&o->lock);
    return r;
}

void tr_offload_uncheck(struct tr_offload *o)
{
    o->unchecked = 1;
}

void tr_offload_stats(struct tr_offload *o, struct tr_offload_stats *stats)
{
    pthread_mutex_lock(&o->lock);
    *stats = o->stats;
    pthread_mutex_unlock(&o->lock);
}

int tr_offload_remark(struct tr_offload *o, char *text, size_t room)
{
    struct tr_slow slow;
    int is;

    pthread_mutex_lock(&o->lock);
    is = o->is_slow;
    slow = o->slow;
    o->is_slow = 0;
    pthread_mutex_unlock(&o->lock);
    if (is)
        snprintf(text, room, "%s: the drive has become slow: %s at %.1f MB/s, %.1f before",
                 o->store->folders.path[slow.folder], slow.what, slow.now * 1e-6,
                 slow.usual * 1e-6);
    return is;
}

uint64_t tr_offload_host_bytes(const struct tr_offload *o)
{
    return o->staging.bytes + tr_homes_bytes(&o->homes);
}

const char *tr_offload_io_name(const struct tr_offload *o)
{
    return o->io_name;
}
