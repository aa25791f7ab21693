/* SPDX-License-Identifier: Apache-2.0
 *
 * --freeze. One step with some tensors frozen and one with none must agree: what trains changes to
 * the same bytes in both, what is frozen has the source's. (An unfrozen step whose frozen changes
 * are undone is a step with those gradients zeroed.) The unfrozen step must change every one of
 * them, so the comparison would see a frozen tensor that is updated, and one that is not.
 *
 * Then over several steps: invariant 1 with frozen tensors, resume, and the norm, which is of what
 * trains alone: the squares of a list's and of its complement's norm sum to that of no list.
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
#include "src/model/freeze.h"
#include "src/run/run.h"
#include "tests/device/budget.h"
#include "tests/train/placement.h"

static const struct tiny llama = {"llama", 32, 48, 3, 2, 1, 16, 700, 512, ""};
static const struct tiny tied = {"llama-tied", 32, 48, 3, 2, 1, 16, 700, 512, ""};
static const struct tiny qwen2 = {"qwen2", 32, 48, 3, 2, 1, 16, 300, 512, ""};
static const struct tiny qwen3 = {"qwen3", 32, 48, 3, 2, 1, 16, 300, 512, ""};

#define LOWEST_IS_UP                                                                               \
    "model.embed*,model.layers.0.*,model.layers.1.self_attn.*,model.layers.1.input_layernorm*"

/* clang-format off */
static const struct {
    const char *name, *freeze;
    const struct tiny *shape;
    enum tr_type dtype;
    enum tr_optimizer optimizer;
    double momentum;
} cases[] = {
    {"lower half", "model.embed_tokens.weight,model.layers.[01].*", &llama, TR_TYPE_F32,
     TR_OPT_SGD, 0},
    {"parts of spans", "*norm*,*.k_proj.*,model.layers.1.*_proj.bias", &qwen2, TR_TYPE_BF16,
     TR_OPT_ADAMW, 0},
    {"biases alone train", "*.weight", &qwen2, TR_TYPE_BF16, TR_OPT_ADAM_MINI, 0},
    {"head alone trains", "model.*", &llama, TR_TYPE_F32, TR_OPT_ADALOMO, 0},
    {"embedding alone trains", "model.layers.*,model.norm.*,lm_head*", &llama, TR_TYPE_BF16,
     TR_OPT_ADALOMO, 0},
    {"final norm alone trains", "*layers*,*embed*,lm_head.weight", &llama, TR_TYPE_F32,
     TR_OPT_SGD, 0.9},
    {"tied table", "model.embed_tokens.weight", &tied, TR_TYPE_BF16, TR_OPT_ADALOMO, 0},
    {"tied, nothing but the table trains", "*layers*,model.norm*", &tied, TR_TYPE_F32,
     TR_OPT_ADAMW, 0},
    {"lowest is the middle of a block", LOWEST_IS_UP, &qwen3, TR_TYPE_F32, TR_OPT_LOMO, 0},
    {"one matrix trains", "*layers.[02]*,*embed*,*norm*,lm_head*,*attn*,*gate*,*up*", &llama,
     TR_TYPE_F32, TR_OPT_ADAMW, 0},
};
/* clang-format on */
#define CASES (int)(sizeof(cases) / sizeof(cases[0]))

static char model[4352], data[4352];

static int row(void)
{
    return on_cuda() ? 64 : 100;
}

static void make_inputs(const struct tiny *t, enum tr_type dtype)
{
    snprintf(model, sizeof(model), "%s", scratch_path("source-%s-%d", t->family, dtype));
    snprintf(data, sizeof(data), "%s", scratch_path("data.jsonl"));
    if (tr_folder_is_empty(model) == -ENOENT)
        tiny_model(model, t, dtype, 3);
    token_data(data, 30, 30, row(), t->vocab);
}

static struct tr_train_params params(int i, const char *out)
{
    make_inputs(cases[i].shape, cases[i].dtype);
    return (struct tr_train_params){.model = model,
                                    .data = data,
                                    .out = out,
                                    .steps = 1,
                                    .batch_size = on_cuda() ? 5 : 13, /* one grain there */
                                    .seq_len = row(),
                                    .optimizer = cases[i].optimizer,
                                    .momentum = cases[i].momentum,
                                    .schedule = TR_LR_CONSTANT,
                                    .warmup = -1,
                                    .clip_norm = -1,
                                    .lr = 0.1,
                                    .seed = 5,
                                    .threads = 2,
                                    .device_memory = test_budget(NULL, 256 << 20)};
}

static int same(const char *a, const char *b, const char *tensor)
{
    size_t n, m;
    float *x = read_tensor(a, tensor, &n), *y = read_tensor(b, tensor, &m);
    int equal = n == m && !memcmp(x, y, n * sizeof(*x));

    free(x);
    free(y);
    return equal;
}

static tr_run *opened(const struct tr_train_params *p)
{
    tr_run *run;

    if (tr_train_open(&run, p) < 0)
        fail_msg("%s", tr_message());
    return run;
}

static struct tr_model *open_model(const struct tiny *t, const char *freeze)
{
    char config[4352];
    struct tr_model *table, *m = NULL;
    json_t *json = NULL;

    snprintf(config, sizeof(config), "%s", scratch_path("config.json"));
    tiny_config(config, t);
    if (tr_init_model_table(config, TR_F32, &table, &json) < 0 ||
        tr_model_like(&m, table, &(struct tr_model_params){.freeze = freeze}) < 0)
        fail_msg("%s", tr_message());
    json_decref(json);
    tr_model_close(table);
    return m;
}

/* Of the exports in `frozen` and `all`: how many tensors have other bytes than they should. */
static int count_wrong(const struct tr_model *m, const char *name)
{
    char frozen[4352], all[4352];
    int wrong = 0;

    snprintf(frozen, sizeof(frozen), "%s", scratch_path("frozen/model"));
    snprintf(all, sizeof(all), "%s", scratch_path("all/model"));
    for (int32_t i = 0; i < m->n_tensors; i++) {
        const struct tr_tensor *t = &m->tensors[i];

        if (same(all, model, t->name))
            fail_msg("%s: %s does not change without --freeze", name, t->name);
        if (same(frozen, t->frozen ? model : all, t->name))
            continue;
        print_message("%s: %s, which %s, has other bytes\n", name, t->name,
                      t->frozen ? "is frozen" : "trains");
        wrong++;
    }
    return wrong;
}

static void test_one_step(void **state)
{
    (void)state;
    for (int i = 0; i < CASES; i += on_cuda() ? 4 : 1) {
        struct tr_train_params p = params(i, NULL);
        struct tr_model *m = open_model(cases[i].shape, cases[i].freeze);

        train_anew(p, "all", NULL);
        p.freeze = cases[i].freeze;
        for (int way = on_cuda(); way < 3; way++) {
            p.streaming = way == 2 ? TR_STREAMING_MATRICES : TR_STREAMING_AUTO;
            if (way)
                p.device_memory = smallest_budget(p);
            train_anew(p, "frozen", NULL);
            assert_int_equal(count_wrong(m, cases[i].name), 0);
        }
        tr_model_close(m);
    }
}

static void test_norm(void **state)
{
    static const char *const lists[] = {NULL, "*layers.[01]*,*norm*,*embed*",
                                        "*layers.2.*_proj*,"
                                        "lm_head*"};
    struct tr_step_report r[3];

    (void)state;
    for (int parked = 0; parked < 2; parked++) {
        struct tr_train_params p = params(0, NULL);

        p.clip_norm = 1e-3;
        for (int i = 0; i < 3; i++) {
            p.freeze = lists[i];
            if (!parked)
                p.device_memory = smallest_budget(p);
            train_anew(p, "norm", &r[i]);
        }
        assert_true(r[1].grad_norm > 0.1 * r[0].grad_norm);
        assert_true(r[2].grad_norm > 0.1 * r[0].grad_norm);
        assert_true(fabs(hypot(r[1].grad_norm, r[2].grad_norm) / r[0].grad_norm - 1) < 1e-6);
    }
}

static const struct variant variants[] = {
    {"smallest budget", .smallest = 1},
    {"matrices, smallest budget, micro-batches of one grain", .smallest = 1, .micro_batch = 1,
     .streaming = TR_STREAMING_MATRICES},
    {"matrices, all kept", .streaming = TR_STREAMING_MATRICES, .recompute = TR_RECOMPUTE_NONE},
    {"blocks, all recomputed, random pauses", .streaming = TR_STREAMING_BLOCKS, .delay_seed = 5,
     .recompute = TR_RECOMPUTE_ALL, .smallest = 1},
    {"micro-batches of one grain", .micro_batch = 1},
    {"durability checkpoint, interrupted", .durability = TR_KEEP_CHECKPOINT, .smallest = 1,
     .interrupted = 1},
    {"durability none", .durability = TR_KEEP_NONE, .smallest = 1},
    {"interrupted and resumed, smallest budget", .interrupted = 1, .smallest = 1},
};

static void check(struct placements p)
{
    p.variants = variants;
    p.n = on_cuda() ? 2 : sizeof(variants) / sizeof(variants[0]);
    p.share = on_cuda() ? 2 : 1;
    check_placements(&p);
}

static void test_placements(void **state)
{
    (void)state;
    check((struct placements){&llama, TR_TYPE_BF16, TR_OPT_LOMO, .clip_norm = 0.5,
                              .freeze = "*embed*,*layers.0.*,*layers.1.*_proj*"});
    check((struct placements){&qwen3, TR_TYPE_BF16, TR_OPT_ADAMW, .freeze = LOWEST_IS_UP});
    check((struct placements){&tied, TR_TYPE_BF16, TR_OPT_ADALOMO, .freeze = "*embed*,*up_proj*"});
    check((struct placements){&tied, TR_TYPE_BF16, TR_OPT_ADAM_MINI, .freeze = "*norm*,*[kv]_p*"});
}

/* One tensor is thawed when all is laid out: it shares its span with some that train. */
static void test_mutant(void **state)
{
    static const char freeze[] = "*norm*,*.k_proj.*";
    struct tr_train_params p = params(1, NULL);
    struct tr_model *m = open_model(cases[1].shape, freeze);
    struct tr_step_report report;
    char out[4352];
    tr_run *run;

    (void)state;
    p.optimizer = TR_OPT_SGD;
    train_anew(p, "all", NULL);
    snprintf(out, sizeof(out), "%s", scratch_path("frozen"));
    assert_int_equal(tr_remove_tree(out), 0);
    p.out = out;
    p.freeze = freeze;
    run = opened(&p);
    ((struct tr_tensor *)tr_model_find(run->model, "model.layers.1.self_attn.k_proj.weight"))
        ->frozen = 0;
    assert_int_equal(tr_train_step(run, &report), 1);
    if (tr_train_finish(run) < 0)
        fail_msg("%s", tr_message());
    tr_train_close(run);
    assert_int_equal(count_wrong(m, "mutant"), 1);
    tr_model_close(m);
}

/* Whole records frozen: what is written falls by their bytes, and no state of theirs has a place in
 * the store. Where everything streams, none beneath the lowest that trains is loaded a second time.
 */
static void test_bytes(void **state)
{
    struct tr_train_params p = params(7, scratch_path("bytes"));
    uint64_t written[2], read[2], disk[2], frozen = 0;

    (void)state;
    make_inputs(&llama, TR_TYPE_F32);
    for (int i = 0; i < 4; i++) {
        tr_run *run;

        p.freeze = i & 1 ? "model.embed*,model.layers.[01].*" : NULL;
        if (i == 2)
            p.device_memory = smallest_budget(p);
        run = opened(&p);
        written[i & 1] = i < 2 ? run->foreseen.sim.written_bytes : written[i & 1];
        read[i & 1] = run->foreseen.sim.read_bytes + run->foreseen.sim.host_bytes;
        disk[i & 1] = i < 2 ? run->foreseen.disk_bytes : disk[i & 1];
        for (int32_t k = 0; i == 1 && k < run->model->n_tensors; k++)
            frozen += run->model->tensors[k].frozen
                          ? tr_round_up(run->model->tensors[k].bytes, TR_STORE_ALIGN)
                          : 0;
        tr_train_close(run);
        assert_int_equal(tr_remove_tree(p.out), 0);
    }
    assert_int_equal(written[0] - written[1], 3 * frozen); /* parameters and two moments */
    assert_int_equal(disk[0] - disk[1], 2 * 2 * frozen);   /* of moments, two generations */
    assert_true(read[0] >= read[1] + 2 * frozen);
}

/* --- what is not computed ----------------------------------------------------------------------
 */

static const struct tr_device_ops *sound;
static struct tr_device_ops counting;
static int counted[TR_OP_KINDS];

static int count(struct tr_device *d, enum tr_stream s, const struct tr_op *op)
{
    counted[op->kind]++;
    return sound->run(d, s, op);
}

static void count_ops(struct tr_train_params p)
{
    struct tr_step_report report;
    tr_run *run;

    p.out = scratch_path("counted");
    run = opened(&p);
    memset(counted, 0, sizeof(counted));
    sound = run->device->ops;
    counting = *sound;
    counting.run = count;
    run->device->ops = &counting;
    assert_int_equal(tr_train_step(run, &report), 1);
    run->device->ops = sound;
    tr_train_close(run);
    assert_int_equal(tr_remove_tree(p.out), 0);
}

/* One grain; slices of 256 rows of 700. Products of the forward pass are counted, too. */
static void test_ops(void **state)
{
    static const struct {
        const char *freeze;
        int dx, dw, attention, norm;
    } want[] = {
        {NULL, 3 + 21, 3 + 21, 3, 7},
        {"*embed*,*layers.[01].*,lm_head*", 3 + 7, 7, 1, 3},
        {"*embed*,*layers.[01].*,*layers.2.*norm*,*norm.weight", 3 + 4, 3 + 7, 1, 2},
        {"*embed*,*layers.[01].*,*attn*,*input*,lm_head*", 3 + 3, 3, 0, 2},
        {"*embed*,*layers.[01].*,*attn*,*norm*,*up*,*gate*,lm_head*", 3, 1, 0, 1},
        {"model.*", 0, 3, 0, 0},
    };
    struct tr_train_params p = params(0, NULL);

    (void)state;
    p.batch_size = 4;
    for (size_t i = 0; i < sizeof(want) / sizeof(want[0]); i++) {
        p.freeze = want[i].freeze;
        count_ops(p);
        assert_int_equal(counted[TR_OP_MATMUL_DX], want[i].dx);
        assert_int_equal(counted[TR_OP_MATMUL_DW], want[i].dw);
        assert_int_equal(counted[TR_OP_ATTENTION_GRAD], want[i].attention);
        assert_int_equal(counted[TR_OP_RMSNORM_GRAD], want[i].norm);
    }
}

static void test_refusals(void **state)
{
    struct tr_train_params p = params(0, scratch_path("refused"));

    (void)state;
    p.freeze = "*norm*,model.layer.3.*";
    expect_refused(&p, "'model.layer.3.*' matches no tensor");
    p.freeze = "*norm*,";
    expect_refused(&p, "'' matches no tensor");
    p.freeze = "*proj*,*norm*,*embed*,lm_head.*";
    expect_refused(&p, "nothing is left to train");
    p.freeze = "*embed*";
    p.steps = 2;
    assert_int_equal(train_part(&p, 1), 0);
    p.freeze = "*embed*,*norm*";
    expect_refused(&p, "freeze differ");
    p.force = 1;
    expect_refused(&p, "freeze differ");
    p.freeze = NULL;
    expect_refused(&p, "freeze differ");
    p.force = 0;
    make_inputs(&tied, TR_TYPE_F32);
    p.out = scratch_path("refused-tied");
    p.freeze = "lm_head.*"; /* a tied table has one name: that of the checkpoint */
    expect_refused(&p, "'lm_head.*' matches no tensor");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_one_step), cmocka_unit_test(test_mutant),
        cmocka_unit_test(test_norm),     cmocka_unit_test(test_placements),
        cmocka_unit_test(test_bytes),    cmocka_unit_test(test_ops),
        cmocka_unit_test(test_refusals),
    };

    return cmocka_run_group_tests_name("frozen tensors", tests, NULL, NULL);
}
