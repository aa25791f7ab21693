/* SPDX-License-Identifier: Apache-2.0
 *
 * Between two steps: a file RUN/checkpoint asks for the model of that step and changes nothing
 * else; damage to what the newest commit names takes a run back one step where the commit before is
 * whole, and ends it by name where it is not (invariants 2 and 8). Every run that goes on must end
 * with the bytes of one that nothing happened to.
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

#include "src/base/file.h"
#include "tests/train/common.h"

#define STEPS 4

static const struct tiny shape = {"llama", 64, 96, 3, 4, 2, 16, 300, 256, ""};

static struct tr_train_params job(const char *out, enum tr_optimizer optimizer, enum tr_keep keep)
{
    struct tr_train_params p = tiny_job(out, optimizer, keep, STEPS);

    notices[0] = 0;
    p.log = take_notice;
    return p;
}

static uint64_t model_hash(const char *out, const char *folder)
{
    return file_hash(scratch_path("%s/%s/model.safetensors", out, folder));
}

/* The final bytes of a run that nothing happens to. */
static uint64_t expected(enum tr_optimizer optimizer)
{
    struct tr_train_params p;
    char out[4352];
    uint64_t hash;

    snprintf(out, sizeof(out), "%s", scratch_path("whole"));
    p = job(out, optimizer, TR_KEEP_STEP);
    assert_int_equal(train(&p, NULL), 0);
    hash = model_hash("whole", "model");
    assert_int_equal(tr_remove_tree(out), 0);
    return hash;
}

static void touch(const char *path)
{
    int fd = open(path, O_CREAT | O_WRONLY | O_EXCL, 0644);

    assert_true(fd >= 0);
    close(fd);
}

/* Bytes are counted over the engines before the snapshot and behind it, as they were foreseen. */
static void expect_foreseen(const tr_run *run)
{
    static const char *const lines[] = {"read, all steps", "written, all steps"};
    const char *text = tr_train_outcome(run);

    for (size_t i = 0; i < sizeof(lines) / sizeof(lines[0]); i++) {
        const char *line = strstr(text, lines[i]), *equal = line ? strstr(line, ", equal") : NULL;

        if (!equal || equal > strchr(line, '\n'))
            fail_msg("%s", text);
    }
}

/* Asks for a snapshot before the second step; its bytes are those of a run stopped there. */
static void snapshot(enum tr_optimizer optimizer, enum tr_keep keep)
{
    char out[4352], asked[4400];
    struct tr_step_report report;
    struct tr_train_params p;
    tr_run *run;
    int64_t step;
    int r;

    snprintf(out, sizeof(out), "%s", scratch_path("asked"));
    snprintf(asked, sizeof(asked), "%s/checkpoint", out);
    p = job(out, optimizer, keep);
    assert_int_equal(tr_train_open(&run, &p), 0);
    while ((r = tr_train_step(run, &report)) == 1) {
        assert_int_equal(access(asked, F_OK), -1);
        if (report.step == 1)
            touch(asked);
    }
    assert_int_equal(r, 0);
    assert_int_equal(tr_train_finish(run), 0);
    expect_foreseen(run);
    tr_train_close(run);
    assert_true(model_hash("asked", "model") == expected(optimizer));
    p = job(scratch_path("part"), optimizer, TR_KEEP_STEP);
    assert_int_equal(train_part(&p, 2), 0);
    assert_int_equal(
        tr_export_run(&(struct tr_export_run_params){.run = scratch_path("part"),
                                                     .out = scratch_path("part/exported")},
                      &step),
        0);
    assert_int_equal(step, 2);
    assert_true(model_hash("asked", "model-2") == model_hash("part", "exported"));
    assert_true(model_hash("asked", "model-2") != model_hash("asked", "model"));
    assert_int_equal(tr_remove_tree(scratch_path("part")), 0);
    assert_int_equal(tr_remove_tree(out), 0);
}

static void test_snapshot(void **state)
{
    (void)state;
    snapshot(TR_OPT_LOMO, TR_KEEP_STEP);
    snapshot(TR_OPT_ADAMW, TR_KEEP_CHECKPOINT);
    snapshot(TR_OPT_LOMO, TR_KEEP_NONE);
}

/* A snapshot that cannot be written is said, and the run goes on. */
static void test_snapshot_refused(void **state)
{
    struct tr_step_report report;
    struct tr_train_params p;
    char out[4352];
    tr_run *run;

    (void)state;
    snprintf(out, sizeof(out), "%s", scratch_path("refused"));
    p = job(out, TR_OPT_LOMO, TR_KEEP_STEP);
    assert_int_equal(tr_train_open(&run, &p), 0);
    assert_int_equal(tr_train_step(run, &report), 1);
    touch(scratch_path("refused/checkpoint"));
    assert_int_equal(rename(scratch_path("refused/source"), scratch_path("refused/aside")), 0);
    assert_int_equal(tr_train_step(run, &report), 1);
    assert_int_equal(rename(scratch_path("refused/aside"), scratch_path("refused/source")), 0);
    assert_int_equal(tr_folder_is_empty(scratch_path("refused/model-2")), -ENOENT);
    while (tr_train_step(run, &report) == 1)
        ;
    assert_int_equal(report.step, STEPS);
    assert_int_equal(tr_train_finish(run), 0);
    tr_train_close(run);
    assert_non_null(strstr(notices, "no snapshot was made: "));
    assert_true(model_hash("refused", "model") == expected(TR_OPT_LOMO));
    assert_int_equal(tr_remove_tree(out), 0);
}

/* A folder of that name asks for nothing; nor is anything removed that a kill has not left. */
static void test_folders_of_others(void **state)
{
    static const char *const names[] = {"others/checkpoint", "others/model.tmp--5",
                                        "others/model-2.tmp-", "others/model-x.tmp-5"};
    struct tr_step_report report;
    struct tr_train_params p;
    tr_run *run;

    (void)state;
    p = job(scratch_path("others"), TR_OPT_LOMO, TR_KEEP_STEP);
    assert_int_equal(train_part(&p, 1), 0);
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
        assert_int_equal(mkdir(scratch_path("%s", names[i]), 0755), 0);
    assert_int_equal(mkdir(scratch_path("others/model-2.tmp-77"), 0755), 0);
    assert_int_equal(tr_train_open(&run, &p), 0);
    while (tr_train_step(run, &report) == 1)
        ;
    assert_int_equal(report.step, STEPS);
    assert_int_equal(tr_train_finish(run), 0);
    tr_train_close(run);
    assert_int_equal(tr_folder_is_empty(scratch_path("others/model-2.tmp-77")), -ENOENT);
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
        assert_int_equal(tr_folder_is_empty(scratch_path("%s", names[i])), 1);
    for (int step = 1; step < STEPS; step++)
        assert_int_equal(tr_folder_is_empty(scratch_path("others/model-%d", step)), -ENOENT);
    assert_true(model_hash("others", "model") == expected(TR_OPT_LOMO));
    assert_int_equal(tr_remove_tree(scratch_path("others")), 0);
}

/* Flips a byte in the middle of a generation file. */
static void damage(const char *run, int generation)
{
    char path[4400];
    unsigned char byte;
    off_t at;
    int fd;

    snprintf(path, sizeof(path), "%s/store/gen%d", run, generation);
    fd = open(path, O_RDWR);
    assert_true(fd >= 0);
    at = lseek(fd, 0, SEEK_END) / 2 & ~4095l; /* the first byte of a piece or inside one */
    assert_int_equal(pread(fd, &byte, 1, at), 1);
    byte ^= 1;
    assert_int_equal(pwrite(fd, &byte, 1, at), 1);
    close(fd);
}

static void stop_after(const struct tr_train_params *p, int steps)
{
    assert_int_equal(tr_remove_tree(p->out), 0);
    assert_int_equal(train_part(p, steps), 0);
}

static int lines(const char *name)
{
    FILE *f = fopen(scratch_path("%s/metrics.jsonl", name), "r");
    int n = 0, c;

    while ((c = fgetc(f)) != EOF)
        n += c == '\n';
    fclose(f);
    return n;
}

/* Steps written so far, damage in the generation that the newest commit names: 2 are done, so it
 * is the one that step 2 was written to, the import's own. */
static void test_fall_back(void **state)
{
    struct tr_step_report last;
    struct tr_train_params p;
    uint64_t hash = expected(TR_OPT_LOMO);
    char out[4352];

    (void)state;
    snprintf(out, sizeof(out), "%s", scratch_path("back"));
    p = job(out, TR_OPT_LOMO, TR_KEEP_STEP);
    stop_after(&p, 2);
    damage(out, 0);
    assert_int_equal(train(&p, &last), 0);
    assert_non_null(strstr(notices, "damaged"));
    assert_non_null(strstr(notices, "goes on after step 1"));
    assert_true(model_hash("back", "model") == hash);
    assert_int_equal(lines("back"), STEPS); /* step 2 has been done twice, and counted once */
    assert_int_equal(tr_remove_tree(out), 0);
}

/* A finished run keeps its way back, too: nothing is committed at its end that was before. */
static void test_fall_back_finished(void **state)
{
    struct tr_step_report last;
    struct tr_train_params p;
    char out[4352];

    (void)state;
    snprintf(out, sizeof(out), "%s", scratch_path("ended"));
    p = job(out, TR_OPT_LOMO, TR_KEEP_CHECKPOINT);
    p.checkpoint_every = 1;
    stop_after(&p, STEPS);
    assert_int_equal(train(&p, NULL), 0); /* nothing left to do */
    damage(out, 0);
    p.steps = STEPS + 2;
    assert_int_equal(train(&p, &last), 0);
    assert_non_null(strstr(notices, "goes on after step 3"));
    assert_int_equal(last.step, STEPS + 2);
    assert_int_equal(tr_remove_tree(out), 0);
}

/* Both damaged: there is nothing to go back to, and the run says what is wrong. */
static void test_no_way_back(void **state)
{
    struct tr_train_params p;
    char *text = NULL, out[4352];

    (void)state;
    snprintf(out, sizeof(out), "%s", scratch_path("lost"));
    p = job(out, TR_OPT_LOMO, TR_KEEP_STEP);
    stop_after(&p, 2);
    damage(out, 0);
    damage(out, 1);
    assert_int_equal(train(&p, NULL), -EBADMSG);
    assert_non_null(strstr(tr_message(), "gen0"));
    assert_non_null(strstr(tr_message(), "not whole any more either"));
    assert_int_equal(tr_verify_run(out, NULL, &text), 1);
    assert_non_null(strstr(text, "no way out"));
    tr_free_text(text);
    assert_int_equal(tr_fall_back_run(out, NULL), -EBADMSG);
    assert_int_equal(tr_remove_tree(out), 0);
}

/* The same by hand: verify names the damage and the way out, and going back twice is refused. */
static void test_verify(void **state)
{
    uint64_t hash = expected(TR_OPT_ADAMW);
    struct tr_train_params p;
    char *text = NULL, out[4352];

    (void)state;
    snprintf(out, sizeof(out), "%s", scratch_path("hand"));
    p = job(out, TR_OPT_ADAMW, TR_KEEP_STEP);
    stop_after(&p, 3);
    damage(out, 1);
    assert_int_equal(tr_verify_run(out, NULL, &text), 1);
    assert_non_null(strstr(text, "the commit before, of step 2, is whole"));
    tr_free_text(text);
    assert_int_equal(tr_fall_back_run(out, NULL), 2);
    assert_int_equal(tr_verify_run(out, NULL, &text), 0);
    tr_free_text(text);
    assert_int_equal(tr_fall_back_run(out, NULL), -EINVAL);
    damage(out, 0);
    assert_int_equal(tr_fall_back_run(out, NULL), -ENODATA);
    damage(out, 0);
    assert_int_equal(train(&p, NULL), 0);
    assert_null(strstr(notices, "damaged"));
    assert_true(model_hash("hand", "model") == hash);
    assert_int_equal(lines("hand"), STEPS);
    assert_int_equal(tr_remove_tree(out), 0);
}

/* What cannot be looked at ends it with an error, and what was found before is told. */
static void test_verify_cut_off(void **state)
{
    char out[4352], store[4352], *text = out;
    struct tr_train_params p;

    (void)state;
    assert_int_equal(tr_verify_run(scratch_path("nowhere"), NULL, &text), -ENOENT);
    assert_null(text);
    snprintf(out, sizeof(out), "%s", scratch_path("cut-off"));
    snprintf(store, sizeof(store), "%s", scratch_path("cut-off/store"));
    p = job(out, TR_OPT_LOMO, TR_KEEP_STEP);
    stop_after(&p, 3);
    damage(out, 1);
    assert_int_equal(unlink(scratch_path("cut-off/run.yaml")), 0);
    assert_int_equal(tr_verify_run(out, store, &text), -ENOENT);
    assert_non_null(strstr(text, "gen1"));
    assert_non_null(strstr(text, "the commit before, of step 2, is whole"));
    tr_free_text(text);
    assert_int_equal(tr_remove_tree(out), 0);
}

static int setup(void **state)
{
    (void)state;
    tiny_model(scratch_path("model"), &shape, TR_TYPE_BF16, 4);
    token_data(scratch_path("data.jsonl"), 16, 20, 64, shape.vocab);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_snapshot),
        cmocka_unit_test(test_snapshot_refused),
        cmocka_unit_test(test_folders_of_others),
        cmocka_unit_test(test_fall_back),
        cmocka_unit_test(test_fall_back_finished),
        cmocka_unit_test(test_no_way_back),
        cmocka_unit_test(test_verify),
        cmocka_unit_test(test_verify_cut_off),
    };

    return cmocka_run_group_tests_name("between two steps", tests, setup, NULL);
}
