/* SPDX-License-Identifier: Apache-2.0
 *
 * Clipping where not everything trains: gradients that wait for the next step, and groups of
 * layers, beside frozen tensors and adapters. Waiting has the bits of two passes whatever is frozen
 * and wherever things lie (invariant 1), and so has a group of all; what is frozen keeps its bytes;
 * a run that is cut off with an update pending is exported and continued as if it had none.
 *
 * The defects that this is for, shown to be caught: adapters that are applied with the model's
 * coefficient, or with that of the step before; a final norm that is forgotten because its table is
 * frozen.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "src/base/file.h"
#include "src/model/freeze.h"
#include "src/run/run.h"
#include "tests/device/budget.h"
#include "tests/train/placement.h"

#define LAYERS 3
#define UNITS  (LAYERS + 2)

static const struct tiny llama = {"llama", 48, 80, LAYERS, 3, 1, 16, 700, 512, ""};
static const struct tiny tied = {"llama-tied", 48, 80, LAYERS, 3, 1, 16, 700, 512, ""};
static const struct tiny qwen2 = {"qwen2", 48, 80, LAYERS, 3, 1, 16, 300, 512, ""};
static const struct tiny qwen3 = {"qwen3", 48, 80, LAYERS, 3, 1, 16, 300, 512, ""};

struct job {
    const char *name, *freeze;
    const struct tiny *shape;
    enum tr_type dtype;
    enum tr_optimizer optimizer, lora_optimizer;
    int rank;
};

/* clang-format off */
static const struct job jobs[] = {
    {"tied table, the norm trains", "*embed*,*layers.0.*", &tied, TR_TYPE_BF16, TR_OPT_LOMO},
    {"beside adapters", NULL, &qwen3, TR_TYPE_BF16, TR_OPT_LOMO, TR_OPT_ADAMW, 3},
    {"head and a block between", "lm_head*,*layers.1.*", &llama, TR_TYPE_F32, TR_OPT_ADALOMO},
    {"table, parts of spans", "*embed*,*.q_proj.*,*layers.[02].*norm*", &llama, TR_TYPE_BF16,
     TR_OPT_ADAMW},
    {"all norms and both tables", "*norm*,*embed*,lm_head*", &qwen3, TR_TYPE_F32, TR_OPT_ADAM_MINI},
    {"biases alone train", "*.weight", &qwen2, TR_TYPE_BF16, TR_OPT_ADAMW},
    {"final norm alone trains", "*layers*,*embed*,lm_head*", &llama, TR_TYPE_F32, TR_OPT_LOMO},
    {"table alone trains", "*layers*,*norm*,lm_head*", &llama, TR_TYPE_BF16, TR_OPT_ADAMW},
    {"adapters alone", NULL, &llama, TR_TYPE_BF16, TR_OPT_ADAMW, TR_OPT_DEFAULT, 3},
    {"beside adapters, table and a block frozen", "*embed*,*layers.1.*", &tied, TR_TYPE_BF16,
     TR_OPT_ADALOMO, TR_OPT_ADALOMO, 2},
};
/* clang-format on */
#define JOBS (sizeof(jobs) / sizeof(jobs[0]))

static const struct variant variants[] = {
    {"everything resident"},
    {"smallest budget", .smallest = 1, .interrupted = 1},
    {"matrices, micro-batches of one grain, random pauses", .smallest = 1, .micro_batch = 1,
     .streaming = TR_STREAMING_MATRICES, .delay_seed = 3},
    {"blocks, all kept, durability checkpoint", .smallest = 1, .streaming = TR_STREAMING_BLOCKS,
     .recompute = TR_RECOMPUTE_NONE, .durability = TR_KEEP_CHECKPOINT, .interrupted = 1},
};
#define VARIANTS (sizeof(variants) / sizeof(variants[0]))

static enum { SOUND, SHARED, STALE, FORGOTTEN } defect;
static float before;

void __real_run_leave_pending(struct tr_run *run, double lr, int skip);
void __wrap_run_leave_pending(struct tr_run *run, double lr, int skip);
int __real_tr_visits_make(struct tr_visits *v, const struct tr_visits_params *p);
int __wrap_tr_visits_make(struct tr_visits *v, const struct tr_visits_params *p);

void __wrap_run_leave_pending(struct tr_run *run, double lr, int skip)
{
    float *its = &run->pass.adapter.coefficient, now = *its;

    if (defect == SHARED)
        *its = run->pass.update.coefficient;
    if (defect == STALE && before > 0)
        *its = before;
    before = now;
    __real_run_leave_pending(run, lr, skip);
}

int __wrap_tr_visits_make(struct tr_visits *v, const struct tr_visits_params *p)
{
    int r = __real_tr_visits_make(v, p);

    for (uint32_t i = 0; defect == FORGOTTEN && r == 0 && i < v->n; i++)
        if (v->units[i].place == TR_WORK_NORM)
            v->spans[i].changed = 0;
    return r;
}

static struct tr_train_params params(const struct job *j)
{
    static char model[4352], data[4352];
    int adam = j->optimizer == TR_OPT_ADAMW || j->optimizer == TR_OPT_ADAM_MINI;

    snprintf(model, sizeof(model), "%s", scratch_path("model-%s-%d", j->shape->family, j->dtype));
    snprintf(data, sizeof(data), "%s", scratch_path("data-%d.jsonl", j->shape->vocab));
    if (!tr_folder_has(model, "config.json"))
        tiny_model(model, j->shape, j->dtype, 3);
    token_data(data, 40, 30, 150, j->shape->vocab);
    return (struct tr_train_params){
        .model = model,
        .data = data,
        .steps = 4,
        .batch_size = on_cuda() ? 3 : 9,
        .seq_len = 150,
        .optimizer = j->optimizer,
        .freeze = j->freeze,
        .lora_rank = j->rank,
        .lora_targets = j->rank ? "q_proj,v_proj,down_proj" : NULL,
        .lora_dropout = j->rank ? 0.1 : 0,
        .lora_optimizer = j->lora_optimizer,
        .lora_lr = j->lora_optimizer ? 0.01 : 0,
        .lora_clip_norm = j->lora_optimizer ? 0.02 : 0,
        .seed = 11,
        .clip_norm = 0.05,
        .lr = adam                             ? 1e-3
              : j->optimizer == TR_OPT_ADALOMO ? 1e-2
                                               : 2,
        .warmup = -1,
    };
}

/* One of a few tensors; 0: there is no such. */
static int tensor_name(const struct job *j, int i, char name[96])
{
    static const char *const outside[] = {"model.embed_tokens", "model.norm", "lm_head"};
    static const char *const inside[] = {"input_layernorm", "self_attn.q_proj", "self_attn.v_proj",
                                         "mlp.up_proj", "mlp.down_proj"};

    if (i < 3)
        snprintf(name, 96, "%s.weight", outside[i]);
    else
        snprintf(name, 96, "model.layers.%d.%s.weight", (i - 3) / 5, inside[(i - 3) % 5]);
    return i != 2 || j->shape != &tied;
}

/* How many frozen tensors of the model that the run has left have other bytes than the source. */
static int count_changed(const char *source, const struct job *j, int *frozen)
{
    int changed = 0;

    *frozen = 0;
    for (int i = 0; i < 3 + 5 * LAYERS; i++) {
        char name[96];
        float *then, *now;
        size_t n;

        if (!tensor_name(j, i, name) || !tr_freeze_matches(j->freeze, name))
            continue;
        then = read_tensor(source, name, &n);
        now = read_tensor(scratch_path("run/model"), name, &n);
        changed += memcmp(then, now, n * sizeof(*now)) != 0;
        ++*frozen;
        free(then);
        free(now);
    }
    return changed;
}

static uint64_t budget(void)
{
    return test_budget(NULL, 1ull << 30);
}

static uint64_t two_passes(const struct job *j)
{
    struct tr_train_params p = params(j);
    uint64_t hash;

    p.clip_method = TR_CLIP_TWO_PASS;
    hash = run_variant(p, &variants[0], budget());
    remove_run();
    return hash;
}

static void check_deferred(const struct job *j)
{
    struct tr_train_params p = params(j);
    uint64_t expected = two_passes(j);
    int frozen;

    p.clip_method = TR_CLIP_DEFERRED;
    for (size_t i = on_cuda(); i < (on_cuda() ? 2 : VARIANTS); i++) {
        if (run_variant(p, &variants[i], budget()) != expected)
            fail_msg("%s, %s: other bits than with two passes", j->name, variants[i].name);
        if (j->freeze) {
            assert_int_equal(count_changed(p.model, j, &frozen), 0);
            assert_true(frozen > 0);
        }
        remove_run();
    }
}

static void test_deferred(void **state)
{
    (void)state;
    for (size_t i = 0; i < (on_cuda() ? 2 : JOBS); i++)
        check_deferred(&jobs[i]);
}

/* Gradients that wait in bf16 are an approximation, but the same one wherever they lie. */
static void test_bf16_parked(void **state)
{
    struct tr_train_params p = params(&jobs[1]);
    uint64_t expected, exact;

    (void)state;
    if (on_cuda())
        return;
    exact = two_passes(&jobs[1]);
    p.clip_method = TR_CLIP_DEFERRED;
    p.parked_dtype = TR_TYPE_BF16;
    expected = run_variant(p, &variants[0], budget());
    remove_run();
    assert_true(expected != exact);
    for (size_t i = 1; i < VARIANTS; i++) {
        assert_true(run_variant(p, &variants[i], budget()) == expected);
        remove_run();
    }
}

static void check_group(const struct job *j)
{
    struct tr_train_params p = params(j);
    uint64_t expected = two_passes(j);

    p.clip_method = (enum tr_clip)(TR_CLIP_GROUP + UNITS);
    if (run_variant(p, &variants[0], budget()) != expected)
        fail_msg("%s: a group of all has other bits than two passes", j->name);
    remove_run();
    p.clip_method = (enum tr_clip)(TR_CLIP_GROUP + 2);
    expected = run_variant(p, &variants[0], budget());
    remove_run();
    for (size_t i = 1; i < (on_cuda() ? 2 : VARIANTS); i++) {
        if (run_variant(p, &variants[i], budget()) != expected)
            fail_msg("%s, %s: other groups than with everything resident", j->name,
                     variants[i].name);
        remove_run();
    }
}

static void test_group(void **state)
{
    (void)state;
    for (size_t i = on_cuda(); i < (on_cuda() ? 2 : JOBS); i++)
        check_group(&jobs[i]);
}

/* Cut off behind a step whose update waits. */
static void cut_off(struct tr_train_params *p, const char *out)
{
    struct tr_step_report report;
    tr_run *run;

    p->out = out;
    p->device_memory = budget();
    if (tr_train_open(&run, p) < 0)
        fail_msg("%s", tr_message());
    for (int i = 0; i < 2; i++)
        assert_int_equal(tr_train_step(run, &report), 1);
    assert_int_equal(tr_offload_commit_wait(run->offload), 0);
    assert_int_equal(run->cursor.pending.is, p->clip_method == TR_CLIP_DEFERRED);
    tr_train_close(run);
}

static uint64_t exported(const char *run, const char *to, int adapters)
{
    char out[4352];
    int64_t step;
    uint64_t hash;

    snprintf(out, sizeof(out), "%s", scratch_path("%s", to));
    if (tr_export_run(&(struct tr_export_run_params){.run = run, .out = out}, &step) < 0)
        fail_msg("%s", tr_message());
    assert_int_equal(step, 2);
    hash = file_hash(scratch_path("%s/model.safetensors", to));
    if (adapters)
        hash ^= 3 * file_hash(scratch_path("%s/adapter/adapter_model.safetensors", to));
    assert_int_equal(tr_remove_tree(out), 0);
    return hash;
}

static void test_cut_off(void **state)
{
    (void)state;
    for (int i = 0; i < 2; i++) {
        uint64_t at2[2];

        for (int k = 0; k < 2; k++) {
            struct tr_train_params p = params(&jobs[i]);
            char out[4352];

            snprintf(out, sizeof(out), "%s", scratch_path("cut-off"));
            p.clip_method = k ? TR_CLIP_DEFERRED : TR_CLIP_TWO_PASS;
            cut_off(&p, out);
            at2[k] = exported(out, "exported", jobs[i].rank);
            assert_int_equal(tr_remove_tree(out), 0);
        }
        assert_true(at2[0] == at2[1]);
    }
}

static uint64_t run_with(const struct job *j, int what)
{
    struct tr_train_params p = params(j);
    uint64_t hash;

    before = 0;
    defect = what;
    p.clip_method = TR_CLIP_DEFERRED;
    hash = run_variant(p, &variants[0], budget());
    defect = SOUND;
    remove_run();
    return hash;
}

static void test_mutants(void **state)
{
    (void)state;
    if (on_cuda())
        return;
    for (int what = SOUND; what <= FORGOTTEN; what++) {
        const struct job *j = &jobs[what == FORGOTTEN ? 0 : 1];

        assert_true((run_with(j, what) == two_passes(j)) == (what == SOUND));
    }
}

/* Cursors of runs that older programs have begun: what they know is read, the rest is nothing. */
static void test_older_cursors(void **state)
{
    struct tr_cursor now = {.step = 7,
                            .loss_scale = 4,
                            .clean = 3,
                            .pending = {1, 0.25f, 0.5f, 0.125f, 0.3, 0.7}},
                     c;
    unsigned char payload[TR_CURSOR_BYTES];
    uint32_t second[2] = {2, 96}, first[2] = {1, 72}; /* versions, with the bytes of the fields */

    (void)state;
    tr_cursor_pack(&now, payload);
    assert_int_equal(tr_cursor_parse(payload, sizeof(payload), &c), 0);
    assert_memory_equal(&c, &now, sizeof(c));
    memcpy(payload + 4, second, sizeof(second));
    assert_int_equal(tr_cursor_parse(payload, 112, &c), 0);
    assert_true(c.pending.is && c.pending.lr == 0.3 && c.pending.coefficient == 0.25f);
    assert_true(c.pending.adapter_lr == 0 && c.clean == 3);
    memcpy(payload + 4, first, sizeof(first));
    assert_int_equal(tr_cursor_parse(payload, 88, &c), 0);
    assert_true(c.step == 7 && c.loss_scale == 4 && !c.clean && !c.pending.is);
    assert_true(tr_cursor_parse(payload, 112, &c) < 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_deferred), cmocka_unit_test(test_group),
        cmocka_unit_test(test_cut_off),  cmocka_unit_test(test_bf16_parked),
        cmocka_unit_test(test_mutants),  cmocka_unit_test(test_older_cursors),
    };

    return cmocka_run_group_tests_name("clipping what trains", tests, NULL, NULL);
}
