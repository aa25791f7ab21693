/* SPDX-License-Identifier: Apache-2.0
 *
 * Clipping group by group: what a step of plain LOMO changes of each group has a length of learning
 * rate times bound, as each group's norm here is above the bound; one group of all has the bits of
 * the exact way; and placement changes no bit (invariant 1). The defect that this is for, shown to
 * be caught: a group that is clipped by the norm of the first one.
 */
#include <errno.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "src/base/file.h"
#include "src/run/run.h"
#include "tests/train/placement.h"

#define ROOM   (1ull << 30)
#define LAYERS 3
#define UNITS  (LAYERS + 2)
#define CLIP   1e-3
#define RATE   0.5

static const struct tiny shapes[] = {
    {"llama", 64, 96, LAYERS, 4, 2, 16, 2100, 512, ""},
    {"llama-tied", 64, 96, LAYERS, 4, 2, 16, 700, 512, ""},
};

static const struct variant variants[] = {
    {"smallest budget", .smallest = 1, .interrupted = 1},
    {"matrices, micro-batches of one grain, random pauses", .smallest = 1, .micro_batch = 1,
     .streaming = TR_STREAMING_MATRICES, .delay_seed = 3},
    {"blocks, all kept, durability checkpoint", .smallest = 1, .streaming = TR_STREAMING_BLOCKS,
     .recompute = TR_RECOMPUTE_NONE, .durability = TR_KEEP_CHECKPOINT},
};

static int defect;
static double first_norm;
static int bad_group = -1; /* of the second step, whose norm is not finite */

int __real_run_read_norm(struct tr_run *run, double *norm);
int __wrap_run_read_norm(struct tr_run *run, double *norm);

int __wrap_run_read_norm(struct tr_run *run, double *norm)
{
    int r = __real_run_read_norm(run, norm);

    if (run->step.groups == 0)
        first_norm = *norm;
    if (defect)
        *norm = first_norm;
    if (run->step.groups == bad_group && run->cursor.step == 1)
        *norm = NAN;
    return r;
}

static struct tr_train_params job(const struct tiny *t, enum tr_type dtype, enum tr_optimizer o)
{
    static char model[4352], data[4352];

    snprintf(model, sizeof(model), "%s", scratch_path("model-%s-%d", t->family, dtype));
    snprintf(data, sizeof(data), "%s", scratch_path("data-%d.jsonl", t->vocab));
    if (!tr_folder_has(model, "config.json"))
        tiny_model(model, t, dtype, 3);
    token_data(data, 40, 30, 200, t->vocab);
    return (struct tr_train_params){.model = model,
                                    .data = data,
                                    .steps = 3,
                                    .batch_size = 13,
                                    .seq_len = 200,
                                    .optimizer = o,
                                    .seed = 11,
                                    .clip_norm = CLIP,
                                    .lr = o == TR_OPT_LOMO ? RATE : 1e-3,
                                    .schedule = TR_LR_CONSTANT,
                                    .warmup = -1,
                                    .device = getenv("TAILRACE_DEVICE")};
}

/* The unit of a backward pass that updates a tensor; of a tied model the table comes last, and with
 * it the final norm. */
static int unit_of(const char *name, int tied)
{
    int layer;

    if (sscanf(name, "model.layers.%d.", &layer) == 1)
        return LAYERS - layer;
    return tied || !strcmp(name, "model.embed_tokens.weight") ? UNITS - 1 : 0;
}

static double squares(const char *now, const char *then, const char *name)
{
    size_t n, m;
    float *a = read_tensor(now, name, &n), *b = read_tensor(then, name, &m);
    double sum = 0;

    assert_int_equal(n, m);
    for (size_t i = 0; i < n; i++)
        sum += ((double)a[i] - (double)b[i]) * ((double)a[i] - (double)b[i]);
    free(a);
    free(b);
    assert_true(isfinite(sum));
    return sum;
}

/* How far the worst group's change is from rate times bound, as a share of it. */
static double worst(const struct tiny *t, int group)
{
    static const char *const in_block[] = {
        "input_layernorm",  "self_attn.q_proj", "self_attn.k_proj",
        "self_attn.v_proj", "self_attn.o_proj", "mlp.gate_proj",
        "mlp.up_proj",      "mlp.down_proj",    "post_attention_layernorm"};
    int tied = !strcmp(t->family, "llama-tied"), last = (UNITS - 1) / group;
    char names[64][96], now[4352], then[4352];
    double sum[UNITS] = {0}, most = 0;
    int n = 0;

    snprintf(now, sizeof(now), "%s", scratch_path("run/model"));
    snprintf(then, sizeof(then), "%s", scratch_path("model-%s-%d", t->family, TR_TYPE_F32));
    for (int l = 0; l < LAYERS; l++)
        for (size_t k = 0; k < sizeof(in_block) / sizeof(in_block[0]); k++)
            snprintf(names[n++], sizeof(names[0]), "model.layers.%d.%s.weight", l, in_block[k]);
    snprintf(names[n++], sizeof(names[0]), "model.embed_tokens.weight");
    snprintf(names[n++], sizeof(names[0]), "model.norm.weight");
    if (!tied)
        snprintf(names[n++], sizeof(names[0]), "lm_head.weight");
    for (int i = 0; i < n; i++)
        sum[unit_of(names[i], tied) / group] += squares(now, then, names[i]);
    for (int g = tied && group == 1; g <= last; g++)
        most = fmax(most, fabs(sqrt(sum[g]) / (RATE * CLIP) - 1));
    return most;
}

static void test_lengths(void **state)
{
    (void)state;
    for (int k = 0; k < 2; k++)
        for (int group = 1; group < UNITS; group++)
            for (defect = 0; defect < 2; defect++) {
                struct tr_train_params p = job(&shapes[k], TR_TYPE_F32, TR_OPT_LOMO);
                double off;

                p.steps = 1;
                p.clip_method = (enum tr_clip)(TR_CLIP_GROUP + group);
                run_variant(p, &(struct variant){"resident", .durability = TR_KEEP_NONE}, ROOM);
                off = worst(&shapes[k], group);
                remove_run();
                if (defect ? off < 0.01 : off > 1e-3)
                    fail_msg("group:%d of %s, defect %d: off by %g", group, shapes[k].family,
                             defect, off);
            }
    defect = 0;
}

static void check(const struct tiny *t, enum tr_type dtype, enum tr_optimizer optimizer)
{
    struct tr_train_params p = job(t, dtype, optimizer);
    uint64_t exact, expected;

    p.clip_method = TR_CLIP_TWO_PASS;
    exact = run_variant(p, &(struct variant){"two passes"}, ROOM);
    remove_run();
    p.clip_method = (enum tr_clip)(TR_CLIP_GROUP + UNITS);
    assert_true(run_variant(p, &(struct variant){"all in one"}, ROOM) == exact);
    remove_run();
    p.clip_method = (enum tr_clip)(TR_CLIP_GROUP + 2);
    expected = run_variant(p, &(struct variant){"everything resident"}, ROOM);
    remove_run();
    assert_true(expected != exact);
    for (size_t i = 0; i < sizeof(variants) / sizeof(variants[0]); i++) {
        if (run_variant(p, &variants[i], ROOM) != expected)
            fail_msg("%s: other bits than with everything resident", variants[i].name);
        remove_run();
    }
}

static void test_bf16_lomo(void **state)
{
    (void)state;
    check(&shapes[0], TR_TYPE_BF16, TR_OPT_LOMO);
}

static void test_bf16_adamw_tied(void **state)
{
    (void)state;
    check(&shapes[1], TR_TYPE_BF16, TR_OPT_ADAMW);
}

static void test_f32_adalomo(void **state)
{
    (void)state;
    check(&shapes[0], TR_TYPE_F32, TR_OPT_ADALOMO);
}

/* Steps until an end, of which the second has such a group; how many were skipped. */
static int skipped(int group, enum tr_keep durability, int *code)
{
    struct tr_train_params p = job(&shapes[0], TR_TYPE_F32, TR_OPT_LOMO);
    struct tr_step_report report;
    tr_run *run;
    int n = 0;

    p.out = scratch_path("bad-group");
    p.clip_method = TR_CLIP_GROUP + 1;
    p.durability = durability;
    p.checkpoint_every = 100;
    bad_group = group;
    assert_int_equal(tr_train_open(&run, &p), 0);
    while ((*code = tr_train_step(run, &report)) == 1)
        n += report.skipped;
    tr_train_close(run);
    bad_group = -1;
    assert_int_equal(tr_remove_tree(p.out), 0);
    return n;
}

/* Where nothing of a step has been applied it is skipped; else it needs the state from before. */
static void test_not_finite(void **state)
{
    int code;

    (void)state;
    assert_int_equal(skipped(0, TR_KEEP_NONE, &code), 1);
    assert_int_equal(code, 0);
    assert_int_equal(skipped(0, TR_KEEP_CHECKPOINT, &code), 1);
    assert_int_equal(code, 0);
    assert_int_equal(skipped(1, TR_KEEP_NONE, &code), 0);
    assert_int_equal(code, -EDOM);
    assert_int_equal(skipped(1, TR_KEEP_STEP, &code), 1);
    assert_int_equal(code, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_lengths), cmocka_unit_test(test_bf16_lomo),
        cmocka_unit_test(test_bf16_adamw_tied), cmocka_unit_test(test_f32_adalomo),
        cmocka_unit_test(test_not_finite)};

    return cmocka_run_group_tests_name("clipping by groups", tests, NULL, NULL);
}
