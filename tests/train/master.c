/* SPDX-License-Identifier: Apache-2.0
 *
 * Masters of bf16 parameters (src/model/master.h). Over twenty steps of every optimizer a split
 * master is the f32 one bit for bit, one of them resident, the other streamed in the smallest
 * budget; invariant 1 with masters; what an f32 checkpoint has beyond bf16 is kept and comes out
 * again; and what is refused.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "src/base/dtype.h"
#include "src/base/file.h"
#include "tests/device/budget.h"
#include "tests/train/placement.h"

static const struct tiny shapes[] = {
    {"llama", 64, 96, 2, 4, 2, 16, 700, 512, ""}, /* three vocabulary slices */
    {"llama-tied", 48, 80, 2, 4, 2, 12, 700, 512, ""},
    {"qwen2", 48, 80, 2, 4, 2, 12, 300, 512, ""},
};

#define SETTINGS                                                                                   \
    .steps = 20, .batch_size = 3, .seq_len = 96, .seed = 5, .lr = 0.01, .device = "cpu",           \
    .dtype = TR_TYPE_BF16

static const struct job {
    const char *name;
    const struct tiny *shape;
    struct tr_train_params p;
} jobs[] = {
    {"lomo", &shapes[0], {SETTINGS, .optimizer = TR_OPT_LOMO}},
    {"lomo deferred, tied",
     &shapes[1],
     {SETTINGS, .optimizer = TR_OPT_LOMO, .clip_method = TR_CLIP_DEFERRED}},
    {"sgd, decay", &shapes[2], {SETTINGS, .optimizer = TR_OPT_SGD, .weight_decay = 0.1}},
    {"momentum, tied", &shapes[1], {SETTINGS, .optimizer = TR_OPT_SGD, .momentum = 0.9}},
    {"adalomo", &shapes[0], {SETTINGS, .optimizer = TR_OPT_ADALOMO}},
    {"adalomo, tied, deferred",
     &shapes[1],
     {SETTINGS, .optimizer = TR_OPT_ADALOMO, .clip_norm = 0.5, .clip_method = TR_CLIP_DEFERRED}},
    {"adam-mini, bf16 state",
     &shapes[2],
     {SETTINGS, .optimizer = TR_OPT_ADAM_MINI, .state_dtype = TR_TYPE_BF16}},
    {"adamw", &shapes[0], {SETTINGS, .optimizer = TR_OPT_ADAMW}},
    {"lomo by groups",
     &shapes[0],
     {SETTINGS, .optimizer = TR_OPT_LOMO, .clip_method = TR_CLIP_GROUP + 2}},
};

/* The values that a run holds, all their bits. */
static uint64_t exact_hash(const char *run, const char *name)
{
    char out[4352];
    uint64_t hash;

    snprintf(out, sizeof(out), "%s", scratch_path("%s", name));
    if (tr_export_run(&(struct tr_export_run_params){.run = run, .out = out, .dtype = TR_TYPE_F32},
                      NULL) < 0)
        fail_msg("%s", tr_message());
    hash = file_hash(scratch_path("%s/model.safetensors", name));
    assert_int_equal(tr_remove_tree(out), 0);
    return hash;
}

struct result {
    uint64_t weights, values;
};

static struct result run_job(const struct job *j, enum tr_master_choice master, int smallest)
{
    char out[4352], model[4352], data[4352];
    struct tr_train_params p = j->p;
    struct result r;

    snprintf(out, sizeof(out), "%s", scratch_path("run"));
    snprintf(model, sizeof(model), "%s", scratch_path("model"));
    snprintf(data, sizeof(data), "%s", scratch_path("data.jsonl"));
    p.model = model;
    p.data = data;
    p.out = out;
    p.master = master;
    p.threads = 1 + smallest;
    p.device_memory = smallest ? smallest_budget(p) : test_budget(NULL, 1ull << 30);
    if (train(&p, NULL) < 0)
        fail_msg("%s: %s", j->name, tr_message());
    r.weights = file_hash(scratch_path("run/model/model.safetensors"));
    r.values = exact_hash(out, "exact");
    remove_run();
    return r;
}

static void make_inputs(const struct tiny *t, enum tr_type dtype)
{
    tr_remove_tree(scratch_path("model"));
    tiny_model(scratch_path("model"), t, dtype, 3);
    token_data(scratch_path("data.jsonl"), 30, 30, 96, t->vocab);
}

static void test_split_is_f32(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof(jobs) / sizeof(jobs[0]); i++) {
        struct result split, f32, none;

        make_inputs(jobs[i].shape, TR_TYPE_BF16);
        f32 = run_job(&jobs[i], TR_MASTERS_F32, 0);
        split = run_job(&jobs[i], TR_MASTERS_SPLIT, 1);
        none = run_job(&jobs[i], TR_MASTERS_NONE, 0);
        if (split.weights != f32.weights || split.values != f32.values)
            fail_msg("%s: a split master is not the f32 one", jobs[i].name);
        if (none.weights == f32.weights || none.values == f32.values)
            fail_msg("%s: a master makes no difference", jobs[i].name);
    }
}

static const struct variant variants[] = {
    {"smallest budget", .smallest = 1},
    {"one thread, threads engine, smallest budget", .threads = 1, .io = TR_ENGINE_THREADS,
     .smallest = 1},
    {"micro-batches of one grain", .micro_batch = 1},
    {"matrices, random pauses", .streaming = TR_STREAMING_MATRICES, .delay_seed = 6},
    {"durability checkpoint", .durability = TR_KEEP_CHECKPOINT, .smallest = 1},
    {"interrupted and resumed, smallest budget", .interrupted = 1, .smallest = 1},
};

static void check(struct placements p)
{
    p.variants = variants;
    p.n = sizeof(variants) / sizeof(variants[0]);
    check_placements(&p);
}

static void test_placement(void **state)
{
    (void)state;
    check((struct placements){.shape = &shapes[1],
                              .dtype = TR_TYPE_BF16,
                              .optimizer = TR_OPT_ADALOMO,
                              .master = TR_MASTERS_SPLIT});
    check((struct placements){.shape = &shapes[0],
                              .dtype = TR_TYPE_F16,
                              .optimizer = TR_OPT_LOMO,
                              .master = TR_MASTERS_F32});
    check((struct placements){.shape = &shapes[2],
                              .dtype = TR_TYPE_BF16,
                              .optimizer = TR_OPT_ADAMW,
                              .master = TR_MASTERS_F32,
                              .state_dtype = TR_TYPE_8BIT});
}

/* Of a run that has changed nothing: rates of zero are refused, so one too small for f32 it is. */
static void test_import(void **state)
{
    static const char *const names[] = {"model.embed_tokens.weight",
                                        "model.layers.1.mlp.down_proj.weight", "model.norm.weight"};
    char out[4352];

    (void)state;
    make_inputs(&shapes[1], TR_TYPE_F32);
    for (enum tr_master_choice m = TR_MASTERS_SPLIT; m <= TR_MASTERS_F32; m++) {
        struct job j = {"nothing", &shapes[1], {SETTINGS, .optimizer = TR_OPT_SGD}};

        j.p.steps = 1;
        j.p.lr = 1e-30;
        j.p.model = scratch_path("model");
        j.p.data = scratch_path("data.jsonl");
        j.p.master = m;
        snprintf(out, sizeof(out), "%s", scratch_path("run"));
        j.p.out = out;
        assert_int_equal(train(&j.p, NULL), 0);
        snprintf(out, sizeof(out), "%s", scratch_path("exact"));
        assert_int_equal(tr_export_run(&(struct tr_export_run_params){.run = scratch_path("run"),
                                                                      .out = out,
                                                                      .dtype = TR_TYPE_F32},
                                       NULL),
                         0);
        for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
            size_t n, lost = 0, changed = 0;
            float *was = read_tensor(scratch_path("model"), names[i], &n);
            float *is = read_tensor(out, names[i], &n);

            for (size_t k = 0; k < n; k++) {
                lost += tr_f32_bits(was[k]) != tr_f32_bits(is[k]);
                changed += tr_f32_bits(was[k]) & 0xffff;
            }
            assert_int_equal(lost, 0);
            assert_true(i == 2 || changed > 0); /* norms are ones */
            free(was);
            free(is);
        }
        assert_int_equal(tr_remove_tree(out), 0);
        remove_run();
    }
}

static void refuses(struct tr_train_params p, const char *says)
{
    char out[4352];

    snprintf(out, sizeof(out), "%s", scratch_path("run"));
    p.model = scratch_path("model");
    p.data = scratch_path("data.jsonl");
    p.out = out;
    assert_true(train(&p, NULL) < 0);
    if (!strstr(tr_message(), says))
        fail_msg("no '%s' in: %s", says, tr_message());
}

static void test_refused(void **state)
{
    (void)state;
    make_inputs(&shapes[0], TR_TYPE_F32);
    refuses((struct tr_train_params){.master = TR_MASTERS_SPLIT},
            "--master split: model.embed_tokens.weight is f32");
    refuses((struct tr_train_params){.master = TR_MASTERS_SPLIT, .dtype = TR_TYPE_F16},
            "--master split: model.embed_tokens.weight is f16");
    refuses((struct tr_train_params){.master = TR_MASTERS_SPLIT,
                                     .dtype = TR_TYPE_BF16,
                                     .rounding = TR_ROUNDING_STOCHASTIC},
            "--rounding stochastic");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_split_is_f32),
        cmocka_unit_test(test_placement),
        cmocka_unit_test(test_import),
        cmocka_unit_test(test_refused),
    };

    return cmocka_run_group_tests_name("masters", tests, NULL, NULL);
}
