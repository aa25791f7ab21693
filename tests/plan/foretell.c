/* SPDX-License-Identifier: Apache-2.0
 *
 * What is predicted is what happens, to the byte: runs of several models, optimizers, budgets and
 * placements on the device at hand (the cpu, or the cuda device on its fake runtime), each foretold
 * without data by `plan`, again by the run itself before it starts, and then counted by the engine.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>
#include <jansson.h>

#include "src/run/run.h"
#include "tests/device/budget.h"
#include "tests/plan/foretold.h"
#include "tests/train/common.h"

#define STEPS 4
#define EVERY 3 /* steps between commits with TR_KEEP_CHECKPOINT */
#define ROWS  60

static int all_configs;

/* The cpu device takes more tokens before anything must leave it. */
static int row_tokens(void)
{
    return on_cuda() ? 64 : 500;
}

/* What a device that was never measured chooses for so small a model: to a GPU the second backward
 * pass is nothing beside the bytes of waiting gradients, to a CPU it is the greater part. */
static enum tr_clip chosen(void)
{
    return on_cuda() ? TR_CLIP_TWO_PASS : TR_CLIP_DEFERRED;
}

struct config {
    const char *name;
    struct tiny shape;
    enum tr_type dtype;
    enum tr_optimizer optimizer;
    double clip;
    enum tr_keep durability;
    int64_t batch;
    int plenty; /* of device memory; else the smallest budget and `extra` */
    uint64_t extra;
    int streams; /* the least host memory: nothing has a home in it */
    const char *freeze;
    int fused;
    enum tr_clip method;
    enum tr_type parked, state;
    enum tr_update_on update; /* with a GPU; the cpu device has no other place */
    int cpu;   /* with a GPU only where all are asked for: its shim takes long for each */
    int steps; /* 0: STEPS */
    enum tr_recompute recompute;
};

/* clang-format off */
static const struct config configs[] = {
    {"resident", {"llama", 32, 48, 3, 2, 1, 16, 300, 512, ""}, TR_TYPE_F32, TR_OPT_LOMO, 1,
     .batch = 15, .plenty = 1, .cpu = 1},
    {"smallest", {"llama", 64, 96, 5, 4, 2, 16, 300, 512, ""}, TR_TYPE_BF16, TR_OPT_LOMO, 1,
     .batch = 13, .streams = 1, .method = TR_CLIP_TWO_PASS},
    {"a little more", {"llama", 64, 96, 6, 4, 2, 16, 300, 512, ""}, TR_TYPE_BF16, TR_OPT_SGD, -1,
     .batch = 14, .extra = 256 << 10, .streams = 1, .cpu = 1},
    {"with state", {"llama-tied", 32, 48, 4, 2, 1, 16, 700, 512, ""}, TR_TYPE_BF16, TR_OPT_ADAMW, 1,
     .batch = 15, .streams = 1, .method = TR_CLIP_TWO_PASS, .cpu = 1},
    {"host tier", {"llama-tied", 32, 48, 4, 2, 1, 16, 700, 512, ""}, TR_TYPE_F32, TR_OPT_ADAMW, -1,
     TR_KEEP_CHECKPOINT, .batch = 13, .state = TR_TYPE_8BIT},
    {"in place", {"qwen3", 32, 48, 5, 2, 2, 16, 300, 512, ""}, TR_TYPE_BF16, TR_OPT_LOMO, 1,
     TR_KEEP_NONE, .batch = 15, .extra = 64 << 10, .streams = 1, .method = TR_CLIP_TWO_PASS,
     .cpu = 1},
    {"half", {"qwen2", 32, 48, 7, 2, 1, 16, 300, 512, ""}, TR_TYPE_F16, TR_OPT_LOMO, 1,
     .batch = 15, .streams = 1, .method = TR_CLIP_TWO_PASS, .cpu = 1},
    {"frozen", {"llama", 64, 96, 6, 4, 2, 16, 700, 512, ""}, TR_TYPE_BF16, TR_OPT_ADAMW, 1,
     .batch = 13, .streams = 1, .freeze = "*embed*,*.[01].*,*.3.*norm*,*.4.*_proj*", .cpu = 1},
    {"frozen, tied", {"llama-tied", 32, 48, 8, 2, 1, 16, 700, 512, ""}, TR_TYPE_BF16,
     TR_OPT_ADALOMO, -1, TR_KEEP_CHECKPOINT, .batch = 15, .streams = 1,
     .freeze = "*embed*,*.0.*,*.1.self_attn*,*.1.input*", .cpu = 1},
    {"fused", {"llama-tied", 32, 48, 4, 2, 1, 16, 700, 512, ""}, TR_TYPE_F32, TR_OPT_SGD, -1,
     .batch = 13, .streams = 1, .fused = 1, .cpu = 1},
    {"deferred", {"qwen2", 32, 48, 7, 2, 1, 16, 700, 512, ""}, TR_TYPE_BF16, TR_OPT_LOMO, 1,
     .batch = 15, .streams = 1, .method = TR_CLIP_DEFERRED, .cpu = 1},
    {"deferred, one step", {"llama", 32, 48, 4, 2, 1, 16, 9000, 512, ""}, TR_TYPE_BF16,
     TR_OPT_ADAMW, 1, TR_KEEP_NONE, .batch = 1, .extra = 28 << 16, .method = TR_CLIP_DEFERRED,
     .cpu = 1, .steps = 1, .recompute = TR_RECOMPUTE_ALL},
    {"deferred, two steps", {"llama", 32, 48, 4, 2, 1, 16, 32000, 512, ""}, TR_TYPE_BF16,
     TR_OPT_ADAMW, 1, TR_KEEP_NONE, .batch = 1, .extra = 4 << 16, .method = TR_CLIP_DEFERRED,
     .cpu = 1, .steps = 2, .recompute = TR_RECOMPUTE_ALL},
    {"chosen", {"llama", 64, 96, 6, 4, 2, 16, 300, 512, ""}, TR_TYPE_BF16, TR_OPT_LOMO, 1,
     .batch = 14, .extra = 1 << 20, .streams = 1, .cpu = 1},
    {"host tier, in place", {"llama", 32, 48, 4, 2, 1, 16, 300, 512, ""}, TR_TYPE_BF16, TR_OPT_LOMO,
     1, TR_KEEP_NONE, .batch = 13, .method = TR_CLIP_DEFERRED, .cpu = 1},
    {"kept elsewhere", {"llama", 32, 48, 5, 2, 1, 16, 300, 512, ""}, TR_TYPE_BF16, TR_OPT_LOMO, 1,
     .batch = 13, .method = TR_CLIP_TWO_PASS, .recompute = TR_RECOMPUTE_NONE},
    {"host tier, deferred", {"llama", 32, 48, 4, 2, 1, 16, 300, 512, ""}, TR_TYPE_BF16, TR_OPT_LOMO,
     1, TR_KEEP_CHECKPOINT, .batch = 13, .method = TR_CLIP_DEFERRED},
    {"deferred with state", {"llama-tied", 32, 48, 4, 2, 1, 16, 700, 512, ""}, TR_TYPE_BF16,
     TR_OPT_ADALOMO, 1, .batch = 13, .extra = 64 << 10, .method = TR_CLIP_DEFERRED,
     .parked = TR_TYPE_BF16},
    {"apart", {"llama", 64, 96, 6, 4, 2, 16, 700, 512, ""}, TR_TYPE_BF16, TR_OPT_ADAMW, -1,
     .batch = 14, .streams = 1, .update = TR_UPDATE_CPU},
    {"apart, deferred", {"llama-tied", 32, 48, 4, 2, 1, 16, 700, 512, ""}, TR_TYPE_BF16,
     TR_OPT_ADAM_MINI, 1, .batch = 13, .extra = 64 << 10, .method = TR_CLIP_DEFERRED,
     .update = TR_UPDATE_CPU},
};
/* clang-format on */

/* What few slots of state hold turns over many steps: of those that are played all is known. */
static int64_t steps_of(const struct config *c)
{
    return c->steps ? c->steps : c->update && c->streams ? TR_PREDICT_STEPS : STEPS;
}

static void fill(struct tr_train_params *p, const struct config *c, const char *model,
                 const char *data, const char *out)
{
    *p = (struct tr_train_params){.model = model,
                                  .data = data,
                                  .out = out,
                                  .steps = steps_of(c),
                                  .batch_size = c->batch,
                                  .seq_len = row_tokens(),
                                  .optimizer = c->optimizer,
                                  .freeze = c->freeze,
                                  .fused_gemm = c->fused,
                                  .clip_norm = c->clip,
                                  .clip_method = c->method,
                                  .parked_dtype = c->parked,
                                  .state_dtype = c->state,
                                  .durability = c->durability,
                                  .recompute = c->recompute,
                                  .update_on = c->update ? c->update : TR_UPDATE_DEVICE,
                                  .checkpoint_every = EVERY,
                                  .threads = 2,
                                  .lr = 1e-3,
                                  .export_model = TR_NO};
    p->device_memory = c->plenty ? test_budget(NULL, 1u << 30) : smallest_budget(*p) + c->extra;
}

/* Without the data nobody knows what it leaves of the host memory, which decides what is in it. */
static void check_same(const json_t *plan, const struct tr_prediction *run, int streams)
{
    const json_t *p = json_object_get(plan, "predicted");

    assert_int_equal(told_number(p, "tokens"), run->tokens);
    if (told_number(plan, "kept_blocks") == told_number(plan, "kept_on_device"))
        assert_int_equal(told_number(p, "device_bytes"), run->device_bytes);
    if (streams)
        return;
    assert_int_equal(told_number(p, "read_bytes"), run->sim.read_bytes);
    assert_int_equal(told_number(p, "written_bytes"), run->sim.written_bytes);
    assert_int_equal(told_number(p, "disk_bytes"), run->disk_bytes);
}

/* With host memory as the refusals ask for it, until there is none. */
static tr_run *open_streaming(struct tr_train_params *p)
{
    tr_run *run;

    p->host_memory = 1u << 20;
    while (tr_train_open(&run, p) < 0) {
        const char *says = strstr(tr_message(), "buffers is ");
        uint64_t least = says ? strtoull(says + 11, NULL, 10) : p->host_memory + (256 << 10);

        if (!strstr(tr_message(), "host") || least <= p->host_memory || least > 64u << 20)
            fail_msg("%s", tr_message());
        p->host_memory = least;
    }
    return run;
}

/* Of the steps, of the commits (the last one, and with checkpoints one at step 3), and to settle:
 * once more after a commit, or in one with the last step. */
static uint64_t foreseen_writes(const tr_run *run, int64_t steps)
{
    const struct tr_prediction *p = &run->foreseen;
    const struct tr_settle_bytes *settle = tr_prediction_settle(p, steps);
    uint64_t bytes = tr_prediction_written(p, steps) + tr_prediction_kept(p, steps);

    if (run->params.durability == TR_KEEP_CHECKPOINT)
        bytes += tr_prediction_kept(p, EVERY) + settle->kept;
    return bytes + settle->written - (run->params.durability == TR_KEEP_NONE ? settle->spared : 0);
}

/* What is said at the end of a run, line by line. */
static void check_outcome(const char *text, int64_t steps)
{
    static const char *const lines[] = {"read, all steps", "written, all steps", "device peak"};

    for (size_t i = steps < 2; i < sizeof(lines) / sizeof(lines[0]); i++) { /* 1: no reads */
        const char *line = strstr(text, lines[i]), *end = line ? strchr(line, '\n') : NULL;

        if (!end || strncmp(end - 7, ", equal", 7) != 0)
            fail_msg("\"%s\" is not equal: %s", lines[i], text);
    }
}

/* A byte that something writes behind the plan's end is seen. */
static void check_high_water(tr_run *run)
{
    const struct tr_device_ops *ops = run->device->ops;
    uint64_t end, beyond;

    assert_int_equal(run_high_water(run, &end), 0);
    assert_int_equal(end, run->plan.peak);
    if (end == run->device_info.arena_bytes)
        return;
    assert_int_equal(ops->fill(run->device, TR_STREAM_COMPUTE, run->pass.arena + end, 1, 1), 0);
    assert_int_equal(run_high_water(run, &beyond), 0);
    assert_int_equal(beyond, end + 4096);
}

/* How many bytes the engine has moved, when all is written; and what it has pinned. */
static void check_counts(tr_run *run, int64_t steps)
{
    const struct tr_prediction *p = &run->foreseen;
    const struct tr_settle_bytes *settle = tr_prediction_settle(p, steps);
    struct tr_step_report report;
    struct tr_offload_stats s;
    uint64_t pinned = tr_offload_host_bytes(run->offload);
    int r;

    while ((r = tr_train_step(run, &report)) == 1)
        assert_int_equal(report.device_peak_bytes, p->device_bytes);
    assert_int_equal(r, 0);
    if (tr_train_finish(run) < 0)
        fail_msg("%s", tr_message());
    tr_offload_stats(run->offload, &s);
    assert_int_equal(s.read_bytes, tr_prediction_read(p, steps) + settle->read);
    assert_int_equal(s.written_bytes, foreseen_writes(run, steps));
    if (steps < TR_PREDICT_STEPS) /* it is not what finishes a longer run */
        assert_int_not_equal(settle->read, tr_prediction_settle(p, TR_PREDICT_STEPS)->read);
    assert_int_equal(settle->written + settle->kept > 0, run->model->parked != TR_PARKED_NONE);
    assert_int_equal(s.spilled_bytes, (uint64_t)steps * p->sim.spilled_bytes);
    assert_int_equal(pinned, p->staging_bytes + p->tier_bytes);
    check_outcome(tr_train_outcome(run), steps);
    assert_null(strstr(tr_train_outcome(run), "seconds"));
    check_high_water(run);
}

static void check_config(const struct config *c)
{
    char model[4352], data[4352], out[4352];
    struct tr_train_params p;
    uint64_t least;
    tr_run *run;
    json_t *plan;

    snprintf(model, sizeof(model), "%s", scratch_path("model-%s", c->name));
    snprintf(data, sizeof(data), "%s", scratch_path("data.jsonl"));
    snprintf(out, sizeof(out), "%s", scratch_path("run-%s", c->name));
    tiny_model(model, &c->shape, c->dtype, 3);
    token_data(data, ROWS, row_tokens(), row_tokens(), c->shape.vocab);
    fill(&p, c, model, data, out);
    plan = foretold(&(struct tr_foretell_params){.train = &p, .json = 1});
    least = told_number(json_object_get(plan, "predicted"), "least_device_bytes");
    told_table_sums(plan);
    if (c->streams)
        run = open_streaming(&p);
    else if (tr_train_open(&run, &p) < 0)
        fail_msg("%s: %s", c->name, tr_message());
    check_same(plan, &run->foreseen, c->streams);
    if (c->streams || c->plenty) {
        assert_int_equal(run->foreseen.sim.read_bytes > 0, c->streams);
        assert_int_equal(run->foreseen.sim.spilled_bytes > 0, c->streams);
    }
    if (c->recompute == TR_RECOMPUTE_NONE)
        assert_true(run->plan.slots[TR_SLOTS_FRAME] < (uint32_t)run->plan.keep);
    if (!strncmp(c->name, "host tier", 9))
        assert_true(run->foreseen.sim.kept_bytes > 0);
    check_counts(run, steps_of(c));
    if (c->update)
        assert_int_equal(run->plan.in.apart, on_cuda());
    if (!strcmp(c->name, "chosen")) /* of itself */
        assert_int_equal(run->params.clip_method, chosen());
    tr_train_close(run);
    json_decref(plan);
    assert_int_equal(least, smallest_budget(p));
}

static void predicted_is_measured(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof(configs) / sizeof(configs[0]); i++)
        if (all_configs || !configs[i].cpu || !on_cuda())
            check_config(&configs[i]);
}

static char bench_said[4096];

static void keep_said(void *arg, const char *line)
{
    size_t used = strlen(bench_said);

    (void)arg;
    snprintf(bench_said + used, sizeof(bench_said) - used, "%s\n", line);
}

/* Each drive once, both at once, nothing left behind. */
static void found_drives(const char *text, const char *second)
{
    char *path = tr_figures_path(0);
    struct tr_figures f;

    assert_int_equal(tr_figures_read(path, &f), 0);
    tr_free(TR_MEM_MISC, path);
    assert_string_equal(f.drive[0].folder, scratch());
    assert_int_equal(strstr(bench_said, "is on the drive of") != NULL, f.n_drives == 1);
    assert_int_equal(strstr(bench_said, "all 2 drives at once") != NULL, f.n_drives == 2);
    assert_int_equal(strstr(text, "while the others are at work") != NULL, f.n_drives == 2);
    if (f.n_drives == 2) {
        assert_string_equal(f.drive[1].folder, second);
        for (int i = 0; i < 2; i++)
            assert_true(f.drive[i].rates.beside.mixed != f.drive[i].rates.alone.mixed);
    }
    if (second)
        assert_int_equal(rmdir(second), 0);
}

/* A quick measurement, from which train predicts seconds and says so. */
static void bench_to_train(void **state)
{
    const struct config *c = &configs[1];
    struct tr_train_params p;
    tr_run *run;
    char *text, model[4352], data[4352], out[4352], list[8704];
    char other[] = "/dev/shm/tailrace-bench-XXXXXX", *second = mkdtemp(other);

    (void)state;
    snprintf(list, sizeof(list), "%s:%s", scratch(), second ? second : scratch());
    if (tr_bench_machine(
            &(struct tr_bench_params){.store = list, .threads = 2, .quick = 1, .log = keep_said},
            &text) < 0)
        fail_msg("%s", tr_message());
    assert_non_null(strstr(text, "matmul_dw"));
    assert_int_equal(strstr(text, "in a run: ") != NULL, !on_cuda());
    assert_int_equal(strstr(bench_said, "rehearsals") != NULL, !on_cuda());
    assert_null(strstr(bench_said, "no rehearsal"));
    found_drives(text, second);
    tr_free_text(text);
    snprintf(model, sizeof(model), "%s", scratch_path("model-timed"));
    snprintf(data, sizeof(data), "%s", scratch_path("data-timed.jsonl"));
    snprintf(out, sizeof(out), "%s", scratch_path("timed"));
    tiny_model(model, &c->shape, c->dtype, 3);
    token_data(data, ROWS, row_tokens(), row_tokens(), c->shape.vocab);
    fill(&p, c, model, data, out);
    assert_int_equal(tr_train_open(&run, &p), 0);
    assert_true(run->foreseen.timed && run->foreseen.sim.seconds > 0);
    assert_non_null(strstr(tr_train_summary(run), "predicted: "));
    while (tr_train_step(run, &(struct tr_step_report){0}) == 1)
        ;
    assert_int_equal(tr_train_finish(run), 0);
    assert_non_null(strstr(tr_train_outcome(run), "seconds a step"));
    tr_train_close(run);
}
int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(predicted_is_measured),
        cmocka_unit_test(bench_to_train),
    };

    all_configs = argc > 1 && !strcmp(argv[1], "--all");
    setenv("XDG_CACHE_HOME", scratch_path("cache"), 1);
    return cmocka_run_group_tests_name("runs", tests, NULL, NULL);
}
