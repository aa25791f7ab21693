/* SPDX-License-Identifier: Apache-2.0
 *
 * A move is one slot's way from the disk or to it. A read is verified piece by piece as the bytes
 * arrive, against the checksums of the commit it stands on; a write is hashed while it is under
 * way, and its checksums are entered into the next commit.
 *
 * Here is the direct way, between the disk and the slot itself; what goes through host memory,
 * since the disk cannot reach the slot or the span has a home there, is in staged.c. Which of the
 * two is settled when a move starts.
 */
#include <string.h>

#include "offload/engine.h"
#include "src/base/err.h"
#include "src/base/hash.h"
#include "src/base/mem.h"

static uint64_t chunks_of_pool(const struct tr_slot_pool *p)
{
    return p->n_slots * tr_queue_chunks(p->slot_bytes);
}

int tr_moves_open(struct tr_offload *o)
{
    uint64_t chunks = 0;

    for (uint32_t i = 0; i < o->n_pools; i++)
        chunks += chunks_of_pool(&o->pools[i]);
    o->n_moves = o->slots.n + (o->homes.n ? o->layout.n_spans : 0);
    o->moves = tr_alloc_array(TR_MEM_MISC, o->n_moves, sizeof(*o->moves));
    o->arrived = tr_alloc_array(TR_MEM_MISC, chunks, sizeof(*o->arrived));
    if (!o->moves || !o->arrived)
        return -ENOMEM;
    chunks = 0;
    for (uint32_t i = 0; i < o->slots.n; i++) {
        o->moves[i].o = o;
        o->moves[i].slot = i;
        o->moves[i].transfer.arrived = o->arrived + chunks;
        chunks += tr_queue_chunks(o->pools[o->slots.slot[i].pool].slot_bytes);
    }
    for (uint32_t i = 0; i < o->n_moves && (o->opaque || o->homes.n); i++) {
        o->moves[i].o = o;
        o->moves[i].state = XXH3_createState();
        if (!o->moves[i].state)
            return tr_error(-ENOMEM, "out of memory for checksums");
        tr_mem_count(TR_MEM_MISC, TR_HASH_BYTES);
    }
    return 0;
}

void tr_moves_close(struct tr_offload *o)
{
    for (uint32_t i = 0; o->moves && i < o->n_moves; i++) {
        tr_mem_count(TR_MEM_MISC, o->moves[i].state ? -(int64_t)TR_HASH_BYTES : 0);
        XXH3_freeState(o->moves[i].state);
    }
    tr_free(TR_MEM_MISC, o->moves);
    tr_free(TR_MEM_MISC, o->arrived);
}

static void transferred(struct tr_transfer *t)
{
    ((struct tr_move *)t)->transferred = 1;
}

static struct tr_move **list_of(struct tr_offload *o, const struct tr_move *m)
{
    return m->transfer.op == TR_IO_READ ? &o->reading : &o->writing;
}

static enum tr_file file_of(const struct tr_offload *o, enum tr_io_op op, uint32_t span)
{
    if (tr_is_scratch(o, span))
        return TR_FILE_SCRATCH;
    return op == TR_IO_READ ? o->store->next.generation[span] : tr_store_target(o->store, span);
}

/* The last of its list. */
static void begin(struct tr_move *m, enum tr_io_op op, uint32_t span, uint64_t epoch)
{
    struct tr_offload *o = m->o;
    const struct tr_span *s = &o->layout.spans[span];
    struct tr_move **last;

    m->span = span;
    m->epoch = epoch;
    m->piece = s->first_piece;
    m->transferred = 0;
    m->next = NULL;
    m->transfer.op = op;
    m->transfer.file = file_of(o, op, span);
    m->transfer.offset = s->offset;
    m->transfer.bytes = s->bytes;
    m->transfer.done = transferred;
    for (last = list_of(o, m); *last; last = &(*last)->next)
        ;
    *last = m;
}

void tr_move_start(struct tr_offload *o, enum tr_io_op op, uint32_t slot)
{
    uint32_t span = o->slots.slot[slot].span;
    struct tr_home *home = tr_home_of(&o->homes, span);
    struct tr_move *m = &o->moves[op == TR_IO_WRITE && home ? o->slots.n + span : slot];

    m->slot = slot;
    m->transfer.buf = o->slots.slot[slot].base;
    begin(m, op, span, o->slots.slot[slot].epoch);
    if (home || (o->opaque && !o->pools[o->slots.slot[slot].pool].host)) {
        tr_staged_start(m, home);
        return;
    }
    m->pool = NULL;
    m->home = NULL;
    m->from_home = m->slot_free = 0;
    tr_queue_add(o->queue, &m->transfer);
}

void tr_move_start_home(struct tr_offload *o, uint32_t span, uint64_t epoch)
{
    struct tr_move *m = &o->moves[o->slots.n + span];

    m->slot = TR_NONE;
    begin(m, TR_IO_WRITE, span, epoch);
    tr_staged_start(m, tr_home_of(&o->homes, span));
}

uint32_t tr_move_end_piece(const struct tr_move *m)
{
    const struct tr_span *s = &m->o->layout.spans[m->span];

    return s->first_piece + s->n_pieces;
}

int tr_move_take_hash(const struct tr_move *m, uint32_t piece, uint64_t hash)
{
    struct tr_offload *o = m->o;
    int scratch = tr_is_scratch(o, m->span);

    if (m->transfer.op == TR_IO_WRITE) {
        if (scratch)
            o->scratch_hash[piece - o->first_scratch_piece] = hash;
        else
            o->store->next.hash[piece] = hash;
        return 0;
    }
    return scratch ? tr_scratch_check_hash(o, m->span, piece, hash)
                   : tr_store_check_hash(o->store, &o->store->next, piece, hash);
}

/* Checks one piece if it can be checked; returns its bytes, 0 if not yet. */
static int64_t check_piece(struct tr_move *m)
{
    const struct tr_piece *p = &m->o->layout.pieces[m->piece];
    const char *bytes = m->transfer.buf + p->offset;
    int r;

    if (m->transfer.op == TR_IO_READ && p->offset + p->bytes > m->transfer.prefix)
        return 0;
    r = m->o->unchecked ? 0 : tr_move_take_hash(m, m->piece, XXH3_64bits(bytes, p->bytes));
    if (r < 0)
        return r;
    m->piece++;
    return (int64_t)p->bytes;
}

/* Bytes that have been moved, and in which folders. */
static void count(const struct tr_offload *o, const struct tr_move *m, uint64_t *all,
                  uint64_t by[TR_STORE_FOLDERS])
{
    const struct tr_stripes *s =
        tr_is_scratch(o, m->span) ? o->scratch_stripes : &o->store->stripes;
    uint64_t at = m->transfer.offset, end = at + m->transfer.bytes;

    *all += m->transfer.bytes;
    while (at < end) {
        struct tr_stripe_place p = {.end = end};

        if (s)
            p = tr_stripes_find(s, at);
        p.end = p.end < end ? p.end : end;
        by[p.folder] += p.end - at;
        at = p.end;
    }
}

static void finish_write(struct tr_offload *o, const struct tr_move *m)
{
    if (!m->slot_free)
        tr_slot_written(&o->slots, m->slot);
    if (m->home) {
        m->home->writing = 0;
        m->home->filled = 1;
    }
    if (tr_is_scratch(o, m->span)) {
        o->saving--;
        o->stats.saves++;
        o->stats.spilled_bytes += m->transfer.bytes;
        if (!m->home)
            count(o, m, &o->stats.written_bytes, o->stats.written_by);
        return;
    }
    o->pending[m->epoch & 1]--;
    if (m->diskless) {
        m->home->dirty = 1;
        return;
    }
    o->store->next.generation[m->span] = (uint8_t)m->transfer.file;
    o->store->touched[m->transfer.file] = 1;
    o->stats.writes++;
    count(o, m, &o->stats.written_bytes, o->stats.written_by);
}

static void finish_read(struct tr_offload *o, const struct tr_move *m)
{
    tr_slot_loaded(&o->slots, m->slot);
    if (m->home)
        m->home->filled = 1;
    if (tr_is_scratch(o, m->span))
        o->stats.restores++;
    else
        o->stats.loads++;
    if (m->from_home && !tr_is_scratch(o, m->span))
        o->stats.host_loads++;
    else if (!m->from_home)
        count(o, m, &o->stats.read_bytes, o->stats.read_by);
}

void tr_move_finish(struct tr_move *m, int error)
{
    struct tr_offload *o = m->o;
    struct tr_move **at = list_of(o, m);

    while (*at != m)
        at = &(*at)->next;
    *at = m->next;
    pthread_mutex_lock(&o->lock);
    if (error) {
        tr_slot_fail(&o->slots, m->slot);
        tr_engine_fail(o, error);
    } else if (m->transfer.op == TR_IO_WRITE) {
        finish_write(o, m);
    } else {
        finish_read(o, m);
    }
    o->kicked = 1;
    pthread_cond_broadcast(&o->changed);
    pthread_mutex_unlock(&o->lock);
}

/* The piece in which a transfer failed: the last that begins at or before the place. */
int tr_move_error(const struct tr_move *m, const struct tr_transfer *t)
{
    const struct tr_layout *l = &m->o->layout;
    uint64_t at = t->error_offset - m->transfer.offset;
    uint32_t piece = l->spans[m->span].first_piece;
    char text[512];

    while (piece + 1 < tr_move_end_piece(m) && l->pieces[piece + 1].offset <= at)
        piece++;
    tr_layout_describe(l, piece, text, sizeof(text));
    return tr_error_prefix(tr_store_transfer_error(m->o->store, t), "%s", text);
}

/* 1: something was done. A move may be gone afterwards. */
static int work_on(struct tr_move *m)
{
    uint64_t checked = 0;
    int64_t n = 0;

    if (m->transfer.error) {
        if (m->transferred)
            tr_move_finish(m, tr_move_error(m, &m->transfer));
        return m->transferred;
    }
    while (m->piece < tr_move_end_piece(m) && checked < TR_CHECK_BYTES && (n = check_piece(m)) > 0)
        checked += (uint64_t)n;
    if (n < 0 && m->transferred) {
        tr_move_finish(m, (int)n);
        return 1;
    }
    if (m->piece == tr_move_end_piece(m) && m->transferred) {
        tr_move_finish(m, 0);
        return 1;
    }
    return checked > 0;
}

/* Reads first: somebody may be waiting for them. */
int tr_moves_check(struct tr_offload *o)
{
    int did = tr_staged_advance(o);
    struct tr_move *lists[] = {o->reading, o->writing};

    for (int i = 0; i < 2; i++)
        for (struct tr_move *m = lists[i]; m; m = m->next)
            if (m->pool ? tr_staged_work(m) : work_on(m))
                return 1;
    return did;
}

/* What is staged stands still after an error, so the direct ways alone have an end to wait for. */
int tr_moves_under_way(const struct tr_offload *o)
{
    const struct tr_move *lists[] = {o->reading, o->writing};

    for (int i = 0; i < 2; i++)
        for (const struct tr_move *m = lists[i]; m; m = m->next)
            if (!m->pool || !o->error)
                return 1;
    return tr_queue_under_way(o->queue) > 0;
}
