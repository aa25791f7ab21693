/* SPDX-License-Identifier: Apache-2.0
 *
 * The drive, through the very queue that a run has: requests of 1 MiB, reads and writes by turns
 * where both wait. On a file without a name in the folder asked for, so that nothing stays whatever
 * happens; it is written once before anything is timed, for space that was only allocated reads and
 * writes differently. Of several folders, each drive by itself, and then all of them at once, in
 * one queue as the parts of a store are: two of them may share more than their file systems tell.
 */
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "offload/queue.h"
#include "src/base/err.h"
#include "src/base/file.h"
#include "src/base/pages.h"
#include "src/base/thread.h"
#include "src/plan/probe.h"

#define PIECE   (32ull << 20) /* of one transfer, and of what is hashed and copied */
#define BUFFERS 2

/* What is measured at once: one drive, or all. */
struct drive {
    struct probe *p;
    uint32_t n;
    struct tr_io_file file[TR_MOST_FILES];
    struct tr_queue *queue;
    struct tr_stripes stripes; /* drive k has the k-th so many bytes */
    struct tr_stripe stripe[TR_STORE_FOLDERS];
    char *buffer;   /* BUFFERS pieces */
    uint64_t bytes; /* on each */
    char path[TR_STORE_FOLDERS][4096];
};

static int open_file(struct drive *d, uint32_t k, const char *folder)
{
    struct tr_io_file *f = &d->file[tr_file_in(TR_FILE_GEN0, k)];
    uint64_t room;
    int r = tr_free_bytes(folder, &room);

    if (r < 0)
        return r;
    if (room < d->bytes)
        return tr_error(-ENOSPC, "%s: measuring takes %llu bytes, %llu are free", folder,
                        (unsigned long long)d->bytes, (unsigned long long)room);
    snprintf(d->path[k], sizeof(d->path[k]), "%s/tailrace-bench.%ld", folder, (long)getpid());
    f->path = d->path[k];
    f->direct = 1;
    r = tr_io_open_nameless(AT_FDCWD, folder, d->path[k], &f->direct);
    if (r < 0)
        return tr_error(r, "%s: cannot make a file: %s", folder, strerror(-r));
    f->fd = r;
    return 0;
}

static int open_drives(struct drive *d, const struct tr_figures_drive *drives, uint32_t n)
{
    int r = 0;

    d->n = n;
    for (uint32_t i = 0; i < TR_MOST_FILES; i++)
        d->file[i].fd = -1;
    d->stripes = (struct tr_stripes){
        .n_folders = n, .n = n > 1 ? n : 0, .stripe = d->stripe, .bytes = n * d->bytes};
    for (uint32_t k = 0; k < n && r == 0; k++) {
        d->stripe[k] = (struct tr_stripe){.from = k * d->bytes, .folder = k};
        r = open_file(d, k, drives[k].folder);
    }
    if (r < 0)
        return r;
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
    struct tr_io_params io = {.files = d->file,
                              .n_folders = d->n,
                              .regions = &region,
                              .n_regions = 1,
                              .depth = depth,
                              .workers = 8};
    struct tr_io *table;
    int r;

    tr_queue_close(d->queue);
    d->queue = NULL;
    if ((r = tr_io_open(&table, TR_IO_AUTO, &io)) < 0)
        return r;
    table->ops->describe(table, d->p->drive, sizeof(d->p->drive));
    r = tr_queue_open(&d->queue, table, depth, &d->stripes);
    if (r < 0)
        table->ops->close(table);
    return r;
}

static void close_drives(struct drive *d)
{
    tr_queue_close(d->queue);
    if (d->buffer)
        tr_free_pages(TR_MEM_IO, d->buffer, BUFFERS * PIECE);
    for (uint32_t i = 0; i < TR_MOST_FILES; i++)
        if (d->file[i].fd >= 0)
            tr_file_drop(d->file[i].fd);
}

/* One of the two ways that go on at once on a drive. */
struct lane {
    struct tr_transfer transfer;
    enum tr_io_op op;
    uint64_t at, end;
    int busy;
    struct side *side;
};

/* A drive at work. */
struct side {
    struct lane lane[2];
    int passes;     /* the whole of its bytes, so often */
    uint64_t bytes; /* done, */
    double until;   /* until then */
};

static void set_idle(struct tr_transfer *t)
{
    struct lane *l = t->owner;

    l->busy = 0;
    l->side->bytes += t->bytes;
    l->side->until = tr_now();
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

static int is_idle(const struct side *s)
{
    return !s->lane[0].busy && !s->lane[1].busy;
}

/* What a drive does in one pass: reads, writes, or half of each. */
struct ways {
    int reads, writes;
};

/* The whole file, a half in each lane: reads, writes, or a lane of each. */
static void begin_pass(const struct drive *d, struct side *s, uint32_t k, struct ways w)
{
    uint64_t from = k * d->bytes, half = d->bytes / 2;

    s->lane[0] = (struct lane){
        .op = w.reads ? TR_IO_READ : TR_IO_WRITE, .at = from, .end = from + half, .side = s};
    s->lane[1] = (struct lane){.op = w.writes ? TR_IO_WRITE : TR_IO_READ,
                               .at = from + half,
                               .end = from + d->bytes,
                               .side = s};
}

/* A lane starts its next piece as soon as one ends, so that the queue never runs dry on the way, as
 * it does not in a run. 1: something is under way. */
static int start_pieces(struct drive *d, struct side *s)
{
    for (int i = 0; i < 2; i++)
        if (!s->lane[i].busy && s->lane[i].at < s->lane[i].end)
            start_piece(d, &s->lane[i]);
    return !is_idle(s);
}

/* Drives that are done begin again, as long as any is in its first pass: so all are at work. */
static void go_on(const struct drive *d, struct side *sides, struct ways w)
{
    int first = 0;

    for (uint32_t k = 0; k < d->n; k++) {
        struct side *s = &sides[k];

        s->passes +=
            is_idle(s) && s->lane[0].at == s->lane[0].end && s->lane[1].at == s->lane[1].end;
        first |= !s->passes;
    }
    for (uint32_t k = 0; k < d->n && first; k++)
        if (is_idle(&sides[k]) && sides[k].passes)
            begin_pass(d, &sides[k], k, w);
}

static int failure(struct drive *d, const struct side *sides)
{
    for (uint32_t k = 0; k < d->n; k++)
        for (int i = 0; i < 2; i++)
            if (sides[k].lane[i].transfer.error)
                return tr_error(sides[k].lane[i].transfer.error, "%s: %s", d->path[k],
                                strerror(-sides[k].lane[i].transfer.error));
    return 0;
}

/* Bytes per second of each drive while all of them do this. */
static int pass(struct drive *d, struct ways w, double rate[TR_STORE_FOLDERS])
{
    struct side sides[TR_STORE_FOLDERS] = {{.passes = 0}};
    double start = tr_now();
    int r = 0, failed = 0, busy = 1;

    for (uint32_t k = 0; k < d->n; k++)
        begin_pass(d, &sides[k], k, w);
    while (r == 0 && busy) {
        busy = 0;
        for (uint32_t k = 0; k < d->n; k++)
            busy |= failed ? !is_idle(&sides[k]) : start_pieces(d, &sides[k]);
        if (busy)
            r = tr_queue_turn(d->queue, 1);
        failed = failed < 0 ? failed : failure(d, sides);
        if (!failed)
            go_on(d, sides, w);
    }
    for (uint32_t k = 0; k < d->n; k++)
        rate[k] = (double)sides[k].bytes / (sides[k].until - start);
    return failed ? failed : r;
}

static int median_pass(struct drive *d, struct ways w, double rate[TR_STORE_FOLDERS])
{
    double rates[3][TR_STORE_FOLDERS], one[3];
    int n = d->p->params->quick ? 1 : 3, r = 0;

    for (int i = 0; i < n && r == 0; i++)
        r = pass(d, w, rates[i]);
    for (uint32_t k = 0; k < d->n; k++) {
        for (int i = 0; i < n; i++)
            one[i] = rates[i][k];
        rate[k] = probe_median(one, n);
    }
    return r;
}

/* All three ways, of each drive; out: (drives). */
static int measure_ways(struct drive *d, struct tr_drive_ways *out)
{
    static const struct ways ways[] = {{1, 0}, {0, 1}, {1, 1}};
    double rate[3][TR_STORE_FOLDERS];
    int r = 0;

    for (int i = 0; i < 3 && r == 0; i++)
        r = median_pass(d, ways[i], rate[i]);
    for (uint32_t k = 0; k < d->n && r == 0; k++)
        out[k] = (struct tr_drive_ways){rate[0][k], rate[1][k], rate[2][k]};
    return r;
}

/* Space that has been written is not what has only been allocated. */
static int fill(struct drive *d)
{
    double ignored[TR_STORE_FOLDERS];
    int r = open_queue(d, TR_IO_DEPTH);

    return r < 0 ? r : pass(d, (struct ways){0, 1}, ignored);
}

static int measure_depths(struct drive *d, struct probe_depth depth[PROBE_DEPTHS],
                          struct tr_drive_ways *out)
{
    static const unsigned depths[PROBE_DEPTHS] = {1, 4, 8, TR_IO_DEPTH};
    int r = fill(d);

    for (int i = 0; i < PROBE_DEPTHS && r == 0; i++) {
        depth[i].depth = depths[i];
        if ((r = open_queue(d, depths[i])) == 0)
            r = measure_ways(d, &depth[i].ways);
    }
    *out = depth[PROBE_DEPTHS - 1].ways;
    return r;
}

static int measure_flush(struct drive *d, double *flush)
{
    double times[5];
    int n = d->p->params->quick ? 1 : 5, r = 0;

    for (int i = 0; i < n && r == 0; i++) {
        struct tr_transfer t = {.op = TR_IO_WRITE, .buf = d->buffer, .bytes = PIECE};
        double start;

        r = tr_queue_run(d->queue, &t);
        t = (struct tr_transfer){.op = TR_IO_SYNC};
        start = tr_now();
        if (r == 0)
            r = tr_queue_run(d->queue, &t);
        times[i] = tr_now() - start;
    }
    *flush = probe_median(times, n);
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
    int done = 0, r = 0, synced, products = d->p->params->quick ? 2 : 100;
    double start = tr_now();

    for (int i = 0; i < products && r == 0; i++)
        r = probe_queue_product(d->p);
    if (r == 0)
        r = device->ops->call(device, TR_STREAM_COMPUTE, raise_flag, &done);
    for (int i = 0; bytes && r == 0 && !__atomic_load_n(&done, __ATOMIC_ACQUIRE); i++) {
        r = move_piece(d, i);
        *bytes += (double)PIECE;
    }
    synced = device->ops->sync(device, TR_STREAM_COMPUTE);
    *seconds = tr_now() - start;
    return r < 0 ? r : synced;
}

/* Where a thread computes on every core, the I/O thread takes one of them from time to time, and an
 * op waits for the thread that had it. What that costs lies between half of the I/O thread's work
 * and all of it; two clocks say it, one beside the other in turn. */
static int measure_drag(struct drive *d)
{
    double drag[9];
    int n = d->p->params->quick ? 1 : 9, r = 0;

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

/* ---- drives ---- */

int probe_find_drives(struct probe *p)
{
    struct tr_figures *f = &p->figures;
    dev_t device[TR_STORE_FOLDERS];
    struct tr_folders folders;
    int r = tr_io_check_environment();

    if (r < 0)
        return r;
    r = tr_folders_parse(&folders, p->params->store ? p->params->store : ".");
    for (uint32_t i = 0; i < folders.n && r == 0; i++) {
        char *whole = realpath(folders.path[i], NULL);
        struct stat st;
        uint32_t k = 0;

        if (!whole || stat(whole, &st) < 0) {
            r = tr_error(-errno, "%s: %s", folders.path[i], strerror(errno));
        } else if (strlen(whole) >= TR_FIGURES_FOLDER) {
            r = tr_error(-ENAMETOOLONG, "%s: path too long", whole);
        } else {
            while (k < f->n_drives && device[k] != st.st_dev)
                k++;
            if (k < f->n_drives)
                probe_log(p, "%s is on the drive of %s", whole, f->drive[k].folder);
            else
                strcpy(f->drive[f->n_drives++].folder, whole);
            device[k] = st.st_dev;
        }
        free(whole);
    }
    tr_folders_free(&folders);
    return r;
}

static int measure_alone(struct probe *p, struct drive *d, uint32_t k)
{
    struct tr_drive_rates *rates = &p->figures.drive[k].rates;
    int r = open_drives(d, &p->figures.drive[k], 1);

    probe_log(p, "drive: reading and writing %llu MiB in %s, at queue depths",
              (unsigned long long)(d->bytes >> 20), p->figures.drive[k].folder);
    if (r == 0)
        r = measure_depths(d, p->depth[k], &rates->alone);
    rates->beside = rates->alone;
    if (r == 0)
        r = measure_flush(d, &rates->flush);
    if (r == 0 && k == 0)
        r = measure_drag(d);
    close_drives(d);
    return r;
}

static int measure_together(struct probe *p, struct drive *d)
{
    struct tr_drive_ways ways[TR_STORE_FOLDERS];
    struct tr_figures *f = &p->figures;
    int r = open_drives(d, f->drive, f->n_drives);

    probe_log(p, "all %u drives at once", f->n_drives);
    if (r == 0 && (r = fill(d)) == 0)
        r = measure_ways(d, ways);
    for (uint32_t k = 0; k < f->n_drives && r == 0; k++)
        f->drive[k].rates.beside = ways[k];
    close_drives(d);
    return r;
}

int probe_drive(struct probe *p)
{
    struct drive *d = tr_alloc(TR_MEM_MISC, sizeof(*d));
    int r = d ? 0 : -ENOMEM;

    for (uint32_t k = 0; k <= p->figures.n_drives && r == 0; k++) {
        memset(d, 0, sizeof(*d));
        d->p = p;
        d->bytes = p->params->quick ? 4 * PIECE : 32 * PIECE;
        if (k < p->figures.n_drives)
            r = measure_alone(p, d, k);
        else if (k > 1)
            r = measure_together(p, d);
    }
    tr_free(TR_MEM_MISC, d);
    tr_figures_sum(&p->figures);
    return r;
}
