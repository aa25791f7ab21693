/* SPDX-License-Identifier: Apache-2.0
 *
 * Invariant 2 with real processes: a training run is killed (SIGKILL) at random moments, also
 * during the import, and continued by the same call, until it is done. The model must have the
 * bytes of a run that was never interrupted, no run may fall behind a step that it has committed,
 * and metrics.jsonl has lines of such steps alone, in the end one for each.
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

#include "src/base/clock.h"
#include "src/base/file.h"
#include "src/base/philox.h"
#include "src/run/cursor.h"
#include "tests/train/common.h"

#define STEPS 40

static int lines(const char *out)
{
    char path[4400];
    FILE *f;
    int n = 0, c;

    snprintf(path, sizeof(path), "%s/metrics.jsonl", out);
    f = fopen(path, "r");
    while (f && (c = fgetc(f)) != EOF)
        n += c == '\n';
    if (f)
        fclose(f);
    return n;
}

/* The step of the newest commit; 0: there is none. */
static int stands_at(const struct tr_train_params *p)
{
    char beside[4400];
    struct tr_cursor cursor;
    struct tr_store *s;

    snprintf(beside, sizeof(beside), "%s/store", p->out);
    if (tr_store_open(&s, p->store ? p->store : beside, TR_STORE_READ) < 0)
        return 0;
    assert_int_equal(tr_cursor_read(s, &cursor), 0);
    tr_store_close(s);
    return (int)cursor.step;
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
        fail_msg("a continued run failed after %d steps", stands_at(p));
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

struct kills {
    int all, inside; /* inside: where steps were done, and others to do */
};
static struct kills met; /* of all runs together */

/* Lives last up to a quarter of what the whole run took, `seconds`, or longer where such a life
 * comes to nothing: so it is killed in its steps on a machine of any speed. */
static struct kills kill_until_done(const struct tr_train_params *p, uint32_t seed, double seconds)
{
    struct kills kills = {0, 0};
    double most = seconds / 4;
    int before = 0;

    for (;; kills.all++) {
        struct tr_philox c = {{(uint32_t)kills.all, 0, 0, 0}};
        long us = 2000 + (long)(tr_philox4x32(c, seed, 3).v[0] % (uint32_t)(most * 1e6 + 1));
        int after;

        if (kills.all > 60 ? run_child(p) : live(p, us)) /* at last it may run to its end */
            return kills;
        after = stands_at(p);
        assert_true(after >= before && lines(p->out) <= after);
        kills.inside += after > before && after < STEPS;
        most = after > before ? seconds / 4 : most * 1.25;
        before = after;
    }
}

struct extras {
    const char *store; /* where that of the killed run lies; NULL: the default */
    enum tr_clip way;
    enum tr_master_choice master;
    int64_t rank; /* of adapters, or 0 */
    int both;     /* the model is trained beside them */
    const char *freeze;
};

static struct tr_train_params job_of(const char *out, enum tr_optimizer optimizer,
                                     enum tr_keep keep, const struct extras *x)
{
    struct tr_train_params p = tiny_job(out, optimizer, keep, STEPS);

    p.master = x->master;
    p.lora_rank = x->rank;
    p.lora_optimizer = x->both ? TR_OPT_ADAMW : TR_OPT_DEFAULT;
    p.freeze = x->freeze;
    return p;
}

/* Of all the weights that the run has trained. */
static uint64_t result_of(const char *run, const struct extras *x)
{
    if (!x->rank)
        return file_hash(scratch_path("%s/model/model.safetensors", run));
    if (!x->both)
        return file_hash(scratch_path("%s/model/adapter_model.safetensors", run));
    return file_hash(scratch_path("%s/model/model.safetensors", run)) * 31 +
           file_hash(scratch_path("%s/model/adapter/adapter_model.safetensors", run));
}

/* Exactly clipped runs have the same bits either way: the one that is never killed has two passes,
 * the other one the way asked for. */
static void check_way(enum tr_optimizer optimizer, enum tr_keep keep, uint32_t seed,
                      const struct extras *x)
{
    char whole[4352], killed[4352];
    struct tr_train_params p;
    uint64_t expected;
    struct kills kills;
    double seconds;

    snprintf(whole, sizeof(whole), "%s", scratch_path("whole"));
    snprintf(killed, sizeof(killed), "%s", scratch_path("killed"));
    p = job_of(whole, optimizer, keep, x);
    /* In a child, so that no thread of ours lives when the next children are forked. */
    seconds = tr_now();
    assert_true(run_child(&p));
    seconds = tr_now() - seconds;
    expected = result_of("whole", x);
    p = job_of(killed, optimizer, keep, x);
    p.store = x->store;
    p.clip_method = x->way;
    kills = kill_until_done(&p, seed, seconds);
    print_message("%d kills, %d between steps\n", kills.all, kills.inside);
    assert_true(kills.all >= 1);
    met.all += kills.all;
    met.inside += kills.inside;
    assert_int_equal(lines(killed), STEPS);
    assert_true(result_of("killed", x) == expected);
    tr_remove_tree(whole);
    tr_remove_tree(killed);
}

static void check(enum tr_optimizer optimizer, enum tr_keep keep, uint32_t seed, const char *store)
{
    check_way(optimizer, keep, seed, &(struct extras){.store = store});
}

/* Killed between a step and its update, as well as within either. */
static void test_deferred(void **state)
{
    struct extras deferred = {.way = TR_CLIP_DEFERRED};

    (void)state;
    check_way(TR_OPT_ADAMW, TR_KEEP_STEP, 6, &deferred);
    check_way(TR_OPT_LOMO, TR_KEEP_CHECKPOINT, 7, &deferred);
}

static void test_masters(void **state)
{
    struct extras split = {.master = TR_MASTERS_SPLIT};
    struct extras f32 = {.way = TR_CLIP_DEFERRED, .master = TR_MASTERS_F32};

    (void)state;
    check_way(TR_OPT_ADALOMO, TR_KEEP_STEP, 8, &split);
    check_way(TR_OPT_LOMO, TR_KEEP_CHECKPOINT, 9, &f32);
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

/* What is durable is the adapters; the model is only read. */
static void test_adapters(void **state)
{
    (void)state;
    check_way(TR_OPT_ADAMW, TR_KEEP_STEP, 8, &(struct extras){.rank = 4});
}

/* Two optimizers, each with parameters of its own. */
static void test_adapters_and_model(void **state)
{
    struct extras both = {.rank = 4, .both = 1};

    (void)state;
    check_way(TR_OPT_LOMO, TR_KEEP_STEP, 9, &both);
    check_way(TR_OPT_LOMO, TR_KEEP_CHECKPOINT, 10, &both);
}

/* And an update that waits, of both; of what is not frozen. */
static void test_partial(void **state)
{
    struct extras both = {.way = TR_CLIP_DEFERRED, .rank = 3, .both = 1};
    struct extras frozen = {.way = TR_CLIP_DEFERRED, .freeze = "*embed*,*layers.0.*"};

    (void)state;
    check_way(TR_OPT_LOMO, TR_KEEP_STEP, 10, &both);
    check_way(TR_OPT_ADAMW, TR_KEEP_STEP, 11, &frozen);
}

static int setup(void **state)
{
    static const struct tiny shape = {"llama", 64, 96, 3, 4, 2, 16, 200, 64, ""};

    (void)state;
    tiny_model(scratch_path("model"), &shape, TR_TYPE_BF16, 4);
    token_data(scratch_path("data.jsonl"), 30, 20, 64, shape.vocab);
    return 0;
}

/* Whatever a single run has met: together they were killed often, and in the middle of their steps.
 */
static void test_enough_was_met(void **state)
{
    (void)state;
    assert_true(met.all >= 30 && met.inside >= 10);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_step_lomo),       cmocka_unit_test(test_step_adamw),
        cmocka_unit_test(test_step_adam_mini),  cmocka_unit_test(test_step_adalomo),
        cmocka_unit_test(test_checkpoint_lomo), cmocka_unit_test(test_three_folders),
        cmocka_unit_test(test_deferred),        cmocka_unit_test(test_masters),
        cmocka_unit_test(test_adapters),        cmocka_unit_test(test_adapters_and_model),
        cmocka_unit_test(test_partial),         cmocka_unit_test(test_enough_was_met),
    };

    return cmocka_run_group_tests_name("invariant 2, killed", tests, setup, NULL);
}
