/* SPDX-License-Identifier: Apache-2.0
 *
 * --fused-gemm: plain SGD without a gradient. One step has the weights of the unfused one up to the
 * rounding of a sum that begins at the weight; a step that changed a weight before its last use
 * (invariant 5) would be far off, and so would a grain left out. Over several steps: invariant 1,
 * with the micro-batch as the one thing that cannot vary. The plan's peak, which is the measured
 * one, falls by the gradient. Weights that are no longer finite are seen before a commit names
 * them.
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
#include "src/checkpoint/init.h"
#include "src/run/run.h"
#include "tests/device/budget.h"
#include "tests/train/placement.h"

static const struct tiny shapes[] = {
    {"llama", 32, 48, 3, 2, 1, 16, 2500, 512, ""}, /* slices of more rows than go at once */
    {"llama-tied", 32, 48, 3, 2, 1, 16, 700, 512, ""},
    {"qwen2", 32, 48, 2, 2, 1, 16, 300, 512, ""},
    {"qwen3", 32, 48, 2, 2, 1, 16, 300, 512, ""},
};

static char model[4352], data[4352];

static struct tr_train_params params(const struct tiny *t)
{
    snprintf(model, sizeof(model), "%s", scratch_path("source-%s-%d", t->family, t->ffn));
    snprintf(data, sizeof(data), "%s", scratch_path("data.jsonl"));
    if (tr_folder_is_empty(model) == -ENOENT)
        tiny_model(model, t, TR_TYPE_F32, 3);
    token_data(data, 40, 30, on_cuda() ? 64 : 100, t->vocab);
    return (struct tr_train_params){.model = model,
                                    .data = data,
                                    .steps = 1,
                                    .batch_size =
                                        on_cuda() ? 5 : 13, /* its grain is larger than either */
                                    .seq_len = on_cuda() ? 64 : 100,
                                    .optimizer = TR_OPT_SGD,
                                    .schedule = TR_LR_CONSTANT,
                                    .warmup = -1,
                                    .lr = 1,
                                    .threads = 2,
                                    .device_memory = test_budget(NULL, 256 << 20)};
}

/* |b - a| / |a - source| of a tensor's values. */
static double distance(const char *a, const char *b, const char *tensor)
{
    size_t n, m;
    float *x = read_tensor(a, tensor, &n), *y = read_tensor(b, tensor, &m);
    float *from = read_tensor(model, tensor, &m);
    double off = 0, all = 0;

    for (size_t i = 0; i < n; i++) {
        off += pow((double)y[i] - (double)x[i], 2);
        all += pow((double)x[i] - (double)from[i], 2);
    }
    free(x);
    free(y);
    free(from);
    assert_true(all > 0 && isfinite(off));
    return sqrt(off / all);
}

/* The largest distance of any tensor in SCRATCH/NAME/model from the unfused one. */
static double worst_of(const char *name)
{
    char plain[4352], other[4352], config[4400];
    struct tr_model *m;
    json_t *json = NULL;
    double worst = 0;

    snprintf(plain, sizeof(plain), "%s", scratch_path("plain/model"));
    snprintf(other, sizeof(other), "%s", scratch_path("%s/model", name));
    snprintf(config, sizeof(config), "%s.config.json", model);
    if (tr_init_model_table(config, TR_F32, &m, &json) < 0)
        fail_msg("%s", tr_message());
    for (int32_t i = 0; i < m->n_tensors; i++)
        worst = fmax(worst, distance(plain, other, m->tensors[i].name));
    tr_model_close(m);
    json_decref(json);
    return worst;
}

/* --- mutants: the update comes before the input gradient; the last grain is left out ---------- */

static const struct tr_device_ops *sound;
static struct tr_device_ops spoilt;
static struct tr_op held;
static int holding;

static int update_first(struct tr_device *d, enum tr_stream s, const struct tr_op *op)
{
    int fused = op->kind == TR_OP_MATMUL_DW && op->matmul.fused, r = 0;

    if (op->kind == TR_OP_MATMUL_DX && !holding) {
        held = *op;
        holding = 1;
        return 0;
    }
    if (holding && fused && op->matmul.dw == held.matmul.w) {
        holding = 0;
        r = sound->run(d, s, op);
        return r < 0 ? r : sound->run(d, s, &held);
    }
    if (holding)
        r = sound->run(d, s, &held);
    holding = 0;
    return r < 0 ? r : sound->run(d, s, op);
}

static int lost; /* grains: none of a batch that is one, as on cuda */

static int lose_a_grain(struct tr_device *d, enum tr_stream s, const struct tr_op *op)
{
    struct tr_op less = *op;

    if (op->kind == TR_OP_MATMUL_DW && op->matmul.grains.n > 1) {
        lost++;
        less.matmul.grains.n--;
        less.matmul.n = op->matmul.grains.start[less.matmul.grains.n];
    }
    return sound->run(d, s, &less);
}

static void spoilt_run(struct tr_train_params p,
                       int (*run_op)(struct tr_device *, enum tr_stream, const struct tr_op *))
{
    char out[4352];
    struct tr_step_report report;
    tr_run *run;

    snprintf(out, sizeof(out), "%s", scratch_path("spoilt"));
    if (tr_folder_is_empty(out) >= 0)
        assert_int_equal(tr_remove_tree(out), 0);
    p.out = out;
    if (tr_train_open(&run, &p) < 0)
        fail_msg("%s", tr_message());
    sound = run->device->ops;
    spoilt = *sound;
    spoilt.run = run_op;
    run->device->ops = &spoilt;
    if (tr_train_step(run, &report) != 1 || tr_train_finish(run) < 0)
        fail_msg("%s", tr_message());
    run->device->ops = sound;
    tr_train_close(run);
}

static void check_step(const struct tiny *t)
{
    struct tr_train_params p = params(t);
    struct tr_step_report report;
    double good, early, less;

    train_anew(p, "plain", NULL);
    p.fused_gemm = 1;
    train_anew(p, "fused", &report);
    assert_true(isnan(report.grad_norm));
    good = worst_of("fused");
    spoilt_run(p, update_first);
    early = worst_of("spoilt");
    lost = 0;
    spoilt_run(p, lose_a_grain);
    less = worst_of("spoilt");
    print_message("%s: %.1e of the change; updated early %.1e, a grain lost %.1e\n", t->family,
                  good, early, less);
    assert_true(good < 1e-4);
    assert_true(early > 0.1);
    assert_true(lost ? less > 0.1 : on_cuda());
}

static void test_step(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof(shapes) / sizeof(shapes[0]); i++)
        check_step(&shapes[i]);
}

static const struct variant variants[] = {
    {"smallest budget", .smallest = 1},
    {"one thread, threads engine", .threads = 1, .io = TR_ENGINE_THREADS, .smallest = 1},
    {"matrices, smallest budget", .smallest = 1, .streaming = TR_STREAMING_MATRICES},
    {"matrices, all kept", .streaming = TR_STREAMING_MATRICES, .recompute = TR_RECOMPUTE_NONE},
    {"blocks, all recomputed, random pauses", .streaming = TR_STREAMING_BLOCKS, .delay_seed = 5,
     .recompute = TR_RECOMPUTE_ALL, .smallest = 1},
    {"durability none", .durability = TR_KEEP_NONE},
    {"interrupted and resumed, smallest budget", .interrupted = 1, .smallest = 1},
};

static void test_placements(void **state)
{
    (void)state;
    for (int i = 0; i < (on_cuda() ? 1 : 3); i++)
        check_placements(
            &(struct placements){&shapes[i], TR_TYPE_F32, TR_OPT_SGD, variants,
                                 on_cuda() ? 3 : sizeof(variants) / sizeof(variants[0]),
                                 .fused_gemm = 1, .freeze = i ? NULL : "*layers.0.*,*k_proj*"});
}

/* One micro-batch in both: the gradient of the largest matrix, and nothing else, is gone. */
static void test_peak(void **state)
{
    static const struct tiny wide = {"llama", 64, 2048, 2, 2, 1, 32, 300, 512, ""};
    struct tr_train_params p = params(&wide);
    struct tr_step_report with, without;

    (void)state;
    p.batch_size = 4; /* one grain: logits take the same in both */
    train_anew(p, "plain", &with);
    p.fused_gemm = 1;
    train_anew(p, "fused", &without);
    print_message("peak: %llu bytes, fused %llu\n", (unsigned long long)with.device_peak_bytes,
                  (unsigned long long)without.device_peak_bytes);
    assert_int_equal(with.device_peak_bytes - without.device_peak_bytes, 2048 * 64 * 4 - 4096);
}

static void test_refusals(void **state)
{
    struct tr_train_params all = params(&shapes[2]), p;

    (void)state;
    all.fused_gemm = 1;
    all.out = scratch_path("refused");
    p = all;
    p.optimizer = TR_OPT_ADALOMO;
    expect_refused(&p, "--optimizer sgd");
    p = all;
    p.momentum = 0.9;
    expect_refused(&p, "without --momentum");
    p = all;
    p.weight_decay = 0.1;
    expect_refused(&p, "without --weight-decay");
    p = all;
    p.clip_norm = 1;
    expect_refused(&p, "without --clip-norm");
    p = all;
    p.clip_value = 1;
    expect_refused(&p, "without --clip-value");
    p = all;
    p.micro_batch = 4;
    expect_refused(&p, "without --micro-batch");
    p = all;
    p.dtype = TR_TYPE_BF16;
    expect_refused(&p, "needs --dtype f32");
}

/* A rate that throws weights beyond f32: the step is given up, the one before stays. */
static void test_not_finite(void **state)
{
    struct tr_train_params p = params(&shapes[2]);
    struct tr_step_report report;
    int skipped = 0, r;
    tr_run *run;

    (void)state;
    p.fused_gemm = 1;
    p.steps = 20;
    p.lr = 1e38;
    p.out = scratch_path("blown");
    if (tr_train_open(&run, &p) < 0)
        fail_msg("%s", tr_message());
    while ((r = tr_train_step(run, &report)) == 1)
        skipped += report.skipped;
    assert_int_equal(r, -EDOM);
    assert_true(skipped > 0);
    assert_non_null(strstr(tr_message(), "not finite"));
    tr_train_close(run);
    assert_int_equal(
        tr_export_run(&(struct tr_export_run_params){.run = p.out, .out = scratch_path("after")},
                      NULL),
        0);
    for (int32_t i = 0; i < 2; i++) {
        size_t n;
        float *x = read_tensor(scratch_path("after"),
                               i ? "lm_head.weight" : "model.layers.0.mlp.up_proj.weight", &n);

        for (size_t k = 0; k < n; k++)
            assert_true(isfinite(x[k]));
        free(x);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_step),       cmocka_unit_test(test_placements),
        cmocka_unit_test(test_peak),       cmocka_unit_test(test_refusals),
        cmocka_unit_test(test_not_finite),
    };

    return cmocka_run_group_tests_name("fused updates", tests, NULL, NULL);
}
