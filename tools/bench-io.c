/* SPDX-License-Identifier: Apache-2.0
 *
 * bench-io: what the offload engine gets from a drive. Makes a store of the asked size and plays
 * the schedule of training steps (forward: every block is read; backward: read again, changed,
 * written back; commit) without any arithmetic. tools/bench runs fio with the same phases, block
 * size and depth on the same folder beside it.
 *
 * Needs no device: with nothing queued, a visit's compute has passed as soon as it is released.
 */
#include <argp.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>

#include "offload/offload.h"
#include "offload/queue.h"
#include "src/base/err.h"
#include "src/base/file.h"
#include "src/base/pages.h"

struct options {
    const char *folder;
    uint64_t megabytes;
    uint32_t blocks, slots, steps;
    enum tr_io_kind io;
    int serial, unchecked;
};

static int idle_call(struct tr_device *d, enum tr_stream s, void (*fn)(void *arg), void *arg)
{
    (void)d;
    (void)s;
    fn(arg);
    return 0;
}

static void idle_info(const struct tr_device *d, struct tr_device_info *info)
{
    (void)d;
    memset(info, 0, sizeof(*info));
    info->host_visible = 1;
}

static int idle_error(struct tr_device *d)
{
    (void)d;
    return 0;
}

static int idle_sync(struct tr_device *d, enum tr_stream s)
{
    (void)d;
    (void)s;
    return 0;
}

static const struct tr_device_ops idle_ops = {
    .info = idle_info, .call = idle_call, .sync = idle_sync, .error = idle_error};

static double seconds(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static void block_names(struct tr_layout *l, uint32_t i)
{
    char text[32];

    snprintf(text, sizeof(text), "block %u", i);
    l->segments[i].record = tr_strdup(TR_MEM_MISC, text);
    l->segments[i].kind = tr_strdup(TR_MEM_MISC, "params");
}

/* Equal blocks of one tensor each, cut into pieces of 16 MiB. */
static void make_layout(struct tr_layout *l, const struct options *o)
{
    uint64_t bytes = o->megabytes * (1u << 20) / o->blocks / TR_STORE_ALIGN * TR_STORE_ALIGN;
    uint32_t pieces = tr_pieces_of(bytes);

    memset(l, 0, sizeof(*l));
    l->n_segments = l->n_spans = o->blocks;
    l->n_pieces = o->blocks * pieces;
    l->segments = tr_alloc_array(TR_MEM_MISC, o->blocks, sizeof(*l->segments));
    l->spans = tr_alloc_array(TR_MEM_MISC, o->blocks, sizeof(*l->spans));
    l->pieces = tr_alloc_array(TR_MEM_MISC, l->n_pieces, sizeof(*l->pieces));
    for (uint32_t i = 0; i < o->blocks; i++) {
        l->spans[i] = (struct tr_span){.segment = i,
                                       .first_piece = i * pieces,
                                       .n_pieces = pieces,
                                       .offset = i * bytes,
                                       .bytes = bytes};
        block_names(l, i);
        for (uint32_t k = 0; k < pieces; k++) {
            uint64_t at = (uint64_t)k * TR_PIECE_BYTES, left = bytes - at;

            l->pieces[i * pieces + k] =
                (struct tr_piece){.name = tr_strdup(TR_MEM_MISC, "weight"),
                                  .tensor_offset = at,
                                  .offset = at,
                                  .bytes = left < TR_PIECE_BYTES ? left : TR_PIECE_BYTES};
        }
    }
}

/* Both generations are written once: space that was only allocated reads and writes differently. */
static int fill(struct tr_store *s)
{
    const struct tr_layout *l = tr_store_layout(s);
    uint64_t *buf = tr_alloc_pages(TR_MEM_IO, TR_PIECE_BYTES);
    int r = buf ? 0 : -ENOMEM;

    for (int generation = 0; generation < 2 && r == 0; generation++) {
        for (uint32_t i = 0; i < l->n_pieces && r == 0; i++) {
            for (uint32_t k = 0; k < TR_PIECE_BYTES / 8; k++)
                buf[k] = (k + i) * 0x9e3779b97f4a7c15u;
            r = tr_store_write_piece(s, i, buf);
        }
        if (r == 0)
            r = tr_store_commit(s, "", 0);
    }
    tr_free_pages(TR_MEM_IO, buf, TR_PIECE_BYTES);
    return r;
}

static int visit_all(struct tr_offload *e, uint32_t from, uint32_t to)
{
    int r = 0;

    for (uint32_t i = from; i < to && r == 0; i++) {
        void *at[TR_VISIT_SPANS];

        r = tr_offload_acquire(e, i, at);
        if (r == 0)
            r = tr_offload_release(e, i);
    }
    return r;
}

/* A point in a step. */
struct point {
    double time, cpu; /* cpu: of all threads of the process, those of the kernel for it included */
    struct tr_offload_stats stats;
};

static void look(struct point *p, struct tr_offload *e)
{
    struct rusage used;

    getrusage(RUSAGE_SELF, &used);
    p->time = seconds();
    p->cpu = (double)(used.ru_utime.tv_sec + used.ru_stime.tv_sec) +
             1e-6 * (double)(used.ru_utime.tv_usec + used.ru_stime.tv_usec);
    tr_offload_stats(e, &p->stats);
}

static void print_phase(const char *name, const struct point *a, const struct point *b)
{
    double reads = (double)(b->stats.read_bytes - a->stats.read_bytes) * 1e-9;
    double writes = (double)(b->stats.written_bytes - a->stats.written_bytes) * 1e-9;
    double time = b->time - a->time;

    printf("%-9s read %6.3f GB  write %6.3f GB  %6.3f s  core %5.2f %% per GB/s  %6.3f GB/s\n",
           name, reads, writes, time, 100 * (b->cpu - a->cpu) / (reads + writes),
           (reads + writes) / time);
}

static int play_step(struct tr_offload *e, struct tr_visit *v, uint32_t blocks)
{
    struct point at[3];
    int r = tr_offload_begin(e, v, 2 * blocks, v, 2 * blocks);

    look(&at[0], e);
    if (r == 0)
        r = visit_all(e, 0, blocks);
    look(&at[1], e);
    if (r == 0)
        r = visit_all(e, blocks, 2 * blocks);
    if (r == 0)
        r = tr_offload_drain(e);
    look(&at[2], e);
    if (r == 0)
        r = tr_offload_commit(e, "", 0);
    if (r == 0)
        r = tr_offload_commit_wait(e);
    if (r < 0)
        return r;
    print_phase("forward", &at[0], &at[1]);
    print_phase("backward", &at[1], &at[2]);
    printf("commit    %.3f s\n", seconds() - at[2].time);
    return 0;
}

static int play(const struct options *o, struct tr_store *store)
{
    struct tr_device device = {&idle_ops};
    uint64_t slot = tr_store_layout(store)->spans[0].bytes;
    struct tr_slot_pool pool = {tr_pages_alloc(TR_MEM_ARENA, slot * o->slots, TR_PAGES_LOCKED),
                                slot, o->slots};
    struct tr_visit *v = tr_alloc_array(TR_MEM_MISC, 2 * o->blocks, sizeof(*v));
    struct tr_offload_params p = {.store = store,
                                  .device = &device,
                                  .pools = &pool,
                                  .n_pools = 1,
                                  .io = o->io,
                                  .serial = o->serial,
                                  .unchecked = o->unchecked};
    struct tr_offload *e = NULL;
    int r = pool.base && v ? tr_offload_open(&e, &p) : -ENOMEM;

    if (r == 0)
        printf("engine    %s, blocks of %u KiB, depth %u\n", tr_offload_io_name(e),
               TR_IO_CHUNK >> 10, TR_IO_DEPTH);
    for (uint32_t i = 0; r == 0 && i < o->blocks; i++) {
        v[i] = (struct tr_visit){.n_spans = 1, .span = {i}};
        v[2 * o->blocks - 1 - i] = (struct tr_visit){.n_spans = 1, .span = {i}, .changed = 1};
    }
    for (uint32_t i = 0; r == 0 && i < o->steps; i++)
        r = play_step(e, v, o->blocks);
    tr_offload_close(e);
    tr_free(TR_MEM_MISC, v);
    tr_free_pages(TR_MEM_ARENA, pool.base, slot * o->slots);
    return r;
}

static error_t parse(int key, char *arg, struct argp_state *state)
{
    struct options *o = state->input;

    if (key == 'm')
        o->megabytes = strtoull(arg, NULL, 10);
    else if (key == 'b')
        o->blocks = (uint32_t)strtoul(arg, NULL, 10);
    else if (key == 's')
        o->slots = (uint32_t)strtoul(arg, NULL, 10);
    else if (key == 'n')
        o->steps = (uint32_t)strtoul(arg, NULL, 10);
    else if (key == 'i')
        o->io = !strcmp(arg, "threads") ? TR_IO_THREADS : TR_IO_URING;
    else if (key == 'S')
        o->serial = 1;
    else if (key == 'u')
        o->unchecked = 1;
    else if (key == ARGP_KEY_ARG && state->arg_num == 0)
        o->folder = arg;
    else if (key == ARGP_KEY_END && (!o->folder || !o->blocks || !o->slots || !o->megabytes))
        argp_usage(state);
    else
        return ARGP_ERR_UNKNOWN;
    return 0;
}

static void remove_folders(const char *list)
{
    struct tr_folders f;

    for (uint32_t i = 0; tr_folders_parse(&f, list) == 0 && i < f.n; i++) {
        tr_remove_tree(f.path[i]);
        tr_folders_free(&f);
    }
}

int main(int argc, char **argv)
{
    static const struct argp_option table[] = {
        {"megabytes", 'm', "N", 0, "Size of one generation in MiB (2048)", 0},
        {"blocks", 'b', "N", 0, "Blocks it consists of (24)", 0},
        {"slots", 's', "N", 0, "Slots to stream through (4)", 0},
        {"steps", 'n', "N", 0, "Steps to play (3)", 0},
        {"io", 'i', "io_uring|threads", 0, "I/O engine (the best there is)", 0},
        {"serial", 'S', NULL, 0, "No overlap at all", 0},
        {"unchecked", 'u', NULL, 0, "No checksums: what they cost is the difference", 0},
        {0}};
    static const struct argp argp = {
        table,
        parse,
        "FOLDER[:FOLDER...]",
        "Plays the disk traffic of training steps in FOLDER (or several, as "
        "one store), which must not exist and is removed afterwards.",
        0,
        0,
        0};
    struct options o = {.megabytes = 2048, .blocks = 24, .slots = 4, .steps = 3};
    struct tr_store *store = NULL;
    struct tr_layout layout;
    int r;

    if (argp_parse(&argp, argc, argv, 0, NULL, &o))
        return 2;
    make_layout(&layout, &o);
    r = tr_store_create(&store, o.folder, &layout, 2);
    if (r == 0)
        r = fill(store);
    if (r == 0)
        r = play(&o, store);
    if (r < 0)
        fprintf(stderr, "bench-io: %s\n", tr_error_message());
    if (store) {
        tr_store_close(store);
        remove_folders(o.folder);
    }
    tr_layout_free(&layout);
    return r < 0;
}
