/* SPDX-License-Identifier: Apache-2.0
 *
 * What is predicted is what happens, to the byte: runs of several models, optimizers, budgets and
 * placements on the device at hand (the cpu, or the cuda device on its fake runtime), each foretold
 * without data by `plan`, again by the run itself before it starts, and then counted by the engine.
 */
#include <errno.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>
#include <jansson.h>

#include "src/base/file.h"
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
    {"deferred, one step", {"llama", 32, 48, 4, 2, 1, 16, 9000, 512, ""}, TR_TYPE_BF16, TR_OPT_LOMO,
     1, TR_KEEP_NONE, .batch = 1, .extra = 14 << 17, .method = TR_CLIP_DEFERRED, .cpu = 1,
     .steps = 1, .recompute = TR_RECOMPUTE_ALL},
    {"deferred, two steps", {"llama", 32, 48, 4, 2, 1, 16, 32000, 512, ""}, TR_TYPE_BF16,
     TR_OPT_LOMO, 1, TR_KEEP_NONE, .batch = 1, .extra = 61 << 16, .method = TR_CLIP_DEFERRED,
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

static uint64_t number(const json_t *o, const char *key)
{
    const json_t *v = json_object_get(o, key);

    if (!json_is_integer(v))
        fail_msg("%s is no integer", key);
    return (uint64_t)json_integer_value(v);
}

/* The table of device memory is all of the peak. */
static void check_table(const json_t *plan)
{
    const json_t *rows = json_object_get(plan, "device_memory");
    uint64_t sum = 0;

    for (size_t i = 0; i < json_array_size(rows); i++)
        sum += number(json_array_get(rows, i), "bytes");
    assert_int_equal(sum, number(json_object_get(plan, "predicted"), "device_bytes"));
}

/* Without the data nobody knows what it leaves of the host memory, which decides what is in it. */
static void check_same(const json_t *plan, const struct tr_prediction *run, int streams)
{
    const json_t *p = json_object_get(plan, "predicted");

    assert_int_equal(number(p, "tokens"), run->tokens);
    if (number(plan, "kept_blocks") == number(plan, "kept_on_device"))
        assert_int_equal(number(p, "device_bytes"), run->device_bytes);
    if (streams)
        return;
    assert_int_equal(number(p, "read_bytes"), run->sim.read_bytes);
    assert_int_equal(number(p, "written_bytes"), run->sim.written_bytes);
    assert_int_equal(number(p, "disk_bytes"), run->disk_bytes);
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
    least = number(json_object_get(plan, "predicted"), "least_device_bytes");
    check_table(plan);
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

static double real(const json_t *o, const char *key)
{
    return json_number_value(json_object_get(o, key));
}

static void close_to(double a, double b)
{
    if (a - b > 1e-6 * b || b - a > 1e-6 * b)
        fail_msg("%.12g is not %.12g", a, b);
}

/* A machine by name: more tokens hide what moves, a second drive does not slow it down. */
static json_t *ask(const char *arch, int64_t rows, int64_t drives)
{
    struct tr_train_params p = {
        .arch = arch, .dtype = TR_TYPE_BF16, .batch_size = rows, .clip_norm = -1};

    return foretold(&(struct tr_foretell_params){
        .train = &p, .machine = "rtx-4090", .drives = drives, .drive_life = {1e15}, .json = 1});
}

static void parts_sum(void **state)
{
    static const char *const spent[] = {"compute",  "drive",  "checksums", "copy_in",
                                        "copy_out", "commit", "updates"};
    json_t *one = ask("llama-13b", 1, 1), *two = ask("llama-13b", 1, 2);
    const json_t *p = json_object_get(one, "predicted"), *s = json_object_get(p, "seconds");
    double all = real(s, "all"), sum = 0;

    (void)state;
    check_table(one);
    close_to(real(s, "forward") + real(s, "norm") + real(s, "update") + real(s, "commit"), all);
    for (size_t i = 0; i < sizeof(spent) / sizeof(spent[0]); i++)
        sum += real(json_object_get(p, "spent"), spent[i]);
    close_to(sum, all);
    close_to(real(p, "tokens") / all, real(p, "tokens_per_s"));
    close_to(real(p, "drive_life_steps") * real(p, "written_bytes"), 1e15);
    assert_true(real(json_object_get(json_object_get(two, "predicted"), "seconds"), "all") <=
                all + 1e-9);
    assert_true(all >= real(p, "arithmetic"));
    json_decref(one);
    json_decref(two);
}

static void refuses(const struct tr_foretell_params *p, const char *words)
{
    char *text = (char *)1;

    assert_true(tr_foretell(p, &text) < 0);
    assert_null(text);
    if (!strstr(tr_message(), words))
        fail_msg("'%s' is not in: %s", words, tr_message());
}

/* A step that the drives, and not the arithmetic, decide about. */
static struct tr_train_params much_io(enum tr_optimizer optimizer)
{
    return (struct tr_train_params){.arch = "llama-13b",
                                    .dtype = TR_TYPE_BF16,
                                    .batch_size = 1,
                                    .seq_len = 64,
                                    .optimizer = optimizer,
                                    .clip_norm = -1,
                                    .host_memory = 1ull << 30,
                                    .durability = TR_KEEP_STEP};
}

/* Two drives, one twice as fast: together they have all that moves, each its share, both are as
 * long at work and both are waited for; the first that is worn out ends it. */
static void two_drives(void **state)
{
    struct tr_train_params p = much_io(TR_OPT_DEFAULT);
    struct tr_foretell_params f = {.train = &p,
                                   .machine = "rtx-4090",
                                   .drive_read = {7e9, 3.5e9},
                                   .drive_write = {6e9, 3e9},
                                   .drive_life = {1e15, 1e14},
                                   .json = 1};
    json_t *o = foretold(&f), *all = json_object_get(o, "predicted");
    const json_t *list = json_object_get(all, "drives"), *a = json_array_get(list, 0),
                 *b = json_array_get(list, 1);
    double one_drive, seconds = real(json_object_get(all, "seconds"), "all");

    (void)state;
    assert_int_equal(json_array_size(list), 2);
    assert_string_equal(json_string_value(json_object_get(b, "folder")), "drive 2");
    assert_string_equal(json_string_value(json_object_get(all, "limited_by")), "the drives");
    close_to(real(a, "read_bytes") + real(b, "read_bytes"), real(all, "read_bytes"));
    close_to(real(a, "written_bytes") + real(b, "written_bytes"), real(all, "written_bytes"));
    assert_true(real(a, "written_bytes") > 1.9 * real(b, "written_bytes"));
    assert_true(real(a, "written_bytes") < 2.1 * real(b, "written_bytes"));
    assert_true(real(a, "busy") > 0.95 * seconds && real(b, "busy") > 0.95 * seconds);
    close_to(real(b, "life_steps"), 1e14 / real(b, "written_bytes"));
    close_to(real(all, "drive_life_steps"), real(b, "life_steps"));
    json_decref(o);
    f.drive_read[1] = f.drive_write[1] = f.drive_life[1] = 0; /* the faster one alone */
    o = foretold(&f);
    one_drive = real(json_object_get(json_object_get(o, "predicted"), "seconds"), "all");
    assert_true(one_drive > 1.4 * seconds && one_drive < 1.55 * seconds);
    json_decref(o);
    f.drive_life[1] = 1e14;
    refuses(&f, "--drive-life: 2 lives for 1 drives");
    p.momentum = 1.5;
    refuses(&f, "--momentum: 1.5 is too large");
}

/* More drives than one core can check the bytes of: it is the core that the step waits for. */
static void many_drives(void **state)
{
    struct tr_train_params p = much_io(TR_OPT_DEFAULT);
    struct tr_foretell_params f = {.train = &p, .machine = "rtx-4090", .drives = 8, .json = 1};
    json_t *o = foretold(&f), *all = json_object_get(o, "predicted");
    const json_t *drive = json_array_get(json_object_get(all, "drives"), 0);

    (void)state;
    assert_true(real(drive, "busy") < 0.5 * real(json_object_get(all, "seconds"), "all"));
    assert_string_equal(json_string_value(json_object_get(all, "limited_by")),
                        "checksums (one core)");
    json_decref(o);
}

/* With state more is written of what is read: a drive that writes slowly has less of that. */
static void slow_writer(void **state)
{
    struct tr_train_params p = much_io(TR_OPT_ADAMW);
    struct tr_foretell_params f = {.train = &p,
                                   .machine = "rtx-4090",
                                   .drive_read = {7e9, 7e9},
                                   .drive_write = {6e9, 1.5e9},
                                   .json = 1};
    json_t *o = foretold(&f);
    const json_t *list = json_object_get(json_object_get(o, "predicted"), "drives");
    double a = real(json_array_get(list, 0), "busy"), b = real(json_array_get(list, 1), "busy");

    (void)state;
    assert_true(fabs(a - b) < 0.1 * b);
    json_decref(o);
}

/* Seconds of a step; *parked: bytes on disk of gradients that wait. */
static double clipped(const char *machine, int64_t rows, enum tr_clip method, double *parked)
{
    struct tr_train_params p = {.arch = "llama-13b",
                                .dtype = TR_TYPE_BF16,
                                .batch_size = rows,
                                .optimizer = TR_OPT_LOMO,
                                .durability = TR_KEEP_STEP, /* else it is chosen for each way */
                                .clip_norm = method == TR_CLIP_GROUP ? -1 : 1,
                                .clip_method = method == TR_CLIP_GROUP ? TR_CLIP_AUTO : method};
    json_t *o = foretold(&(struct tr_foretell_params){.train = &p, .machine = machine, .json = 1});
    const json_t *predicted = json_object_get(o, "predicted");
    double all = real(json_object_get(predicted, "seconds"), "all");

    *parked = real(predicted, "parked_disk_bytes");
    json_decref(o);
    return all;
}

/* The faster of two ways with the same bits. Bound by arithmetic, the one without a second backward
 * costs hardly more than no clipping at all; bound by the drive, it is the other one; with room for
 * all gradients on the device, none goes to the disk. */
static void clip_is_chosen(void **state)
{
    static const int64_t rows[] = {1, 16};
    double parked, none, passes, deferred, chosen;

    (void)state;
    for (size_t i = 0; i < 2; i++) {
        none = clipped("rtx-3090", rows[i], TR_CLIP_GROUP, &parked);
        assert_true(parked == 0);
        passes = clipped("rtx-3090", rows[i], TR_CLIP_TWO_PASS, &parked);
        assert_true(parked == 0);
        deferred = clipped("rtx-3090", rows[i], TR_CLIP_DEFERRED, &parked);
        assert_true(parked > 8 * 13e9); /* two generations of f32 */
        chosen = clipped("rtx-3090", rows[i], TR_CLIP_AUTO, &parked);
        close_to(chosen, deferred < passes ? deferred : passes);
        assert_int_equal(parked > 0, deferred < passes);
        assert_int_equal(deferred < passes, i);
        if (i)
            assert_true(deferred < 1.15 * none && passes > 1.5 * none);
    }
    clipped("h200", 1, TR_CLIP_AUTO, &parked);
    assert_true(parked == 0);
}

static void says_of_passes(struct tr_train_params p, const char *clip, const char *sweeps)
{
    json_t *o =
        foretold(&(struct tr_foretell_params){.train = &p, .machine = "rtx-3090", .json = 1});

    assert_non_null(strstr(json_string_value(json_object_get(o, "clip")), clip));
    assert_non_null(strstr(json_string_value(json_object_get(o, "sweeps")), sweeps));
    assert_int_equal(!*json_string_value(json_object_get(o, "clip")), !*clip);
    assert_int_equal(!*json_string_value(json_object_get(o, "sweeps")), !*sweeps);
    json_decref(o);
}

/* How the norm comes about, and that AdaLomo goes through tables twice. */
static void passes_are_named(void **state)
{
    struct tr_train_params p = {.arch = "llama-7b",
                                .dtype = TR_TYPE_BF16,
                                .batch_size = 1,
                                .seq_len = 256,
                                .optimizer = TR_OPT_LOMO,
                                .clip_norm = -1};

    (void)state;
    says_of_passes(p, "", "");
    p.clip_norm = 1;
    p.clip_method = TR_CLIP_TWO_PASS;
    says_of_passes(p, "at most 1, by a second backward pass", "");
    p.clip_method = TR_CLIP_DEFERRED;
    says_of_passes(p, "deferred", "");
    p.optimizer = TR_OPT_ADALOMO;
    says_of_passes(p, "deferred", "wait in the store");
    p.clip_norm = -1;
    p.clip_method = TR_CLIP_AUTO;
    says_of_passes(p, "", "tables twice");
}

/* What the project is for: 65B on one 24 GB card with one drive, every step durable. */
static void headline(void **state)
{
    struct tr_train_params p = {.arch = "llama-65b",
                                .dtype = TR_TYPE_BF16,
                                .batch_size = 16,
                                .seq_len = 2048,
                                .optimizer = TR_OPT_LOMO,
                                .clip_norm = -1};
    json_t *o =
        foretold(&(struct tr_foretell_params){.train = &p, .machine = "rtx-3090", .json = 1});
    const json_t *all = json_object_get(o, "predicted");

    (void)state;
    assert_true(real(all, "tokens_per_s") >= 85);
    assert_true(number(all, "device_bytes") <= 24000000000);
    assert_string_equal(json_string_value(json_object_get(all, "limited_by")), "arithmetic");
    assert_true(real(all, "written_bytes") > 130e9); /* every record, each step */
    json_decref(o);
}

/* Where the step whose arithmetic hides the rest has no room on the device it is said, and asking
 * for it is refused: 65B has it on a card of this size, 405B, whose inputs of blocks take more, has
 * not. */
static void hides_if_it_fits(void **state)
{
    static const char *const arch[] = {"llama-65b", "llama-3.1-405b"};
    struct tr_train_params p = {
        .dtype = TR_TYPE_BF16, .seq_len = 2048, .optimizer = TR_OPT_LOMO, .clip_norm = -1};
    struct tr_foretell_params f = {.train = &p, .machine = "rtx-3090", .json = 1};

    (void)state;
    for (int i = 0; i < 2; i++) {
        const json_t *all;
        json_t *o;
        int fits;

        p.arch = arch[i];
        p.batch_size = 4;
        o = foretold(&f);
        all = json_object_get(o, "predicted");
        fits = json_is_true(json_object_get(all, "hides_from_tokens_fit"));
        assert_int_equal(fits, i == 0);
        p.batch_size = (int64_t)real(all, "hides_from_tokens") / p.seq_len + 1;
        json_decref(o);
        if (fits)
            json_decref(foretold(&f));
        else
            refuses(&f, "the smallest that would do");
    }
}

static void bad_machines(void **state)
{
    struct tr_train_params p = {.arch = "llama-7b"}, none = {0};

    (void)state;
    refuses(&(struct tr_foretell_params){.train = &p, .machine = "rtx-9090"},
            "rtx-3090, rtx-4090, rtx-5090, h200");
    refuses(&(struct tr_foretell_params){.train = &p, .drives = 2}, "by name only");
    refuses(&(struct tr_foretell_params){.train = &none, .machine = "h200"}, "--model and --arch");
    p.device_memory = 25ull << 30;
    refuses(&(struct tr_foretell_params){.train = &p, .machine = "rtx-3090"}, "--device-memory: ");
    p.device_memory = 0;
    p.host_memory = 129ull << 30;
    refuses(&(struct tr_foretell_params){.train = &p, .machine = "rtx-3090"}, "--host-memory: ");
    p.host_memory = 0;
    p.device_memory = 64u << 20;
    refuses(&(struct tr_foretell_params){.train = &p, .machine = "h200"}, "for itself");
    p.device_memory = 1u << 30;
    refuses(&(struct tr_foretell_params){.train = &p, .machine = "h200"},
            "the smallest that would do");
}

/* The smallest host budget that a plan names does, and a page less does not. */
static void host_budget(void **state)
{
    static const struct {
        const char *machine;
        enum tr_optimizer optimizer;
        enum tr_update_on update_on;
    } cases[] = {{NULL, TR_OPT_LOMO, TR_UPDATE_AUTO},
                 {"rtx-3090", TR_OPT_LOMO, TR_UPDATE_AUTO},
                 {"rtx-3090", TR_OPT_ADAMW, TR_UPDATE_CPU}};
    struct tr_train_params p = {.arch = "llama-7b",
                                .dtype = TR_TYPE_BF16,
                                .batch_size = 1,
                                .seq_len = 256,
                                .clip_norm = -1,
                                .device = "cpu",
                                .device_memory = 8ull << 30};

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct tr_foretell_params f = {.train = &p, .machine = cases[i].machine, .json = 1};
        json_t *o;

        p.optimizer = cases[i].optimizer;
        p.update_on = cases[i].update_on;
        p.host_memory = 0;
        o = foretold(&f);
        p.host_memory = number(json_object_get(o, "predicted"), "least_host_bytes");
        json_decref(o);
        o = foretold(&f);
        assert_int_equal(number(json_object_get(o, "predicted"), "least_host_bytes"),
                         p.host_memory);
        json_decref(o);
        p.host_memory -= 4096;
        refuses(&f, "the smallest that would do");
        refuses(&f, "--host-memory");
    }
}

/* The bytes on disk of a run that is opened and left; it must have chosen this method. */
static uint64_t disk_of(const struct tr_train_params *p, enum tr_clip method)
{
    uint64_t bytes;
    tr_run *run;

    if (tr_train_open(&run, p) < 0)
        fail_msg("%s", tr_message());
    assert_int_equal(run->params.clip_method, method);
    bytes = run->foreseen.disk_bytes;
    tr_train_close(run);
    tr_remove_tree(p->out);
    return bytes;
}

/* The faster way needs room on the disk for the gradients that wait; without it the other one is
 * taken, and nothing is refused for which there is room. */
static void disk_decides(void **state)
{
    static const struct tiny shape = {"llama", 64, 96, 4, 4, 2, 16, 3000, 512, ""};
    char model[4352], data[4352], disk[4352], out[4400], size[64];
    struct tr_train_params p = {.model = model,
                                .data = data,
                                .out = out,
                                .steps = 1,
                                .batch_size = 4,
                                .seq_len = 500,
                                .optimizer = TR_OPT_LOMO,
                                .clip_norm = 1,
                                .threads = 2};
    uint64_t deferred, passes;

    (void)state;
    snprintf(model, sizeof(model), "%s", scratch_path("model-disk"));
    snprintf(data, sizeof(data), "%s", scratch_path("data-disk.jsonl"));
    snprintf(disk, sizeof(disk), "%s", scratch_path("disk"));
    snprintf(out, sizeof(out), "%s/run", disk);
    tiny_model(model, &shape, TR_TYPE_BF16, 3);
    token_data(data, 4, 500, 500, shape.vocab);
    p.device_memory = smallest_budget(p) + (256 << 10); /* not all gradients have room in it */
    mkdir(disk, 0755);
    deferred = disk_of(&p, TR_CLIP_DEFERRED);
    p.clip_method = TR_CLIP_TWO_PASS;
    passes = disk_of(&p, TR_CLIP_TWO_PASS);
    p.clip_method = TR_CLIP_AUTO;
    assert_true(deferred > 2 * passes);
    snprintf(size, sizeof(size), "size=%llu", (unsigned long long)(passes + deferred) / 2);
    if (mount("tmpfs", disk, "tmpfs", 0, size) < 0) {
        print_message("skipped: a disk too small for one way, for want of the right to mount\n");
        skip();
    }
    disk_of(&p, TR_CLIP_TWO_PASS);
    p.clip_method = TR_CLIP_DEFERRED; /* asked for */
    assert_int_equal(train(&p, NULL), -ENOSPC);
    umount2(disk, MNT_DETACH); /* the ring lets go of its files later */
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
    /* Once: which device is at hand is not asked there, or the fake one would choose otherwise. */
    const struct CMUnitTest on_cpu[] = {
        cmocka_unit_test(parts_sum),        cmocka_unit_test(clip_is_chosen),
        cmocka_unit_test(disk_decides),     cmocka_unit_test(bad_machines),
        cmocka_unit_test(two_drives),       cmocka_unit_test(many_drives),
        cmocka_unit_test(slow_writer),      cmocka_unit_test(host_budget),
        cmocka_unit_test(headline),         cmocka_unit_test(passes_are_named),
        cmocka_unit_test(hides_if_it_fits),
    };
    int failed = 0;

    all_configs = argc > 1 && !strcmp(argv[1], "--all");
    setenv("XDG_CACHE_HOME", scratch_path("cache"), 1);
    if (!on_cuda())
        failed = cmocka_run_group_tests_name("plans", on_cpu, NULL, NULL);
    return failed + cmocka_run_group_tests_name("runs", tests, NULL, NULL);
}
