/* SPDX-License-Identifier: Apache-2.0
 *
 * --lr auto. The rule on made-up losses; then the test in a run: nothing of it stays. A run that is
 * given the rate it found ends with the same bytes, also where it was interrupted, or was killed
 * before it had written the rate down; and the rate is the same whatever the placement
 * (invariant 1). A mutant that commits the test ends with other bytes.
 */
#include <errno.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "src/base/file.h"
#include "src/options/options.h"
#include "src/run/range.h"
#include "tests/device/budget.h"
#include "tests/train/common.h"

static const struct tiny shape = {"llama", 32, 48, 2, 2, 1, 16, 300, 512, ""};

static int mutant; /* what the test has done is committed when its engine is closed */

int __real_tr_offload_close(struct tr_offload *o);
int __wrap_tr_offload_close(struct tr_offload *o);
int __wrap_tr_offload_close(struct tr_offload *o)
{
    unsigned char payload[TR_CURSOR_BYTES];

    if (mutant) {
        mutant = 0;
        tr_cursor_pack(&(struct tr_cursor){.loss_scale = 1}, payload);
        assert_int_equal(tr_offload_commit(o, payload, sizeof(payload)), 0);
        assert_int_equal(tr_offload_commit_wait(o), 0);
    }
    return __real_tr_offload_close(o);
}

/* The loss falls with the logarithm of the rate and rises from `bottom` on. */
static void test_rule(void **state)
{
    (void)state;
    for (int bottom = 5; bottom <= TR_RANGE_STEPS; bottom += 7) {
        struct tr_range r = {.n = 0};
        int ended = 0, i = 0;

        for (; i < TR_RANGE_STEPS && !ended; i++)
            ended = tr_range_add(&r, i < bottom ? 5 - 0.05 * i : 5 - 0.05 * bottom + i - bottom);
        assert_true(r.best >= bottom - 1 && r.best <= bottom + 3);
        assert_int_equal(ended, bottom + 6 < TR_RANGE_STEPS);
        assert_true(i - r.best < 8 || !ended);
    }
    assert_int_equal(tr_range_add(&(struct tr_range){.n = 3, .lowest = 1, .mean = 1}, NAN), 1);
    assert_true(fabs(tr_range_rate(0.3, 0) / 0.003 - 1) < 1e-12);
    assert_true(fabs(tr_range_rate(0.3, TR_RANGE_STEPS - 1) / 30 - 1) < 1e-12);
}

static struct tr_train_params params(enum tr_optimizer optimizer, enum tr_type dtype)
{
    static char model[4352], data[4352];

    snprintf(model, sizeof(model), "%s", scratch_path("model-%d", dtype));
    snprintf(data, sizeof(data), "%s", scratch_path("data.jsonl"));
    if (tr_folder_is_empty(model) < 0)
        tiny_model(model, &shape, dtype, 3);
    token_data(data, 30, 30, 64, shape.vocab);
    return (struct tr_train_params){.model = model,
                                    .data = data,
                                    .steps = 4,
                                    .batch_size = on_cuda() ? 3 : 8,
                                    .seq_len = 64,
                                    .optimizer = optimizer,
                                    .lr = TR_REAL_AUTO,
                                    .threads = 2,
                                    .device_memory = test_budget(NULL, 64 << 20)};
}

/* The rate in run.yaml, and the hash of what was trained, in SCRATCH/NAME. */
struct end {
    double rate;
    uint64_t hash;
};

static double rate_of(const char *out)
{
    struct tr_train_params p = {0};
    char path[4400];
    double rate;

    snprintf(path, sizeof(path), "%s/run.yaml", out);
    assert_int_equal(tr_options_read(path, &p), 0);
    rate = p.lr;
    tr_options_free(&p);
    return rate;
}

static struct end trained(struct tr_train_params p, const char *name)
{
    char out[4352];

    snprintf(out, sizeof(out), "%s", scratch_path("%s", name));
    p.out = out;
    if (train(&p, NULL) < 0)
        fail_msg("%s: %s", name, tr_message());
    return (struct end){rate_of(out), file_hash(scratch_path("%s/model/model.safetensors", name))};
}

static void expect(struct end got, struct end want, const char *name)
{
    if (got.rate != want.rate || got.hash != want.hash)
        fail_msg("%s: rate %g, expected %g, or other bytes", name, got.rate, want.rate);
    assert_int_equal(tr_remove_tree(scratch_path("%s", name)), 0);
}

static void check(enum tr_optimizer optimizer, enum tr_type dtype)
{
    struct tr_train_params p = params(optimizer, dtype), q;
    struct end want = trained(p, "whole");
    char out[4352];

    assert_true(want.rate > 0 && isfinite(want.rate));
    print_message("rate %.3g\n", want.rate);
    q = p;
    q.lr = want.rate;
    expect(trained(q, "given"), want, "given");
    q = p;
    q.clip_method = optimizer == TR_OPT_LOMO ? TR_CLIP_DEFERRED : TR_CLIP_AUTO;
    expect(trained(q, "deferred"), want, "deferred");
    q = p;
    q.device_memory = smallest_budget(p);
    q.durability = TR_KEEP_CHECKPOINT;
    q.threads = 1;
    expect(trained(q, "smallest"), want, "smallest");
    snprintf(out, sizeof(out), "%s", scratch_path("parts"));
    p.out = out;
    assert_int_equal(train_part(&p, 0), 0); /* ended before the test */
    assert_true(rate_of(out) == TR_REAL_AUTO);
    assert_int_equal(train_part(&p, 2), 0);
    assert_true(rate_of(out) == want.rate);
    expect(trained(p, "parts"), want, "parts");
    assert_int_equal(tr_remove_tree(scratch_path("whole")), 0);
}

static void test_undone(void **state)
{
    (void)state;
    check(TR_OPT_ADAMW, TR_TYPE_BF16);
    if (on_cuda())
        return;
    check(TR_OPT_ADALOMO, TR_TYPE_F32);
    check(TR_OPT_LOMO, TR_TYPE_F16);
    check(TR_OPT_SGD, TR_TYPE_F32);
}

static void test_mutant(void **state)
{
    struct tr_train_params p = params(TR_OPT_ADAMW, TR_TYPE_BF16);
    struct end want = trained(p, "sound"), got;

    (void)state;
    mutant = 1;
    got = trained(p, "mutant");
    assert_int_equal(mutant, 0);
    assert_true(got.rate == want.rate && got.hash != want.hash);
}

static void test_refusals(void **state)
{
    struct tr_train_params p = params(TR_OPT_SGD, TR_TYPE_F32);
    tr_run *run;

    (void)state;
    p.out = scratch_path("refused");
    p.durability = TR_KEEP_NONE;
    assert_true(tr_train_open(&run, &p) < 0);
    assert_non_null(strstr(tr_message(), "--lr auto"));
}

/* A run whose test has found nothing yet, or could not, takes a rate by hand; then it has one. */
static void test_given_instead(void **state)
{
    struct tr_train_params p = params(TR_OPT_SGD, TR_TYPE_F32);
    char out[4352];
    tr_run *run;

    (void)state;
    snprintf(out, sizeof(out), "%s", scratch_path("instead"));
    p.out = out;
    assert_int_equal(train_part(&p, 0), 0);
    p.lr = 0.01;
    assert_int_equal(train_part(&p, 1), 0);
    assert_true(rate_of(out) == 0.01);
    p.lr = 0.02;
    assert_true(tr_train_open(&run, &p) < 0);
    assert_non_null(strstr(tr_message(), "lr differ"));
    p.lr = TR_REAL_AUTO;
    assert_int_equal(train_part(&p, 1), 0);
    assert_true(rate_of(out) == 0.01);
    assert_int_equal(tr_remove_tree(out), 0);
}

static int asked;

static int after_three(void *arg)
{
    (void)arg;
    return ++asked >= 3;
}

static int never(void *arg)
{
    (void)arg;
    return 0;
}

/* Stopped within it, nothing of it stays: the same command makes the whole test. */
static void test_stopped(void **state)
{
    struct tr_train_params p = params(TR_OPT_SGD, TR_TYPE_F32);
    struct tr_step_report report;
    struct end want = trained(p, "unstopped");
    char out[4352];
    tr_run *run;

    (void)state;
    snprintf(out, sizeof(out), "%s", scratch_path("stopped"));
    p.out = out;
    p.stop = after_three;
    assert_int_equal(tr_train_open(&run, &p), 0);
    assert_int_equal(tr_train_step(run, &report), -EINTR);
    assert_int_equal(asked, 3);
    assert_int_equal(tr_train_finish(run), 0);
    tr_train_close(run);
    assert_true(rate_of(out) == TR_REAL_AUTO);
    p.stop = never;
    expect(trained(p, "stopped"), want, "stopped");
    assert_int_equal(tr_remove_tree(scratch_path("unstopped")), 0);
}

/* Nor does it have to be of a run with more steps than the test. */
static void test_short_stopped(void **state)
{
    struct tr_train_params p = params(TR_OPT_SGD, TR_TYPE_F32);
    struct tr_step_report report;
    char out[4352];
    tr_run *run;

    (void)state;
    snprintf(out, sizeof(out), "%s", scratch_path("short"));
    p.out = out;
    p.steps = 1;
    p.stop = after_three;
    asked = 0;
    assert_int_equal(tr_train_open(&run, &p), 0);
    assert_int_equal(tr_train_step(run, &report), -EINTR);
    assert_int_equal(asked, 3);
    tr_train_close(run);
    assert_true(rate_of(out) == TR_REAL_AUTO);
    assert_int_equal(tr_remove_tree(out), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_rule),          cmocka_unit_test(test_undone),
        cmocka_unit_test(test_mutant),        cmocka_unit_test(test_refusals),
        cmocka_unit_test(test_given_instead), cmocka_unit_test(test_stopped),
        cmocka_unit_test(test_short_stopped),
    };

    return cmocka_run_group_tests_name("the range test", tests, NULL, NULL);
}
