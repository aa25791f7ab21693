/* SPDX-License-Identifier: Apache-2.0
 *
 * Opening and closing the engine. Opening checks that store, slots and device fit together and
 * makes all that the engine needs but the homes. Closing waits for what is under way; after an
 * error of the device it gives up what cannot be waited for.
 */
#include <stdio.h>
#include <string.h>

#include "offload/engine.h"
#include "src/base/clock.h"
#include "src/base/err.h"
#include "src/base/mem.h"
#include "src/base/thread.h"

#define WORKERS 8 /* of the threads engine: enough blocking requests to fill a drive */

static int check_pools(const struct tr_offload_params *p, const struct tr_layout *l)
{
    for (uint32_t i = 0; i < p->n_pools; i++)
        if ((uintptr_t)p->pools[i].base % TR_STORE_ALIGN || p->pools[i].slot_bytes % TR_STORE_ALIGN)
            return tr_error(-EINVAL, "slot pool %u is not aligned to %u bytes", i, TR_STORE_ALIGN);
    for (uint32_t i = 0; i < p->n_pools; i++)
        if (p->pools[i].shares > p->n_pools ||
            (p->pools[i].shares && p->pools[p->pools[i].shares - 1].shares))
            return tr_error(-EINVAL, "slot pool %u shares slots of a pool that has none", i);
    for (uint32_t i = 0; i < l->n_spans; i++) {
        const struct tr_span *s = &l->spans[i];
        const struct tr_slot_pool *pool = s->pool < p->n_pools ? &p->pools[s->pool] : NULL;

        if (pool && pool->shares)
            pool = &p->pools[pool->shares - 1];
        if (pool && s->bytes > pool->slot_bytes)
            return tr_error(-EINVAL,
                            "span %u (record %s) has %llu bytes, a slot of pool %u has %llu", i,
                            l->segments[s->segment].record, (unsigned long long)s->bytes, s->pool,
                            (unsigned long long)pool->slot_bytes);
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
    return 0;
}

/* What disk I/O goes to and from: the staging memory, and the slots that it reaches. Homes come and
 * are too large to be registered one by one. */
static uint32_t find_regions(const struct tr_offload *o, struct tr_io_region *regions)
{
    uint32_t n = 0;

    if (o->staging.memory)
        regions[n++] = (struct tr_io_region){o->staging.memory, o->staging.bytes};
    for (uint32_t i = 0; i < o->n_pools; i++) {
        const struct tr_slot_pool *p = &o->pools[i];

        if ((p->host || !o->opaque) && p->n_slots)
            regions[n++] = (struct tr_io_region){p->base, p->slot_bytes * p->n_slots};
    }
    return n;
}

static void describe(struct tr_offload *o)
{
    size_t n;

    o->io->ops->describe(o->io, o->io_name, sizeof(o->io_name));
    n = strlen(o->io_name);
    if (o->io->refused[0])
        snprintf(o->io_name + n, sizeof(o->io_name) - n, "; %s", o->io->refused);
}

static int open_io(struct tr_offload *o, enum tr_io_kind kind)
{
    struct tr_io_region *regions =
        tr_alloc_array(TR_MEM_MISC, o->n_pools + 1, sizeof(struct tr_io_region));
    struct tr_io_params p = {.files = o->store->file,
                             .n_folders = tr_store_folders(o->store),
                             .regions = regions,
                             .depth = TR_IO_DEPTH,
                             .workers = WORKERS};
    int r;

    if (!regions)
        return -ENOMEM;
    p.n_regions = find_regions(o, regions);
    tr_store_close_queue(o->store);
    r = tr_io_open(&o->io, kind, &p);
    if (r == 0)
        describe(o);
    if (r == 0 && o->store->hook.wrap)
        r = o->store->hook.wrap(o->store->hook.arg, &o->io);
    tr_free(TR_MEM_MISC, regions);
    if (r < 0)
        return r;
    r = tr_queue_open(&o->queue, o->io, TR_IO_DEPTH, &o->store->stripes);
    if (r < 0)
        o->io->ops->close(o->io);
    else
        tr_queue_stripe_scratch(o->queue, o->scratch_stripes);
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
    tr_homes_free(&o->homes);
    tr_scratch_close(o);
    tr_slots_close(&o->slots);
    tr_schedule_free(&o->schedule);
    tr_free(TR_MEM_MISC, o->pools);
    tr_free(TR_MEM_MISC, o->dirty.slot);
    tr_free(TR_MEM_MISC, o->saves.slot);
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
    int r = tr_homes_open(&o->homes, p->device, &o->layout, p->in_host);

    p->device->ops->info(p->device, &info);
    o->opaque = !info.host_visible;
    if (r == 0 && o->opaque && o->homes.n < o->layout.n_spans)
        r = tr_chunks_open(&o->staging, p->device, bytes, chunk);
    if (r == 0 && o->homes.n)
        r = tr_chunks_open(&o->parts, p->device, 0, TR_HOME_PART_CHUNKS * chunk);
    return r;
}

static int alloc_engine(struct tr_offload *o, const struct tr_offload_params *p)
{
    int r;

    o->store = p->store;
    o->device = p->device;
    o->n_pools = p->n_pools;
    o->serial = p->serial;
    o->lazy = p->durability != TR_DURABLE_STEP;
    o->prefetch = p->prefetch ? p->prefetch : UINT32_MAX;
    if (p->serial)
        o->prefetch = 0;
    o->pools = tr_alloc_array(TR_MEM_MISC, p->n_pools, sizeof(*o->pools));
    if (!o->pools)
        return -ENOMEM;
    memcpy(o->pools, p->pools, p->n_pools * sizeof(*o->pools));
    r = tr_slots_open(&o->slots, o->pools, o->n_pools, o->store->layout.n_spans + p->n_scratch);
    o->slots.first_scratch = o->store->layout.n_spans;
    if (r < 0 || (r = tr_scratch_open(o, p)) < 0 || (r = check_pools(p, &o->layout)) < 0)
        return r;
    o->dirty.slot = tr_alloc_array(TR_MEM_MISC, o->slots.n, sizeof(*o->dirty.slot));
    o->saves.slot = tr_alloc_array(TR_MEM_MISC, o->slots.n, sizeof(*o->saves.slot));
    if (!o->dirty.slot || !o->saves.slot)
        return -ENOMEM;
    r = alloc_host(o, p);
    return r < 0 ? r : tr_moves_open(o);
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
    pthread_mutex_init(&o->lock, NULL);
    tr_cond_init(&o->changed);
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
        tr_engine_wait(o);
    o->stop = 1;
    tr_engine_kick(o);
    while (!o->ended)
        tr_engine_wait(o);
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
