/* SPDX-License-Identifier: Apache-2.0
 *
 * The staged way of a move: through host memory, chunk by chunk (the picture is in staging.h), with
 * copies on the device's two copy streams. Many chunks are on the way at the same time, of one move
 * and of several; only the checksums of one move go in order.
 *
 * When a copy has passed, the device's thread puts its chunk on a list; the I/O thread takes it
 * from there, asks the device whether it had an error, and only then believes the copy: a load is
 * not ready, a write-back not written, before that. So no commit names bytes of a copy that failed.
 *
 * After an error everything staged stands still where it is: nobody waits for it any more but
 * close, which waits for the disk and for the streams.
 */
#include "offload/engine.h"
#include "src/base/err.h"
#include "src/base/hash.h"

void tr_staged_start(struct tr_move *m, struct tr_home *home)
{
    struct tr_offload *o = m->o;

    m->pool = home ? &o->parts : &o->staging;
    m->home = home;
    m->slot_free = m->slot == TR_NONE;
    m->from_home = m->slot_free || (home && m->transfer.op == TR_IO_READ &&
                                    (home->filled || tr_is_scratch(o, m->span)));
    m->diskless = home && !m->slot_free &&
                  (tr_is_scratch(o, m->span) || (o->lazy && m->transfer.op == TR_IO_WRITE));
    m->chunks = NULL;
    m->given = m->hashed = m->copied = m->done = 0;
    if (home && m->transfer.op == TR_IO_WRITE) {
        home->writing = 1;
        home->dirty = 0;
    }
}

static void fail(struct tr_offload *o, int error)
{
    o->failing = 1;
    pthread_mutex_lock(&o->lock);
    tr_engine_fail(o, error);
    pthread_mutex_unlock(&o->lock);
}

/* ---- the steps of a chunk ---- */

/* On the device's thread. */
static void copy_passed(void *arg)
{
    struct tr_chunk *c = arg;
    struct tr_offload *o = c->o;

    pthread_mutex_lock(&o->lock);
    c->next_copied = o->copied;
    o->copied = c;
    tr_engine_called(o);
}

static void copy(struct tr_chunk *c)
{
    const struct tr_move *m = c->move;
    struct tr_offload *o = m->o;
    struct tr_device *d = o->device;
    int in = m->transfer.op == TR_IO_READ;
    enum tr_stream stream = in ? TR_STREAM_IN : TR_STREAM_OUT;
    char *at = m->transfer.buf + c->offset; /* in the slot */
    int r = in ? d->ops->copy_in(d, stream, at, c->buf, c->bytes)
               : d->ops->copy_out(d, stream, c->buf, at, c->bytes);

    if (r == 0) {
        pthread_mutex_lock(&o->lock);
        o->calls++;
        pthread_mutex_unlock(&o->lock);
        r = d->ops->call(d, stream, copy_passed, c);
        if (r < 0) {
            pthread_mutex_lock(&o->lock);
            o->calls--;
            pthread_mutex_unlock(&o->lock);
        }
    }
    if (r < 0)
        fail(o, r);
}

static void transferred(struct tr_transfer *t)
{
    struct tr_chunk *c = (struct tr_chunk *)t;

    c->transferred = 1;
    if (t->error)
        fail(c->o, tr_move_error(c->move, t));
}

static void transfer(struct tr_chunk *c)
{
    const struct tr_move *m = c->move;

    c->transfer = (struct tr_transfer){.op = m->transfer.op,
                                       .file = m->transfer.file,
                                       .buf = c->buf,
                                       .offset = m->transfer.offset + c->offset,
                                       .bytes = c->bytes,
                                       .done = transferred};
    tr_queue_add(m->o->queue, &c->transfer);
}

/* The piece at `hashed` is complete. */
static int end_piece(struct tr_move *m)
{
    return tr_move_take_hash(m, m->piece++, XXH3_64bits_digest(m->state));
}

/* Goes on with the checksums at m->hashed, in this chunk, up to `end` of the span. */
static int hash_until(struct tr_move *m, const struct tr_chunk *c, uint64_t end)
{
    int r = 0;

    while (m->piece < tr_move_end_piece(m) && r == 0) {
        const struct tr_piece *p = &m->o->layout.pieces[m->piece];
        uint64_t piece_end = p->offset + p->bytes, stop = piece_end < end ? piece_end : end;

        if (p->offset >= end)
            break;
        if (m->hashed <= p->offset) {
            m->hashed = p->offset;
            XXH3_64bits_reset(m->state);
        }
        XXH3_64bits_update(m->state, c->buf + (m->hashed - c->offset), stop - m->hashed);
        m->hashed = stop;
        if (stop < piece_end)
            break;
        r = end_piece(m);
    }
    if (r == 0)
        m->hashed = end; /* and the gap behind the last piece */
    return r;
}

/* Some of the checksums of a chunk whose bytes are there. */
static void hash(struct tr_chunk *c)
{
    struct tr_move *m = c->move;
    uint64_t end = c->offset + c->bytes;
    int r;

    if (end > m->hashed + TR_CHECK_BYTES)
        end = m->hashed + TR_CHECK_BYTES;
    r = hash_until(m, c, end);
    c->hashed = end == c->offset + c->bytes;
    if (r < 0)
        fail(m->o, r);
    else if (c->hashed && m->transfer.op == TR_IO_READ)
        copy(c);
}

/* ---- handing out and taking back ---- */

static void begin(struct tr_move *m, struct tr_chunk *c)
{
    struct tr_chunk **last = &m->chunks;
    uint64_t left = m->transfer.bytes - m->given;

    c->o = m->o;
    c->move = m;
    c->offset = m->given;
    c->bytes = left < m->pool->chunk_bytes ? left : m->pool->chunk_bytes;
    c->buf = m->home ? m->home->base + c->offset : c->memory;
    m->given += c->bytes;
    while (*last)
        last = &(*last)->next;
    *last = c;
    c->copied = m->slot_free; /* a home that goes to the disk */
    if (c->copied || (m->transfer.op == TR_IO_READ && !m->from_home)) {
        transfer(c);
    } else {
        c->hashed = m->from_home || m->diskless; /* memory is believed */
        copy(c);
    }
}

static struct tr_move *first_wanting(struct tr_move *m, const struct tr_chunk_pool *pool)
{
    while (m && (m->pool != pool || m->given == m->transfer.bytes))
        m = m->next;
    return m;
}

static int hand_out(struct tr_offload *o, struct tr_chunk_pool *pool)
{
    int did = 0;

    while (!o->failing && pool->free) {
        struct tr_move *r = first_wanting(o->reading, pool), *w = first_wanting(o->writing, pool);
        struct tr_move *m = w && (!r || pool->last == TR_IO_READ) ? w : r;
        int error = m && m->home ? tr_home_need(&o->homes, m->span) : 0;

        if (!m)
            break;
        if (error < 0)
            fail(o, error);
        else
            begin(m, tr_chunk_take(pool, m->transfer.op));
        did = 1;
    }
    return did;
}

/* The chunk's way is over; with the last one, that of its move. */
static void finish_chunk(struct tr_chunk *c)
{
    struct tr_move *m = c->move;
    struct tr_chunk **at = &m->chunks;

    while (*at != c)
        at = &(*at)->next;
    *at = c->next;
    m->done += c->bytes;
    tr_chunk_give(m->pool, c);
    if (m->done == m->transfer.bytes)
        tr_move_finish(m, 0);
}

/* All of a changed span is in its home: what remains does not need the slot, and who reads the span
 * must not go to the disk for it, also where it was made afresh and never read before. */
static void free_slot(struct tr_move *m)
{
    struct tr_offload *o = m->o;

    m->slot_free = 1;
    pthread_mutex_lock(&o->lock);
    tr_slot_written(&o->slots, m->slot);
    m->home->filled = 1;
    o->kicked = 1;
    pthread_cond_broadcast(&o->changed);
    pthread_mutex_unlock(&o->lock);
}

static void copied(struct tr_chunk *c)
{
    struct tr_move *m = c->move;

    c->copied = 1;
    if (m->transfer.op == TR_IO_READ || m->diskless) {
        finish_chunk(c);
        return;
    }
    m->copied += c->bytes;
    if (m->home && m->copied == m->transfer.bytes)
        free_slot(m);
    transfer(c);
}

static struct tr_chunk *take_copied(struct tr_offload *o)
{
    struct tr_chunk *list;

    pthread_mutex_lock(&o->lock);
    list = o->copied;
    o->copied = NULL;
    o->failing = o->error != 0;
    for (const struct tr_chunk *c = list; c; c = c->next_copied) {
        if (c->move->transfer.op == TR_IO_READ)
            o->stats.copied_in_bytes += c->bytes;
        else
            o->stats.copied_out_bytes += c->bytes;
    }
    pthread_mutex_unlock(&o->lock);
    return list;
}

int tr_staged_advance(struct tr_offload *o)
{
    struct tr_chunk *list, *next;
    int did = 0;

    if (!o->opaque && !o->homes.n)
        return 0;
    list = take_copied(o);
    if (list && !o->failing) {
        int r = o->device->ops->error(o->device);

        if (r < 0) {
            fail(o, r);
            did = 1; /* close may be waiting for the thread: it must not sleep over this */
        }
    }
    for (; list && !o->failing; list = next, did = 1) {
        next = list->next_copied;
        copied(list);
    }
    return hand_out(o, &o->staging) | hand_out(o, &o->parts) | did;
}

int tr_staged_work(struct tr_move *m)
{
    int in = m->transfer.op == TR_IO_READ;

    if (m->o->failing)
        return 0;
    for (struct tr_chunk *c = m->chunks; c; c = c->next) {
        if (!c->hashed) {
            if (!(in ? c->transferred : c->copied))
                return 0;
            hash(c);
            return 1;
        }
        if (!in && c->transferred) {
            finish_chunk(c);
            return 1;
        }
    }
    return 0;
}
