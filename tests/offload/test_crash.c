/* SPDX-License-Identifier: Apache-2.0
 *
 * Power loss at any instant (invariants 2 and 3). A run is recorded: which bytes were submitted,
 * which were done, which synced, in order. Then every prefix of that record is a crash. What was
 * synced is on disk; of what was not, each block may be there, be missing, or be garbage. After
 * each crash the store must open at the last durable commit or at the one that was being made, with
 * all its bytes; and from every so many of these crashes the run goes on, to the bytes that it
 * ended with undisturbed.
 *
 * The same is done with defects put in on purpose, which must be found; all of it on each way that
 * bytes take between disk and device.
 */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "src/base/file.h"
#include "src/base/mem.h"
#include "tests/offload/player.h"

#define STEPS  6
#define STRIDE 61 /* crashes from one that the run goes on from to the next */
/* Sanitizers look at the test's accesses and threads, which are the same in each recording and each
 * of its crashes; what a crash leaves is looked at without. */
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define EACH    7
#define MUTANTS 0
#else
#define EACH    1
#define MUTANTS 1
#endif

static int recordings = 1; /* of each kind; "--all": 3 */

static const struct way *way;
static uint32_t n_folders;

/* The files of all folders. */
struct image {
    char *data[TR_MOST_FILES];
    size_t bytes[TR_MOST_FILES];
};

struct recording {
    struct player p;
    struct faulty f;
    struct io_log log;
    struct tr_folders folders;
    struct image base;
    struct tr_commit_shape shape;
    char **snapshot[STEPS + 1]; /* the model when step i was committed; NULL: it was not */
    char **end;                 /* the model when all was done; NULL: it was not */
};

static char *file_path(const struct tr_folders *f, uint32_t file)
{
    return tr_path(f->path[tr_file_folder(file)], tr_store_file_name(file));
}

static void read_image(struct image *m, const struct tr_folders *folders)
{
    for (uint32_t i = 0; i < tr_file_count(folders->n); i++) {
        char *path = file_path(folders, i);

        if (access(path, F_OK) == 0)
            assert_ok(tr_file_read(path, 1 << 26, &m->data[i], &m->bytes[i]));
        tr_free(TR_MEM_MISC, path);
    }
}

static void free_image(struct image *m)
{
    for (uint32_t i = 0; i < TR_MOST_FILES; i++)
        tr_free(TR_MEM_TEXT, m->data[i]);
}

static int step(struct player *p, int i)
{
    return player_step(p, i == 4 && !p->p.paired ? 2 : i == 2, 0);
}

static int is_committed(const struct player *p, int i)
{
    return p->p.durability == TR_DURABLE_STEP || i % 2 == 1;
}

static int step_and_commit(struct recording *c, int i)
{
    struct player *p = &c->p;
    int r = step(p, i);

    if (r < 0 || !is_committed(p, i))
        return r;
    c->snapshot[p->step] = model_copy(&p->layout, p->model);
    return player_commit(p);
}

/* The first session ended before its last record was synced, as if killed there. Opening the store
 * has to make up for it. */
static int begin_session(struct recording *c, enum mutant mutant)
{
    int r = tr_offload_commit_wait(c->p.o);

    if (r < 0)
        return r;
    c->f.mutant = mutant;
    r = player_reopen(&c->p);
    c->f.mutant = MUTANT_NONE;
    return r < 0 ? r : player_open_engine(&c->p);
}

/* Two sessions of some steps each. Mutants may break the run itself: then what was recorded until
 * there is enough. */
static void record(struct recording *c, enum tr_durability durability, enum mutant mutant,
                   uint64_t seed)
{
    struct tr_io_hook hook = {faulty_wrap, &c->f};
    struct player_params params = {
        .shape = {.n_spans = 4, .n_pools = 1, .max_pieces = 2, .max_bytes = 6000, .seed = seed},
        .slots = {2 + (uint32_t)(seed % 2), 2},
        .scratch = seed % 2 ? 4 : 0,
        .io = TR_IO_THREADS,
        .folders = n_folders,
        .durability = durability,
        .way = *way,
        .seed = seed,
        .max_delay_us = 100};
    int opening = mutant == MUTANT_NO_RECORD_SYNC, r = 0;

    if (seed == 2) { /* parameters and optimizer state by turns */
        params.paired = 1;
        params.shape.n_spans = 6;
        params.shape.n_pools = 2;
    }
    memset(c, 0, sizeof(*c));
    player_open(&c->p, &params);
    c->snapshot[0] = model_copy(&c->p.layout, c->p.model);
    c->shape = c->p.store->shape;
    assert_ok(tr_offload_close(c->p.o));
    assert_ok(tr_folders_parse(&c->folders, c->p.folders));
    read_image(&c->base, &c->folders);
    log_open(&c->log);
    c->f = (struct faulty){.seed = seed,
                           .short_percent = 10,
                           .delay_percent = 30,
                           .mutant = opening ? MUTANT_NONE : mutant,
                           .patience = 6,
                           .log = &c->log};
    c->p.store->hook = hook;
    assert_ok(player_open_engine(&c->p));
    for (int i = 0; i < STEPS && r == 0; i++) {
        int last = i == STEPS / 2 && durability == TR_DURABLE_STEP;

        if (last && (mutant == MUTANT_NONE || opening)) {
            assert_ok(tr_offload_commit_wait(c->p.o));
            c->f.mutant = MUTANT_NO_RECORD_SYNC;
        }
        r = step_and_commit(c, i);
        if (r == 0 && last && c->f.mutant == MUTANT_NO_RECORD_SYNC)
            r = begin_session(c, mutant);
    }
    if (r == 0)
        r = tr_offload_commit_wait(c->p.o);
    if (mutant == MUTANT_NONE)
        assert_ok(r);
    c->end = r == 0 ? model_copy(&c->p.layout, c->p.model) : NULL;
    tr_offload_close(c->p.o);
    tr_store_close(c->p.store);
    c->p.o = NULL;
    c->p.store = NULL;
}

static void free_recording(struct recording *c)
{
    for (int i = 0; i <= STEPS; i++)
        if (c->snapshot[i])
            model_free(&c->p.layout, c->snapshot[i]);
    if (c->end)
        model_free(&c->p.layout, c->end);
    log_close(&c->log);
    free_image(&c->base);
    tr_folders_free(&c->folders);
    player_close(&c->p);
}

/* The index of the event in which this write or sync was done before `until`, or `until`. */
static size_t done_at(const struct io_log *log, uint32_t id, size_t until)
{
    for (size_t i = 0; i < until; i++)
        if (log->events[i].kind == LOG_DONE && log->events[i].id == id)
            return i;
    return until;
}

/* Was the write of event i on disk for sure when the power went, before event `until`? */
static int is_durable(const struct io_log *log, size_t i, size_t until)
{
    size_t done = done_at(log, log->events[i].id, until);

    for (size_t k = done; k < until; k++) {
        const struct log_event *e = &log->events[k];

        if (e->kind == LOG_SUBMIT && e->op == TR_IO_SYNC && e->file == log->events[i].file &&
            done_at(log, e->id, until) < until)
            return 1;
    }
    return 0;
}

/* What may have become of a write that was not synced: mode 0 all of it is there, 1 none, 2 some
 * blocks, 3 some blocks and garbage in others. */
static void apply(char *to, const struct log_event *e, int mode, uint64_t *rng)
{
    for (size_t at = 0; at < e->bytes; at += TR_STORE_ALIGN) {
        size_t n = e->bytes - at < TR_STORE_ALIGN ? e->bytes - at : TR_STORE_ALIGN;
        uint32_t dice = rng_below(rng, 3);

        if (mode == 0 || (mode >= 2 && dice == 0))
            memcpy(to + e->offset + at, e->data + at, n);
        else if (mode == 3 && dice == 1)
            fill_bytes(to + e->offset + at, n, rng_next(rng));
    }
}

static void write_image(const struct image *m, const struct tr_folders *folders)
{
    for (uint32_t i = 0; i < tr_file_count(folders->n); i++) {
        char *path = file_path(folders, i);
        int fd = m->data[i] ? open(path, O_WRONLY | O_CREAT, 0644) : -1;

        if (m->data[i]) {
            assert_true(fd >= 0);
            assert_ok(tr_pwrite(fd, path, m->data[i], m->bytes[i], 0));
            close(fd);
        }
        tr_free(TR_MEM_MISC, path);
    }
}

/* The step that a commit record names, from its first block, before there is a checksum to look at
 * (offload/commit.h has the places). "start" is step 0; the mark of an open store is no step. */
static int64_t step_of(const char *block)
{
    int64_t step;
    uint32_t flags, payload_bytes;

    memcpy(&flags, block + 12, 4);
    memcpy(&payload_bytes, block + 32, 4);
    memcpy(&step, block + 96, 8);
    if (flags & TR_COMMIT_OPEN)
        return -1;
    return payload_bytes == 5 ? 0 : step;
}

struct bounds {
    int64_t low, high; /* steps that the store may stand at */
};

/* A record cut short is written in parts; it is durable when its last part is. */
static struct bounds bounds_at(const struct recording *c, size_t until)
{
    struct bounds b = {0, 0};
    int64_t step = -1;

    for (size_t i = 0; i < until; i++) {
        const struct log_event *e = &c->log.events[i];

        if (e->kind != LOG_SUBMIT || e->op != TR_IO_WRITE || tr_file_is_generation(e->file))
            continue;
        if (e->offset == 0)
            step = step_of(e->data);
        if (step > b.high)
            b.high = step;
        if (step > b.low && e->offset + e->bytes == tr_commit_bytes(&c->shape) &&
            is_durable(&c->log, i, until))
            b.low = step;
    }
    return b;
}

/* 0 where the store is what it may be after this crash. */
static int check_store(struct recording *c, const char *list, struct bounds b)
{
    struct tr_store *s;
    char *buf;
    int64_t step = 0;
    size_t bytes;
    int r = tr_store_open(&s, list, TR_STORE_READ);

    if (r < 0)
        return r == -EUCLEAN && c->p.p.durability == TR_DURABLE_NONE ? 0 : -1;
    tr_store_payload(s, &step, sizeof(step), &bytes);
    step = bytes == 5 ? 0 : step;
    if (step < b.low || step > b.high || !c->snapshot[step])
        r = -2;
    if (r == 0 && tr_store_torn_damaged(s)) /* a crash is not called damage */
        r = -6;
    buf = tr_alloc_pages(TR_MEM_IO, TR_PIECE_BYTES);
    for (uint32_t i = 0; i < c->p.layout.n_pieces && r == 0; i++) {
        const struct tr_piece *piece = &c->p.layout.pieces[i];
        uint32_t span = tr_layout_span_of(&c->p.layout, i);

        r = tr_store_read_piece(s, i, buf);
        if (r == 0 && memcmp(buf, c->snapshot[step][span] + piece->offset, piece->bytes))
            r = -3;
    }
    tr_free_pages(TR_MEM_IO, buf, TR_PIECE_BYTES);
    tr_store_close(s);
    return r;
}

static int finish(struct player *p, int i, char **end)
{
    int r = player_open_engine(p);

    for (; i < STEPS && r == 0; i++) {
        r = step(p, i);
        if (r == 0 && is_committed(p, i))
            r = player_commit(p);
    }
    if (r == 0)
        r = tr_offload_commit_wait(p->o);
    tr_offload_close(p->o);
    p->o = NULL;
    return r < 0 ? r : player_compare_store(p, end);
}

/* The run goes on from where the store stands; its device and model are those of the recording. */
static int go_on(struct recording *c, const char *list)
{
    struct player *p = &c->p;
    uint64_t mismatches = p->mismatches;
    size_t bytes;
    int r = tr_store_open(&p->store, list, TR_STORE_WRITE);

    if (r < 0)
        return r == -EUCLEAN && p->p.durability == TR_DURABLE_NONE ? 0 : -4;
    tr_store_payload(p->store, &p->step, sizeof(p->step), &bytes);
    p->step = bytes == 5 ? 0 : p->step;
    p->rng = p->p.seed;
    for (uint32_t i = 0; i < p->layout.n_spans; i++)
        memcpy(p->model[i], c->snapshot[p->step][i], p->layout.spans[i].bytes);
    r = finish(p, (int)p->step, c->end);
    tr_store_close(p->store);
    p->store = NULL;
    return r < 0 || p->mismatches != mismatches ? -5 : 0;
}

struct crash {
    size_t until;
    int mode;
    uint64_t rng;
    uint32_t survived;
};

/* Who writes but one generation reads but one. */
static void merge_generations(struct image *m, uint32_t folders)
{
    for (uint32_t i = 0; i < folders; i++)
        memcpy(m->data[tr_file_in(TR_FILE_GEN1, i)], m->data[tr_file_in(TR_FILE_GEN0, i)],
               m->bytes[tr_file_in(TR_FILE_GEN0, i)]);
}

static int crash_at(struct recording *c, struct crash *crash, const struct tr_folders *folders,
                    const char *list)
{
    struct image m;
    int r;

    for (uint32_t i = 0; i < TR_MOST_FILES; i++) {
        m.bytes[i] = c->base.bytes[i];
        m.data[i] = c->base.data[i] ? tr_alloc(TR_MEM_TEXT, m.bytes[i]) : NULL;
        if (m.data[i])
            memcpy(m.data[i], c->base.data[i], m.bytes[i]);
    }
    for (size_t i = 0; i < crash->until; i++) {
        const struct log_event *e = &c->log.events[i];

        if (e->kind == LOG_SUBMIT && e->op == TR_IO_WRITE)
            apply(m.data[e->file], e, is_durable(&c->log, i, crash->until) ? 0 : crash->mode,
                  &crash->rng);
    }
    if (c->f.mutant == MUTANT_ONE_GENERATION)
        merge_generations(&m, folders->n);
    write_image(&m, folders);
    free_image(&m);
    r = check_store(c, list, bounds_at(c, crash->until));
    if (r == 0 && c->end && ++crash->survived % STRIDE == 0)
        r = go_on(c, list);
    return r;
}

static void copy_name(const char *from, const char *to, const char *name)
{
    char *source = tr_path(from, name), *copy = tr_path(to, name);

    assert_ok(tr_file_copy(source, copy, UINT64_MAX));
    tr_free(TR_MEM_MISC, source);
    tr_free(TR_MEM_MISC, copy);
}

/* How many of all crashes leave a store that is not as it should be. Where all is written that was
 * to be, a mutant, too, leaves nothing wrong. */
static int count_violations(struct recording *c, int *crashes)
{
    char *list = test_folders(c->folders.n);
    struct crash crash = {.rng = 77};
    struct tr_folders to;
    int bad = 0;

    assert_ok(tr_folders_parse(&to, list));
    for (uint32_t i = 0; i < to.n; i++) {
        assert_ok(tr_make_folder(to.path[i]));
        if (i == 0)
            copy_name(c->folders.path[i], to.path[i], "store.json");
        if (to.n > 1)
            copy_name(c->folders.path[i], to.path[i], "part.json");
    }
    for (crash.until = 0; crash.until <= c->log.n; crash.until += EACH)
        for (crash.mode = 0; crash.mode < 4; crash.mode++, ++*crashes)
            bad += crash_at(c, &crash, &to, list) != 0;
    crash = (struct crash){.until = c->log.n};
    assert_int_equal(crash_at(c, &crash, &to, list), 0);
    tr_folders_free(&to);
    tr_free(TR_MEM_MISC, list);
    return bad;
}

static void any_instant(enum tr_durability durability)
{
    static uint64_t turn;
    int crashes = 0;

    for (int i = 0; i < recordings; i++, turn++) {
        struct recording c;

        record(&c, durability, MUTANT_NONE, 1 + (turn + turn / 3) % 3);
        assert_int_equal(count_violations(&c, &crashes), 0);
        free_recording(&c);
    }
    print_message("%d crashes\n", crashes);
    assert_true(crashes > recordings * 160 / EACH);
}

static void durability_step(void **state)
{
    (void)state;
    any_instant(TR_DURABLE_STEP);
}

static void durability_checkpoint(void **state)
{
    (void)state;
    any_instant(TR_DURABLE_CHECKPOINT);
}

/* One generation: killed while it runs it is refused, never opened with mixed bytes. */
static void durability_none(void **state)
{
    (void)state;
    any_instant(TR_DURABLE_NONE);
}

static void expect_caught(enum mutant mutant)
{
    int crashes = 0, bad = 0;

    if (!MUTANTS) {
        print_message("skipped: a mutant, which is looked for without sanitizers\n");
        skip();
    }
    for (uint64_t seed = 1; seed <= 3 && !bad; seed++) {
        struct recording c;

        record(&c, TR_DURABLE_STEP, mutant, seed);
        bad = count_violations(&c, &crashes);
        free_recording(&c);
    }
    print_message("%d of %d crashes damage the store\n", bad, crashes);
    assert_true(bad > 0);
}

static void mutant_no_data_sync(void **state)
{
    (void)state;
    expect_caught(MUTANT_NO_DATA_SYNC);
}

/* Only the first folder is synced: with one folder there is nothing to forget. */
static void mutant_no_part_sync(void **state)
{
    (void)state;
    if (n_folders > 1)
        expect_caught(MUTANT_NO_PART_SYNC);
}

static void mutant_one_generation(void **state)
{
    (void)state;
    expect_caught(MUTANT_ONE_GENERATION);
}

/* Opening without syncing the records first. */
static void mutant_no_record_sync(void **state)
{
    (void)state;
    expect_caught(MUTANT_NO_RECORD_SYNC);
}

static void mutant_early_sync(void **state)
{
    (void)state;
    expect_caught(MUTANT_EARLY_SYNC);
}

int main(int argc, char **argv)
{
    int failed = 0;
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(durability_step),       cmocka_unit_test(durability_checkpoint),
        cmocka_unit_test(durability_none),       cmocka_unit_test(mutant_no_data_sync),
        cmocka_unit_test(mutant_one_generation), cmocka_unit_test(mutant_early_sync),
        cmocka_unit_test(mutant_no_record_sync), cmocka_unit_test(mutant_no_part_sync),
    };

    if (argc > 1 && !strcmp(argv[1], "--all"))
        recordings = 3;
    /* Thousands of small stores: in memory where there is such a place. */
    if (access("/dev/shm", W_OK) == 0)
        setenv("TMPDIR", "/dev/shm", 1);
    for (int i = 0; i < 2 * WAYS; i++) {
        way = &ways[i / 2];
        n_folders = i % 2 ? 3 : 1;
        print_message("%s, %u folders:\n", way->name, n_folders);
        failed += cmocka_run_group_tests(tests, NULL, NULL);
    }
    return failed;
}
