/* SPDX-License-Identifier: Apache-2.0
 *
 * A store over several folders is foretold as it is: by the figures of its drives, which also say
 * what lies where; folders on one drive are that drive. The figures are made up, the folders real:
 * some on the drive of the scratch folder, one in memory where that is another file system.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "offload/stripes.h"
#include "src/base/file.h"
#include "src/run/open.h"
#include "tests/json_blocks.h"
#include "tests/plan/cpu_figures.h"
#include "tests/train/common.h"

static char memory[] = "/dev/shm/tailrace-drives-XXXXXX"; /* another drive, or empty */
static char bits[96], said[4096];
static uint64_t budget;

static void keep_said(void *arg, const char *line)
{
    size_t used = strlen(said);

    (void)arg;
    snprintf(said + used, sizeof(said) - used, "%s\n", line);
}

/* Alone and beside each other as fast; reads, writes and both alike. */
static struct tr_drive_rates rates(double speed)
{
    struct tr_drive_ways w = {speed, speed, speed};

    return (struct tr_drive_rates){w, w, 0};
}

/* Figures of this device with such drives. */
static void measured(uint32_t n, const struct tr_figures_drive *drives)
{
    struct tr_figures f;

    figures_of_cpu(&f, bits);
    f.n_drives = n;
    for (uint32_t i = 0; i < n; i++)
        f.drive[i] = drives[i];
    tr_figures_sum(&f);
    keep_figures(&f);
}

static struct tr_figures_drive drive(const char *folder, double speed)
{
    struct tr_figures_drive d = {.rates = rates(speed)};

    snprintf(d.folder, sizeof(d.folder), "%s", folder);
    return d;
}

static tr_run *open_run(const char *store)
{
    struct tr_train_params p = tiny_job(scratch_path("run"), TR_OPT_LOMO, TR_KEEP_STEP, 4);
    tr_run *run;

    p.store = store;
    p.device_memory = budget;
    p.log = keep_said;
    *said = 0;
    if (tr_train_open(&run, &p) < 0)
        fail_msg("%s", tr_message());
    return run;
}

static void close_run(tr_run *run)
{
    tr_train_close(run);
    assert_int_equal(tr_remove_tree(scratch_path("run")), 0);
}

/* A model of which a step moves most, with the smallest budget; what this device is called. */
static int begin(void **state)
{
    const struct tiny shape = {"llama", 128, 352, 8, 4, 2, 32, 3000, 512, ""};
    struct tr_train_params p = tiny_job(scratch_path("run"), TR_OPT_LOMO, TR_KEEP_STEP, 4);
    struct stat a, b;
    tr_run *run;

    (void)state;
    tiny_model(p.model, &shape, TR_TYPE_BF16, 3);
    token_data(p.data, 40, 30, 64, shape.vocab);
    budget = smallest_budget(p);
    run = open_run(NULL);
    strcpy(bits, run->device_info.bits);
    close_run(run);
    if (!mkdtemp(memory) || stat(memory, &a) < 0 || stat(scratch(), &b) < 0 ||
        a.st_dev == b.st_dev) {
        print_message("skipped: stores over two drives, for /dev/shm is no other\n");
        *memory = 0;
    }
    return 0;
}

static int end(void **state)
{
    (void)state;
    return *memory ? tr_remove_tree(memory) : 0;
}

/* Two folders on one drive take what one folder on it takes, and not half. */
static void one_drive(void **state)
{
    struct tr_figures_drive here = drive(scratch(), 1e8);
    char list[8704];
    double one, two;
    tr_run *run;

    (void)state;
    measured(1, &here);
    run = open_run(NULL);
    one = run->foreseen.sim.seconds;
    assert_true(run->foreseen.sim.idle[TR_SERVE_DRIVE] > one / 2);
    close_run(run);
    snprintf(list, sizeof(list), "%s:%s", scratch_path("a"), scratch_path("b"));
    run = open_run(list);
    two = run->foreseen.sim.seconds;
    assert_int_equal(run->foreseen.sim.n_drives, 1);
    assert_string_equal(run->foreseen.limit, "the drive");
    assert_true(two > 0.97 * one && two < 1.03 * one);
    close_run(run);
    for (int i = 0; i < 2; i++)
        assert_int_equal(tr_remove_tree(scratch_path(i ? "b" : "a")), 0);
}

static char *plan_of(void *run)
{
    const char *path = scratch_path("run/plan.json");

    unlink(path);
    return blocks_file(run_write_plan(run), path);
}

static char *foretold_plan(void *arg)
{
    struct tr_train_params p = tiny_job(scratch_path("run"), TR_OPT_LOMO, TR_KEEP_STEP, 4);
    char *text;
    int r;

    (void)arg;
    r = tr_foretell(&(struct tr_foretell_params){.train = &p, .json = 1, .drive_life = {1e15}},
                    &text);
    return r < 0 ? NULL : text;
}

static void drive_is_named(const char *folder)
{
    struct tr_figures_drive here = drive(folder, 1e8);
    json_t *plan = NULL;
    const char *name;
    tr_run *run;

    measured(1, &here);
    run = open_run(NULL);
    assert_int_equal(tr_json_read(scratch_path("run/plan.json"), 1 << 20, &plan), 0);
    name = json_string_value(json_object_get(
        json_array_get(json_object_get(json_object_get(plan, "predicted"), "drives"), 0),
        "folder"));
    assert_non_null(name);
    assert_string_equal(name, folder + strlen(folder) - strlen(name));
    assert_true(strlen(name) > 56);
    json_decref(plan);
    close_run(run);
}

/* The end of a long name is cut off where a character begins. */
static void long_names(void **state)
{
    char folder[4352];
    size_t n;

    (void)state;
    snprintf(folder, sizeof(folder), "%s", scratch_path("x"));
    for (int i = 0; i < 40; i++)
        strcat(folder, "\u00e4");
    n = strlen(folder);
    for (int i = 0; i < 2; i++) {
        assert_int_equal(mkdir(folder, 0755), 0);
        drive_is_named(folder);
        assert_int_equal(rmdir(folder), 0);
        strcpy(folder + n, "x");
    }
}

/* Whichever block of memory is missing: the plan is whole, or there is none. */
static void plans_are_whole(void **state)
{
    struct tr_figures_drive here = drive(scratch(), 1e8);
    tr_run *run;

    (void)state;
    measured(1, &here);
    assert_true(blocks_whole(foretold_plan, NULL, 60) > 50);
    run = open_run(NULL);
    assert_true(blocks_whole(plan_of, run, 200) > 190);
    close_run(run);
}

static void equal_stripes(const struct tr_run *run)
{
    const struct tr_stripes *is = tr_store_stripes(run->store);
    struct tr_stripes foretold;
    struct tr_figures f;

    assert_int_equal(run_figures(run, &f), 0);
    assert_int_equal(run_deal_out(run, &f, &foretold), 0);
    assert_int_equal(is->n, foretold.n);
    assert_memory_equal(is->stripe, foretold.stripe, is->n * sizeof(*is->stripe));
    tr_stripes_free(&foretold);
}

static uint64_t held(const struct tr_run *run, uint32_t folder)
{
    uint64_t bytes;

    tr_store_folder_at(run->store, folder, &bytes);
    return bytes;
}

static void finish(tr_run *run)
{
    const char *at;
    int equal = 0;

    while (tr_train_step(run, &(struct tr_step_report){0}) == 1)
        ;
    assert_int_equal(tr_train_finish(run), 0);
    assert_non_null(strstr(tr_train_outcome(run), "seconds a step"));
    for (at = strstr(tr_train_outcome(run), scratch()); at && (at = strstr(at, ", equal")); at++)
        equal++;
    assert_int_equal(equal, 4); /* read and written, of each drive */
}

/* The new store is dealt out by the figures, three to one here and one to three then, as it was
 * foretold; each drive has its part of what moves. */
static void as_measured(void **state)
{
    char list[8704];

    (void)state;
    if (!*memory)
        skip();
    snprintf(list, sizeof(list), "%s:%s/a", scratch_path("a"), memory);
    for (int turn = 0; turn < 2; turn++) {
        struct tr_figures_drive two[] = {drive(memory, turn ? 3e8 : 1e8),
                                         drive(scratch(), turn ? 1e8 : 3e8)};
        const struct tr_sim_result *s;
        tr_run *run;

        measured(2, two);
        run = open_run(list);
        s = &run->foreseen.sim;
        assert_int_equal(s->n_drives, 2);
        assert_string_equal(run->foreseen.drive[1], memory);
        equal_stripes(run);
        assert_true(held(run, turn) > 2.5 * held(run, !turn));
        assert_true(held(run, turn) < 3.5 * held(run, !turn));
        /* and so is what spills, a few whole block inputs */
        assert_true(run->spills.bytes == run->spill_bytes && run->spill_bytes > 0);
        assert_true(run->spills.folder_bytes[!turn] > 0);
        assert_true(run->spills.folder_bytes[turn] > run->spills.folder_bytes[!turn]);
        assert_true(s->drive[turn].written_bytes > s->drive[!turn].written_bytes);
        assert_int_equal(s->drive[0].written_bytes + s->drive[1].written_bytes, s->written_bytes);
        assert_int_equal(s->drive[0].read_bytes + s->drive[1].read_bytes, s->read_bytes);
        if (turn)
            finish(run);
        assert_null(strstr(said, "not all of their drives"));
        close_run(run);
        assert_int_equal(tr_remove_tree(scratch_path("a")), 0);
        snprintf(list + strlen(list) - 1, 2, "b");
    }
}

/* A drive that nobody has measured: it is said, and foretold as one. A run on one drive of two is
 * not slowed down by the other. */
static void strangers(void **state)
{
    struct tr_figures_drive two[] = {drive(scratch(), 4e8), drive(memory, 4e8)};
    char list[8704];
    double alone;
    tr_run *run;

    (void)state;
    if (!*memory)
        skip();
    measured(1, two);
    snprintf(list, sizeof(list), "%s:%s/c", scratch_path("a"), memory);
    run = open_run(list);
    assert_non_null(strstr(said, "not all of their drives have been measured"));
    assert_int_equal(run->foreseen.sim.n_drives, 1);
    close_run(run);
    assert_int_equal(tr_remove_tree(scratch_path("a")), 0);
    run = open_run(NULL);
    alone = run->foreseen.sim.seconds;
    close_run(run);
    for (int i = 0; i < 2; i++)
        two[i].rates.beside = (struct tr_drive_ways){1e8, 1e8, 1e8};
    measured(2, two);
    run = open_run(NULL);
    assert_int_equal(run->foreseen.sim.n_drives, 1);
    assert_true(run->foreseen.sim.seconds == alone);
    close_run(run);
}

/* Of three drives that were measured together a store has two: each is half as much slowed down. */
static void part_of_the_drives(void **state)
{
    struct tr_figures f = {
        .n_drives = 3, .drive = {drive("/proc", 9e8), drive(memory, 4e8), drive(scratch(), 8e8)}};
    struct tr_run *run = calloc(1, sizeof(*run));
    char list[8704];

    (void)state;
    assert_non_null(run);
    for (int i = 0; i < 3; i++)
        f.drive[i].rates.beside = (struct tr_drive_ways){2e8, 2e8, 2e8};
    snprintf(list, sizeof(list), "%s:%s/d", scratch_path("a"), memory);
    run->params.store = list;
    if (*memory) {
        assert_int_equal(run_find_drives(run, &f), 0);
        assert_int_equal(f.n_drives, 2);
        assert_string_equal(f.drive[0].folder, scratch());
        assert_true(f.drive[0].rates.beside.read == 5e8 && f.drive[1].rates.beside.mixed == 3e8);
        assert_true(f.write == 8e8);
    }
    free(run);
    if (!*memory)
        skip();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(one_drive),       cmocka_unit_test(long_names),
        cmocka_unit_test(plans_are_whole), cmocka_unit_test(as_measured),
        cmocka_unit_test(strangers),       cmocka_unit_test(part_of_the_drives),
    };

    setenv("XDG_CACHE_HOME", scratch_path("cache"), 1);
    setenv("TAILRACE_DEVICE", "cpu", 1);
    return cmocka_run_group_tests(tests, begin, end);
}
