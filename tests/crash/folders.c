/* SPDX-License-Identifier: Apache-2.0
 *
 * A run whose store has two folders, one of which is missing, empty, in the other's place, of
 * another run, or a copy from an earlier step: each is said in words that name the folder, nothing
 * is written, and with the right folders the run goes on to the bytes of one that nothing happened
 * to (invariants 2, 7 and 8).
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "src/base/file.h"
#include "tests/crash/program.h"
#include "tests/train/common.h"

#define STEPS 5

static char first[4352], second[4352], aside[4352], old[4352], run[4352], other[4352];

/* A run over the folders of `list`, which lives as long as the call. */
static struct tr_train_params job(const char *out, const char *list)
{
    struct tr_train_params p = tiny_job(out, TR_OPT_ADAMW, TR_KEEP_STEP, STEPS);

    p.store = list;
    return p;
}

static const char *both(const char *a, const char *b)
{
    static char list[9000];

    snprintf(list, sizeof(list), "%s:%s", a, b);
    return list;
}

/* One line, and the word and the folder are in it. */
static void refuse(const char *list, const char *folder, const char *word)
{
    struct tr_train_params p = job(run, list);
    struct tr_step_report report;
    tr_run *r = NULL;
    int e = tr_train_open(&r, &p);

    if (e == 0) {
        e = tr_train_step(r, &report);
        tr_train_close(r);
    }
    if (e >= 0 || !strstr(tr_message(), word) || !strstr(tr_message(), folder) ||
        strchr(tr_message(), '\n'))
        fail_msg("%d, no '%s' of %s in: %s", e, word, folder, tr_message());
}

static void copy(const char *from, const char *to)
{
    char line[9000];

    snprintf(line, sizeof(line), "cp -r %s %s", from, to);
    assert_int_equal(system(line), 0);
}

/* Another folder stands where the second one did, for as long as `look` takes. */
static void with_second(const char *stand_in, const char *word)
{
    assert_int_equal(rename(second, aside), 0);
    if (stand_in)
        copy(stand_in, second);
    refuse(both(first, second), second, word);
    if (stand_in)
        assert_int_equal(tr_remove_tree(second), 0);
    assert_int_equal(rename(aside, second), 0);
}

static uint64_t undisturbed(void)
{
    struct tr_train_params p = job(other, NULL);
    uint64_t hash;

    if (train(&p, NULL) < 0)
        fail_msg("%s", tr_message());
    hash = file_hash(scratch_path("other/model/model.safetensors"));
    assert_int_equal(tr_remove_tree(other), 0);
    return hash;
}

static void test_mistaken(void **state)
{
    struct tr_train_params p = job(run, both(first, second));
    uint64_t expected = undisturbed();
    char alien[4400], empty[4400], theirs[4400], out[4400];

    (void)state;
    snprintf(theirs, sizeof(theirs), "%s/a", other);
    snprintf(out, sizeof(out), "%s/run", other);
    snprintf(alien, sizeof(alien), "%s/b", other);
    snprintf(empty, sizeof(empty), "%s/empty", other);
    assert_int_equal(train_part(&p, 2), 0);
    copy(second, old);
    assert_int_equal(train_part(&p, 2), 0);
    assert_int_equal(tr_make_folder(other), 0);
    p = job(out, both(theirs, alien));
    assert_int_equal(train_part(&p, 1), 0);
    assert_int_equal(tr_make_folder(empty), 0);
    with_second(NULL, "is missing");
    with_second(empty, "no part.json");
    with_second(alien, "belongs to another store");
    with_second(old, "not of the same time");
    refuse(both(second, first), second, "is folder 2 of the store");
    refuse(both(first, first), first, "twice");
    refuse(first, first, "has 2 folders, 1 are given");
    refuse(both(theirs, alien), theirs, "is the store of another run");
    p = job(run, both(first, second));
    if (train(&p, NULL) < 0)
        fail_msg("%s", tr_message());
    assert_true(file_hash(scratch_path("run/model/model.safetensors")) == expected);
}

static int setup(void **state)
{
    (void)state;
    program_make_inputs(1);
    snprintf(run, sizeof(run), "%s", scratch_path("run"));
    snprintf(first, sizeof(first), "%s", scratch_path("a"));
    snprintf(second, sizeof(second), "%s", scratch_path("b"));
    snprintf(aside, sizeof(aside), "%s", scratch_path("aside"));
    snprintf(old, sizeof(old), "%s", scratch_path("old"));
    snprintf(other, sizeof(other), "%s", scratch_path("other"));
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_mistaken)};

    return cmocka_run_group_tests_name("folders that are not the store's", tests, setup, NULL);
}
