/* SPDX-License-Identifier: Apache-2.0
 *
 * The drive, through the very queue that a run has: requests of 1 MiB, reads and writes by turns
 * where both wait. On a file without a name in the folder asked for, so that nothing stays whatever
 * happens; it is written once before anything is timed, for space that was only allocated reads and
 * writes differently.
 */
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "offload/queue.h"
#include "src/base/err.h"
#include "src/base/file.h"
#include "src/base/pages.h"
#include "src/base/thread.h"
#include "src/plan/probe.h"

#define PIECE   (32ull << 20) /* of one transfer, and of what is hashed and copied */
#define BUFFERS 2

struct drive {
    struct probe *p;
    struct tr_io_file file[TR_IO_FILES];
    struct tr_queue *queue;
    char *buffer; /* BUFFERS pieces */
    uint64_t bytes;
    char path[4096];
};

/* O_TMPFILE where the file system has it, else a name that is gone at once. */
static int open_file(struct drive *d, const char *folder, int direct)
{
    int flags = O_RDWR | O_CLOEXEC | (direct ? O_DIRECT : 0),
        fd = open(folder, flags | O_TMPFILE, 0600);

    snprintf(d->path, sizeof(d->path), "%s/tailrace-bench.%ld", folder, (long)getpid());
    if (fd >= 0 || (errno != EOPNOTSUPP && errno != EISDIR && errno != EINVAL))
        return fd;
    fd = open(d->path, flags | O_CREAT | O_EXCL, 0600);
    if (fd >= 0)
        unlink(d->path);
    return fd;
}

static int open_drive(struct drive *d, const char *folder)
{
    uint64_t room;
    int r = tr_free_bytes(folder, &room), fd;

    if (r < 0)
        return r;
    if (room < d->bytes)
        return tr_error(-ENOSPC, "%s: measuring takes %llu bytes, %llu are free", folder,
                        (unsigned long long)d->bytes, (unsigned long long)room);
    for (int i = 0; i < TR_IO_FILES; i++)
        d->file[i].fd = -1;
    fd = open_file(d, folder, 1);
    d->file[0] = (struct tr_io_file){.fd = fd, .direct = fd >= 0, .path = d->path};
    if (fd < 0 && errno == EINVAL)
        d->file[0].fd = open_file(d, folder, 0);
    if (d->file[0].fd < 0)
        return tr_error(-errno, "%s: cannot make a file: %s", folder, strerror(errno));
    d->buffer = tr_pages_alloc(TR_MEM_IO, BUFFERS * PIECE, TR_PAGES_LOCKED);
    if (!d->buffer)
        return -ENOMEM;
    for (uint64_t i = 0; i < BUFFERS * PIECE / 8; i++)
        ((uint64_t *)d->buffer)[i] = (i + 1) * 0x9e3779b97f4a7c15u;
    return 0;
}

static int open_queue(struct drive *d, uint32_t depth)
{
    struct tr_io_region region = {d->buffer, BUFFERS * PIECE};
    struct tr_io_params io = {
        .files = d->file, .regions = &region, .n_regions = 1, .depth = depth, .workers = 8};
    struct tr_io *table;
    int r;

    tr_queue_close(d->queue);
    d->queue = NULL;
    if ((r = tr_io_open(&table, TR_IO_AUTO, &io)) < 0)
        return r;
    table->ops->describe(table, d->p->drive, sizeof(d->p->drive));
    r = tr_queue_open(&d->queue, table, depth, NULL);
    if (r < 0)
        table->ops->close(table);
    return r;
}

static void close_drive(struct drive *d)
{
    tr_queue_close(d->queue);
    if (d->buffer)
        tr_free_pages(TR_MEM_IO, d->buffer, BUFFERS * PIECE);
    if (d->file[0].fd >= 0)
        close(d->file[0].fd);
}

/* One of the two ways that go on at once. */
struct lane {
    struct tr_transfer transfer;
    enum tr_io_op op;
    uint64_t at, end;
    int busy;
};

static void set_idle(struct tr_transfer *t)
{
    ((struct lane *)t->owner)->busy = 0;
}

static void start_piece(struct drive *d, struct lane *l)
{
    l->transfer = (struct tr_transfer){.op = l->op,
                                       .file = TR_FILE_GEN0,
                                       .buf = d->buffer + (l->op == TR_IO_WRITE ? PIECE : 0),
                                       .offset = l->at,
                                       .bytes = PIECE,
                                       .done = set_idle,
                                       .owner = l};
    l->at += PIECE;
    l->busy = 1;
    tr_queue_add(d->queue, &l->transfer);
}

/* The whole file, a half in each lane: reads, writes, or a lane of each. A lane starts its next
 * piece as soon as one ends, so that the queue never runs dry on the way, as it does not in a run.
 */
static int pass(struct drive *d, int reads, int writes, double *rate)
{
    uint64_t half = d->bytes / 2;
    struct lane lane[2] = {{.op = reads ? TR_IO_READ : TR_IO_WRITE, .at = 0, .end = half},
                           {.op = writes ? TR_IO_WRITE : TR_IO_READ, .at = half, .end = d->bytes}};
    double start = probe_now();
    int r = 0, failed = 0;

    while (r == 0) {
        for (int i = 0; i < 2; i++)
            if (!lane[i].busy && lane[i].at < lane[i].end && !failed)
                start_piece(d, &lane[i]);
        if (!lane[0].busy && !lane[1].busy)
            break;
        r = tr_queue_turn(d->queue, 1);
        for (int i = 0; i < 2; i++)
            failed = failed ? failed : lane[i].transfer.error;
    }
    if (failed)
        r = tr_error(failed, "%s: %s", d->path, strerror(-failed));
    *rate = (double)d->bytes / (probe_now() - start);
    return r;
}

static int median_pass(struct drive *d, int reads, int writes, double *rate)
{
    double rates[3];
    int n = d->p->p->quick ? 1 : 3, r = 0;

    for (int i = 0; i < n && r == 0; i++)
        r = pass(d, reads, writes, &rates[i]);
    *rate = probe_median(rates, n);
    return r;
}

static int measure_depths(struct drive *d)
{
    static const unsigned depths[PROBE_DEPTHS] = {1, 4, 8, TR_IO_DEPTH};
    struct tr_figures *f = &d->p->figures;
    double ignored;
    int r = open_queue(d, TR_IO_DEPTH);

    if (r == 0)
        r = pass(d, 0, 1, &ignored);
    for (int i = 0; i < PROBE_DEPTHS && r == 0; i++) {
        struct probe_depth *at = &d->p->depth[i];

        at->depth = depths[i];
        if ((r = open_queue(d, depths[i])) == 0 && (r = median_pass(d, 1, 0, &at->read)) == 0 &&
            (r = median_pass(d, 0, 1, &at->write)) == 0)
            r = median_pass(d, 1, 1, &at->mixed);
        f->read = at->read;
        f->write = at->write;
        f->mixed = at->mixed;
    }
    return r;
}

static int measure_flush(struct drive *d)
{
    double times[5];
    int n = d->p->p->quick ? 1 : 5, r = 0;

    for (int i = 0; i < n && r == 0; i++) {
        struct tr_transfer t = {.op = TR_IO_WRITE, .buf = d->buffer, .bytes = PIECE};
        double start;

        r = tr_queue_run(d->queue, &t);
        t = (struct tr_transfer){.op = TR_IO_SYNC};
        start = probe_now();
        if (r == 0)
            r = tr_queue_run(d->queue, &t);
        times[i] = probe_now() - start;
    }
    d->p->figures.flush = probe_median(times, n);
    return r;
}

/* ---- what the I/O thread takes away from the cpu device ---- */

static void raise_flag(void *arg)
{
    __atomic_store_n((int *)arg, 1, __ATOMIC_RELEASE);
}

/* What the I/O thread does for a piece. */
static int move_piece(struct drive *d, int turn)
{
    volatile uint64_t sink = probe_hash(d->buffer, PIECE);
    struct tr_transfer t = {
        .op = turn % 2 ? TR_IO_WRITE : TR_IO_READ, .buf = d->buffer, .bytes = PIECE};

    (void)sink;
    return tr_queue_run(d->queue, &t);
}

/* Seconds that products take; until they are done, this thread moves bytes where it has a place to
 * count them. */
static int time_products(struct drive *d, double *seconds, double *bytes)
{
    struct tr_device *device = d->p->device;
    int done = 0, r = 0, synced, products = d->p->p->quick ? 2 : 100;
    double start = probe_now();

    for (int i = 0; i < products && r == 0; i++)
        r = probe_queue_product(d->p);
    if (r == 0)
        r = device->ops->call(device, TR_STREAM_COMPUTE, raise_flag, &done);
    for (int i = 0; bytes && r == 0 && !__atomic_load_n(&done, __ATOMIC_ACQUIRE); i++) {
        r = move_piece(d, i);
        *bytes += (double)PIECE;
    }
    synced = device->ops->sync(device, TR_STREAM_COMPUTE);
    *seconds = probe_now() - start;
    return r < 0 ? r : synced;
}

/* Where a thread computes on every core, the I/O thread takes one of them from time to time, and an
 * op waits for the thread that had it. What that costs lies between half of the I/O thread's work
 * and all of it; two clocks say it, one beside the other in turn. */
static int measure_drag(struct drive *d)
{
    double drag[9];
    int n = d->p->p->quick ? 1 : 9, r = 0;

    if (d->p->choice.cuda || d->p->figures.threads < tr_thread_cores())
        return 0;
    for (int i = 0; i < n && r == 0; i++) {
        double alone, beside, bytes = 0;

        if ((r = time_products(d, &alone, NULL)) == 0 &&
            (r = time_products(d, &beside, &bytes)) == 0)
            drag[i] = beside > alone ? (beside - alone) / bytes : 0;
    }
    if (r == 0)
        d->p->figures.drag = probe_median(drag, n);
    return r;
}

int probe_drive(struct probe *p)
{
    struct drive d = {.p = p, .bytes = p->p->quick ? 4 * PIECE : 32 * PIECE};
    int r = open_drive(&d, p->p->store ? p->p->store : ".");

    probe_log(p, "drive: reading and writing %llu MiB, at queue depths",
              (unsigned long long)(d.bytes >> 20));
    if (r == 0)
        r = measure_depths(&d);
    if (r == 0)
        r = measure_flush(&d);
    if (r == 0)
        r = measure_drag(&d);
    close_drive(&d);
    return r;
}
