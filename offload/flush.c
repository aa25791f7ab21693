/* SPDX-License-Identifier: Apache-2.0
 *
 * The commit in the background. Its order is the whole of invariants 2 and 3:
 *
 *   (a) every write-back of the epoch is finished, and what it has left in homes (not every step
 *       being durable) is written;
 *   (b) the generation files written to are synced;
 *   (c) the commit record is written over the older of the two;
 *   (d) the record is synced: now, and not before, the commit is durable, and the generation that
 *       it no longer names may be overwritten.
 *
 * A sync that failed is never tried again: the kernel may have dropped what it could not write. The
 * engine stops, the record is not written, and the store stays at the commit before.
 *
 * A store with one generation is marked open the same way ((c) and (d) alone, with the flag set)
 * before the first change in place. A commit may have been asked for by then: it waits for the very
 * writes that wait for the mark, and goes on behind it.
 */
#include <string.h>

#include "offload/engine.h"

int tr_flush_gates(const struct tr_offload *o, uint64_t epoch)
{
    return o->flush.state != TR_FLUSH_IDLE && (o->flush.mark || epoch > o->flush.epoch);
}

static void run(struct tr_offload *o, enum tr_flush_state state, enum tr_io_op op,
                enum tr_file file);

static void enter_record(struct tr_offload *o)
{
    struct tr_commit *next = &o->store->next;

    if (!o->flush.mark) {
        memcpy(next->payload, o->flush.payload, sizeof(next->payload));
        next->payload_bytes = o->flush.payload_bytes;
    }
    o->flush.file = tr_store_pack(o->store, o->flush.mark ? TR_COMMIT_OPEN : 0);
    run(o, TR_FLUSH_RECORD, TR_IO_WRITE, o->flush.file);
}

static void enter_idle(struct tr_offload *o)
{
    tr_store_settle(o->store);
    o->stats.commits += !o->flush.mark;
    o->flush.state = o->flush.mark && o->flush.held ? TR_FLUSH_WRITES : TR_FLUSH_IDLE;
    o->flush.mark = o->flush.held = 0;
    o->kicked = 1;
    pthread_cond_broadcast(&o->changed);
}

static void transferred(struct tr_transfer *t)
{
    struct tr_offload *o = t->owner;

    pthread_mutex_lock(&o->lock);
    if (t->error)
        tr_engine_fail(o, tr_store_transfer_error(o->store, t));
    o->flush.under_way--;
    if (!o->error && !o->flush.under_way) {
        if (o->flush.state == TR_FLUSH_DATA)
            enter_record(o);
        else if (o->flush.state == TR_FLUSH_RECORD)
            run(o, TR_FLUSH_SYNC, TR_IO_SYNC, o->flush.file);
        else
            enter_idle(o);
    }
    pthread_mutex_unlock(&o->lock);
}

static void run(struct tr_offload *o, enum tr_flush_state state, enum tr_io_op op,
                enum tr_file file)
{
    struct tr_transfer *t = &o->flush.transfer[o->flush.under_way++];

    *t = (struct tr_transfer){.op = op, .file = file, .done = transferred, .owner = o};
    if (op == TR_IO_WRITE) {
        t->buf = o->store->record;
        t->bytes = o->store->record_bytes;
    }
    o->flush.state = state;
    tr_queue_add(o->queue, t);
}

void tr_flush_mark(struct tr_offload *o)
{
    if (o->flush.state != TR_FLUSH_IDLE && o->flush.state != TR_FLUSH_WRITES)
        return;
    o->flush.held = o->flush.state == TR_FLUSH_WRITES;
    o->flush.mark = 1;
    enter_record(o);
}

/* Writes all dirty homes; how many. No later change can reach them: it waits for this commit. */
static uint32_t write_homes(struct tr_offload *o)
{
    uint32_t n = 0;

    for (uint32_t i = 0; o->homes.n && i < o->store->layout.n_spans; i++)
        if (tr_home_is_dirty(&o->homes, i)) {
            tr_move_start_home(o, i, o->flush.epoch);
            n++;
        }
    o->pending[o->flush.epoch & 1] += n;
    return n;
}

void tr_flush_advance(struct tr_offload *o)
{
    if (o->flush.state != TR_FLUSH_WRITES || o->pending[o->flush.epoch & 1] || write_homes(o))
        return;
    for (int i = 0; i < 2; i++) {
        if (!o->store->touched[i])
            continue;
        o->store->touched[i] = 0;
        run(o, TR_FLUSH_DATA, TR_IO_SYNC, (enum tr_file)i);
    }
    if (o->flush.state == TR_FLUSH_WRITES)
        enter_record(o);
}
