/* SPDX-License-Identifier: Apache-2.0
 *
 * What the device's memory is for where it is too small for all: activations that need not be made
 * again, or records that need not be loaded again. Between a drive that all waits for and one that
 * hides behind arithmetic, what is chosen is held against each number of blocks that could keep
 * theirs, and against both orders that a plan without a clock would have. On machines by name; and
 * where nothing has been measured, by the tokens of a step.
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

#define LAYERS 12

struct told {
    int kept, on_device;
    double tokens_per_s, spill_host, spill_disk, least_device;
};

static struct told foretell_with(const char *machine, const char *arch, int64_t rows,
                                 enum tr_recompute recompute, uint64_t host)
{
    struct tr_train_params p = {.arch = arch,
                                .dtype = TR_TYPE_BF16,
                                .batch_size = rows,
                                .seq_len = 512,
                                .optimizer = TR_OPT_LOMO,
                                .clip_norm = -1,
                                .durability = TR_KEEP_NONE,
                                .device_memory = machine ? 0 : 1ull << 30,
                                .host_memory = host,
                                .recompute = recompute};
    struct tr_foretell_params f = {.train = &p, .machine = machine, .json = 1};
    const json_t *predicted;
    struct told t;
    json_t *o = foretold(&f);

    t.kept = (int)json_integer_value(json_object_get(o, "kept_blocks"));
    t.on_device = (int)json_integer_value(json_object_get(o, "kept_on_device"));
    predicted = json_object_get(o, "predicted");
    t.tokens_per_s = json_number_value(json_object_get(predicted, "tokens_per_s"));
    t.spill_host = json_number_value(json_object_get(predicted, "spill_host_bytes"));
    t.spill_disk = json_number_value(json_object_get(predicted, "spill_disk_bytes"));
    t.least_device = json_number_value(json_object_get(predicted, "least_device_bytes"));
    json_decref(o);
    return t;
}

static struct told foretell(const char *machine, const char *arch, int64_t rows,
                            enum tr_recompute recompute)
{
    return foretell_with(machine, arch, rows, recompute, 0);
}

/* 13B is larger than that card. 4,096 tokens hide its loads, and a third of the forward pass's
 * worth is saved; 256 do not. */
static void named_machines(void **state)
{
    struct told many = foretell("rtx-3090", "llama-13b", 8, TR_RECOMPUTE_AUTO);
    struct told again = foretell("rtx-3090", "llama-13b", 8, TR_RECOMPUTE_ALL);
    struct told few = foretell("rtx-3090", "llama-13b", 1, TR_RECOMPUTE_AUTO);
    struct told none = foretell("rtx-3090", "llama-13b", 1, TR_RECOMPUTE_NONE);
    struct told small = foretell("rtx-3090", "llama-7b", 4, TR_RECOMPUTE_AUTO);

    (void)state;
    print_message("13b, 8 rows: %d of 40 blocks, %.3f of the speed without\n", many.kept,
                  many.tokens_per_s / again.tokens_per_s);
    print_message("13b, 1 row: %d of 40 blocks, %.3f of the speed with all\n", few.kept,
                  few.tokens_per_s / none.tokens_per_s);
    assert_true(many.kept > 10 && many.tokens_per_s > 1.2 * again.tokens_per_s);
    assert_true(few.kept < 40 && few.tokens_per_s > 1.01 * none.tokens_per_s);
    assert_int_equal(small.kept, 32); /* both have room */
    assert_int_equal(small.on_device, 32);
}

/* Most of them pass the time in host memory; where that is smaller, fewer: none is written to a
 * drive but by name. What would do at the least is not changed by what is chosen. */
static void in_host_memory(void **state)
{
    const uint64_t little = 40ull << 30;
    struct told auto_ = foretell("rtx-3090", "llama-13b", 16, TR_RECOMPUTE_AUTO);
    struct told again = foretell("rtx-3090", "llama-13b", 16, TR_RECOMPUTE_ALL);
    struct told fewer = foretell_with("rtx-3090", "llama-13b", 16, TR_RECOMPUTE_AUTO, little);
    struct told named = foretell_with("rtx-3090", "llama-13b", 16, TR_RECOMPUTE_NONE, little);

    (void)state;
    print_message("13b, 16 rows: %d of 40 blocks, %d on the device, %.3f of the speed without\n",
                  auto_.kept, auto_.on_device, auto_.tokens_per_s / again.tokens_per_s);
    print_message("in 40 GiB of host memory: %d, %.3f\n", fewer.kept,
                  fewer.tokens_per_s / again.tokens_per_s);
    assert_true(auto_.kept == 40 && auto_.on_device <= 3 && auto_.spill_host > 30e9);
    assert_true(auto_.tokens_per_s > 1.2 * again.tokens_per_s);
    assert_true(fewer.kept > 4 && fewer.kept < 40);
    assert_true(fewer.tokens_per_s > again.tokens_per_s);
    assert_true(auto_.spill_disk == 0 && fewer.spill_disk == 0);
    assert_true(named.kept == 40 && named.spill_disk > 0);
    assert_true(auto_.least_device == again.least_device);
    assert_true(fewer.least_device == again.least_device);
}

/* ---- each number of blocks ---- */

/* Of a run that is open, as if so many blocks' activations came first. */
static double seconds_with(const struct tr_run *open, const struct tr_figures *f,
                           const struct tr_batch *batch, int32_t first)
{
    struct tr_run *run = malloc(sizeof(*run));
    struct tr_prediction p;

    assert_non_null(run);
    *run = *open; /* but for what placing makes */
    run->visits = run->plain = run->settle = (struct tr_visits){.n = 0};
    run->spans = NULL;
    run->in_host = NULL;
    run->scratch = NULL;
    run->spills = (struct tr_stripes){.n = 0};
    run->spill_bytes = run->spill_host_bytes = 0;
    run->frames = TR_FRAMES_FIT;
    run->keep = first;
    assert_int_equal(run_make_plan(run, open->plan.in.batch_tokens, open->plan.in.grain_tokens), 0);
    assert_int_equal(run_place(run), 0);
    assert_int_equal(run_predict(run, f, batch, &p), 0);
    run_unplace(run);
    free(run);
    return tr_prediction_seconds(&p);
}

struct found {
    int32_t kept;
    double chosen, best, records, activations; /* seconds: these two, by the order alone */
};

static struct tr_train_params job(uint64_t budget)
{
    struct tr_train_params p = tiny_job(scratch_path("run"), TR_OPT_SGD, TR_KEEP_NONE, 4);

    p.clip_norm = -1;
    p.device_memory = budget;
    p.batch_size = 1;
    p.seq_len = 24;
    return p;
}

static tr_run *open_job(uint64_t budget)
{
    struct tr_train_params p = job(budget);
    tr_run *run;

    if (tr_train_open(&run, &p) < 0)
        fail_msg("%s", tr_message());
    return run;
}

static void close_job(tr_run *run)
{
    tr_train_close(run);
    assert_int_equal(tr_remove_tree(scratch_path("run")), 0);
}

static void forget_figures(void)
{
    char *path = tr_figures_path(0);

    assert_int_equal(remove(path), 0);
    tr_free(TR_MEM_MISC, path);
}

/* With a drive of so many bytes a second. */
static struct found find(uint64_t budget, double drive)
{
    struct tr_figures f;
    struct tr_batch batch;
    struct found found;
    tr_run *run = open_job(budget);

    figures_of_cpu(&f, run->device_info.bits);
    f.n_drives = 0;
    f.read = f.write = f.mixed = drive;
    f.flush = 0;
    keep_figures(&f);
    close_job(run);
    run = open_job(budget);
    assert_int_equal(run_figures(run, &f), 0);
    assert_int_equal(tr_data_batch(run->data, 0, 0, &batch), 0);
    found = (struct found){.kept = run->plan.keep,
                           .chosen = tr_prediction_seconds(&run->foreseen),
                           .records = seconds_with(run, &f, &batch, 0),
                           .activations = seconds_with(run, &f, &batch, LAYERS)};
    found.best = found.records;
    for (int32_t k = 1; k <= LAYERS; k++) {
        double seconds = seconds_with(run, &f, &batch, k);

        found.best = seconds < found.best ? seconds : found.best;
    }
    close_job(run);
    print_message("drive of %.3g bytes/s: %d of %d blocks, of the best way %.4f; records first "
                  "%.3f, activations first %.3f\n",
                  drive, found.kept, LAYERS, found.chosen / found.best, found.records / found.best,
                  found.activations / found.best);
    return found;
}

/* Drives from far too slow to far too fast for the arithmetic, most of them where it turns: on
 * either side one of the orders is as good, in between neither is. */
static void best_of_all(void **state)
{
    uint64_t budget = *(uint64_t *)*state;
    int by_records = 0, by_activations = 0, between = 0;

    for (double drive = 1e7; drive<1e13; drive *= drive> 5e8 && drive < 4e9 ? 1.15 : 8) {
        struct found f = find(budget, drive);
        int records = f.records > 1.05 * f.chosen, activations = f.activations > 1.05 * f.chosen;

        assert_true(f.chosen <= 1.01 * f.best);
        by_records += !records && activations;
        by_activations += records && !activations;
        between += records && activations;
    }
    assert_true(by_records > 0 && by_activations > 0 && between > 0);
}

/* Nothing is measured: the products that are saved are weighed against the bytes that are loaded
 * again. */
static void unmeasured(void **state)
{
    struct told t;

    (void)state;
    forget_figures();
    t = foretell(NULL, "tinyllama-1.1b", 1, TR_RECOMPUTE_AUTO);
    print_message("1.1b, 1 row, in 1 GiB: %d of 22 blocks\n", t.kept);
    assert_true(t.kept > 0);
}

static uint64_t budget;

static int make_model(void **state)
{
    const struct tiny shape = {"llama", 96, 256, LAYERS, 4, 2, 24, 300, 512, ""};
    struct tr_train_params p = job(0);

    tiny_model(p.model, &shape, TR_TYPE_BF16, 3);
    token_data(p.data, 40, 20, 24, shape.vocab);
    p.model = NULL;
    p.arch = scratch_path("model/config.json");
    budget = smallest_budget(p) + (2200 << 10);
    *state = &budget;
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(named_machines),
        cmocka_unit_test(in_host_memory),
        cmocka_unit_test(best_of_all),
        cmocka_unit_test(unmeasured),
    };

    setenv("XDG_CACHE_HOME", scratch_path("cache"), 1);
    setenv("TAILRACE_DEVICE", "cpu", 1);
    return cmocka_run_group_tests(tests, make_model, NULL);
}
