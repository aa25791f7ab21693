/* SPDX-License-Identifier: Apache-2.0
 *
 * A transfer lies in the list of its kind until its last request is submitted; a request goes back
 * to the kernel until all its bytes are moved. So a short transfer, an interruption or a momentary
 * lack of something costs one more request and is seen by nobody above. An end of file, or no
 * progress however often it is tried, is an error with the place where it happened.
 */
#include "offload/queue.h"
#include "offload/watch.h"

#include <string.h>

#include "src/base/clock.h"
#include "src/base/err.h"
#include "src/base/mem.h"

/* Interrupted or refused for the moment, or moved less than one block, this often in a row. */
#define MAX_TRIES 100u

struct request {
    struct tr_io_request io; /* first: what reap hands back */
    struct tr_transfer *transfer;
    uint64_t from;  /* in its transfer */
    uint64_t place; /* in its file; io.offset moves on from there */
    uint64_t bytes;
    uint32_t tries;
    struct request *next_free;
};

struct list {
    struct tr_transfer *first, *last;
};

/* What a folder is doing: the bits of reads and writes under way, less one. */
enum { DOES_READ = 1, DOES_WRITE = 2, DOES_BOTH = 3 };

struct folder {
    enum tr_io_op last; /* read or write, whichever was submitted last */
    uint32_t under_way, of[TR_IO_OPS];
    uint64_t bytes; /* finished since the clock was looked at */
    struct tr_watch watch[DOES_BOTH];
};

struct tr_queue {
    struct tr_io *io;
    struct request *requests;
    struct request *free;
    struct list waiting[TR_IO_OPS];
    const struct tr_stripes *stripes, *scratch; /* of generations; of scratch files */
    uint32_t depth, n_folders;
    struct folder folder[TR_STORE_FOLDERS];
    uint32_t under_way;
    uint64_t (*clock)(void);
    uint64_t looked_ns; /* at the clock */
    struct tr_slow slow;
    int is_slow; /* and nobody has asked for it yet */
};

int tr_queue_open(struct tr_queue **out, struct tr_io *io, uint32_t depth,
                  const struct tr_stripes *stripes)
{
    uint32_t n_folders = stripes && stripes->n ? stripes->n_folders : 1;
    struct tr_queue *q = tr_alloc(TR_MEM_MISC, sizeof(*q));
    struct request *requests =
        tr_alloc_array(TR_MEM_MISC, (size_t)depth * n_folders, sizeof(*requests));

    if (!q || !requests) {
        tr_free(TR_MEM_MISC, q);
        tr_free(TR_MEM_MISC, requests);
        return -ENOMEM;
    }
    q->io = io;
    q->requests = requests;
    q->stripes = stripes;
    q->depth = depth;
    q->n_folders = n_folders;
    q->clock = tr_now_ns;
    q->looked_ns = tr_now_ns();
    for (uint32_t i = 0; i < depth * n_folders; i++) {
        requests[i].next_free = q->free;
        q->free = &requests[i];
    }
    *out = q;
    return 0;
}

void tr_queue_stripe_scratch(struct tr_queue *q, const struct tr_stripes *stripes)
{
    q->scratch = stripes;
}

void tr_queue_close(struct tr_queue *q)
{
    if (!q)
        return;
    q->io->ops->close(q->io);
    tr_free(TR_MEM_MISC, q->requests);
    tr_free(TR_MEM_MISC, q);
}

void tr_queue_add(struct tr_queue *q, struct tr_transfer *t)
{
    struct list *l = &q->waiting[t->op];

    t->error = 0;
    t->prefix = t->submitted = 0;
    t->under_way = 0;
    t->next = NULL;
    memset(t->offered, 0, sizeof(t->offered));
    if (t->arrived)
        memset(t->arrived, 0, tr_queue_chunks(t->bytes) * sizeof(*t->arrived));
    if (l->last)
        l->last->next = t;
    else
        l->first = t;
    l->last = t;
}

static void remove_transfer(struct list *l, struct tr_transfer *t)
{
    struct tr_transfer **at = &l->first, *before = NULL;

    while (*at && *at != t) {
        before = *at;
        at = &before->next;
    }
    if (!*at)
        return;
    *at = t->next;
    if (l->last == t)
        l->last = before;
}

/* A request to be: bytes `from` .. `from + bytes` of the transfer, at `place` in the file. */
struct part {
    struct tr_transfer *transfer;
    uint64_t from, bytes, place;
};

/* NULL: all of it is in the first folder. */
static const struct tr_stripes *stripes_of(const struct tr_queue *q, const struct tr_transfer *t)
{
    if (q->n_folders == 1)
        return NULL;
    return t->file == TR_FILE_SCRATCH                 ? q->scratch
           : tr_file_is_generation((uint32_t)t->file) ? q->stripes
                                                      : NULL;
}

/* All that is to be submitted of it; a sync is one request in every folder. */
static uint64_t size_of(const struct tr_queue *q, const struct tr_transfer *t)
{
    if (t->op == TR_IO_SYNC)
        return stripes_of(q, t) ? q->n_folders : 1;
    return t->bytes;
}

/* What this folder has next to do for the transfer: 1, or 0 where there is nothing (left). */
static int next_part(const struct tr_queue *q, struct tr_transfer *t, uint32_t folder,
                     struct part *p)
{
    const struct tr_stripes *stripes = stripes_of(q, t);
    uint64_t from = t->offered[folder], chunk_end;
    struct tr_stripe_place at = {.offset = t->offset + from, .end = UINT64_MAX};

    if (folder && !stripes)
        return 0;
    *p = (struct part){.transfer = t};
    if (t->op == TR_IO_SYNC)
        return !from;
    if (stripes) {
        from = tr_stripes_next(stripes, folder, at.offset, t->offset + t->bytes) - t->offset;
        t->offered[folder] = from;
        at = tr_stripes_find(stripes, t->offset + from);
    }
    if (from == t->bytes)
        return 0;
    chunk_end = (from / TR_IO_CHUNK + 1) * TR_IO_CHUNK;
    p->from = from;
    p->place = at.offset;
    p->bytes = (chunk_end < t->bytes ? chunk_end : t->bytes) - from;
    if (at.end - t->offset - from < p->bytes)
        p->bytes = at.end - t->offset - from;
    return 1;
}

static int first_part(const struct tr_queue *q, enum tr_io_op op, uint32_t folder, struct part *p)
{
    for (struct tr_transfer *t = q->waiting[op].first; t; t = t->next)
        if (next_part(q, t, folder, p))
            return 1;
    return 0;
}

/* What to submit next: syncs first (they are rare, and the commit waits for them), then reads and
 * writes in turn. */
static int choose(const struct tr_queue *q, uint32_t folder, struct part *p)
{
    enum tr_io_op last = q->folder[folder].last;
    enum tr_io_op other = last == TR_IO_READ ? TR_IO_WRITE : TR_IO_READ;

    return first_part(q, TR_IO_SYNC, folder, p) || first_part(q, other, folder, p) ||
           first_part(q, last, folder, p);
}

static void submit(struct tr_queue *q, uint32_t folder, const struct part *p)
{
    struct tr_transfer *t = p->transfer;
    struct request *r = q->free;
    uint64_t step = t->op == TR_IO_SYNC ? 1 : p->bytes;

    q->free = r->next_free;
    r->transfer = t;
    r->from = p->from;
    r->place = p->place;
    r->bytes = p->bytes;
    r->tries = 0;
    r->io.op = t->op;
    r->io.file = tr_file_in(t->file, folder);
    r->io.buf = t->op == TR_IO_SYNC ? NULL : t->buf + p->from;
    r->io.offset = p->place;
    r->io.bytes = p->bytes;
    t->offered[folder] = p->from + step;
    t->submitted += step;
    t->under_way++;
    q->under_way++;
    q->folder[folder].under_way++;
    q->folder[folder].of[t->op]++;
    if (t->op != TR_IO_SYNC)
        q->folder[folder].last = t->op;
    if (t->submitted == size_of(q, t))
        remove_transfer(&q->waiting[t->op], t);
    q->io->ops->submit(q->io, &r->io);
}

/* Takes a result in. 1: the rest (or all of it once more) is to be submitted; 0: the request is at
 * its end; negative: it failed. With O_DIRECT only whole blocks count. */
static int64_t take_result(struct request *r)
{
    int64_t n = r->io.result;

    if (r->io.op == TR_IO_SYNC)
        return n; /* never tried again: the kernel drops what it could not write */
    if (n == -EINTR || n == -EAGAIN)
        return ++r->tries < MAX_TRIES ? 1 : n;
    if (n < 0) /* of a drive ENODATA is a bad sector, here it is the end of the file */
        return n == -ENODATA ? -EIO : n;
    if ((uint64_t)n > r->io.bytes)
        return -EIO;
    if ((uint64_t)n == r->io.bytes)
        return 0;
    if (n == 0)
        return r->io.op == TR_IO_READ ? -ENODATA : -EIO; /* the file ends here */
    n -= n % TR_STORE_ALIGN;
    r->tries = n ? 0 : r->tries + 1;
    if (r->tries >= MAX_TRIES)
        return r->io.op == TR_IO_READ ? -ENODATA : -EIO;
    r->io.buf += n;
    r->io.offset += (uint64_t)n;
    r->io.bytes -= (uint64_t)n;
    return 1;
}

/* Counted in blocks, for where stripes meet a chunk arrives in several requests. */
static void mark_arrived(struct tr_transfer *t, const struct request *r)
{
    uint64_t chunks = tr_queue_chunks(t->bytes), at = t->prefix / TR_IO_CHUNK;

    t->arrived[r->from / TR_IO_CHUNK] += (uint16_t)(r->bytes / TR_STORE_ALIGN);
    while (at < chunks) {
        uint64_t left = t->bytes - at * TR_IO_CHUNK;

        if (t->arrived[at] < (left < TR_IO_CHUNK ? left : TR_IO_CHUNK) / TR_STORE_ALIGN)
            break;
        at++;
    }
    t->prefix = at == chunks ? t->bytes : at * TR_IO_CHUNK;
}

static void note_error(struct tr_queue *q, const struct request *r, int error)
{
    struct tr_transfer *t = r->transfer;

    t->error = error;
    t->error_file = r->io.file;
    t->error_at = r->io.offset;
    t->error_offset = t->offset + r->from + (r->io.offset - r->place);
    remove_transfer(&q->waiting[t->op], t);
}

static void finish(struct tr_queue *q, struct request *r)
{
    struct folder *folder = &q->folder[tr_file_folder(r->io.file)];
    struct tr_transfer *t = r->transfer;
    int64_t result = take_result(r);
    int all;

    if (result > 0) {
        q->io->ops->submit(q->io, &r->io);
        return;
    }
    r->next_free = q->free;
    q->free = r;
    q->under_way--;
    folder->under_way--;
    folder->of[t->op]--;
    folder->bytes += result == 0 ? r->bytes : 0;
    t->under_way--;
    if (result < 0 && !t->error)
        note_error(q, r, (int)result);
    if (result == 0 && t->arrived)
        mark_arrived(t, r);
    all = t->submitted == size_of(q, t) || t->error;
    if (all && !t->under_way)
        t->done(t);
}

/* One request in every folder that has room for it; how many there were. */
static uint32_t submit_round(struct tr_queue *q)
{
    uint32_t n = 0;

    for (uint32_t i = 0; i < q->n_folders; i++) {
        struct part p;

        if (q->folder[i].under_way == q->depth || !choose(q, i, &p))
            continue;
        submit(q, i, &p);
        n++;
    }
    return n;
}

/* A drive is judged by the time in which it has plenty to do: a quarter of its depth. */
static unsigned busy_with(const struct tr_queue *q, const struct folder *f)
{
    unsigned does = (f->of[TR_IO_READ] ? DOES_READ : 0) | (f->of[TR_IO_WRITE] ? DOES_WRITE : 0);

    return f->under_way >= q->depth / 4 && !f->of[TR_IO_SYNC] ? does : 0;
}

/* The time since the last look belongs to what was under way all along, `was`. */
static void look_at_clock(struct tr_queue *q, const unsigned was[TR_STORE_FOLDERS])
{
    static const char *const names[] = {"reading", "writing", "reading and writing"};
    uint64_t now = q->clock(), ns = now - q->looked_ns;

    for (uint32_t i = 0; i < q->n_folders; i++) {
        struct folder *f = &q->folder[i];
        struct tr_slow slow = {.folder = i};

        if (was[i] && tr_watch_add(&f->watch[was[i] - 1], ns, f->bytes, &slow.usual, &slow.now)) {
            slow.what = names[was[i] - 1];
            q->slow = slow;
            q->is_slow = 1;
        }
        f->bytes = 0;
    }
    q->looked_ns = now;
}

int tr_queue_slow(struct tr_queue *q, struct tr_slow *slow)
{
    int is = q->is_slow;

    *slow = q->slow;
    q->is_slow = 0;
    return is;
}

void tr_queue_set_clock(struct tr_queue *q, uint64_t (*clock)(void))
{
    q->clock = clock;
    q->looked_ns = clock();
}

int tr_queue_turn(struct tr_queue *q, int wait)
{
    struct tr_io_request *done = NULL;
    unsigned was[TR_STORE_FOLDERS];
    int r;

    while (submit_round(q))
        ;
    for (uint32_t i = 0; i < q->n_folders; i++)
        was[i] = busy_with(q, &q->folder[i]);
    r = q->io->ops->reap(q->io, wait, &done);
    while (done) {
        struct tr_io_request *next = done->next;

        finish(q, (struct request *)done);
        done = next;
    }
    look_at_clock(q, was);
    return r;
}

uint32_t tr_queue_under_way(const struct tr_queue *q)
{
    return q->under_way;
}

static void mark_done(struct tr_transfer *t)
{
    *(int *)t->owner = 1;
}

int tr_queue_run(struct tr_queue *q, struct tr_transfer *t)
{
    int done = 0, r = 0;

    t->done = mark_done;
    t->owner = &done;
    tr_queue_add(q, t);
    while (!done && r == 0)
        r = tr_queue_turn(q, 1);
    return r < 0 ? r : t->error;
}
