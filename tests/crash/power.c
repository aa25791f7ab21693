/* SPDX-License-Identifier: Apache-2.0
 *
 * Power loss at any instant of the program itself (invariants 2 and 3), with each optimizer that
 * keeps something, and with none. A run is recorded, import included: which bytes were written,
 * what was synced, in order (observer.h). Every prefix of that is a crash; of what was not synced
 * by then, all is there, nothing, some blocks, or some and garbage in others. Each time the store
 * must stand at the last commit that was durable or at the one that was under way, with the very
 * bytes that a run of as many steps has; before the first commit, at none. And from every so many
 * of these crashes the same command goes on, to the same exported model.
 *
 * tests/offload/test_crash.c does this with the engine alone, on all ways that bytes take, and with
 * more defects. Here it is the order in which the program does things.
 */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>
#include <xxhash.h>

#include "offload/store_private.h"
#include "src/base/file.h"
#include "src/base/philox.h"
#include "tests/crash/observer.h"
#include "tests/crash/program.h"
#include "tests/train/common.h"

#define STEPS  2
#define MODES  4
#define STRIDE 149 /* crashes from one that the command goes on from to the next */
#define NEVER  SIZE_MAX

struct event {
    struct logged e;
    const char *data; /* of a write that was asked for */
    size_t durable;   /* the event after which such a write is on disk for sure */
    int64_t step;     /* of a commit record, -1: it is none */
};

struct recording {
    char *log;
    struct event *events;
    size_t n, bytes[LOGGED_FILES];
    uint64_t state[STEPS + 1], model; /* checksums: the store after each step, what is exported */
    uint64_t device_memory;
};

static const struct job jobs[] = {
    {"lomo", {"--optimizer", "lomo"}, 1, STEPS},
    {"adamw", {"--optimizer", "adamw"}, 1, STEPS},
    {"adam-mini, bf16", {"--optimizer", "adam-mini", "--state-dtype", "bf16"}, 1, STEPS},
    {"adalomo", {"--optimizer", "adalomo"}, 0, STEPS},
    {"sgd, momentum", {"--optimizer", "sgd", "--momentum", "0.9"}, 0, STEPS},
    {"lomo, a commit at the end",
     {"--optimizer", "lomo", "--durability", "checkpoint", "--checkpoint-every", "9"},
     1,
     STEPS},
    {"adamw, two folders", {"--optimizer", "adamw"}, 1, STEPS, 2},
};
static const struct job *const two_folders = &jobs[6];

static const char *const names[LOGGED_FILES] = LOGGED_NAMES;
static char run[4352], crashed[4352], store[8900], log_path[4352];

/* All bytes that the store's commit names, each piece held against its checksum. */
static uint64_t state_of(struct tr_store *s)
{
    char *buf = tr_alloc_pages(TR_MEM_IO, TR_PIECE_BYTES);
    uint64_t h = 1;

    for (uint32_t i = 0; i < s->layout.n_pieces && h; i++)
        h = tr_store_read_piece(s, i, buf) < 0
                ? 0
                : h * 31 + XXH3_64bits(buf, s->layout.pieces[i].bytes);
    tr_free_pages(TR_MEM_IO, buf, TR_PIECE_BYTES);
    return h;
}

static uint64_t state_in(const char *folder)
{
    struct tr_store *s;
    uint64_t h;

    assert_int_equal(tr_store_open(&s, folder, TR_STORE_READ), 0);
    h = state_of(s);
    tr_store_close(s);
    return h;
}

/* The commit's payload begins with 16 bytes of its own, then comes the step. */
static int64_t step_of(const struct event *e)
{
    int64_t step;

    if (!e->data || (e->e.file != 2 && e->e.file != 3) || e->e.offset)
        return -1;
    memcpy(&step, e->data + 96 + 16, sizeof(step));
    return step;
}

static size_t done_at(const struct recording *c, uint32_t id)
{
    for (size_t i = 0; i < c->n; i++)
        if (c->events[i].e.done && c->events[i].e.id == id)
            return i;
    return NEVER;
}

/* A sync makes durable what was done before it was asked for. */
static size_t durable_at(const struct recording *c, const struct event *w)
{
    for (size_t k = done_at(c, w->e.id); k < c->n; k++)
        if (c->events[k].e.sync && c->events[k].e.file == w->e.file)
            return done_at(c, c->events[k].e.id);
    return NEVER;
}

static void parse_log(struct recording *c)
{
    size_t bytes, at = 0;

    assert_int_equal(tr_file_read(log_path, 1u << 28, &c->log, &bytes), 0);
    c->events = calloc(bytes / sizeof(struct logged), sizeof(*c->events));
    while (at < bytes) {
        struct event *e = &c->events[c->n++];

        memcpy(&e->e, c->log + at, sizeof(e->e));
        at += sizeof(e->e);
        if (!e->e.done && !e->e.sync) {
            e->data = c->log + at;
            at += e->e.bytes;
        }
        e->step = step_of(e);
    }
    for (size_t i = 0; i < c->n; i++)
        if (c->events[i].data)
            c->events[i].durable = durable_at(c, &c->events[i]);
}

static void record(struct recording *c, const struct job *job, enum defect defect)
{
    struct place place = {.run = run};
    struct observed o = {.die_in = PHASES, .defect = defect};
    const char *path = scratch_path("observed");
    FILE *f = fopen(path, "w");

    assert_int_equal(fwrite(&o, sizeof(o), 1, f), 1);
    fclose(f);
    tr_remove_tree(run);
    place.device_memory = c->device_memory = program_least_memory(job);
    setenv("TR_OBSERVED", path, 1);
    setenv("TR_OBSERVED_LOG", log_path, 1);
    setenv("LD_PRELOAD", OBSERVER, 1);
    if (program_run(job, &place, 0) != 0)
        fail_msg("%s: %s", job->name, program_said());
    unsetenv("LD_PRELOAD");
    c->model = program_model_hash(run);
    parse_log(c);
    for (int i = 0; i < LOGGED_FILES; i++) {
        char file[4500];
        struct stat st;

        snprintf(file, sizeof(file), "%s/%s", run, names[i]);
        assert_int_equal(stat(file, &st), i < 4 || job->folders ? 0 : -1);
        c->bytes[i] = i < 4 || job->folders ? (size_t)st.st_size : 0;
    }
}

/* The store after each number of steps, from a run that is stopped there by its caller. */
static void learn_states(struct recording *c, enum tr_optimizer optimizer, const struct job *job)
{
    for (int steps = 0; steps <= STEPS; steps++) {
        struct tr_train_params p = tiny_job(crashed, optimizer, TR_KEEP_STEP, STEPS);

        p.device_memory = c->device_memory;
        p.store = store;
        p.momentum = optimizer == TR_OPT_SGD ? 0.9 : 0;
        p.state_dtype = optimizer == TR_OPT_ADAM_MINI ? TR_TYPE_BF16 : TR_TYPE_SOURCE;
        if (train_part(&p, steps) < 0)
            fail_msg("%s: %s", job->name, tr_message());
        c->state[steps] = state_in(store);
        assert_int_equal(tr_remove_tree(crashed), 0);
    }
}

struct crash {
    size_t until; /* events that there were */
    int mode;     /* of what was not synced: 0 all is there, 1 nothing, 2 some, 3 and garbage */
    uint32_t n;
};

static uint32_t draw(struct crash *crash)
{
    struct tr_philox c = {{crash->n++, 0, 0, 0}};

    return tr_philox4x32(c, 20261128u, 2).v[0];
}

static void apply(char *to, const struct event *w, struct crash *crash)
{
    int mode = w->durable < crash->until ? 0 : crash->mode;

    for (size_t at = 0; at < w->e.bytes; at += TR_STORE_ALIGN) {
        size_t n = w->e.bytes - at < TR_STORE_ALIGN ? w->e.bytes - at : TR_STORE_ALIGN;
        uint32_t dice = mode > 1 ? draw(crash) % 3 : 0;

        if (mode == 0 || (mode > 1 && dice == 0))
            memcpy(to + w->e.offset + at, w->data + at, n);
        else if (mode == 3 && dice == 1)
            memset(to + w->e.offset + at, (int)draw(crash), n);
    }
}

/* The files as the crash has left them, in CRASHED. */
static void make_image(const struct recording *c, struct crash *crash)
{
    for (uint32_t file = 0; file < LOGGED_FILES; file++) {
        char *data, path[4500];
        int fd;

        if (!c->bytes[file])
            continue;
        data = calloc(1, c->bytes[file]);
        for (size_t i = 0; i < crash->until; i++)
            if (c->events[i].data && c->events[i].e.file == file)
                apply(data, &c->events[i], crash);
        snprintf(path, sizeof(path), "%s/%s", crashed, names[file]);
        fd = open(path, O_WRONLY | O_CREAT, 0644);
        assert_true(fd >= 0);
        assert_int_equal(tr_pwrite(fd, path, data, c->bytes[file], 0), 0);
        close(fd);
        free(data);
    }
}

/* 0 where the store is what it may be after this crash. */
static int check(const struct recording *c, const struct crash *crash, int64_t *step)
{
    int64_t low = -1, high = -1;
    struct tr_store *s;
    int wrong, r;

    for (size_t i = 0; i < crash->until; i++) {
        const struct event *e = &c->events[i];

        high = e->step > high ? e->step : high;
        low = e->step > low && e->durable < crash->until ? e->step : low;
    }
    r = tr_store_open(&s, store, TR_STORE_READ);
    *step = -1;
    if (r < 0)
        return !(r == -ENODATA && low < 0);
    memcpy(step, s->durable.payload + 16, sizeof(*step));
    wrong = *step < low || *step > high || state_of(s) != c->state[*step];
    tr_store_close(s);
    return wrong;
}

static void copy_run(void)
{
    char line[9000];

    tr_remove_tree(crashed);
    snprintf(line, sizeof(line), "cp -r %s %s && rm -r %s/model", run, crashed, crashed);
    assert_int_equal(system(line), 0);
}

/* The command again. An import that was cut off has not come to plan.json. */
static int go_on(const struct recording *c, const struct job *job, int64_t step)
{
    const struct place place = {.run = crashed, .device_memory = c->device_memory};
    char plan[4400];
    int wrong;

    snprintf(plan, sizeof(plan), "%s/plan.json", crashed);
    if (step < 0)
        unlink(plan);
    wrong = program_run(job, &place, 0) != 0 || program_model_hash(crashed) != c->model;
    if (wrong)
        print_error("%s, from step %lld: %s\n", job->name, (long long)step, program_said());
    copy_run();
    return wrong;
}

/* How many of all crashes leave something that is not as it should be. */
static int crash_everywhere(const struct recording *c, const struct job *job)
{
    struct crash crash = {0};
    int bad = 0, n = 0, went_on = 0;

    copy_run();
    for (crash.until = 0; crash.until <= c->n; crash.until++)
        for (crash.mode = 0; crash.mode < MODES; crash.mode++, n++) {
            int64_t step;
            int wrong;

            make_image(c, &crash);
            wrong = check(c, &crash, &step);
            if (!wrong && n % STRIDE == STRIDE / 2) {
                wrong = go_on(c, job, step);
                went_on++;
            }
            bad += wrong;
        }
    print_message("%s: %d crashes, %d leave damage; %d were gone on from\n", job->name, n, bad,
                  went_on);
    return bad;
}

/* Is the folder's name in its own folder on disk? `from`: behind where it was made. */
static int is_entered(const char *from, const char *made, size_t bytes)
{
    char line[4500];
    const char *slash = memrchr(made, '/', bytes);

    snprintf(line, sizeof(line), "synced %.*s\n", (int)(slash - made), made);
    return strstr(from, line) != NULL;
}

static int is_of_store(const char *path, size_t bytes)
{
    int is = 0;

    for (int i = 0; i < LOGGED_FILES; i++) {
        size_t n = strlen(names[i]);

        is |= bytes > n && !memcmp(path + bytes - n, names[i], n);
    }
    return is;
}

/* What a line of the log says was made, of the store's files by their first sync; NULL: nothing. */
static const char *made_in(const char *line, size_t bytes)
{
    if (!strncmp(line, "made ", 5))
        return line + 5;
    return !strncmp(line, "synced ", 7) && is_of_store(line, bytes) ? line + 7 : NULL;
}

static int count_lost(const char *text, int *made)
{
    int lost = 0;

    for (size_t n; *text; text += n + 1) {
        const char *path = made_in(text, n = strcspn(text, "\n"));

        if (!path)
            continue;
        ++*made;
        if (is_entered(text, path, n - (size_t)(path - text)))
            continue;
        lost++;
        print_message("not entered in its folder: %.*s\n", (int)n, text);
    }
    return lost;
}

/* A commit is worth nothing where the loss of power takes away a folder or a file: how many of
 * those that have been made are not entered in the folder above them before the first one. */
static int lose_names(const struct job *job, enum defect defect, int at_least)
{
    struct recording c = {0};
    char path[4400], *text, *end;
    int made = 0, lost;

    record(&c, job, defect);
    snprintf(path, sizeof(path), "%s.folders", log_path);
    assert_int_equal(tr_file_read(path, 1 << 20, &text, NULL), 0);
    end = strstr(text, "committed\n");
    assert_non_null(end);
    *end = 0;
    lost = count_lost(text, &made);
    assert_true(made >= at_least);
    tr_free(TR_MEM_TEXT, text);
    free(c.events);
    tr_free(TR_MEM_TEXT, c.log);
    assert_int_equal(tr_remove_tree(run), 0);
    return lost;
}

/* The run, its store, what is kept of the source; of the files two generations and records. */
static void test_names(void **state)
{
    (void)state;
    assert_int_equal(lose_names(&jobs[0], DEFECT_NONE, 3 + 4), 0);
    assert_int_equal(lose_names(two_folders, DEFECT_NONE, 4 + 6), 0);
}

/* Adapters beside a model lie in a folder of their own, which the model's is not synced with. */
static void test_adapter_names(void **state)
{
    static const struct job job = {
        "adapters", {"--lora-rank", "2", "--lora-optimizer", "sgd"}, 1, STEPS};
    struct recording c = {0};
    char path[4400], *text, *path_of, *end;

    (void)state;
    record(&c, &job, DEFECT_NONE);
    snprintf(path, sizeof(path), "%s.folders", log_path);
    assert_int_equal(tr_file_read(path, 1 << 20, &text, NULL), 0);
    end = strstr(text, "/adapter/adapter_model.safetensors\n");
    assert_non_null(end);
    end += strcspn(end, "\n");
    *end = 0;
    path_of = strrchr(text, ' ') + 1;
    assert_true(is_entered(end + 1, path_of, (size_t)(end - path_of)));
    tr_free(TR_MEM_TEXT, text);
    free(c.events);
    tr_free(TR_MEM_TEXT, c.log);
    assert_int_equal(tr_remove_tree(run), 0);
}

static void defect_no_names(void **state)
{
    (void)state;
    assert_true(lose_names(two_folders, DEFECT_NO_NAMES, 4 + 6) >= 4 + 6);
}

static int cut_power(size_t j, enum defect defect)
{
    static const enum tr_optimizer optimizers[] = {TR_OPT_LOMO,    TR_OPT_ADAMW, TR_OPT_ADAM_MINI,
                                                   TR_OPT_ADALOMO, TR_OPT_SGD,   TR_OPT_LOMO,
                                                   TR_OPT_ADAMW};
    struct recording c = {0};
    int bad;

    snprintf(store, sizeof(store), "%s", program_store(&jobs[j], crashed));
    record(&c, &jobs[j], defect);
    learn_states(&c, optimizers[j], &jobs[j]);
    bad = crash_everywhere(&c, &jobs[j]);
    free(c.events);
    tr_free(TR_MEM_TEXT, c.log);
    assert_int_equal(tr_remove_tree(run), 0);
    assert_int_equal(tr_remove_tree(crashed), 0);
    return bad;
}

static void test_any_instant(void **state)
{
    (void)state;
    for (size_t j = 0; j < sizeof(jobs) / sizeof(jobs[0]); j++)
        assert_int_equal(cut_power(j, DEFECT_NONE), 0);
}

static void defect_no_sync(void **state)
{
    (void)state;
    assert_true(cut_power(0, DEFECT_NO_SYNC) > 0);
}

static int setup(void **state)
{
    (void)state;
#ifdef __SANITIZE_ADDRESS__ /* whose library wants to come first, and is in the observer, too */
    setenv("ASAN_OPTIONS", "verify_asan_link_order=0:detect_leaks=0", 1);
#endif
    setenv("TAILRACE_IO", "threads", 1); /* whose calls can be recorded */
    program_make_inputs(1);
    snprintf(run, sizeof(run), "%s", scratch_path("run"));
    snprintf(crashed, sizeof(crashed), "%s", scratch_path("crashed"));
    snprintf(log_path, sizeof(log_path), "%s", scratch_path("log"));
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_names),       cmocka_unit_test(test_adapter_names),
        cmocka_unit_test(test_any_instant), cmocka_unit_test(defect_no_sync),
        cmocka_unit_test(defect_no_names),
    };

    if (access("/dev/shm", W_OK) == 0) /* thousands of small stores */
        setenv("TMPDIR", "/dev/shm", 1);
    return cmocka_run_group_tests_name("power loss, the program", tests, setup, NULL);
}
