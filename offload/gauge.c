/* SPDX-License-Identifier: Apache-2.0
 *
 * How fast is each folder of a new store, and how much does it hold? A short write and read of a
 * file there, as the store itself will do it: O_DIRECT where the file system has it, requests of
 * 1 MiB, many under way. A step reads twice what it writes, so that is what is timed. Folders on
 * one drive share its speed and its room.
 */
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "offload/store_private.h"
#include "src/base/clock.h"
#include "src/base/err.h"
#include "src/base/file.h"
#include "src/base/mem.h"

#define MOST_BYTES  (64u << 20) /* far beyond a drive's own cache it would take too long */
#define LEAST_BYTES (1u << 20)  /* of a store that is smaller */
#define READS       2u
#define WORKERS     8
#define TRIES       2          /* the first one also allocates; the better one counts */
#define SPARE_BYTES (1u << 20) /* for part.json, the folder, and the file system's own needs */

struct gauge {
    struct tr_io_file file[TR_IO_FILES]; /* the first alone is there */
    struct tr_queue *queue;
    char *buffer;
};

static int transfer_all(struct gauge *g, enum tr_io_op op, uint64_t bytes)
{
    int r = 0;

    for (uint64_t at = 0; at < bytes && r == 0; at += TR_GAUGE_BYTES) {
        struct tr_transfer t = {.op = op, .buf = g->buffer, .offset = at};

        t.bytes = bytes - at < TR_GAUGE_BYTES ? bytes - at : TR_GAUGE_BYTES;
        r = tr_queue_run(g->queue, &t);
    }
    return r;
}

static int time_file(struct gauge *g, uint64_t bytes, double *speed)
{
    struct tr_transfer sync = {.op = TR_IO_SYNC};
    double from = tr_now(), seconds;
    int r = transfer_all(g, TR_IO_WRITE, bytes);

    if (r == 0)
        r = tr_queue_run(g->queue, &sync);
    for (uint32_t i = 0; i < READS && r == 0; i++)
        r = transfer_all(g, TR_IO_READ, bytes);
    seconds = tr_now() - from;
    *speed = (double)((1 + READS) * bytes) / (seconds > 1e-6 ? seconds : 1e-6);
    return r < 0 ? tr_error(r, "%s: cannot measure this drive: %s", g->file[0].path, strerror(-r))
                 : 0;
}

static int open_gauge(struct gauge *g, struct tr_store *s, uint32_t folder)
{
    struct tr_io_params p = {.files = g->file, .depth = TR_IO_DEPTH, .workers = WORKERS};
    int fd = tr_store_folder_fd(s, folder), flags = O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC;
    struct tr_io *io;
    int r;

    g->file[0].path = tr_path(s->folders.path[folder], TR_GAUGE_FILE);
    g->buffer = tr_alloc_pages(TR_MEM_IO, TR_GAUGE_BYTES);
    if (!g->file[0].path || !g->buffer)
        return -ENOMEM;
    memset(g->buffer, 0x5a, TR_GAUGE_BYTES); /* some drives do not write zeros */
    g->file[0].direct = 1;
    r = tr_io_openat(fd, TR_GAUGE_FILE, flags, &g->file[0].direct);
    if (r < 0)
        return tr_error(r, "%s: cannot create: %s", g->file[0].path, strerror(-r));
    g->file[0].fd = r;
    r = tr_io_open(&io, TR_IO_AUTO, &p);
    if (r < 0)
        return r;
    r = tr_queue_open(&g->queue, io, TR_IO_DEPTH, NULL);
    if (r < 0)
        io->ops->close(io);
    return r;
}

static int gauge_folder(struct tr_store *s, uint32_t folder, struct tr_drive *drive)
{
    uint64_t bytes = tr_layout_bytes(&s->layout);
    struct gauge g = {0};
    int r;

    for (int i = 0; i < TR_IO_FILES; i++)
        g.file[i].fd = -1;
    bytes = bytes < LEAST_BYTES ? LEAST_BYTES : bytes > MOST_BYTES ? MOST_BYTES : bytes;
    if (bytes > drive->room / 2)
        bytes = drive->room / 2 / TR_STORE_ALIGN * TR_STORE_ALIGN;
    if (!bytes)
        return tr_error(-ENOSPC, "%s: the disk is full; leave this folder out of --store",
                        s->folders.path[folder]);
    r = open_gauge(&g, s, folder);
    for (int i = 0; i < TRIES && r == 0; i++) {
        double speed = 0;

        r = time_file(&g, bytes, &speed);
        drive->speed = speed > drive->speed ? speed : drive->speed;
    }
    tr_queue_close(g.queue);
    if (g.file[0].fd >= 0) {
        unlinkat(tr_store_folder_fd(s, folder), TR_GAUGE_FILE, 0);
        tr_file_drop(g.file[0].fd);
    }
    tr_free_pages(TR_MEM_IO, g.buffer, TR_GAUGE_BYTES);
    tr_free(TR_MEM_MISC, g.file[0].path);
    return r;
}

/* How many of the folders are on the file system of this one. */
static uint32_t count_sharing(const struct tr_store *s, uint32_t folder)
{
    struct stat a, b;
    uint32_t n = 0;

    for (uint32_t i = 0; i < s->folders.n; i++)
        n += fstat(tr_store_folder_fd(s, folder), &a) == 0 &&
             fstat(tr_store_folder_fd(s, i), &b) == 0 && a.st_dev == b.st_dev;
    return n ? n : 1;
}

/* The commits are in the first folder. */
static uint64_t room_of(const struct tr_store *s, uint32_t folder, uint64_t free_bytes)
{
    uint64_t other = SPARE_BYTES + (folder ? 0 : 2 * (uint64_t)s->record_bytes);
    uint64_t part = free_bytes / count_sharing(s, folder);

    return part > other ? (part - other) / s->shape.generations : 0;
}

int tr_gauge_folders(struct tr_store *s, struct tr_drive drives[TR_STORE_FOLDERS])
{
    int r = 0;

    for (uint32_t i = 0; i < s->folders.n && r == 0; i++) {
        uint64_t free_bytes;

        r = tr_free_bytes(s->folders.path[i], &free_bytes);
        drives[i].room = r < 0 ? 0 : room_of(s, i, free_bytes);
        if (r == 0 && s->hook.speed)
            drives[i].speed = s->hook.speed[i];
        else if (r == 0)
            r = gauge_folder(s, i, &drives[i]);
        drives[i].speed /= count_sharing(s, i);
    }
    return r;
}
