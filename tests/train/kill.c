/* SPDX-License-Identifier: Apache-2.0
 *
 * Invariant 2 with real processes: a training run is killed (SIGKILL) at random moments, also
 * during the import, and continued by the same call, until it is done. The model must have the
 * bytes of a run that was never interrupted, and no run may fall behind the last step that it has
 * reported as durable in metrics.jsonl.
 *
 * A kill is a process crash, not a power loss: tests/offload/test_crash.c plays those.
 */
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "src/base/file.h"
#include "src/base/philox.h"
#include "tests/train/common.h"

#define STEPS 40

/* Steps that metrics.jsonl says are durable. */
static int durable_steps(const char *out)
{
    char path[4400];
    FILE *f;
    int lines = 0, c;

    snprintf(path, sizeof(path), "%s/metrics.jsonl", out);
    f = fopen(path, "r");
    while (f && (c = fgetc(f)) != EOF)
        lines += c == '\n';
    if (f)
        fclose(f);
    return lines;
}

static int child_train(const struct tr_train_params *p)
{
    if (train(p, NULL) == 0)
        return 0;
    fprintf(stderr, "child: %s\n", tr_message());
    return 1;
}

/* One life of the run: killed after `us`, or done. 1: it was done before. */
static int live(const struct tr_train_params *p, long us)
{
    struct timespec t = {us / 1000000, us % 1000000 * 1000};
    pid_t child = fork();
    int status;

    assert_true(child >= 0);
    if (child == 0)
        _exit(child_train(p));
    nanosleep(&t, NULL);
    kill(child, SIGKILL);
    assert_int_equal(waitpid(child, &status, 0), child);
    if (WIFEXITED(status) && WEXITSTATUS(status) != 0)
        fail_msg("a continued run failed after %d durable steps", durable_steps(p->out));
    return WIFEXITED(status);
}

static int run_child(const struct tr_train_params *p)
{
    pid_t child = fork();
    int status;

    if (child == 0)
        _exit(child_train(p));
    return waitpid(child, &status, 0) == child && WIFEXITED(status) && WEXITSTATUS(status) == 0;
}

static int kill_until_done(const struct tr_train_params *p, uint32_t seed)
{
    int kills = 0, before = 0;

    for (;; kills++) {
        struct tr_philox c = {{(uint32_t)kills, 0, 0, 0}};
        long us = 2000 + tr_philox4x32(c, seed, 3).v[0] % 60000;
        int after;

        if (kills > 60 ? run_child(p) : live(p, us)) /* at last it may run to its end */
            return kills;
        after = durable_steps(p->out);
        assert_true(after >= before);
        before = after;
    }
}

/* store: where that of the killed run lies; NULL: the default. Exactly clipped runs have the same
 * bits either way: the one that is never killed has two passes, the other one the way asked for. */
static void check_way(enum tr_optimizer optimizer, enum tr_keep keep, uint32_t seed,
                      const char *store, enum tr_clip way, enum tr_master_choice master)
{
    char whole[4352], killed[4352];
    struct tr_train_params p;
    uint64_t expected;
    int kills;

    snprintf(whole, sizeof(whole), "%s", scratch_path("whole"));
    snprintf(killed, sizeof(killed), "%s", scratch_path("killed"));
    p = tiny_job(whole, optimizer, keep, STEPS);
    p.master = master;
    /* In a child, so that no thread of ours lives when the next children are forked. */
    assert_true(run_child(&p));
    expected = file_hash(scratch_path("whole/model/model.safetensors"));
    p = tiny_job(killed, optimizer, keep, STEPS);
    p.store = store;
    p.master = master;
    p.clip_method = way;
    kills = kill_until_done(&p, seed);
    print_message("%d kills, %d lines of metrics\n", kills, durable_steps(killed));
    assert_true(kills >= 3);
    assert_true(file_hash(scratch_path("killed/model/model.safetensors")) == expected);
    tr_remove_tree(whole);
    tr_remove_tree(killed);
}

static void check(enum tr_optimizer optimizer, enum tr_keep keep, uint32_t seed, const char *store)
{
    check_way(optimizer, keep, seed, store, TR_CLIP_AUTO, TR_MASTERS_NONE);
}

/* Killed between a step and its update, as well as within either. */
static void test_deferred(void **state)
{
    (void)state;
    check_way(TR_OPT_ADAMW, TR_KEEP_STEP, 6, NULL, TR_CLIP_DEFERRED, TR_MASTERS_NONE);
    check_way(TR_OPT_LOMO, TR_KEEP_CHECKPOINT, 7, NULL, TR_CLIP_DEFERRED, TR_MASTERS_NONE);
}

static void test_masters(void **state)
{
    (void)state;
    check_way(TR_OPT_ADALOMO, TR_KEEP_STEP, 8, NULL, TR_CLIP_AUTO, TR_MASTERS_SPLIT);
    check_way(TR_OPT_LOMO, TR_KEEP_CHECKPOINT, 9, NULL, TR_CLIP_DEFERRED, TR_MASTERS_F32);
}

static void test_step_lomo(void **state)
{
    (void)state;
    check(TR_OPT_LOMO, TR_KEEP_STEP, 1, NULL);
}

static void test_step_adamw(void **state)
{
    (void)state;
    check(TR_OPT_ADAMW, TR_KEEP_STEP, 2, NULL);
}

static void test_step_adam_mini(void **state)
{
    (void)state;
    check(TR_OPT_ADAM_MINI, TR_KEEP_STEP, 4, NULL);
}

static void test_step_adalomo(void **state)
{
    (void)state;
    check(TR_OPT_ADALOMO, TR_KEEP_STEP, 5, NULL);
}

static void test_checkpoint_lomo(void **state)
{
    (void)state;
    check(TR_OPT_LOMO, TR_KEEP_CHECKPOINT, 3, NULL);
}

/* Also while the folders are made and dealt out. */
static void test_three_folders(void **state)
{
    char list[3 * 4352];

    (void)state;
    snprintf(list, sizeof(list), "%s:%s:%s", scratch_path("a"), scratch_path("b"),
             scratch_path("c"));
    check(TR_OPT_LOMO, TR_KEEP_STEP, 4, list);
}

static int setup(void **state)
{
    static const struct tiny shape = {"llama", 64, 96, 3, 4, 2, 16, 200, 64, ""};

    (void)state;
    tiny_model(scratch_path("model"), &shape, TR_TYPE_BF16, 4);
    token_data(scratch_path("data.jsonl"), 30, 20, 64, shape.vocab);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_step_lomo),       cmocka_unit_test(test_step_adamw),
        cmocka_unit_test(test_step_adam_mini),  cmocka_unit_test(test_step_adalomo),
        cmocka_unit_test(test_checkpoint_lomo), cmocka_unit_test(test_three_folders),
        cmocka_unit_test(test_deferred),        cmocka_unit_test(test_masters),
    };

    return cmocka_run_group_tests_name("invariant 2, killed", tests, setup, NULL);
}
