/* SPDX-License-Identifier: Apache-2.0
 *
 * The same command again, where something around the run is not as it was.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "src/base/file.h"
#include "src/checkpoint/keep.h"
#include "src/options/options.h"
#include "tests/train/common.h"

/* A run needs its source no more: model and tokenizer are kept. */
static void test_source_is_gone(void **state)
{
    struct tiny small = {"llama", 32, 48, 2, 4, 2, 8, 262, 64, ""};
    char text[4352], tokenizer[4352], model[4352];
    struct tr_step_report last;
    struct tr_train_params p = {.model = model,
                                .data = text,
                                .out = scratch_path("out"),
                                .steps = 2,
                                .device_memory = 64 << 20,
                                .threads = 1};

    (void)state;
    tiny_tokenizer(text, tokenizer);
    snprintf(model, sizeof(model), "%s", scratch_path("gone"));
    tiny_model(model, &small, TR_TYPE_F32, 5);
    assert_int_equal(tr_keep_copy_tokenizer(tokenizer, model), 0);
    assert_int_equal(train_part(&p, 1), 0);
    tr_remove_tree(model);
    tr_remove_tree(tokenizer);
    if (train(&p, &last) < 0)
        fail_msg("%s", tr_message());
    assert_int_equal(last.step, 2);
    assert_int_equal(tr_folder_has(scratch_path("out/model"), "tokenizer.json"), 1);
    tr_remove_tree(p.out);
    unlink(text);
}

/* A host program may go to another folder while a run is open, even to one with a run of that
 * name: what is written stays where the run is. */
static void test_other_folder(void **state)
{
    struct tr_train_params p = own_job("moving"), stranger = p;
    char here[4096], *before = NULL, *after = NULL, other[4352], plan[4400];
    struct tr_step_report report;
    size_t bytes[2];
    tr_run *run;
    int r;

    (void)state;
    assert_non_null(getcwd(here, sizeof(here)));
    assert_int_equal(tr_make_folder(scratch_path("other-place")), 0);
    snprintf(other, sizeof(other), "%s", scratch_path("other-place/run"));
    stranger.out = other;
    stranger.seed = 5;
    if (train(&stranger, &report) < 0)
        fail_msg("%s", tr_message());
    snprintf(plan, sizeof(plan), "%s/plan.json", other);
    assert_int_equal(tr_file_read(plan, 1 << 20, &before, &bytes[0]), 0);
    assert_int_equal(tr_make_folder(scratch_path("place")), 0);
    assert_int_equal(chdir(scratch_path("place")), 0);
    p.out = "run";
    if (tr_train_open(&run, &p) < 0)
        fail_msg("%s", tr_message());
    while ((r = tr_train_step(run, &report)) == 1)
        ;
    assert_int_equal(r, 0);
    assert_int_equal(chdir(scratch_path("other-place")), 0);
    assert_int_equal(tr_train_finish(run), 0);
    tr_train_close(run);
    assert_int_equal(chdir(here), 0);
    assert_int_equal(tr_file_read(plan, 1 << 20, &after, &bytes[1]), 0);
    assert_int_equal(bytes[0], bytes[1]);
    assert_memory_equal(before, after, bytes[0]);
    assert_true(tr_folder_has(scratch_path("place/run/model"), "config.json"));
    tr_free(TR_MEM_TEXT, before);
    tr_free(TR_MEM_TEXT, after);
    tr_remove_tree(scratch_path("place"));
    tr_remove_tree(scratch_path("other-place"));
}

/* run.yaml has budgets as they were asked for: a share, or nothing, fits another machine as well.
 */
static void test_budgets_as_asked(void **state)
{
    struct tr_train_params p = own_job("asked"), read = {0};
    char path[4400];

    (void)state;
    snprintf(path, sizeof(path), "%s/run.yaml", p.out);
    p.device_memory = TR_SHARE(50);
    assert_int_equal(train_part(&p, 1), 0);
    assert_int_equal(tr_run_file_read(path, &read), 0);
    assert_true(read.device_memory == TR_SHARE(50));
    assert_true(read.host_memory == 0);
    tr_options_free(&read);
    p.device_memory = 48 << 20;
    assert_int_equal(train_part(&p, 1), 0);
    assert_int_equal(tr_run_file_read(path, &read), 0);
    assert_true(read.device_memory == 48 << 20);
    tr_options_free(&read);
}

static char said[4400];

static void keep_said(void *arg, const char *line)
{
    (void)arg;
    if (!strncmp(line, "model ", 6))
        snprintf(said, sizeof(said), "%s", line);
}

/* The model is there, with or without adapters: it is known again, and told to be there. */
static void test_model_is_known_again(void **state)
{
    static const struct {
        int64_t rank;
        enum tr_optimizer beside; /* of adapters, where both train */
    } cases[] = {{0, 0}, {2, 0}, {2, TR_OPT_ADAMW}};

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct tr_train_params p = own_job("known");

        p.lora_rank = cases[i].rank;
        p.lora_optimizer = cases[i].beside;
        p.log = keep_said;
        for (int again = 0; again < 2; again++) {
            if (train(&p, NULL) < 0)
                fail_msg("%s", tr_message());
            assert_int_equal(strstr(said, "known-run/model (as it was)") != NULL, again);
        }
        tr_remove_tree(p.out);
        tr_remove_tree(p.model);
    }
}

/* What has the name of the model and is something else stays, and is told to be; once it has gone,
 * the model is made. */
static void test_something_else_is_there(void **state)
{
    static const struct tiny other = {"llama", 64, 64, 3, 4, 2, 16, 300, 256, ""};
    struct tr_train_params p = own_job("else");
    char place[4400], was[4400];

    (void)state;
    snprintf(place, sizeof(place), "%s/model", p.out);
    snprintf(was, sizeof(was), "%s/was", p.out);
    assert_int_equal(train(&p, NULL), 0);
    assert_int_equal(rename(place, was), 0);
    for (int i = 0; i < 3; i++) {
        static const char *const says[] = {"config.json", "_proj.weight differs",
                                           "lm_head.weight differs"};

        if (i == 0)
            assert_int_equal(tr_file_write(place, "mine", 4), 0);
        else if (i == 1)
            tiny_model(place, &other, TR_TYPE_F32, 5);
        else
            assert_int_equal(symlink(p.model, place), 0); /* as it was before the first step */
        assert_int_equal(train(&p, NULL), -EEXIST);
        if (!strstr(tr_message(), says[i]) || !strstr(tr_message(), "nothing is overwritten"))
            fail_msg("%s", tr_message());
        assert_int_equal(tr_remove_tree(place), 0);
    }
    assert_int_equal(train(&p, NULL), 0);
    assert_int_equal(tr_folder_has(place, "model.safetensors"), 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_source_is_gone),
        cmocka_unit_test(test_budgets_as_asked),
        cmocka_unit_test(test_other_folder),
        cmocka_unit_test(test_model_is_known_again),
        cmocka_unit_test(test_something_else_is_there),
    };

    return cmocka_run_group_tests_name("again", tests, NULL, NULL);
}
