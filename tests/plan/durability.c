/* SPDX-License-Identifier: Apache-2.0
 *
 * --durability auto: what it becomes on machines that are named, and on this one with figures that
 * are made up; that it is chosen together with whatever else is, the best of all ways; that a run
 * goes on as it began; and that the bits are the same (invariant 1).
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <jansson.h>

#include "src/base/file.h"
#include "src/run/open.h"
#include "tests/plan/cpu_figures.h"
#include "tests/plan/foretold.h"
#include "tests/train/common.h"

struct costs {
    char chosen[16], step_clip[16], checkpoint_clip[16];
    double step, checkpoint;
    double plain, after_commit, mean, tokens_per_s; /* of the way that was chosen */
};

static void read_word(const json_t *o, const char *key, char word[16])
{
    const char *text = json_string_value(json_object_get(o, key));

    snprintf(word, 16, "%s", text ? text : "");
}

static struct costs foretell_run(const char *machine, const struct tr_train_params *p)
{
    struct tr_foretell_params f = {.train = p, .machine = machine, .json = 1};
    struct costs c;
    const json_t *d;
    json_t *o = foretold(&f);

    d = json_object_get(json_object_get(o, "predicted"), "durability");
    read_word(d, "chosen", c.chosen);
    read_word(d, "step_clip_method", c.step_clip);
    read_word(d, "checkpoint_clip_method", c.checkpoint_clip);
    c.step = json_number_value(json_object_get(d, "step_seconds"));
    c.checkpoint = json_number_value(json_object_get(d, "checkpoint_seconds"));
    d = json_object_get(json_object_get(o, "predicted"), "seconds");
    c.plain = json_number_value(json_object_get(d, "all"));
    c.after_commit = json_number_value(json_object_get(d, "after_commit"));
    c.mean = json_number_value(json_object_get(d, "mean"));
    d = json_object_get(json_object_get(o, "predicted"), "tokens_per_s");
    c.tokens_per_s = json_number_value(d);
    json_decref(o);
    return c;
}

static struct costs foretell(const char *machine, int64_t rows, double clip, enum tr_keep keep)
{
    return foretell_run(machine, &(struct tr_train_params){.arch = "llama-7b",
                                                           .dtype = TR_TYPE_BF16,
                                                           .batch_size = rows,
                                                           .optimizer = TR_OPT_LOMO,
                                                           .clip_norm = clip,
                                                           .durability = keep});
}

static int is_near(double a, double b)
{
    return a - b < 1e-6 * b && b - a < 1e-6 * b;
}

/* The least of all ways with this durability, each asked for by name; and its clip method. */
static double least(const struct tr_train_params *p, enum tr_keep keep, const char **clip)
{
    static const enum tr_clip clips[] = {TR_CLIP_TWO_PASS, TR_CLIP_DEFERRED};
    static const enum tr_update_on updates[] = {TR_UPDATE_DEVICE, TR_UPDATE_CPU};
    int ways = p->optimizer == TR_OPT_LOMO ? 1 : 2;
    double seconds = 1e9;

    for (int i = 0; i < 2 * ways; i++) {
        struct tr_train_params q = *p;
        struct costs c;

        q.durability = keep;
        q.clip_method = clips[i & 1];
        q.update_on = updates[i >> 1];
        c = foretell_run("rtx-3090", &q);
        assert_string_equal(c.step_clip, "");
        if (c.mean < seconds)
            *clip = i & 1 ? "deferred" : "two-pass";
        seconds = c.mean < seconds ? c.mean : seconds;
    }
    return seconds;
}

static struct costs best_of_all(const struct tr_train_params *p)
{
    const char *step = "", *checkpoint = "";
    struct costs c = foretell_run("rtx-3090", p);

    assert_true(is_near(c.step, least(p, TR_KEEP_STEP, &step)));
    assert_true(is_near(c.checkpoint, least(p, TR_KEEP_CHECKPOINT, &checkpoint)));
    assert_string_equal(c.step_clip, step);
    assert_string_equal(c.checkpoint_clip, checkpoint);
    return c;
}

/* Of one row each a second backward pass costs less than gradients that are all written at every
 * step, and more than those that stay in host memory between two commits: the way of clipping that
 * suits durable steps is not that of the others. */
static void chosen_together(void **state)
{
    struct tr_train_params p = {.arch = "llama-13b",
                                .dtype = TR_TYPE_BF16,
                                .batch_size = 1,
                                .seq_len = 2048,
                                .optimizer = TR_OPT_LOMO};
    struct costs c = best_of_all(&p), named;

    (void)state;
    assert_string_equal(c.step_clip, "two-pass");
    assert_string_equal(c.checkpoint_clip, "deferred");
    assert_string_equal(c.chosen, "checkpoint");
    assert_true(is_near(c.mean, c.checkpoint) && c.after_commit > 0);
    p.durability = TR_KEEP_STEP;
    named = foretell_run("rtx-3090", &p);
    assert_true(is_near(named.mean, c.step) && is_near(named.checkpoint, c.checkpoint));
    p = (struct tr_train_params){.arch = "tinyllama-1.1b",
                                 .dtype = TR_TYPE_BF16,
                                 .batch_size = 4,
                                 .seq_len = 512,
                                 .optimizer = TR_OPT_ADAMW,
                                 .device_memory = 3ull << 30,
                                 .host_memory = 12ull << 30};
    best_of_all(&p);
}

/* Whatever a step may do that is durable, one that is not may do as well: host memory is for
 * activations where that is faster, though records would save more traffic there. */
static void durable_is_never_faster(void **state)
{
    struct tr_train_params p = {.arch = "llama-30b",
                                .dtype = TR_TYPE_BF16,
                                .batch_size = 4,
                                .seq_len = 2048,
                                .optimizer = TR_OPT_ADALOMO,
                                .host_memory = 51ull << 30};
    struct costs c = foretell_run("rtx-3090", &p);

    (void)state;
    if (c.checkpoint > 1.001 * c.step)
        fail_msg("%g s with every step durable, %g s without", c.step, c.checkpoint);
}

/* A model that stays on the device writes nothing but for durability: many tokens hide that, few do
 * not. Without a norm to see a bad gradient first each step is durable all the same. */
static void named_machines(void **state)
{
    struct costs few = foretell("h200", 1, 1, TR_KEEP_AUTO);
    struct costs many = foretell("h200", 64, 1, TR_KEEP_AUTO);
    struct costs unclipped = foretell("h200", 1, -1, TR_KEEP_AUTO);
    struct costs named = foretell("h200", 1, 1, TR_KEEP_STEP);

    (void)state;
    assert_true(few.step > 1.05 * few.checkpoint && few.checkpoint > 0);
    assert_string_equal(few.chosen, "checkpoint");
    assert_true(many.step <= 1.05 * many.checkpoint);
    assert_string_equal(many.chosen, "step");
    assert_true(unclipped.step > 1.05 * unclipped.checkpoint);
    assert_string_equal(unclipped.chosen, "step");
    assert_true(named.step == few.step && named.checkpoint == few.checkpoint);
    assert_string_equal(named.chosen, "step");
}

/* One in a hundred steps runs beside a commit, and is longer: speed and cost are the mean's. A
 * model in slots alone has nothing to write but then, and no other step has any part in it. */
static void a_commit_is_one_step_s(void **state)
{
    struct costs c = foretell("h200", 1, 1, TR_KEEP_CHECKPOINT);
    struct costs s = foretell("h200", 1, 1, TR_KEEP_STEP);
    double tokens = s.tokens_per_s * s.plain;

    (void)state;
    assert_true(c.after_commit > 1.5 * c.plain);
    assert_true(is_near(c.mean, c.plain + (c.after_commit - c.plain) / 100));
    assert_true(is_near(c.checkpoint, c.mean) && is_near(c.tokens_per_s * c.mean, tokens));
    assert_true(s.after_commit == 0 && s.mean == s.plain && is_near(s.step, s.plain));
}

/* Figures of this very device, with such a drive. */
static void measure(const char *bits, double drive)
{
    struct tr_figures f;

    figures_of_cpu(&f, bits);
    f.n_drives = 0; /* as a file from before drives were told apart */
    f.read = f.write = f.mixed = drive;
    f.flush = 0;
    keep_figures(&f);
}

/* What a run that is opened and closed again says, and what it is. */
static enum tr_keep opened(const struct tr_train_params *p, const char *words)
{
    enum tr_keep keep;
    tr_run *run;

    if (tr_train_open(&run, p) < 0)
        fail_msg("%s", tr_message());
    keep = run->params.durability;
    if (words && !strstr(tr_train_summary(run), words))
        fail_msg("'%s' is not in: %s", words, tr_train_summary(run));
    if (!words)
        assert_null(strstr(tr_train_summary(run), "durable:"));
    tr_train_close(run);
    return keep;
}

static uint64_t exported(const char *out)
{
    uint64_t hash = file_hash(scratch_path("%s/model/model.safetensors", out));

    assert_int_equal(tr_remove_tree(scratch_path("%s", out)), 0);
    return hash;
}

static int make_model(void **state)
{
    const struct tiny shape = {"llama", 64, 96, 4, 4, 2, 16, 300, 512, ""};
    struct tr_train_params p = tiny_job(scratch_path("run"), TR_OPT_LOMO, TR_KEEP_AUTO, 4);

    (void)state;
    tiny_model(p.model, &shape, TR_TYPE_BF16, 3);
    token_data(p.data, 40, 30, 64, shape.vocab);
    return 0;
}

/* Of this device. Not measured: nothing has said yet how fast it is. */
static void open_once(char bits[96], int measured)
{
    struct tr_train_params p = tiny_job(scratch_path("run"), TR_OPT_LOMO, TR_KEEP_AUTO, 4);
    tr_run *run;

    assert_int_equal(tr_train_open(&run, &p), 0);
    strcpy(bits, run->device_info.bits);
    assert_int_equal(strstr(tr_train_summary(run), "has not been measured") != NULL, !measured);
    if (!measured)
        assert_int_equal(run->params.durability, TR_KEEP_STEP);
    tr_train_close(run);
    assert_int_equal(tr_remove_tree(p.out), 0);
}

/* A drive too slow for every step: with a norm that is asked for; else it is said why not. */
static void chosen_once(void **state)
{
    char out[4352], bits[96];
    struct tr_train_params p;
    uint64_t expected;

    (void)state;
    open_once(bits, 0);
    snprintf(out, sizeof(out), "%s", scratch_path("run"));
    p = tiny_job(out, TR_OPT_LOMO, TR_KEEP_STEP, 4);
    assert_int_equal(train(&p, NULL), 0);
    expected = exported("run");
    measure(bits, 1e12);
    p.durability = TR_KEEP_AUTO;
    assert_int_equal(opened(&p, "durable: every step, which"), TR_KEEP_STEP);
    measure(bits, 1e6);
    assert_int_equal(opened(&p, NULL), TR_KEEP_STEP); /* it goes on as it began */
    assert_int_equal(tr_remove_tree(out), 0);
    assert_int_equal(opened(&p, "durable: every 3 steps; every step is"), TR_KEEP_CHECKPOINT);
    measure(bits, 1e12);
    assert_int_equal(train_part(&p, 2), 0);
    p.checkpoint_every = 0;
    assert_int_equal(opened(&p, NULL), TR_KEEP_CHECKPOINT);
    assert_int_equal(train(&p, NULL), 0);
    p.durability = TR_KEEP_STEP;
    assert_int_equal(opened(&p, NULL), TR_KEEP_STEP); /* by name it may change */
    assert_true(exported("run") == expected);
    measure(bits, 1e6);
    p.durability = TR_KEEP_AUTO;
    p.clip_norm = -1;
    assert_int_equal(opened(&p, "though it is predicted to cost"), TR_KEEP_STEP);
    assert_int_equal(tr_remove_tree(out), 0);
    p.durability = TR_KEEP_NONE;
    assert_int_equal(opened(&p, NULL), TR_KEEP_NONE);
    p.durability = TR_KEEP_AUTO;
    assert_int_equal(opened(&p, NULL), TR_KEEP_NONE);
    assert_int_equal(tr_remove_tree(out), 0);
}

/* The two have placements of their own, and either may be the faster one. */
static void no_cost_below_nothing(void **state)
{
    struct tr_run *run = calloc(1, sizeof(*run));
    char text[256];

    (void)state;
    assert_non_null(run);
    run->params.durability = TR_KEEP_STEP;
    run->durable = (struct tr_durable_cost){297.6, 298.9};
    assert_string_equal(run_durability_text(run, text, sizeof(text)),
                        "every step, which is predicted to cost nothing");
    run->durable.step = 301.9;
    assert_string_equal(run_durability_text(run, text, sizeof(text)),
                        "every step, which is predicted to cost 1 %");
    free(run);
}

/* Of four steps the first is not counted, and the fourth follows the commit of the third. */
static int tells_after_commit(const struct tr_train_params *p)
{
    tr_run *run;
    int told;

    if (tr_train_open(&run, p) < 0)
        fail_msg("%s", tr_message());
    while (tr_train_step(run, &(struct tr_step_report){0}) == 1)
        ;
    assert_int_equal(tr_train_finish(run), 0);
    assert_non_null(strstr(tr_train_outcome(run), "seconds a step"));
    assert_int_equal(run->measured.n, 3);
    told = strstr(tr_train_outcome(run), "seconds after a commit") != NULL;
    for (size_t i = 0; i < 3; i++) /* sorted by now: that one last */
        assert_int_equal(run->measured.step[i].after_commit, told && i == 2);
    tr_train_close(run);
    assert_int_equal(tr_remove_tree(p->out), 0);
    return told;
}

static void measured_apart(void **state)
{
    char out[4352], bits[96];
    struct tr_train_params p;

    (void)state;
    open_once(bits, 1);
    snprintf(out, sizeof(out), "%s", scratch_path("run"));
    measure(bits, 1e9);
    p = tiny_job(out, TR_OPT_LOMO, TR_KEEP_CHECKPOINT, 4);
    assert_true(tells_after_commit(&p));
    p.durability = TR_KEEP_STEP;
    assert_false(tells_after_commit(&p));
    p.durability = TR_KEEP_NONE;
    assert_false(tells_after_commit(&p));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(chosen_together),       cmocka_unit_test(durable_is_never_faster),
        cmocka_unit_test(named_machines),        cmocka_unit_test(a_commit_is_one_step_s),
        cmocka_unit_test(chosen_once),           cmocka_unit_test(measured_apart),
        cmocka_unit_test(no_cost_below_nothing),
    };

    setenv("XDG_CACHE_HOME", scratch_path("cache"), 1);
    setenv("TAILRACE_DEVICE", "cpu", 1);
    return cmocka_run_group_tests(tests, make_model, NULL);
}
