/* SPDX-License-Identifier: Apache-2.0
 *
 * A transfer lies in the list of its kind until its last request is submitted; a request goes back
 * to the kernel until all its bytes are moved. So a short transfer, an interruption or a momentary
 * lack of something costs one more request and is seen by nobody above. An end of file, or no
 * progress however often it is tried, is an error with the place where it happened.
 */
#include "offload/queue.h"

#include <string.h>

#include "src/base/err.h"
#include "src/base/mem.h"

/* Interrupted or refused for the moment, or moved less than one block, this often in a row. */
#define MAX_TRIES 100u

struct request {
    struct tr_io_request io; /* first: what reap hands back */
    struct tr_transfer *transfer;
    uint64_t chunk;
    uint32_t tries;
    struct request *next_free;
};

struct list {
    struct tr_transfer *first, *last;
};

struct tr_queue {
    struct tr_io *io;
    struct request *requests;
    struct request *free;
    struct list waiting[TR_IO_OPS];
    enum tr_io_op last; /* read or write, whichever was submitted last */
    uint32_t under_way;
};

int tr_queue_open(struct tr_queue **out, struct tr_io *io, uint32_t depth)
{
    struct tr_queue *q = tr_alloc(TR_MEM_MISC, sizeof(*q));
    struct request *requests = tr_alloc_array(TR_MEM_MISC, depth, sizeof(*requests));

    if (!q || !requests) {
        tr_free(TR_MEM_MISC, q);
        tr_free(TR_MEM_MISC, requests);
        return -ENOMEM;
    }
    q->io = io;
    q->requests = requests;
    for (uint32_t i = 0; i < depth; i++) {
        requests[i].next_free = q->free;
        q->free = &requests[i];
    }
    *out = q;
    return 0;
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
    if (t->arrived)
        memset(t->arrived, 0, tr_queue_chunks(t->bytes));
    if (l->last)
        l->last->next = t;
    else
        l->first = t;
    l->last = t;
}

static void remove_first(struct list *l)
{
    l->first = l->first->next;
    if (!l->first)
        l->last = NULL;
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

/* The next transfer to take a request from: syncs first (they are rare, and the commit waits for
 * them), then reads and writes in turn. */
static struct tr_transfer *choose(const struct tr_queue *q)
{
    enum tr_io_op other = q->last == TR_IO_READ ? TR_IO_WRITE : TR_IO_READ;

    if (q->waiting[TR_IO_SYNC].first)
        return q->waiting[TR_IO_SYNC].first;
    return q->waiting[other].first ? q->waiting[other].first : q->waiting[q->last].first;
}

static void submit(struct tr_queue *q, struct tr_transfer *t)
{
    struct request *r = q->free;
    uint64_t left = t->op == TR_IO_SYNC ? 0 : t->bytes - t->submitted;

    q->free = r->next_free;
    r->transfer = t;
    r->chunk = t->submitted / TR_IO_CHUNK;
    r->tries = 0;
    r->io.op = t->op;
    r->io.file = t->file;
    r->io.buf = t->buf + t->submitted;
    r->io.offset = t->offset + t->submitted;
    r->io.bytes = left < TR_IO_CHUNK ? left : TR_IO_CHUNK;
    t->submitted += r->io.bytes;
    t->under_way++;
    q->under_way++;
    if (t->op != TR_IO_SYNC)
        q->last = t->op;
    if (t->op == TR_IO_SYNC || t->submitted == t->bytes)
        remove_first(&q->waiting[t->op]);
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
    if (n < 0)
        return n;
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

static void mark_arrived(struct tr_transfer *t, uint64_t chunk)
{
    uint64_t chunks = tr_queue_chunks(t->bytes), at = t->prefix / TR_IO_CHUNK;

    t->arrived[chunk] = 1;
    while (at < chunks && t->arrived[at])
        at++;
    t->prefix = at == chunks ? t->bytes : at * TR_IO_CHUNK;
}

static void finish(struct tr_queue *q, struct request *r)
{
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
    t->under_way--;
    if (result < 0 && !t->error) {
        t->error = (int)result;
        t->error_offset = r->io.offset;
        remove_transfer(&q->waiting[t->op], t);
    }
    if (result == 0 && t->arrived)
        mark_arrived(t, r->chunk);
    all = t->op == TR_IO_SYNC || t->submitted == t->bytes || t->error;
    if (all && !t->under_way)
        t->done(t);
}

int tr_queue_turn(struct tr_queue *q, int wait)
{
    struct tr_io_request *done = NULL;
    struct tr_transfer *t;
    int r;

    while (q->free && (t = choose(q)))
        submit(q, t);
    r = q->io->ops->reap(q->io, wait, &done);
    while (done) {
        struct tr_io_request *next = done->next;

        finish(q, (struct request *)done);
        done = next;
    }
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
