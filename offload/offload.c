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
#include <time.h>

#include "offload/engine.h"
#include "src/base/err.h"
#include "src/base/mem.h"
#include "src/base/thread.h"

#define PATIENCE_NS 100000000 /* of a waiting caller, before it asks how the device is */
#define WORKERS     8         /* of the threads engine: enough blocking requests to fill a drive */

static uint64_t now_ns(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static int check_pools(const struct tr_offload_params *p)
{
    const struct tr_layout *l = tr_store_layout(p->store);

    for (uint32_t i = 0; i < p->n_pools; i++)
        if ((uintptr_t)p->pools[i].base % TR_STORE_ALIGN || p->pools[i].slot_bytes % TR_STORE_ALIGN)
            return tr_error(-EINVAL, "slot pool %u is not aligned to %u bytes", i, TR_STORE_ALIGN);
    for (uint32_t i = 0; i < l->n_spans; i++) {
        const struct tr_span *s = &l->spans[i];

        if (s->pool < p->n_pools && s->bytes > p->pools[s->pool].slot_bytes)
            return tr_error(-EINVAL,
                            "span %u (record %s) has %llu bytes, a slot of pool %u has %llu", i,
                            l->segments[s->segment].record, (unsigned long long)s->bytes, s->pool,
                            (unsigned long long)p->pools[s->pool].slot_bytes);
    }
    return 0;
}

static int check_params(const struct tr_offload_params *p)
{
    if (p->durability != TR_DURABLE_NONE && p->store->mode == TR_STORE_WRITE &&
        tr_store_generations(p->store) == 1)
        return tr_error(-EINVAL, "%s: has one generation, made for durability none",
                        tr_store_folder(p->store));
    if (!p->store->durable.sequence)
        return tr_error(-ENODATA, "%s: has no commit yet", tr_store_folder(p->store));
    return check_pools(p);
}

/* What disk I/O goes to and from: the staging memory, or the slots themselves. Homes come and are
 * too large to be registered one by one. */
static uint32_t find_regions(const struct tr_offload *o, struct tr_io_region *regions)
{
    if (o->staging.memory) {
        regions[0] = (struct tr_io_region){o->staging.memory, o->staging.bytes};
        return 1;
    }
    for (uint32_t i = 0; i < o->n_pools && !o->opaque; i++)
        regions[i] =
            (struct tr_io_region){o->pools[i].base, o->pools[i].slot_bytes * o->pools[i].n_slots};
    return o->opaque ? 0 : o->n_pools;
}

static int open_io(struct tr_offload *o, enum tr_io_kind kind)
{
    struct tr_io_region *regions =
        tr_alloc_array(TR_MEM_MISC, o->n_pools + 1, sizeof(struct tr_io_region));
    struct tr_io_params p = {
        .files = o->store->file, .regions = regions, .depth = TR_IO_DEPTH, .workers = WORKERS};
    int r;

    if (!regions)
        return -ENOMEM;
    p.n_regions = find_regions(o, regions);
    tr_store_close_queue(o->store);
    r = tr_io_open(&o->io, kind, &p);
    if (r == 0 && o->store->hook.wrap)
        r = o->store->hook.wrap(o->store->hook.arg, &o->io);
    tr_free(TR_MEM_MISC, regions);
    if (r < 0)
        return r;
    o->io->ops->describe(o->io, o->io_name, sizeof(o->io_name));
    r = tr_queue_open(&o->queue, o->io, TR_IO_DEPTH);
    if (r < 0)
        o->io->ops->close(o->io);
    return r;
}

static void free_engine(struct tr_offload *o)
{
    int last;

    tr_queue_close(o->queue);
    tr_moves_close(o);
    if (!o->abandoned) { /* else copies may still be at work on it, and it stays until the end */
        tr_chunks_close(&o->staging);
        tr_homes_close(&o->homes);
    }
    tr_slots_close(&o->slots);
    tr_schedule_free(&o->schedule);
    tr_free(TR_MEM_MISC, o->pools);
    tr_free(TR_MEM_MISC, o->dirty);
    tr_free(TR_MEM_MISC, o->visits);
    tr_free(TR_MEM_MISC, o->started);
    pthread_mutex_lock(&o->lock);
    o->closed = 1;
    last = !o->calls;
    pthread_mutex_unlock(&o->lock);
    if (last)
        tr_engine_free(o);
}

/* Memory that the ways of moves need: staging only where a span goes that way. */
static int alloc_host(struct tr_offload *o, const struct tr_offload_params *p)
{
    uint64_t bytes = p->staging_bytes ? p->staging_bytes : TR_STAGING_BYTES;
    uint64_t chunk = tr_chunk_bytes(bytes);
    struct tr_device_info info = {0};
    int r = tr_homes_open(&o->homes, p->device, &o->store->layout, p->in_host);

    p->device->ops->info(p->device, &info);
    o->opaque = !info.host_visible;
    if (r == 0 && o->opaque && o->homes.n < o->store->layout.n_spans)
        r = tr_chunks_open(&o->staging, p->device, bytes, chunk);
    if (r == 0 && o->homes.n)
        r = tr_chunks_open(&o->parts, p->device, 0, chunk);
    return r;
}

static int alloc_engine(struct tr_offload *o, const struct tr_offload_params *p)
{
    int r;

    o->store = p->store;
    o->device = p->device;
    o->n_pools = p->n_pools;
    o->serial = p->serial;
    o->prefetch = p->prefetch ? p->prefetch : UINT32_MAX;
    if (p->serial)
        o->prefetch = 0;
    o->pools = tr_alloc_array(TR_MEM_MISC, p->n_pools, sizeof(*o->pools));
    if (!o->pools)
        return -ENOMEM;
    memcpy(o->pools, p->pools, p->n_pools * sizeof(*o->pools));
    r = tr_slots_open(&o->slots, o->pools, o->n_pools, o->store->layout.n_spans);
    if (r < 0)
        return r;
    o->dirty = tr_alloc_array(TR_MEM_MISC, o->slots.n, sizeof(*o->dirty));
    if (!o->dirty)
        return -ENOMEM;
    r = alloc_host(o, p);
    return r < 0 ? r : tr_moves_open(o);
}

static void init_lock(struct tr_offload *o)
{
    pthread_condattr_t attr;

    pthread_mutex_init(&o->lock, NULL);
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_cond_init(&o->changed, &attr);
    pthread_condattr_destroy(&attr);
}

int tr_offload_open(struct tr_offload **out, const struct tr_offload_params *p)
{
    struct tr_offload *o;
    int r = check_params(p);

    if (r < 0)
        return r;
    o = tr_alloc(TR_MEM_MISC, sizeof(*o));
    if (!o)
        return -ENOMEM;
    init_lock(o);
    r = alloc_engine(o, p);
    if (r == 0)
        r = open_io(o, p->io);
    if (r == 0)
        r = tr_thread_start(&o->thread, "tailrace-io", tr_engine_main, o);
    if (r < 0) {
        free_engine(o);
        return r;
    }
    *out = o;
    return 0;
}

/* Waits for a change; where none comes, asks the device, which may have lost the callback that it
 * hangs on. Lock held, but not while asking. */
static void wait_changed(struct tr_offload *o)
{
    uint64_t until = now_ns() + PATIENCE_NS;
    struct timespec t = {(time_t)(until / 1000000000u), (long)(until % 1000000000u)};
    int r;

    if (pthread_cond_timedwait(&o->changed, &o->lock, &t) == 0 || !o->calls || o->error)
        return;
    pthread_mutex_unlock(&o->lock);
    r = o->device->ops->error(o->device);
    pthread_mutex_lock(&o->lock);
    if (r < 0)
        tr_engine_fail(o, r);
}

/* After an error the device may still be at work on memory of ours, and callbacks may be due. When
 * its streams have been waited for, those that have not come are not waited for any longer. */
static void give_up_calls(struct tr_offload *o)
{
    for (int s = 0; s < TR_STREAMS; s++)
        o->device->ops->sync(o->device, (enum tr_stream)s);
    pthread_mutex_lock(&o->lock);
    o->abandoned = o->calls > 0;
    pthread_mutex_unlock(&o->lock);
}

int tr_offload_close(struct tr_offload *o)
{
    int r;

    if (!o)
        return 0;
    pthread_mutex_lock(&o->lock);
    while (!o->error && (o->tickets || o->flush.state != TR_FLUSH_IDLE))
        wait_changed(o);
    o->stop = 1;
    tr_engine_kick(o);
    pthread_mutex_unlock(&o->lock);
    pthread_join(o->thread, NULL);
    if (o->error)
        give_up_calls(o);
    r = tr_engine_error(o);
    /* What was written and not committed is forgotten. */
    tr_commit_copy(&o->store->next, &o->store->durable, &o->store->shape);
    free_engine(o);
    return r;
}

static int make_schedule(struct tr_offload *o, struct tr_schedule *schedule,
                         const struct tr_schedule_params *visits)
{
    struct tr_schedule_params p = *visits;
    uint32_t *holds = tr_alloc_array(TR_MEM_MISC, o->slots.n, sizeof(*holds));
    int r;

    if (!holds)
        return -ENOMEM;
    /* Without a schedule no load begins: what the slots hold stands still until the new one. */
    pthread_mutex_lock(&o->lock);
    tr_slots_check(&o->slots);
    tr_schedule_free(&o->schedule);
    for (uint32_t i = 0; i < o->slots.n; i++)
        holds[i] = o->slots.slot[i].span;
    pthread_mutex_unlock(&o->lock);
    p.spans = o->store->layout.spans;
    p.n_spans = o->store->layout.n_spans;
    p.pools = o->pools;
    p.n_pools = o->n_pools;
    p.holds = holds;
    r = tr_schedule_make(schedule, &p);
    tr_free(TR_MEM_MISC, holds);
    return r;
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
        if (visits[i].changed && o->store->mode != TR_STORE_WRITE)
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
    tr_engine_kick(o);
    pthread_mutex_unlock(&o->lock);
    return 0;
}

static int is_ready(const struct tr_offload *o, uint32_t visit)
{
    const struct tr_visit *v = &o->visits[visit];

    for (uint32_t k = 0; k < v->n_spans; k++) {
        uint32_t slot = o->schedule.slot[(size_t)visit * TR_VISIT_SPANS + k];

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
        uint32_t slot = o->schedule.slot[(size_t)visit * TR_VISIT_SPANS + k];

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
            from = now_ns();
        wait_changed(o);
    }
    if (from)
        o->stats.wait_load_ns += now_ns() - from;
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

    t->o = o;
    t->n = v->n_spans;
    t->changed = v->changed;
    t->epoch = o->epoch;
    for (uint32_t k = 0; k < v->n_spans; k++) {
        t->slot[k] = o->schedule.slot[(size_t)o->at * TR_VISIT_SPANS + k];
        o->pending[o->epoch & 1] += v->changed >> k & 1;
    }
    o->tickets++;
    o->calls++;
    o->at++;
    o->acquired = 0;
}

/* Waits until all compute of released visits has passed and all changes are written; lock held. */
static int wait_written(struct tr_offload *o)
{
    while (!o->error && (o->tickets || o->pending[0] || o->pending[1]))
        wait_changed(o);
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
    uint64_t from = now_ns();

    while (!o->error && o->flush.state != TR_FLUSH_IDLE)
        wait_changed(o);
    o->stats.wait_commit_ns += now_ns() - from;
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

void tr_offload_stats(struct tr_offload *o, struct tr_offload_stats *stats)
{
    pthread_mutex_lock(&o->lock);
    *stats = o->stats;
    pthread_mutex_unlock(&o->lock);
}

uint64_t tr_offload_host_bytes(const struct tr_offload *o)
{
    return o->staging.bytes + tr_homes_bytes(&o->homes);
}

const char *tr_offload_io_name(const struct tr_offload *o)
{
    return o->io_name;
}
