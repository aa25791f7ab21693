/* SPDX-License-Identifier: Apache-2.0
 *
 * The synchronous way into a store: one piece, one commit at a time, on the caller's thread.
 * Import, export, inspect and verify use it; training does not.
 */
#include <stdio.h>
#include <string.h>

#include "offload/store_private.h"
#include "src/base/err.h"
#include "src/base/hash.h"
#include "src/base/mem.h"

#define DEPTH   16u /* a piece is at most 16 requests */
#define WORKERS 4

static int open_queue(struct tr_store *s)
{
    struct tr_io_params p = {
        .files = s->file, .n_folders = tr_store_folders(s), .depth = DEPTH, .workers = WORKERS};
    struct tr_io *io;
    int r = tr_io_open(&io, TR_IO_AUTO, &p);

    if (r == 0 && s->hook.wrap)
        r = s->hook.wrap(s->hook.arg, &io);
    if (r < 0)
        return r;
    r = tr_queue_open(&s->queue, io, DEPTH, &s->stripes);
    if (r < 0)
        io->ops->close(io);
    return r;
}

/* A failed write or sync leaves the files in an unknown state, and the kernel tells it only once.
 * One that was interrupted is an I/O error, too: -EINTR is what an import returns that its caller
 * has stopped. */
int tr_store_transfer_error(struct tr_store *s, const struct tr_transfer *t)
{
    static const char *const what[TR_IO_OPS] = {"cannot read", "cannot write", "cannot sync"};
    const char *path = s->file[t->error_file].path;
    unsigned long long at = t->error_at;
    int error = t->error == -EINTR ? -EIO : t->error;

    if (t->op != TR_IO_READ && t->file != TR_FILE_SCRATCH)
        s->failed = error;
    if (t->op == TR_IO_READ && t->error == -ENODATA)
        return tr_error(t->error, "%s: truncated: nothing to read at byte %llu", path, at);
    if (t->op == TR_IO_SYNC)
        return tr_error(error, "%s: cannot sync: %s", path, strerror(-t->error));
    return tr_error(error, "%s: %s at byte %llu: %s", path, what[t->op], at, strerror(-t->error));
}

/* The table of I/O has broken down: the transfer has no error of its own, and no end, so the queue
 * is closed, which waits for it, before its memory is anybody else's. */
static int broken(struct tr_store *s, const struct tr_transfer *t, int error)
{
    if (t->op != TR_IO_READ)
        s->failed = error;
    tr_store_close_queue(s);
    return tr_error_prefix(error, "%s", s->folder);
}

int tr_store_transfer(struct tr_store *s, struct tr_transfer *t)
{
    int r = s->queue ? 0 : open_queue(s);

    if (r < 0)
        return r;
    r = tr_queue_run(s->queue, t);
    if (r < 0 && (!t->error || tr_queue_under_way(s->queue)))
        return broken(s, t, r);
    return r < 0 ? tr_store_transfer_error(s, t) : 0;
}

int tr_store_check_piece(const struct tr_store *s, const struct tr_commit *c, uint32_t piece,
                         const void *bytes)
{
    return tr_store_check_hash(s, c, piece, XXH3_64bits(bytes, s->layout.pieces[piece].bytes));
}

int tr_store_check_hash(const struct tr_store *s, const struct tr_commit *c, uint32_t piece,
                        uint64_t hash)
{
    const struct tr_piece *p = &s->layout.pieces[piece];
    uint32_t span = tr_layout_span_of(&s->layout, piece);
    struct tr_stripe_place at =
        tr_stripes_find(&s->stripes, s->layout.spans[span].offset + p->offset);
    char text[512];

    if (hash == c->hash[piece])
        return 0;
    tr_layout_describe(&s->layout, piece, text, sizeof(text));
    return tr_error(-EBADMSG,
                    "%s: %s: damaged%s: at byte %llu, checksum %016llx, the commit says %016llx",
                    s->file[tr_file_in(c->generation[span], at.folder)].path, text,
                    s->folders.n > 1 ? ", or the store's folders are not of the same time" : "",
                    (unsigned long long)at.offset, (unsigned long long)hash,
                    (unsigned long long)c->hash[piece]);
}

static struct tr_transfer piece_transfer(const struct tr_store *s, enum tr_io_op op, uint32_t piece)
{
    const struct tr_piece *p = &s->layout.pieces[piece];
    uint32_t span = tr_layout_span_of(&s->layout, piece);

    return (struct tr_transfer){
        .op = op,
        .file = op == TR_IO_READ ? s->next.generation[span] : tr_store_target(s, span),
        .offset = s->layout.spans[span].offset + p->offset,
        .bytes = tr_round_up(p->bytes, TR_STORE_ALIGN),
    };
}

static int check_args(const struct tr_store *s, uint32_t piece, const void *buf)
{
    if (piece >= s->layout.n_pieces)
        return tr_error(-EINVAL, "%s: no piece %u", s->folder, piece);
    if ((uintptr_t)buf % TR_STORE_ALIGN)
        return tr_error(-EINVAL, "%s: the buffer of a piece must be page-aligned", s->folder);
    return 0;
}

int tr_store_read_piece(struct tr_store *s, uint32_t piece, void *buf)
{
    struct tr_transfer t;
    char text[512];
    int r = check_args(s, piece, buf);

    if (r < 0)
        return r;
    tr_layout_describe(&s->layout, piece, text, sizeof(text));
    if (!s->durable.sequence && !s->fresh[piece])
        return tr_error(-ENODATA, "%s: %s: never written", s->folder, text);
    t = piece_transfer(s, TR_IO_READ, piece);
    t.buf = buf;
    r = tr_store_transfer(s, &t);
    if (r < 0)
        return tr_error_prefix(r, "%s", text);
    return tr_store_check_piece(s, &s->next, piece, buf);
}

static int check_writable(const struct tr_store *s)
{
    if (s->mode != TR_STORE_WRITE)
        return tr_error(-EROFS, "%s: opened for reading only", s->folder);
    if (s->failed)
        return tr_error(s->failed,
                        "%s: an earlier write or sync failed (%s): nothing more is written",
                        s->folder, strerror(-s->failed));
    return 0;
}

enum tr_file tr_store_pack(struct tr_store *s, uint32_t flags)
{
    s->next.sequence = s->durable.sequence + 1;
    s->next.flags = flags;
    tr_commit_pack(&s->shape, &s->next, s->record);
    return TR_FILE_COMMIT0 + (enum tr_file)tr_commit_slot(s->next.sequence);
}

void tr_store_settle(struct tr_store *s)
{
    tr_commit_copy(&s->durable, &s->next, &s->shape);
    memset(s->fresh, 0, s->layout.n_pieces);
}

int tr_store_put_record(struct tr_store *s, enum tr_file file)
{
    struct tr_transfer t = {
        .op = TR_IO_WRITE, .file = file, .buf = s->record, .bytes = s->record_bytes};
    struct tr_transfer sync = {.op = TR_IO_SYNC, .file = file};
    int r = tr_store_transfer(s, &t);

    return r < 0 ? r : tr_store_transfer(s, &sync);
}

static int write_record(struct tr_store *s, uint32_t flags)
{
    int r = tr_store_put_record(s, tr_store_pack(s, flags));

    if (r == 0)
        tr_store_settle(s);
    return r;
}

static void enter_piece(struct tr_store *s, uint32_t piece, uint8_t generation, const void *buf)
{
    s->next.generation[tr_layout_span_of(&s->layout, piece)] = generation;
    s->next.hash[piece] = XXH3_64bits(buf, s->layout.pieces[piece].bytes);
    s->fresh[piece] = 1;
    s->touched[generation] = 1;
}

int tr_store_leave_piece(struct tr_store *s, uint32_t piece, const void *zeros)
{
    int r = check_args(s, piece, zeros);

    if (r == 0)
        r = check_writable(s);
    if (r == 0 && (s->durable.sequence || s->fresh[piece]))
        r = tr_error(-EINVAL, "%s: piece %u is not as it was made", s->folder, piece);
    if (r == 0)
        enter_piece(s, piece, tr_store_target(s, tr_layout_span_of(&s->layout, piece)), zeros);
    return r;
}

int tr_store_write_piece(struct tr_store *s, uint32_t piece, const void *buf)
{
    struct tr_transfer t;
    char text[512];
    int r = check_args(s, piece, buf);

    if (r == 0)
        r = check_writable(s);
    if (r == 0 && tr_store_needs_mark(s))
        r = write_record(s, TR_COMMIT_OPEN);
    if (r < 0)
        return r;
    t = piece_transfer(s, TR_IO_WRITE, piece);
    t.buf = (char *)(uintptr_t)buf; /* a write only reads it */
    r = tr_store_transfer(s, &t);
    if (r < 0) {
        tr_layout_describe(&s->layout, piece, text, sizeof(text));
        return tr_error_prefix(r, "%s", text);
    }
    enter_piece(s, piece, (uint8_t)t.file, buf);
    return 0;
}

/* A span that changes its generation must be there in full: one piece of it left out would be
 * whatever the other place happened to hold. */
static int check_whole(const struct tr_store *s)
{
    char text[512];

    for (uint32_t i = 0; i < s->layout.n_spans; i++) {
        const struct tr_span *span = &s->layout.spans[i];
        int moved = !s->durable.sequence || s->next.generation[i] != s->durable.generation[i];

        for (uint32_t p = span->first_piece; moved && p < span->first_piece + span->n_pieces; p++) {
            if (s->fresh[p])
                continue;
            tr_layout_describe(&s->layout, p, text, sizeof(text));
            return tr_error(-EINVAL, "%s: %s: not written, no commit", s->folder, text);
        }
    }
    return 0;
}

int tr_store_commit(struct tr_store *s, const void *payload, size_t bytes)
{
    int r = check_writable(s);

    if (r == 0 && bytes > TR_PAYLOAD_BYTES)
        r = tr_error(-EINVAL, "%s: %zu bytes of payload, at most %u", s->folder, bytes,
                     TR_PAYLOAD_BYTES);
    if (r == 0)
        r = check_whole(s);
    for (int i = 0; i < 2 && r == 0; i++) {
        struct tr_transfer sync = {.op = TR_IO_SYNC, .file = (enum tr_file)i};

        if (!s->touched[i])
            continue;
        r = tr_store_transfer(s, &sync);
        s->touched[i] = 0;
    }
    if (r < 0)
        return r;
    memset(s->next.payload, 0, sizeof(s->next.payload));
    memcpy(s->next.payload, payload, bytes);
    s->next.payload_bytes = (uint32_t)bytes;
    return write_record(s, 0);
}
