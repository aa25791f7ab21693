/* SPDX-License-Identifier: Apache-2.0
 *
 * --durability auto: what it becomes on machines that are named, and on this one with figures that
 * are made up; that a run goes on as it began; and that the bits are the same (invariant 1).
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <jansson.h>

#include "src/base/file.h"
#include "src/run/run.h"
#include "tests/train/common.h"

struct costs {
    char chosen[16];
    double step, checkpoint;
};

static struct costs foretell(const char *machine, int64_t rows, double clip, enum tr_keep keep)
{
    struct tr_train_params p = {.arch = "llama-7b",
                                .dtype = TR_TYPE_BF16,
                                .batch_size = rows,
                                .optimizer = TR_OPT_LOMO,
                                .clip_norm = clip,
                                .durability = keep};
    struct tr_foretell_params f = {.train = &p, .machine = machine, .json = 1};
    struct costs c;
    const json_t *d;
    char *text;
    json_t *o;

    if (tr_foretell(&f, &text) < 0)
        fail_msg("%s", tr_message());
    o = json_loads(text, 0, NULL);
    tr_free_text(text);
    d = json_object_get(json_object_get(o, "predicted"), "durability");
    strcpy(c.chosen, json_string_value(json_object_get(d, "chosen")));
    c.step = json_number_value(json_object_get(d, "step_seconds"));
    c.checkpoint = json_number_value(json_object_get(d, "checkpoint_seconds"));
    json_decref(o);
    return c;
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

/* Figures of this very device, with such a drive. */
static void measure(const char *bits, double drive)
{
    struct tr_figures f;
    char *path = tr_figures_path(1);

    assert_int_equal(tr_figures_named("h200", &(struct tr_figures_changes){.drives = 0}, &f), 0);
    snprintf(f.device, sizeof(f.device), "%s", bits);
    f.cuda = 0;
    f.threads = 1;
    f.read = f.write = f.mixed = drive;
    f.flush = 0;
    assert_int_equal(tr_figures_write(path, &f), 0);
    tr_free(TR_MEM_MISC, path);
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

static void begin(char bits[96])
{
    const struct tiny shape = {"llama", 64, 96, 4, 4, 2, 16, 300, 512, ""};
    struct tr_train_params p = tiny_job(scratch_path("run"), TR_OPT_LOMO, TR_KEEP_AUTO, 4);
    tr_run *run;

    tiny_model(p.model, &shape, TR_TYPE_BF16, 3);
    token_data(p.data, 40, 30, 64, shape.vocab);
    assert_int_equal(tr_train_open(&run, &p), 0);
    strcpy(bits, run->device_info.bits);
    assert_int_equal(run->params.durability, TR_KEEP_STEP);
    assert_non_null(strstr(tr_train_summary(run), "has not been measured"));
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
    begin(bits);
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
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(named_machines),
        cmocka_unit_test(chosen_once),
    };

    setenv("XDG_CACHE_HOME", scratch_path("cache"), 1);
    setenv("TAILRACE_DEVICE", "cpu", 1);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
