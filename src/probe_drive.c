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
#include <xxhash.h>

#include "offload/queue.h"
#include "src/base/err.h"
#include "src/base/file.h"
#include "src/base/mem.h"
#include "src/probe.h"

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
    d->buffer = tr_alloc_pages(TR_MEM_IO, BUFFERS * PIECE);
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

static void count_down(struct tr_transfer *t)
{
    --*(int *)t->owner;
}

static struct tr_transfer piece_of(struct drive *d, enum tr_io_op op, uint64_t at, int *left)
{
    return (struct tr_transfer){.op = op,
                                .file = TR_FILE_GEN0,
                                .buf = d->buffer + (op == TR_IO_WRITE ? PIECE : 0),
                                .offset = at,
                                .bytes = PIECE,
                                .done = count_down,
                                .owner = left};
}

/* The whole file in pieces, two at a time: reads, writes, or a piece of each half by turns. */
static int pass(struct drive *d, int reads, int writes, double *rate)
{
    uint64_t step = (reads && writes ? 1 : 2) * PIECE, half = d->bytes / 2, end = d->bytes;
    double start = probe_now();
    int r = 0;

    if (reads && writes)
        end = half;
    for (uint64_t at = 0; at < end && r == 0; at += step) {
        struct tr_transfer t[2];
        int left = 2;

        t[0] = piece_of(d, reads ? TR_IO_READ : TR_IO_WRITE, at, &left);
        t[1] = piece_of(d, writes ? TR_IO_WRITE : TR_IO_READ,
                        reads && writes ? half + at : at + PIECE, &left);
        tr_queue_add(d->queue, &t[0]);
        tr_queue_add(d->queue, &t[1]);
        while (left && r == 0)
            r = tr_queue_turn(d->queue, 1);
        for (int i = 0; i < 2 && r == 0; i++)
            if (t[i].error)
                r = tr_error(t[i].error, "%s: %s", d->path, strerror(-t[i].error));
    }
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

/* ---- memory and checksums ---- */

static void measure_memory(struct drive *d)
{
    int n = d->p->p->quick ? 1 : 7;
    double hash[7], copy[7];
    volatile uint64_t sink = 0;

    for (int i = 0; i < n; i++) {
        double start = probe_now();

        sink ^= XXH3_64bits(d->buffer, PIECE);
        hash[i] = (double)PIECE / (probe_now() - start);
        start = probe_now();
        memcpy(d->buffer + PIECE, d->buffer, PIECE);
        copy[i] = (double)PIECE / (probe_now() - start);
    }
    (void)sink;
    d->p->figures.hash = probe_median(hash, n);
    d->p->figures.host_copy = probe_median(copy, n);
}

/* ---- what the I/O thread takes away from the cpu device ---- */

struct finish {
    double at;
    int reached;
};

static void reach(void *arg)
{
    struct finish *f = arg;

    f->at = probe_now();
    __atomic_store_n(&f->reached, 1, __ATOMIC_RELEASE);
}

/* Products are queued; until they are done, this thread does what the I/O thread does. The time is
 * that of the products: the transfer under way at their end is not waited for by them. */
static int run_beside(struct drive *d, int moving, double *seconds, double *bytes)
{
    struct tr_device *device = d->p->device;
    struct finish end = {.reached = 0};
    int r = 0, synced, products = d->p->p->quick ? 2 : 100;
    double start = probe_now();
    volatile uint64_t sink = 0;

    for (int i = 0; i < products && r == 0; i++)
        r = probe_queue_product(d->p);
    if (r == 0)
        r = device->ops->call(device, TR_STREAM_COMPUTE, reach, &end);
    *bytes = 0;
    while (r == 0 && moving && !__atomic_load_n(&end.reached, __ATOMIC_ACQUIRE)) {
        struct tr_transfer t = {.op = TR_IO_READ, .buf = d->buffer, .bytes = PIECE};

        if ((r = tr_queue_run(d->queue, &t)) == 0)
            sink ^= XXH3_64bits(d->buffer, PIECE);
        *bytes += (double)PIECE;
    }
    (void)sink;
    synced = device->ops->sync(device, TR_STREAM_COMPUTE);
    *seconds = end.at - start;
    return r < 0 ? r : synced;
}

static int measure_drag(struct drive *d)
{
    double drag[5], alone, with, bytes, none;
    int n = d->p->p->quick ? 1 : 5, r = 0;

    if (d->p->choice.cuda)
        return 0;
    for (int i = 0; i < n && r == 0; i++) {
        if ((r = run_beside(d, 0, &alone, &none)) == 0)
            r = run_beside(d, 1, &with, &bytes);
        drag[i] = r == 0 && bytes > 0 && with > alone ? (with - alone) / bytes : 0;
    }
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
    if (r == 0) {
        measure_memory(&d);
        r = measure_drag(&d);
    }
    close_drive(&d);
    return r;
}
