/* SPDX-License-Identifier: Apache-2.0
 *
 * Exact clipping in one backward pass: gradients that wait in the store for the next step have the
 * bits of two passes, whatever the placement (invariant 1), whichever the optimizer, tied or not,
 * interrupted between a step and its update or not, validated in between or not. What a run that
 * was cut off leaves is finished before it is exported, and can be continued all the same.
 *
 * The defects that this is for, shown to be caught: a step applied with the coefficient of the one
 * before; an update that comes after its unit's forward pass instead of before; an embedding that
 * is updated before all of the norm is known, or with the rate of the step before.
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
#include "tests/train/visits.h"

#define ROOM (1ull << 30)

static const struct tiny shapes[] = {
    {"llama", 96, 160, 3, 6, 2, 16, 2100, 512, ""}, /* several vocabulary slices */
    {"llama-tied", 64, 96, 3, 4, 2, 16, 1100, 512, ""},
    {"qwen3", 48, 80, 3, 4, 2, 24, 300, 512, ""},
};

static const struct variant variants[] = {
    {"everything resident"},
    {"smallest budget", .smallest = 1, .interrupted = 1},
    {"matrices, micro-batches of one grain, random pauses", .smallest = 1, .micro_batch = 1,
     .streaming = TR_STREAMING_MATRICES, .delay_seed = 3},
    {"blocks, all kept, one thread", .smallest = 1, .streaming = TR_STREAMING_BLOCKS, .threads = 1,
     .recompute = TR_RECOMPUTE_NONE},
    {"durability checkpoint", .durability = TR_KEEP_CHECKPOINT, .smallest = 1, .interrupted = 1},
    {"durability none, two folders", .durability = TR_KEEP_NONE, .folders = 2, .serial = 1},
};

#define VARIANTS (sizeof(variants) / sizeof(variants[0]))

static struct {
    int stale, late, early, slow; /* the defects */
    float before;
} mutant;

void __real_run_leave_pending(struct tr_run *run, double lr, int skip);
void __wrap_run_leave_pending(struct tr_run *run, double lr, int skip);
int __real_tr_visits_make(struct tr_visits *v, const struct tr_visits_params *p);
int __wrap_tr_visits_make(struct tr_visits *v, const struct tr_visits_params *p);

void __wrap_run_leave_pending(struct tr_run *run, double lr, int skip)
{
    float now = run->pass.update.coefficient;

    if (mutant.stale && mutant.before > 0)
        run->pass.update.coefficient = mutant.before;
    mutant.before = now;
    __real_run_leave_pending(run, lr, skip);
}

int __real_run_read_norm(struct tr_run *run, double *norm);
int __wrap_run_read_norm(struct tr_run *run, double *norm);

int __wrap_run_read_norm(struct tr_run *run, double *norm)
{
    if (mutant.slow && run->cursor.pending.is)
        run->pass.update.lr = run->cursor.pending.lr;
    return __real_run_read_norm(run, norm);
}

/* Late: every update of a block changes places with the forward visit that follows it. Early: the
 * first update of the embedding with the last visit that measures. */
int __wrap_tr_visits_make(struct tr_visits *v, const struct tr_visits_params *p)
{
    int r = __real_tr_visits_make(v, p);

    for (uint32_t i = 0; mutant.late && r == 0 && i + 1 < v->forward; i++)
        if (v->units[i].work == TR_WORK_UPDATE && v->units[i + 1].work == TR_WORK_BLOCK)
            exchange_visits(v, i++);
    for (uint32_t i = v->forward; mutant.early && r == 0 && i + 1 < v->n; i++)
        if (v->units[i].pass == TR_PASS_NORM && v->units[i + 1].pass == TR_PASS_UPDATE)
            exchange_visits(v, i++);
    return r;
}

static int take_all; /* "--all" */

static struct tr_train_params job(const struct tiny *t, enum tr_type dtype, enum tr_optimizer o)
{
    static char model[4352], data[4352];
    int adam = o == TR_OPT_ADAMW || o == TR_OPT_ADAM_MINI, row = on_cuda() ? 64 : 200;

    snprintf(model, sizeof(model), "%s", scratch_path("model-%s-%d", t->family, dtype));
    snprintf(data, sizeof(data), "%s", scratch_path("data-%d.jsonl", t->vocab));
    if (!tr_folder_has(model, "config.json"))
        tiny_model(model, t, dtype, 3);
    token_data(data, 40, 30, row, t->vocab);
    return (struct tr_train_params){.model = model,
                                    .data = data,
                                    .steps = 4,
                                    .batch_size = on_cuda() ? 3 : 13,
                                    .seq_len = row,
                                    .optimizer = o,
                                    .seed = 11,
                                    .clip_norm = 0.05,
                                    .clip_method = TR_CLIP_TWO_PASS,
                                    .lr = adam                  ? 1e-3
                                          : o == TR_OPT_ADALOMO ? 1e-2
                                                                : 2,
                                    .warmup = -1,
                                    .device = getenv("TAILRACE_DEVICE")};
}

/* The first n placements; on the fake device one of all, the next one at the next call. */
static void check_job(struct tr_train_params p, size_t n)
{
    static size_t turn;
    size_t from = 0;
    uint64_t expected = run_variant(p, &variants[0], ROOM);

    remove_run();
    p.clip_method = TR_CLIP_DEFERRED;
    if (on_cuda() && !take_all) {
        from = 1 + turn++ % (VARIANTS - 1);
        n = from + 1;
    }
    for (size_t i = from; i < n; i++) {
        if (run_variant(p, &variants[i], ROOM) != expected)
            fail_msg("%s: other bits than with two passes", variants[i].name);
        remove_run();
    }
}

static void check(const struct tiny *t, enum tr_type dtype, enum tr_optimizer optimizer, size_t n)
{
    check_job(job(t, dtype, optimizer), n);
}

static void test_f32_sgd(void **state)
{
    (void)state;
    check(&shapes[0], TR_TYPE_F32, TR_OPT_SGD, 2);
}

static void test_bf16_lomo_tied(void **state)
{
    (void)state;
    check(&shapes[1], TR_TYPE_BF16, TR_OPT_LOMO, VARIANTS);
}

static void test_bf16_adamw(void **state)
{
    (void)state;
    check(&shapes[0], TR_TYPE_BF16, TR_OPT_ADAMW, 3);
}

static void test_bf16_adamw_in_8bit(void **state)
{
    struct tr_train_params p = job(&shapes[1], TR_TYPE_BF16, TR_OPT_ADAMW);

    (void)state;
    p.state_dtype = TR_TYPE_8BIT;
    check_job(p, 3);
}

static void test_bf16_adam_mini_tied(void **state)
{
    (void)state;
    check(&shapes[1], TR_TYPE_BF16, TR_OPT_ADAM_MINI, 2);
}

static void test_f16_lomo(void **state)
{
    (void)state;
    check(&shapes[2], TR_TYPE_F16, TR_OPT_LOMO, 2);
}

static void test_bf16_adalomo(void **state)
{
    (void)state;
    check(&shapes[0], TR_TYPE_BF16, TR_OPT_ADALOMO, 3);
    check(&shapes[1], TR_TYPE_BF16, TR_OPT_ADALOMO, 2);
}

/* The defects change the model: the first two one whose table is tied, the others another. */
static void test_mutants(void **state)
{
    (void)state;
    for (int tied = 0; tied < 2; tied++) {
        struct tr_train_params p = job(&shapes[tied], TR_TYPE_F32, TR_OPT_LOMO);
        uint64_t expected = run_variant(p, &variants[0], ROOM);

        remove_run();
        p.clip_method = TR_CLIP_DEFERRED;
        for (int k = 0; k < 3; k++) {
            uint64_t hash;

            mutant.before = 0;
            mutant.stale = tied && k == 1;
            mutant.late = tied && k == 2;
            mutant.early = !tied && k == 1;
            mutant.slow = !tied && k == 2;
            hash = run_variant(p, &variants[0], ROOM);
            assert_true((hash == expected) == (k == 0));
            remove_run();
        }
        mutant.stale = mutant.late = mutant.early = mutant.slow = 0;
    }
}

/* Of a table that is not tied no gradient waits, nor is there any place for it. */
static void test_embedding_at_once(void **state)
{
    (void)state;
    for (int tied = 0; tied < 2; tied++) {
        struct tr_train_params p = job(&shapes[tied], TR_TYPE_BF16, TR_OPT_LOMO);
        uint64_t waiting = 0, table;
        char out[4352];
        tr_run *run;

        snprintf(out, sizeof(out), "%s", scratch_path("run"));
        p.out = out;
        p.device_memory = ROOM;
        p.clip_method = TR_CLIP_DEFERRED;
        assert_int_equal(tr_train_open(&run, &p), 0);
        table = (uint64_t)run->model->config.vocab * (uint64_t)run->model->config.hidden * 4;
        for (uint32_t i = 0; i < run->n_spans; i++)
            if (run->spans[i].pool == TR_SLOTS_TABLE_PARKED)
                waiting += run->spans[i].bytes;
        assert_true(waiting >= table && waiting < table + table / 2);
        assert_int_equal(run->model->embed.slices[0].parked_span == TR_NONE, !tied);
        tr_train_close(run);
        remove_run();
    }
}

/* Validation needs finished parameters, and leaves the training what it is. */
static void validate(const struct tiny *t)
{
    struct tr_train_params p = job(t, TR_TYPE_BF16, TR_OPT_LOMO);
    struct tr_step_report last[2];
    uint64_t hash[2];

    p.valid = p.data;
    p.eval_every = 1;
    for (int k = 0; k < 2; k++) {
        p.out = scratch_path("run");
        p.device_memory = ROOM;
        p.clip_method = k ? TR_CLIP_DEFERRED : TR_CLIP_TWO_PASS;
        if (train(&p, &last[k]) < 0)
            fail_msg("%s", tr_message());
        hash[k] = file_hash(scratch_path("run/model/model.safetensors"));
        remove_run();
    }
    assert_true(hash[0] == hash[1] && last[0].eval_loss == last[1].eval_loss);
}

static void test_validation(void **state)
{
    (void)state;
    for (int i = 1; i < (on_cuda() ? 2 : 3); i++)
        validate(&shapes[i]);
}

/* Cut off behind the commit of so many steps, the last of which is not applied yet. */
static void cut_off(const struct tr_train_params *p, int steps)
{
    struct tr_step_report report;
    tr_run *run;

    if (tr_train_open(&run, p) < 0)
        fail_msg("%s", tr_message());
    for (int i = 0; i < steps; i++)
        assert_int_equal(tr_train_step(run, &report), 1);
    assert_int_equal(tr_offload_commit_wait(run->offload), 0);
    assert_int_equal(run->cursor.pending.is, p->clip_method == TR_CLIP_DEFERRED);
    tr_train_close(run);
}

static uint64_t exported(const char *run, const char *to)
{
    char from[4352], out[4352];
    struct tr_export_run_params p = {.run = from, .out = out};
    int64_t step;

    snprintf(from, sizeof(from), "%s", scratch_path("%s", run));
    snprintf(out, sizeof(out), "%s", scratch_path("%s", to));
    if (tr_export_run(&p, &step) < 0)
        fail_msg("%s", tr_message());
    assert_int_equal(step, 2);
    return file_hash(scratch_path("%s/model.safetensors", to));
}

/* Gradients kept in bf16: their norm is that of f32, bit for bit, and what a step of plain LOMO
 * changes differs by their rounding and no more; whatever the placement. */
static void test_bf16_parked(void **state)
{
    static const char name[] = "model.layers.1.mlp.up_proj.weight";
    struct tr_train_params p = job(&shapes[1], TR_TYPE_F32, TR_OPT_LOMO);
    struct tr_step_report last[2];
    float *w[3];
    size_t n, differ = 0;
    uint64_t hash;

    (void)state;
    p.steps = 1;
    p.device_memory = ROOM;
    p.clip_method = TR_CLIP_DEFERRED;
    w[2] = read_tensor(p.model, name, &n);
    for (int k = 0; k < 2; k++) {
        p.out = scratch_path("run");
        p.parked_dtype = k ? TR_TYPE_BF16 : TR_TYPE_F32;
        if (train(&p, &last[k]) < 0)
            fail_msg("%s", tr_message());
        w[k] = read_tensor(scratch_path("run/model"), name, &n);
        remove_run();
    }
    assert_true(last[0].grad_norm == last[1].grad_norm && last[0].grad_norm > 0);
    for (size_t i = 0; i < n; i++) {
        float exact = w[0][i] - w[2][i], off = w[1][i] - w[0][i];

        assert_true(fabsf(off) <= fabsf(exact) / 256 + fabsf(w[2][i]) * 2.5e-7f + 1e-9f);
        differ += off != 0;
    }
    assert_true(differ > n / 4);
    for (int k = 0; k < 3; k++)
        free(w[k]);
    p.steps = 4;
    hash = run_variant(p, &variants[0], ROOM);
    remove_run();
    for (int k = 1; k < 3; k++) {
        assert_true(run_variant(p, &variants[k], ROOM) == hash);
        remove_run();
    }
}

/* Two of four steps, exported from where they stand; then the rest. AdaLomo's way is the longest.
 */
static void test_cut_off(void **state)
{
    enum tr_optimizer optimizers[] = {TR_OPT_LOMO, TR_OPT_ADAMW, TR_OPT_ADALOMO};

    (void)state;
    for (size_t o = on_cuda() && !take_all ? 2 : 0; o < 3; o++) {
        struct tr_train_params p = job(&shapes[o == 1 ? 0 : 1], TR_TYPE_BF16, optimizers[o]);
        uint64_t at2[2], end[2];

        p.device_memory = ROOM;
        for (int k = 0; k < 2; k++) {
            char out[4352], *text;

            snprintf(out, sizeof(out), "%s", scratch_path("run"));
            p.out = out;
            p.clip_method = k ? TR_CLIP_DEFERRED : TR_CLIP_TWO_PASS;
            cut_off(&p, 2);
            assert_int_equal(tr_verify_run(out, NULL, &text), 0);
            tr_free_text(text);
            at2[k] = exported("run", k ? "deferred" : "passes");
            assert_int_equal(tr_verify_run(out, NULL, &text), 0);
            tr_free_text(text);
            if (train(&p, NULL) < 0)
                fail_msg("%s", tr_message());
            end[k] = file_hash(scratch_path("run/model/model.safetensors"));
            remove_run();
        }
        assert_true(at2[0] == at2[1] && end[0] == end[1] && at2[0] != end[0]);
        tr_remove_tree(scratch_path("deferred"));
        tr_remove_tree(scratch_path("passes"));
    }
}

/* Other settings forced on a run whose last step is not applied yet are those of the steps to come,
 * and not of that one. */
static void test_forced(void **state)
{
    struct tr_train_params p = job(&shapes[1], TR_TYPE_BF16, TR_OPT_ADAMW), forced;
    uint64_t hash[3];

    (void)state;
    p.device_memory = ROOM;
    for (int k = 0; k < 3; k++) {
        char out[4352];

        snprintf(out, sizeof(out), "%s", scratch_path("run"));
        p.out = out;
        p.clip_method = k ? TR_CLIP_DEFERRED : TR_CLIP_TWO_PASS;
        p.weight_decay = k == 2 ? 3 : 0.1; /* the last one always has what the others change to */
        cut_off(&p, 2);
        forced = p;
        forced.weight_decay = 3;
        forced.beta1 = 0.5;
        forced.force = 1;
        if (train(&forced, NULL) < 0)
            fail_msg("%s", tr_message());
        hash[k] = file_hash(scratch_path("run/model/model.safetensors"));
        remove_run();
    }
    assert_true(hash[0] == hash[1] && hash[1] != hash[2]);
}

/* A model asked for in the middle is finished, and the training goes on as it would have. */
static void test_snapshot(void **state)
{
    struct tr_train_params p = job(&shapes[1], TR_TYPE_BF16, TR_OPT_ADAMW);
    uint64_t hash[2][2];

    (void)state;
    p.device_memory = ROOM;
    for (int k = 0; k < 2; k++) {
        struct tr_step_report report;
        char out[4352];
        tr_run *run;
        int r = 1;

        snprintf(out, sizeof(out), "%s", scratch_path("run"));
        p.out = out;
        p.clip_method = k ? TR_CLIP_DEFERRED : TR_CLIP_TWO_PASS;
        assert_int_equal(tr_train_open(&run, &p), 0);
        while (r == 1 && (r = tr_train_step(run, &report)) == 1)
            if (report.step == 1)
                assert_int_equal(tr_file_write(scratch_path("run/checkpoint"), "", 0), 0);
        if (r < 0 || tr_train_finish(run) < 0)
            fail_msg("%s", tr_message());
        tr_train_close(run);
        hash[k][0] = file_hash(scratch_path("run/model-2/model.safetensors"));
        hash[k][1] = file_hash(scratch_path("run/model/model.safetensors"));
        remove_run();
    }
    assert_true(hash[0][0] == hash[1][0] && hash[0][1] == hash[1][1]);
    assert_true(hash[0][0] != hash[0][1]);
}

static void refuses(const struct tr_train_params *p, const char *words)
{
    tr_run *run;

    assert_int_equal(tr_train_open(&run, p), -EINVAL);
    if (!strstr(tr_message(), words))
        fail_msg("not in \"%s\": %s", tr_message(), words);
}

/* What the store holds is decided once. */
static void test_refusals(void **state)
{
    struct tr_train_params p = job(&shapes[2], TR_TYPE_F16, TR_OPT_LOMO), q;
    char out[4352];

    (void)state;
    snprintf(out, sizeof(out), "%s", scratch_path("run"));
    p.out = out;
    p.device_memory = ROOM;
    q = p;
    q.clip_norm = -1;
    q.optimizer = TR_OPT_SGD;
    refuses(&q, "there is no --clip-norm");
    q = p;
    q.parked_dtype = TR_TYPE_BF16;
    refuses(&q, "only --clip-method deferred");
    q = p;
    q.clip_method = (enum tr_clip)(TR_CLIP_GROUP + 2);
    refuses(&q, "f16");
    for (int k = 0; k < 2; k++) {
        p.clip_method = k ? TR_CLIP_DEFERRED : TR_CLIP_TWO_PASS;
        assert_int_equal(train_part(&p, 1), 0);
        p.clip_method = k ? TR_CLIP_TWO_PASS : TR_CLIP_DEFERRED;
        refuses(&p, "clip-method");
        p.force = 1;
        refuses(&p, "clip-method");
        p.force = 0;
        p.clip_method = TR_CLIP_AUTO; /* as it is */
        if (train(&p, NULL) < 0)
            fail_msg("%s", tr_message());
        remove_run();
    }
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_f32_sgd),
        cmocka_unit_test(test_bf16_lomo_tied),
        cmocka_unit_test(test_bf16_adamw),
        cmocka_unit_test(test_bf16_adam_mini_tied),
        cmocka_unit_test(test_bf16_adamw_in_8bit),
        cmocka_unit_test(test_f16_lomo),
        cmocka_unit_test(test_bf16_adalomo),
        cmocka_unit_test(test_snapshot),
        cmocka_unit_test(test_refusals),
        cmocka_unit_test(test_bf16_parked),
        cmocka_unit_test(test_mutants),
        cmocka_unit_test(test_embedding_at_once),
        cmocka_unit_test(test_validation),
        cmocka_unit_test(test_cut_off),
        cmocka_unit_test(test_forced),
    };

    take_all = argc > 1 && !strcmp(argv[1], "--all");
    return cmocka_run_group_tests_name("deferred clipping", tests, NULL, NULL);
}
