/* SPDX-License-Identifier: Apache-2.0
 *
 * A disk with little room: what a killed import holds is given back before it is looked at, what
 * would not hold the export is refused at once, and a snapshot that would take the place of what
 * spills is none.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "src/base/file.h"
#include "src/checkpoint/export.h"
#include "src/run/run.h"
#include "tests/train/common.h"

static uint64_t
    disk; /* bytes of it, of which the store in `disk_store` takes some; 0: the real one */
static char disk_store[4400];

int __real_tr_free_bytes(const char *path, uint64_t *out);
int __wrap_tr_free_bytes(const char *path, uint64_t *out);

static uint64_t taken(void)
{
    static const char *const names[] = {"gen0", "gen1", "commit0", "commit1"};
    uint64_t bytes = 0;

    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        char path[4500];
        struct stat st;

        snprintf(path, sizeof(path), "%s/%s", disk_store, names[i]);
        if (stat(path, &st) == 0)
            bytes += (uint64_t)st.st_blocks * 512;
    }
    return bytes;
}

int __wrap_tr_free_bytes(const char *path, uint64_t *out)
{
    if (!disk)
        return __real_tr_free_bytes(path, out);
    *out = disk > taken() ? disk - taken() : 0;
    return 0;
}

static int die(void *arg, uint64_t done, uint64_t total)
{
    (void)arg;
    (void)total;
    if (done)
        _exit(7);
    return 0;
}

/* The store of an import that was killed takes the room that the next needs, and makes it. */
static void test_killed_import(void **state)
{
    struct tr_train_params p = own_job("killed");
    tr_run *run;
    pid_t child;
    int status;

    (void)state;
    snprintf(disk_store, sizeof(disk_store), "%s/store", p.out);
    p.export_model = TR_NO;
    child = fork();
    if (child == 0) {
        p.importing = die;
        _exit(tr_train_open(&run, &p) < 0);
    }
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_int_equal(WEXITSTATUS(status), 7);
    assert_true(taken() > 0);
    disk = taken() / 4 * 7;
    if (train(&p, NULL) < 0)
        fail_msg("%s", tr_message());
    disk = 0;
}

/* What the export wants beside the model at the end is wanted at the beginning. */
static void test_room_for_export(void **state)
{
    struct tr_train_params p = own_job("room");
    tr_run *run;
    uint64_t store;

    (void)state;
    if (tr_train_open(&run, &p) < 0)
        fail_msg("%s", tr_message());
    store = 2 * tr_layout_bytes(&run->model->layout) + run->spill_bytes;
    tr_train_close(run);
    p.out = scratch_path("room-less");
    disk_store[0] = 0;
    disk = store + TR_EXPORT_SPARE;
    assert_int_equal(tr_train_open(&run, &p), -ENOSPC);
    assert_non_null(strstr(tr_message(), "the store with the exported model takes"));
    assert_int_equal(tr_folder_is_empty(p.out), -ENOENT);
    p.export_model = TR_NO;
    if (tr_train_open(&run, &p) < 0)
        fail_msg("%s", tr_message());
    tr_train_close(run);
    disk = 0;
}

/* A snapshot that would take what block inputs spill to is none, and the run goes on. */
static void test_no_room_for_snapshot(void **state)
{
    struct tr_train_params p = own_job("no-room");
    struct tr_step_report report;
    tr_run *run;
    FILE *f;

    (void)state;
    p.log = take_notice;
    if (tr_train_open(&run, &p) < 0)
        fail_msg("%s", tr_message());
    snprintf(disk_store, sizeof(disk_store), "%s/store", p.out);
    f = fopen(scratch_path("no-room-run/checkpoint"), "w");
    fclose(f);
    run->spill_bytes = 1 << 20; /* as if there were some */
    disk = taken() + (1 << 20);
    assert_int_equal(tr_train_step(run, &report), 1);
    disk = 0;
    run->spill_bytes = 0;
    if (!strstr(notices, "no snapshot was made: ") || !strstr(notices, "a snapshot takes"))
        fail_msg("%s", notices);
    assert_int_equal(tr_folder_is_empty(scratch_path("no-room-run/model-1")), -ENOENT);
    while (tr_train_step(run, &report) == 1)
        ;
    assert_int_equal(report.step, p.steps);
    assert_int_equal(tr_train_finish(run), 0);
    tr_train_close(run);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_killed_import),
        cmocka_unit_test(test_room_for_export),
        cmocka_unit_test(test_no_room_for_snapshot),
    };

    return cmocka_run_group_tests_name("small disk", tests, NULL, NULL);
}
