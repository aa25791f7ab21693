/* SPDX-License-Identifier: Apache-2.0
 *
 * The I/O thread: decides (under the lock), checks pieces, moves bytes, and sleeps in the I/O
 * engine when there is nothing to do. Checksums are done a piece at a time between two turns of the
 * queue, so that the drive has the next requests while the last bytes are looked at.
 */
#include "offload/engine.h"

#include <stdio.h>

#include "src/base/clock.h"
#include "src/base/err.h"
#include "src/base/mem.h"

void tr_engine_kick(struct tr_offload *o)
{
    o->kicked = 1;
    o->io->ops->wake(o->io);
}

void tr_engine_fail(struct tr_offload *o, int error)
{
    if (!o->error) {
        o->error = error;
        snprintf(o->error_text, sizeof(o->error_text), "%s", tr_error_message());
    }
    pthread_cond_broadcast(&o->changed);
}

int tr_engine_error(const struct tr_offload *o)
{
    return o->error ? tr_error(o->error, "%s", o->error_text) : 0;
}

void tr_engine_called(struct tr_offload *o)
{
    int last = --o->calls == 0 && o->closed;

    if (!o->abandoned) {
        tr_engine_kick(o);
        pthread_cond_broadcast(&o->changed);
    }
    pthread_mutex_unlock(&o->lock);
    if (last)
        tr_engine_free(o);
}

void tr_engine_free(struct tr_offload *o)
{
    while (o->free_tickets) {
        struct tr_ticket *t = o->free_tickets;

        o->free_tickets = t->next;
        tr_free(TR_MEM_MISC, t);
    }
    tr_chunks_free(&o->staging);
    tr_chunks_free(&o->parts);
    pthread_cond_destroy(&o->changed);
    pthread_mutex_destroy(&o->lock);
    tr_free(TR_MEM_MISC, o);
}

void tr_engine_wait(struct tr_offload *o)
{
    int r;

    if (tr_cond_wait_for(&o->changed, &o->lock, TR_PATIENCE_NS) == 0 || !o->calls || o->error)
        return;
    pthread_mutex_unlock(&o->lock);
    r = o->device->ops->error(o->device);
    pthread_mutex_lock(&o->lock);
    if (r < 0) {
        tr_engine_fail(o, r);
        tr_engine_kick(o);
    }
}

/* Nothing new begins after an error, or when the engine closes (no commit is under way then). */
static void decide(struct tr_offload *o)
{
    o->kicked = 0;
    if (o->error || o->stop)
        return;
    tr_flush_advance(o);
    tr_writeback_advance(o);
    tr_prefetch_advance(o);
}

static int finished(const struct tr_offload *o)
{
    return o->stop && !tr_moves_under_way(o) && !o->kicked;
}

static int turn(struct tr_offload *o)
{
    int checked = tr_moves_check(o);
    int r = tr_queue_turn(o->queue, !checked);
    struct tr_slow slow;

    if (tr_queue_slow(o->queue, &slow)) {
        pthread_mutex_lock(&o->lock);
        o->slow = slow;
        o->is_slow = 1;
        pthread_mutex_unlock(&o->lock);
    }
    if (r == 0)
        return 0;
    tr_error_prefix(r, "%s", tr_store_folder(o->store));
    pthread_mutex_lock(&o->lock);
    tr_engine_fail(o, r);
    pthread_mutex_unlock(&o->lock);
    return r;
}

void *tr_engine_main(void *arg)
{
    struct tr_offload *o = arg;
    int r = 0, done = 0;

    while (r == 0) {
        pthread_mutex_lock(&o->lock);
        if (o->kicked)
            decide(o);
        done = finished(o);
        pthread_mutex_unlock(&o->lock);
        if (done)
            break;
        r = turn(o);
    }
    pthread_mutex_lock(&o->lock);
    o->ended = 1;
    pthread_cond_broadcast(&o->changed);
    pthread_mutex_unlock(&o->lock);
    return NULL;
}
