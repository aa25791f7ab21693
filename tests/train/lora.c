/* SPDX-License-Identifier: Apache-2.0
 *
 * Adapters. Invariant 1 with them, alone and beside a model that trains; the base's bytes in the
 * store stay those of the source (invariant 7's kin: what is frozen is never written); a merged
 * export computes what the run computes; folders go round: written, read, gone on with; and what
 * cannot be had is refused by name. Parity with PEFT is tests/parity/lora.c.
 */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "src/base/err.h"
#include "src/base/file.h"
#include "src/checkpoint/peft.h"
#include "src/infer/infer.h"
#include "tests/device/budget.h"
#include "tests/train/placement.h"

static const struct tiny llama = {"llama", 32, 48, 3, 2, 1, 16, 700, 512, ""};
static const struct tiny qwen2 = {"qwen2", 32, 48, 3, 2, 1, 16, 300, 512, ""};
static const struct tiny qwen3 = {"qwen3", 32, 48, 3, 2, 1, 16, 300, 512, ""};

static char model[4352], data[4352];

static int row(void)
{
    return on_cuda() ? 64 : 100;
}

static struct tr_train_params params(const struct tiny *t, enum tr_type dtype, const char *out)
{
    snprintf(model, sizeof(model), "%s", scratch_path("source-%s-%d", t->family, dtype));
    snprintf(data, sizeof(data), "%s", scratch_path("data.jsonl"));
    if (tr_folder_is_empty(model) == -ENOENT)
        tiny_model(model, t, dtype, 3);
    token_data(data, 20, 30, row() - 10, 300);
    return (struct tr_train_params){.model = model,
                                    .data = data,
                                    .out = out,
                                    .steps = 4,
                                    .batch_size = 4,
                                    .seq_len = row(),
                                    .schedule = TR_LR_CONSTANT,
                                    .warmup = -1,
                                    .lr = 0.02,
                                    .seed = 5,
                                    .threads = 2,
                                    .lora_rank = 3,
                                    .lora_alpha = 12,
                                    .lora_targets = "all-linear",
                                    .device_memory = test_budget(NULL, 256 << 20)};
}

/* An adapter of a folder instead of a new one. */
static void take_adapter(struct tr_train_params *p, const char *folder)
{
    p->lora_rank = 0;
    p->lora_alpha = 0;
    p->lora_targets = NULL;
    p->adapter = folder;
}

/* ---- invariant 1 ---- */

static const struct variant variants[] = {
    {"smallest budget", .smallest = 1},
    {"a matrix at a time, micro-batches of one grain", .streaming = TR_STREAMING_MATRICES,
     .micro_batch = 1},
    {"micro-batches of one grain, all kept", .micro_batch = 1, .recompute = TR_RECOMPUTE_NONE},
    {"all made again, one thread", .recompute = TR_RECOMPUTE_ALL, .threads = 1},
    {"random pauses, durability checkpoint", .delay_seed = 5, .durability = TR_KEEP_CHECKPOINT},
    {"interrupted and resumed, smallest budget", .interrupted = 1, .smallest = 1},
};

static void check(struct placements p)
{
    p.variants = variants;
    p.n = on_cuda() ? 2 : sizeof(variants) / sizeof(variants[0]);
    p.lora_rank = 3;
    check_placements(&p);
}

static void test_placements(void **state)
{
    (void)state;
    check((struct placements){&qwen3, TR_TYPE_BF16, TR_OPT_LOMO, .clip_norm = 0.5,
                              .lora_dropout = 0.1, .lora_targets = "q_proj,v_proj,gate_proj",
                              .lora_optimizer = TR_OPT_ADAMW});
    if (on_cuda())
        return;
    check((struct placements){&qwen2, TR_TYPE_BF16, TR_OPT_ADAMW, .clip_norm = 0.5,
                              .lora_dropout = 0.2, .lora_targets = "all-linear"});
    check((struct placements){&llama, TR_TYPE_F32, TR_OPT_ADALOMO, .lora_dropout = 0.1,
                              .lora_targets = "o_proj,down_proj"});
}

/* ---- what stays ---- */

/* How many of the model's own tensors in the run's store have other bytes than the source. */
static int count_changed(const char *run)
{
    struct tr_export_reader reader;
    struct tr_store *store;
    struct tr_kept *kept;
    int changed = 0;

    assert_int_equal(run_store_open(run, NULL, TR_STORE_READ, &store), 0);
    assert_int_equal(run_keep_open(run, store, &kept), 0);
    assert_int_equal(tr_export_reader_open(&reader, store, kept->model), 0);
    for (int32_t i = 0; i < kept->model->n_base; i++) {
        const struct tr_tensor *t = &kept->model->tensors[i];
        size_t n;
        float *want = read_tensor(model, t->name, &n), *got = malloc(n * sizeof(float));

        assert_int_equal(tr_export_fill(&reader, t, 0, n, TR_F32, got), 0);
        changed += memcmp(want, got, n * sizeof(float)) != 0;
        free(want);
        free(got);
    }
    tr_export_reader_close(&reader);
    tr_keep_close(kept);
    tr_store_close(store);
    return changed;
}

/* What a step writes: the adapters' spans, and nothing of the model. */
static uint64_t adapter_bytes(const char *run)
{
    struct tr_store *store;
    struct tr_kept *kept;
    uint64_t bytes = 0;

    assert_int_equal(run_store_open(run, NULL, TR_STORE_READ, &store), 0);
    assert_int_equal(run_keep_open(run, store, &kept), 0);
    for (uint32_t i = 0; i < kept->model->layout.n_spans; i++)
        if (kept->model->layout.spans[i].pool == TR_SLOTS_ADAPTER)
            bytes += kept->model->layout.spans[i].bytes;
    tr_keep_close(kept);
    tr_store_close(store);
    return bytes;
}

/* The same as train_anew; returns what all steps have written, the last byte of it too. */
static uint64_t train_counted(struct tr_train_params p, const char *name)
{
    struct tr_step_report report;
    uint64_t bytes;
    char out[4352];
    tr_run *run;
    int r;

    snprintf(out, sizeof(out), "%s", scratch_path("%s", name));
    p.out = out;
    r = tr_train_open(&run, &p);
    while (r >= 0 && (r = tr_train_step(run, &report)) == 1)
        ;
    if (r < 0 || tr_train_finish(run) < 0)
        fail_msg("%s", tr_message());
    bytes = run->measured.moved.written;
    tr_train_close(run);
    return bytes;
}

static void test_base_stays(void **state)
{
    struct tr_train_params p = params(&qwen2, TR_TYPE_BF16, NULL);
    uint64_t written;

    (void)state;
    written = train_counted(p, "frozen");
    assert_int_equal(count_changed(scratch_path("frozen")), 0);
    assert_int_equal(written, 4 * adapter_bytes(scratch_path("frozen")));
    p.lora_optimizer = TR_OPT_ADAMW; /* the comparison sees a model that changes */
    p.optimizer = TR_OPT_LOMO;
    written = train_counted(p, "both");
    assert_true(count_changed(scratch_path("both")) > 30);
    assert_true(written > 4 * adapter_bytes(scratch_path("both")));
}

/* ---- folders ---- */

static double loss_of(const char *folder, const char *adapter)
{
    struct tr_eval_report report;

    if (tr_eval_data(&(struct tr_eval_params){.model = folder,
                                              .adapter = adapter,
                                              .data = data,
                                              .seq_len = row(),
                                              .batch_size = 4,
                                              .threads = 2,
                                              .device_memory = test_budget(NULL, 64 << 20)},
                     &report) < 0)
        fail_msg("%s", tr_message());
    return report.loss;
}

static void export_to(const char *run, const char *out, int merge)
{
    if (tr_export_run(&(struct tr_export_run_params){.run = run, .out = out, .merge = merge},
                      NULL) < 0)
        fail_msg("%s", tr_message());
}

/* The run in place, its folder beside the model, and one model of both; without, another loss. */
static void check_exports(struct tr_train_params p, const char *name, double tolerance)
{
    char run[4352], out[4352], adapter[4400], merged[4352];
    struct tr_step_report last;
    double loss;

    p.valid = data;
    train_anew(p, name, &last);
    snprintf(run, sizeof(run), "%s", scratch_path("%s", name));
    snprintf(out, sizeof(out), "%s", scratch_path("%s/model", name));
    snprintf(adapter, sizeof(adapter), "%s%s", out, p.lora_optimizer ? "/adapter" : "");
    snprintf(merged, sizeof(merged), "%s", scratch_path("%s-merged", name));
    loss = loss_of(run, NULL);
    assert_true(fabs(last.eval_loss - loss) < 1e-6);
    export_to(run, merged, 1);
    assert_true(fabs(loss_of(merged, NULL) - loss) < tolerance);
    assert_true(loss_of(p.lora_optimizer ? out : model, adapter) == loss);
    assert_true(fabs(loss_of(p.lora_optimizer ? out : model, NULL) - loss) > 0.01);
}

/* A device that computes in 16 bits rounds the product before an adapter is added to it. */
static void test_exports(void **state)
{
    struct tr_train_params p = params(&llama, TR_TYPE_F32, NULL);

    (void)state;
    p.lora_dropout = 0.5; /* is for training alone */
    check_exports(p, "exports", 1e-5);
    p.lora_optimizer = TR_OPT_ADAMW;
    p.optimizer = TR_OPT_LOMO;
    check_exports(p, "exports-both", 1e-5);
    p = params(&qwen2, TR_TYPE_BF16, NULL);
    check_exports(p, "exports-bf16", 2e-3);
}

/* From a folder on: its loss before the first step is the one that it was left with. */
static void test_goes_on(void **state)
{
    struct tr_train_params p = params(&qwen3, TR_TYPE_F32, NULL);
    char adapter[4352];
    struct tr_step_report last;
    double loss;

    (void)state;
    p.batch_size = 20;
    p.packing = TR_NO;
    train_anew(p, "first", NULL);
    snprintf(adapter, sizeof(adapter), "%s", scratch_path("first/model"));
    loss = loss_of(model, adapter);
    take_adapter(&p, adapter);
    p.steps = 1;
    p.lr = 1e-4;
    train_anew(p, "second", &last);
    assert_true(fabs(last.loss - loss) < 1e-5);
    assert_true(loss_of(scratch_path("second"), NULL) < loss);
}

/* A is as PEFT begins, B zero: a new adapter changes nothing. */
static void test_start(void **state)
{
    struct tr_train_params p = params(&llama, TR_TYPE_F32, NULL);
    static const char name[] = "base_model.model.model.layers.1.mlp.down_proj.lora_%c.weight";
    double bound = 1 / sqrt(48), sum = 0, squares = 0;
    char a_name[128], path[4400];
    struct tr_safetensors *s;
    float a[3 * 48];

    (void)state;
    p.steps = 1;
    p.lr = 1e-30;
    train_anew(p, "start", NULL);
    assert_true(loss_of(scratch_path("start"), NULL) == loss_of(model, NULL));
    snprintf(path, sizeof(path), "%s", scratch_path("start/model/adapter_model.safetensors"));
    assert_int_equal(tr_safetensors_open_file(&s, path), 0);
    snprintf(a_name, sizeof(a_name), name, 'A');
    assert_int_equal(tr_safetensors_read(s, tr_safetensors_find(s, a_name), 0, a, sizeof(a)), 0);
    tr_safetensors_close(s);
    for (int i = 0; i < 3 * 48; i++) {
        assert_true(fabs(a[i]) <= bound);
        sum += a[i];
        squares += a[i] * a[i];
    }
    assert_true(fabs(sum / 144) < 0.25 * bound);
    assert_true(fabs(sqrt(squares / 144) / bound - 1 / sqrt(3)) < 0.08);
}

/* ---- the model beside them ---- */

/* Masters are the model's, adapters are f32: both kinds of one give the same run, and another than
 * none. */
static void test_masters(void **state)
{
    static const enum tr_master_choice masters[] = {TR_MASTERS_NONE, TR_MASTERS_SPLIT,
                                                    TR_MASTERS_F32};
    struct tr_train_params p = params(&qwen3, TR_TYPE_BF16, NULL);
    uint64_t hash[3], adapters[3];

    (void)state;
    p.lora_optimizer = TR_OPT_ADAMW;
    p.optimizer = TR_OPT_LOMO;
    p.rounding = TR_ROUNDING_NEAREST;
    p.steps = on_cuda() ? 3 : 4; /* the third meets weights that differ */
    for (int i = 0; i < 3; i++) {
        p.master = masters[i];
        train_anew(p, "masters", NULL);
        hash[i] = file_hash(scratch_path("masters/model/model.safetensors"));
        adapters[i] = file_hash(scratch_path("masters/model/adapter/adapter_model.safetensors"));
    }
    assert_true(hash[1] == hash[2] && adapters[1] == adapters[2]);
    assert_true(hash[0] != hash[1] && adapters[0] != adapters[1]);
}

/* Bytes of the spans that a list of visits changes, each of them once. */
static uint64_t changed_bytes(const struct tr_run *run, enum run_begun what)
{
    const struct tr_visits *v;
    uint32_t n = run_visits(run, what, &v);
    unsigned char *seen = calloc(run->n_spans, 1);
    uint64_t bytes = 0;

    for (uint32_t i = 0; i < n; i++)
        for (uint32_t k = 0; k < v->spans[i].n_spans; k++) {
            uint32_t span = v->spans[i].span[k];

            if (!(v->spans[i].changed >> k & 1) || span >= run->model->layout.n_spans)
                continue;
            bytes += seen[span]++ ? 0 : run->spans[span].bytes;
        }
    free(seen);
    return bytes;
}

/* Where gradients wait for the next step its forward pass changes adapters, and its backward pass
 * the places of their gradients beside them; a table's masters are with the sums that AdaLomo
 * changes before. What stays in its slot in between is written once. */
static void test_written_once(void **state)
{
    struct tr_train_params p = params(&qwen3, TR_TYPE_BF16, scratch_path("once"));
    struct tr_step_report report;
    uint64_t step, end;
    tr_run *run;
    int r = 1;

    (void)state;
    p.optimizer = TR_OPT_ADALOMO;
    p.lora_optimizer = TR_OPT_ADAMW;
    p.master = TR_MASTERS_SPLIT;
    p.clip_norm = 0.5;
    p.clip_method = TR_CLIP_DEFERRED;
    p.durability = TR_KEEP_STEP;
    p.export_model = TR_NO;
    assert_int_equal(tr_train_open(&run, &p), 0);
    step = changed_bytes(run, RUN_TRAIN);
    end = changed_bytes(run, RUN_SETTLE);
    while (r == 1)
        r = tr_train_step(run, &report);
    if (r < 0 || tr_train_finish(run) < 0)
        fail_msg("%s", tr_message());
    assert_int_equal(run->measured.moved.written, (uint64_t)p.steps * step + end);
    assert_int_equal(run->foreseen.sim.written_bytes, step);
    assert_int_equal(tr_prediction_settle(&run->foreseen, p.steps)->written, end);
    tr_train_close(run);
}

/* Each has a clip of its own, which is said; but the adapters' is not on by itself where the
 * model's is off: their norm alone would cost a second backward pass, or room for all gradients. */
static void test_clips(void **state)
{
    static const struct {
        enum tr_optimizer optimizer, adapters;
        double model, own, clip, lora_clip; /* as given, own of the adapters; as resolved */
        const char *said;
    } cases[] = {
        {TR_OPT_LOMO, TR_OPT_ADAMW, 0, 0, 1, 1,
         "\nclip: norm of at most 1; adapters' of at most 1, "},
        {TR_OPT_LOMO, TR_OPT_ADAMW, -1, 0, -1, -1, NULL},
        {TR_OPT_ADALOMO, TR_OPT_ADAMW, 0, 0, -1, -1, NULL},
        {TR_OPT_ADALOMO, TR_OPT_ADAMW, 0.5, 0, 0.5, 1,
         "\nclip: norm of at most 0.5; adapters' of at most 1, "},
        {TR_OPT_LOMO, TR_OPT_ADAMW, -1, 2, -1, 2,
         "\nclip: the adapters' norm alone, of at most 2, "},
        {TR_OPT_LOMO, TR_OPT_ADAMW, 2, -1, 2, -1, "\nclip: norm of at most 2, "},
        {TR_OPT_LOMO, TR_OPT_ADALOMO, 0, 0, 1, -1, "\nclip: norm of at most 1, "},
    };
    struct tr_train_params p = params(&llama, TR_TYPE_F32, scratch_path("clips"));

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        const char *said;
        tr_run *run;

        p.optimizer = cases[i].optimizer;
        p.lora_optimizer = cases[i].adapters;
        p.clip_norm = cases[i].model;
        p.lora_clip_norm = cases[i].own;
        if (tr_train_open(&run, &p) < 0)
            fail_msg("%s", tr_message());
        assert_true(run->params.clip_norm == cases[i].clip);
        assert_true(run->params.lora_clip_norm == cases[i].lora_clip);
        assert_int_equal(run->plan.in.norm, cases[i].said != NULL);
        said = strstr(tr_train_summary(run), cases[i].said ? cases[i].said : "\nclip:");
        assert_int_equal(said != NULL, cases[i].said != NULL);
        tr_train_close(run);
        tr_remove_tree(p.out);
    }
}

/* A model from a seed is that which `init` makes of it, whether adapters train alone or beside it.
 */
static void test_arch(void **state)
{
    uint64_t hash[2][2];
    char folder[4352], arch[4400], run[4352], merged[4352];

    (void)state;
    snprintf(folder, sizeof(folder), "%s", scratch_path("random"));
    snprintf(arch, sizeof(arch), "%s/config.json", folder);
    snprintf(run, sizeof(run), "%s", scratch_path("arch"));
    tiny_model(folder, &llama, TR_TYPE_F32, 5);
    for (int beside = 0; beside < 2; beside++) {
        for (int i = 0; i < 2; i++) {
            struct tr_train_params p = params(&llama, TR_TYPE_F32, NULL);

            p.steps = 2;
            p.model = i ? NULL : folder;
            p.arch = i ? arch : NULL;
            p.dtype = TR_TYPE_F32;
            p.lora_optimizer = beside ? TR_OPT_ADAMW : TR_OPT_DEFAULT;
            p.optimizer = beside ? TR_OPT_LOMO : TR_OPT_ADAMW;
            train_anew(p, "arch", NULL);
            snprintf(merged, sizeof(merged), "%s", scratch_path("arch-%d", 2 * beside + i));
            export_to(run, merged, 1);
            hash[beside][i] =
                file_hash(scratch_path("arch/model/%sadapter_model.safetensors",
                                       beside ? "adapter/" : "")) ^
                3 * file_hash(scratch_path("arch-%d/model.safetensors", 2 * beside + i));
        }
        assert_true(hash[beside][0] == hash[beside][1]);
    }
    assert_true(hash[0][0] != hash[1][0]);
}

/* ---- refusals ---- */

static void test_refusals(void **state)
{
    struct tr_train_params p = params(&llama, TR_TYPE_F32, scratch_path("refused")), bare = p;

    (void)state;
    bare.lora_rank = 0;
    expect_refused(&bare, "there are no adapters without --lora-rank");
    bare.lora_alpha = 0;
    bare.lora_targets = NULL;
    bare.lora_clip_norm = 1; /* would measure a norm of nothing, by a second pass */
    expect_refused(&bare, "there are no adapters without --lora-rank");
    bare.lora_clip_norm = 0;
    bare.lora_optimizer = TR_OPT_ADAMW;
    expect_refused(&bare, "there are no adapters without --lora-rank");
    p.lora_targets = "q_proj,qproj";
    expect_refused(&p, "'qproj': no such target");
    p.lora_targets = NULL;
    p.lora_rank = TR_LORA_MAX_RANK + 1;
    expect_refused(&p, "at most 1024");
    p.lora_rank = 2;
    p.freeze = "*norm*";
    expect_refused(&p, "--freeze: with adapters");
    p.freeze = NULL;
    p.lora_lr = 0.1;
    expect_refused(&p, "unless --lora-optimizer");
    p.lora_lr = 0;
    p.master = TR_MASTERS_F32;
    expect_refused(&p, "--master: adapters are f32");
    p.master = TR_MASTERS_NONE;
    p.update_on = TR_UPDATE_CPU;
    expect_refused(&p, "--update-on cpu: adapters and their state");
    p.update_on = TR_UPDATE_AUTO;
    p.adapter = "somewhere";
    expect_refused(&p, "the folder says rank, alpha and targets");
    p.adapter = NULL;
    assert_int_equal(train_part(&p, 1), 0);
    p.lora_targets = "v_proj,q_proj"; /* the default, in another order */
    assert_int_equal(train_part(&p, 1), 0);
    p.lora_alpha = 7;
    p.force = 1;
    expect_refused(&p, "lora-alpha differ");
}

static int peft_parse(const char *text)
{
    struct tr_lora lora;
    json_t *root = json_loads(text, 0, NULL);
    int r;

    assert_non_null(root);
    r = tr_peft_parse(root, "config", &lora);
    json_decref(root);
    return r;
}

#define SOUND "\"peft_type\": \"LORA\", \"r\": 4, \"lora_alpha\": 8"

static void test_configs(void **state)
{
    static const struct {
        const char *text, *words;
    } bad[] = {
        {"{}", "only LORA"},
        {"{\"peft_type\": \"IA3\"}", "only LORA"},
        {"{" SOUND ", \"r\": 0}", "\"r\" is not"},
        {"{" SOUND ", \"r\": 1025}", "\"r\" is not"},
        {"{" SOUND ", \"lora_alpha\": -1}", "lora_alpha"},
        {"{" SOUND ", \"lora_alpha\": 1e300}", "lora_alpha"},
        {"{" SOUND ", \"lora_dropout\": 1}", "lora_dropout"},
        {"{" SOUND ", \"use_dora\": true}", "\"use_dora\""},
        {"{" SOUND ", \"bias\": \"all\"}", "\"bias\": \"all\""},
        {"{" SOUND ", \"rank_pattern\": {\"q_proj\": 2}}", "\"rank_pattern\""},
        {"{" SOUND ", \"modules_to_save\": [\"lm_head\"]}", "\"modules_to_save\""},
        {"{" SOUND ", \"init_lora_weights\": \"pissa\"}", "\"pissa\""},
    };
    json_t *root = json_loads("{" SOUND ", \"use_rslora\": true}", 0, NULL);
    struct tr_lora lora;

    (void)state;
    assert_int_equal(tr_peft_parse(root, "config", &lora), 0);
    assert_true(lora.rank == 4 && tr_lora_scale(&lora) == 4);
    json_decref(root);
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        assert_true(peft_parse(bad[i].text) < 0);
        if (!strstr(tr_message(), bad[i].words))
            fail_msg("'%s' is not in: %s", bad[i].words, tr_message());
    }
}

/* As a file of one tensor of this name, (2, 2) in f32. */
static void write_only(const char *path, const char *tensor)
{
    char text[512];
    uint64_t n = (uint64_t)snprintf(text + 8, sizeof(text) - 24,
                                    "{\"%s\": {\"dtype\": \"F32\", \"shape\": [2, 2], "
                                    "\"data_offsets\": [0, 16]}}",
                                    tensor);

    memcpy(text, &n, 8);
    memset(text + 8 + n, 0, 16);
    assert_int_equal(tr_file_write(path, text, 8 + n + 16), 0);
}

/* The tensors say which matrices have adapters: PEFT has more than one way to say it beside them,
 * an expression over their names among those. */
static void test_targets_by_name(void **state)
{
    struct tr_train_params p = params(&llama, TR_TYPE_F32, NULL);
    char adapter[4352], config[4400], weights[4400];
    json_t *root;

    (void)state;
    p.steps = 1;
    p.lora_targets = "k_proj,down_proj";
    train_anew(p, "named", NULL);
    snprintf(adapter, sizeof(adapter), "%s", scratch_path("named/model"));
    snprintf(config, sizeof(config), "%s/adapter_config.json", adapter);
    snprintf(weights, sizeof(weights), "%s/adapter_model.safetensors", adapter);
    root = json_load_file(config, 0, NULL);
    assert_non_null(root);
    json_object_set_new(root, "target_modules", json_string(".*\\.(k_proj|down_proj)"));
    json_object_set_new(root, "exclude_modules", json_pack("[s]", "lm_head"));
    json_object_set_new(root, "layers_to_transform", json_pack("[i, i]", 0, 1));
    assert_int_equal(json_dump_file(root, config, 0), 0);
    json_decref(root);
    p = params(&llama, TR_TYPE_F32, scratch_path("by-name"));
    take_adapter(&p, adapter);
    assert_int_equal(train_part(&p, 1), 0);
    assert_int_equal(tr_remove_tree(p.out), 0);
    write_only(weights, "base_model.model.lm_head.lora_A.weight");
    expect_refused(&p, "'lm_head': no such target");
    write_only(weights, "base_model.model.model.embed_tokens.lora_embedding_A");
    expect_refused(&p, "'embed_tokens': no such target");
    write_only(weights, "base_model.model.model.norm.weight");
    expect_refused(&p, "this is no matrix of an adapter");
    write_only(weights, "base_model.model.model.layers.0.self_attn.k_proj.lora_A.weight");
    expect_refused(&p, "has another shape than");
}

/* A folder that is sound, of another model. */
static void test_other_model(void **state)
{
    struct tr_train_params p = params(&llama, TR_TYPE_F32, NULL);
    char adapter[4352];

    (void)state;
    p.steps = 1;
    train_anew(p, "other", NULL);
    snprintf(adapter, sizeof(adapter), "%s", scratch_path("other/model"));
    p = params(&(struct tiny){"llama", 64, 48, 3, 2, 1, 16, 700, 512, ""}, TR_TYPE_BF16,
               scratch_path("never-made"));
    take_adapter(&p, adapter);
    expect_refused(&p, "has another shape than");
    p = params(&(struct tiny){"mistral", 32, 48, 2, 2, 1, 16, 700, 512, ""}, TR_TYPE_F32,
               scratch_path("never-made"));
    take_adapter(&p, adapter);
    expect_refused(&p, "holds 42 tensors, adapters of this model are 28");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_placements),  cmocka_unit_test(test_base_stays),
        cmocka_unit_test(test_exports),     cmocka_unit_test(test_goes_on),
        cmocka_unit_test(test_start),       cmocka_unit_test(test_refusals),
        cmocka_unit_test(test_configs),     cmocka_unit_test(test_targets_by_name),
        cmocka_unit_test(test_other_model), cmocka_unit_test(test_masters),
        cmocka_unit_test(test_clips),       cmocka_unit_test(test_written_once),
        cmocka_unit_test(test_arch),
    };

    return cmocka_run_group_tests_name("adapters", tests, NULL, NULL);
}
