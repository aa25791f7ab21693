/* SPDX-License-Identifier: Apache-2.0
 *
 * Disks that fail under a run: full, gone, read-only; a store that is cut short, damaged, moved to
 * another file system; two processes at one run. Each time the run ends with one line that says
 * what is wrong and where, what was committed is whole, and when the cause has been removed the
 * same call goes on to the bytes of a run that nothing happened to (invariants 2, 7 and 8). Prints
 * a row for each: the fault, the steps that were lost, and what was said.
 *
 * The disk is a small ext4 in a file, so this needs the right to mount; without it the tests that
 * need one are skipped.
 */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <cmocka.h>

#include "src/base/file.h"
#include "src/run/run.h"
#include "tests/crash/program.h"
#include "tests/train/common.h"

#define STEPS JOB_STEPS

/* linux/fs.h has it only in newer kernels: the file system is gone at once, its journal, too. */
#define SHUTDOWN      _IOR('X', 125, uint32_t)
#define WITHOUT_FLUSH 2u

static char disk[4352], image[4352];
static int have_disk;
static uint64_t expected, device_memory;
static int64_t reported; /* the last step before the fault */

static const struct job job = {"lomo", {"--optimizer", "lomo"}, 1};

/* COMMAND A B, in silence. */
static int shell(const char *command, const char *a, const char *b)
{
    char line[9000];

    snprintf(line, sizeof(line), "%s %s %s > /dev/null 2>&1", command, a, b);
    return system(line);
}

static int mount_disk(void)
{
    return shell("mount -o loop,errors=remount-ro", image, disk);
}

/* The kernel lets go of an io_uring's files some time after the ring has been closed. */
static void insist(const char *command)
{
    int tries = 0;

    while (shell(command, disk, "") != 0 && ++tries < 100)
        usleep(50000);
    assert_true(tries < 100);
}

/* A disk of its own for each test. */
static int fresh_disk(void **state)
{
    int fd;

    (void)state;
    unlink(image);
    fd = open(image, O_RDWR | O_CREAT | O_EXCL, 0644);
    assert_int_equal(ftruncate(fd, 24 << 20), 0);
    close(fd);
    mkdir(disk, 0755);
    have_disk =
        geteuid() == 0 && shell("mkfs.ext4 -q -F -m 0", image, "") == 0 && mount_disk() == 0;
    return 0;
}

static int drop_disk(void **state)
{
    (void)state;
    if (have_disk)
        umount2(disk, MNT_DETACH);
    return 0;
}

#define NEEDS_DISK()                                                                               \
    do {                                                                                           \
        if (!have_disk) {                                                                          \
            print_message("skipped: no right to make and mount an ext4\n");                        \
            skip();                                                                                \
        }                                                                                          \
    } while (0)

/* A run in FOLDER/run whose store is in the run, or where `store` says. */
static struct tr_train_params params(const char *folder, const char *store)
{
    static char out[4400];
    struct tr_train_params p;

    snprintf(out, sizeof(out), "%s/run", folder);
    p = tiny_job(out, TR_OPT_LOMO, TR_KEEP_STEP, STEPS);
    p.store = store;
    p.device_memory = device_memory;
    return p;
}

static void row(const char *fault, int64_t done, int64_t stands_at)
{
    print_message("fault: %s | steps lost: %lld | said: %s\n", fault, (long long)(done - stands_at),
                  tr_message());
}

/* One line that has the word in it. */
static void said(int r, int code, const char *word)
{
    if (r != code || !strstr(tr_message(), word) || strchr(tr_message(), '\n'))
        fail_msg("%d, not %d with '%s': %s", r, code, word, tr_message());
}

static tr_run *begin(const struct tr_train_params *p, int steps)
{
    struct tr_step_report report;
    tr_run *run;

    if (tr_train_open(&run, p) < 0)
        fail_msg("%s", tr_message());
    for (int i = 0; i < steps; i++)
        if (tr_train_step(run, &report) != 1)
            fail_msg("%s", tr_message());
    return run;
}

/* Steps until one fails; the last that did not is in *step. */
static int go_on(tr_run *run, int64_t *step)
{
    struct tr_step_report report;
    int r;

    while ((r = tr_train_step(run, &report)) == 1)
        *step = report.step;
    return r;
}

/* The cause is gone: is all that was committed whole, and does the run end as it should? */
static void recovers(struct tr_train_params p)
{
    char *text = NULL;

    if (tr_verify_run(p.out, p.store, &text) != 0)
        fail_msg("%s%s", text ? text : "", tr_message());
    tr_free_text(text);
    if (train(&p, NULL) < 0)
        fail_msg("%s", tr_message());
    assert_true(program_model_hash(p.out) == expected);
    assert_int_equal(program_leavings(p.out), 0);
    assert_int_equal(tr_remove_tree(p.out), 0);
}

static const char *store_of(const struct tr_train_params *p)
{
    static char path[4500];

    snprintf(path, sizeof(path), "%s/store", p->out);
    return p->store ? p->store : path;
}

static int open_file(const struct tr_train_params *p, const char *name)
{
    char path[4600];
    int fd;

    snprintf(path, sizeof(path), "%s/%s", store_of(p), name);
    fd = open(path, O_RDWR);
    assert_true(fd >= 0);
    return fd;
}

static const char *filler(void)
{
    static char path[4400];

    snprintf(path, sizeof(path), "%s/filler", disk);
    return path;
}

/* Takes all that is free, down to the last block. What has been given back is free only some time
 * later, when the journal has been written. */
static void fill_disk(void)
{
    int fd = open(filler(), O_RDWR | O_CREAT, 0644), full = 0;
    off_t at = lseek(fd, 0, SEEK_END);
    struct statvfs fs;

    assert_true(fd >= 0);
    for (int tries = 0; tries < 200 && full < 3; tries++) {
        for (off_t n = 16 << 20; n >= 1024; n /= 2)
            while (fallocate(fd, 0, at, n) == 0)
                at += n;
        assert_int_equal(syncfs(fd), 0);
        assert_int_equal(fstatvfs(fd, &fs), 0);
        full = fs.f_bavail ? 0 : full + 1;
        usleep(20000);
    }
    assert_int_equal(full, 3);
    close(fd);
}

/* Also when what the run before had for itself has been given back. */
static int open_when_full(const struct tr_train_params *p)
{
    tr_run *run;
    int r = 0;

    for (int tries = 0; tries < 100 && r == 0; tries++) {
        fill_disk();
        r = tr_train_open(&run, p);
        if (r == 0)
            tr_train_close(run);
    }
    return r;
}

/* The place of the next step's bytes is taken away and the disk filled: what the kernel makes of a
 * write into a hole then, a part of it at most, meets the engine itself. */
static void full_store(enum tr_engine io)
{
    char store[4400];
    struct tr_train_params p;
    struct stat st;
    int64_t step = 2;
    tr_run *run;
    int fd;

    snprintf(store, sizeof(store), "%s/store", disk);
    p = params(scratch(), store);
    p.io = io;
    run = begin(&p, 2);
    fd = open_file(&p, "gen1");
    assert_int_equal(fstat(fd, &st), 0);
    assert_int_equal(fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, st.st_size), 0);
    assert_int_equal(fsync(fd), 0);
    close(fd);
    fill_disk();
    said(go_on(run, &step), -ENOSPC, "gen1");
    tr_train_close(run);
    row("disk full, holes in the store", step, program_stands_at(store));
    assert_int_equal(program_stands_at(store), step);
    unlink(filler());
    recovers(p);
    assert_int_equal(tr_remove_tree(store), 0);
}

static void test_full_store(void **state)
{
    (void)state;
    NEEDS_DISK();
    full_store(TR_ENGINE_THREADS);
    full_store(TR_ENGINE_AUTO);
}

static void test_full_run(void **state)
{
    struct tr_train_params p;
    int64_t step = 0;
    tr_run *run;

    (void)state;
    NEEDS_DISK();
    p = params(disk, NULL);
    run = begin(&p, 1);
    fill_disk();
    said(go_on(run, &step), -ENOSPC, "metrics.jsonl");
    tr_train_close(run);
    row("disk full, the store has its space", step ? step : 1, program_stands_at(store_of(&p)));
    assert_true(program_stands_at(store_of(&p)) >= 1);
    said(open_when_full(&p), -ENOSPC, disk);
    unlink(filler());
    recovers(p);
}

static void test_full_export(void **state)
{
    struct tr_train_params p;
    int64_t step = 0;
    tr_run *run;

    (void)state;
    NEEDS_DISK();
    p = params(disk, NULL);
    p.export_model = TR_NO;
    assert_int_equal(train(&p, NULL), 0);
    p.export_model = TR_YES;
    run = begin(&p, 0);
    fill_disk();
    assert_int_equal(go_on(run, &step), 0);
    said(tr_train_finish(run), -ENOSPC, "run/model");
    tr_train_close(run);
    row("disk full at the export", STEPS, program_stands_at(store_of(&p)));
    assert_int_equal(program_leavings(p.out), 0);
    unlink(filler());
    recovers(p);
}

/* What `happens` hits the mounted file system while a run is at it. */
static void lose_disk(const char *fault, void (*happens)(void))
{
    struct tr_train_params p = params(disk, NULL);
    int64_t step = 2;
    tr_run *run = begin(&p, 2);
    int r;

    happens();
    r = go_on(run, &step);
    if (r == 0)
        r = tr_train_finish(run);
    assert_true(r == -EIO || r == -EROFS);
    assert_null(strchr(tr_message(), '\n'));
    assert_non_null(strstr(tr_message(), disk));
    tr_train_close(run);
    insist("umount");
    assert_int_equal(mount_disk(), 0);
    row(fault, step, program_stands_at(store_of(&p)));
    assert_true(program_stands_at(store_of(&p)) >= step - 1);
    recovers(p);
}

static void shut_down(void)
{
    uint32_t how = WITHOUT_FLUSH;
    int fd = open(disk, O_RDONLY | O_DIRECTORY);

    assert_true(fd >= 0);
    assert_int_equal(ioctl(fd, SHUTDOWN, &how), 0);
    close(fd);
}

static void test_disk_gone(void **state)
{
    (void)state;
    NEEDS_DISK();
    lose_disk("disk gone during a run", shut_down);
}

/* What ext4 does of itself when it meets an error in its own structures. */
static void make_read_only(void)
{
    shell("mount -o remount,abort", disk, "");
}

static void test_read_only_during(void **state)
{
    (void)state;
    NEEDS_DISK();
    lose_disk("disk read-only during a run", make_read_only);
}

static void test_read_only_between(void **state)
{
    struct tr_train_params p;
    char *text = NULL;
    tr_run *run;

    (void)state;
    NEEDS_DISK();
    p = params(disk, NULL);
    assert_int_equal(train_part(&p, 2), 0);
    insist("mount -o remount,ro");
    said(tr_train_open(&run, &p), -EROFS, disk);
    row("disk read-only when resumed", 2, program_stands_at(store_of(&p)));
    assert_int_equal(tr_verify_run(p.out, NULL, &text), 0);
    tr_free_text(text);
    insist("mount -o remount,rw");
    recovers(p);
}

static void test_moved_store(void **state)
{
    char elsewhere[4400];
    struct tr_train_params p;

    (void)state;
    NEEDS_DISK();
    snprintf(elsewhere, sizeof(elsewhere), "%s/elsewhere", disk);
    p = params(scratch(), NULL);
    assert_int_equal(train_part(&p, 2), 0);
    assert_int_equal(shell("cp -r", store_of(&p), elsewhere), 0);
    assert_int_equal(tr_remove_tree(store_of(&p)), 0);
    said(train(&p, NULL), -ENOENT, "--store");
    p.store = elsewhere;
    assert_int_equal(train_part(&p, 1), 0);
    p.store = NULL; /* and found again */
    row("store moved to another file system", 3, program_stands_at(elsewhere));
    recovers(p);
}

/* Between two steps of a run that goes on, something happens to what its newest commit names:
 * after two steps that is generation 0. */
static void harm(const char *fault, void (*damage)(int fd), int code, const char *word)
{
    struct tr_train_params p = params(scratch(), NULL);
    tr_run *run = begin(&p, 2);
    int64_t step = 2;
    int fd = open_file(&p, "gen0");

    assert_int_equal(tr_offload_commit_wait(run->offload), 0);
    damage(fd);
    said(go_on(run, &step), code, word);
    assert_non_null(strstr(tr_message(), "gen0"));
    tr_train_close(run);
    close(fd);
    reported = step;
    print_message("fault: %s | said: %s\n", fault, tr_message());
}

static void flip_bits(int fd)
{
    off_t at = lseek(fd, 0, SEEK_END) / 2 & ~4095l;
    unsigned char byte;

    assert_int_equal(pread(fd, &byte, 1, at), 1);
    byte ^= 4;
    assert_int_equal(pwrite(fd, &byte, 1, at), 1);
    assert_int_equal(fsync(fd), 0);
}

static void cut(int fd)
{
    assert_int_equal(ftruncate(fd, (lseek(fd, 0, SEEK_END) / 2) & ~4095l), 0);
}

static int64_t goes_on_after; /* the step that a run has fallen back to */

static void note(void *arg, const char *line)
{
    const char *at = strstr(line, "the step before is whole: goes on after step ");

    (void)arg;
    if (at)
        goes_on_after = strtoll(strrchr(line, ' '), NULL, 10);
}

static void recovers_by_falling_back(void)
{
    struct tr_train_params p = params(scratch(), NULL);

    goes_on_after = -1;
    p.log = note;
    if (train(&p, NULL) < 0)
        fail_msg("%s", tr_message());
    print_message("   steps lost, fallen back: %lld\n", (long long)(reported - goes_on_after));
    assert_int_equal(goes_on_after, reported - 1);
    recovers(p);
}

static void test_flipped_bits(void **state)
{
    (void)state;
    harm("bits flipped under a run", flip_bits, -EBADMSG, "layers.");
    recovers_by_falling_back();
}

/* A generation that is too short is a damaged one: verify says what is missing and that there is a
 * way out, and the run takes it. */
static void test_truncated(void **state)
{
    struct tr_train_params p;
    char *text = NULL;

    (void)state;
    harm("file cut short under a run", cut, -ENODATA, "truncated");
    p = params(scratch(), NULL);
    assert_true(tr_verify_run(p.out, NULL, &text) > 1);
    assert_non_null(strstr(text, "gen0: truncated"));
    assert_non_null(strstr(text, "the commit before, of step 1, is whole"));
    tr_free_text(text);
    recovers_by_falling_back();
}

/* The second is told so, in one line, and the first does not notice. */
static void test_two_processes(void **state)
{
    struct place place = {.run = scratch_path("run"), .device_memory = device_memory};
    struct tr_train_params p = params(scratch(), NULL);
    const char *line;
    tr_run *run = begin(&p, 2);

    (void)state;
    assert_int_equal(program_run(&job, &place, 0), 1);
    assert_int_equal(program_errors(&line), 1);
    assert_non_null(strstr(line, "another process"));
    assert_int_equal(program_run(&job, &place, 1), 1);
    assert_int_equal(program_errors(&line), 1);
    tr_train_close(run);
    print_message("fault: a second process on the run | steps lost: 0 | said: %s\n", line);
    recovers(p);
}

static int setup(void **state)
{
    struct tr_train_params p;

    (void)state;
    program_make_inputs(4);
    snprintf(disk, sizeof(disk), "%s", scratch_path("disk"));
    snprintf(image, sizeof(image), "%s", scratch_path("image"));
    device_memory = program_least_memory(&job);
    p = params(scratch(), NULL);
    if (train(&p, NULL) < 0)
        fail_msg("%s", tr_message());
    expected = program_model_hash(p.out);
    return tr_remove_tree(p.out);
}

#define ON_DISK(test) cmocka_unit_test_setup_teardown(test, fresh_disk, drop_disk)

int main(void)
{
    const struct CMUnitTest tests[] = {
        ON_DISK(test_full_store),         ON_DISK(test_full_run),
        ON_DISK(test_full_export),        ON_DISK(test_disk_gone),
        ON_DISK(test_read_only_during),   ON_DISK(test_read_only_between),
        ON_DISK(test_moved_store),        cmocka_unit_test(test_flipped_bits),
        cmocka_unit_test(test_truncated), cmocka_unit_test(test_two_processes),
    };

    return cmocka_run_group_tests_name("disks that fail", tests, setup, NULL);
}
