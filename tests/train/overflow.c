/* SPDX-License-Identifier: Apache-2.0
 *
 * Gradients that are not finite although the loss is, without a global norm that would tell before
 * the update. They come from data and scale alone: a model has a few very large weights that only a
 * row with token RARE meets (make_model). By the time its gradient overflows in a block, the head
 * has been updated already. The step must leave no trace: the run ends with the bytes of one whose
 * data does not have that row, and of one that measures the norm first, in two passes or one, or
 * one norm for each group of layers.
 *
 * The defect that this is for: the step is counted as skipped, and committed all the same.
 */
#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "offload/offload.h"
#include "src/base/file.h"
#include "src/checkpoint/safetensors.h"
#include "src/text/rows.h"
#include "tests/train/common.h"

#define ROWS  8
#define RARE  7 /* as an input it points the residual stream the other way */
#define LARGE 8 /* the row of the head that then explodes */
#define WIDTH 64

static const struct tiny shape = {"llama", WIDTH, 96, 3, 4, 2, 16, 300, 64, ""};
static int keeps_step, kept;            /* the defect, and how often it struck */
static uint64_t order_seed, read_bytes; /* the second: of the last step */

int __real_tr_offload_abandon(struct tr_offload *o);
int __wrap_tr_offload_abandon(struct tr_offload *o);

int __wrap_tr_offload_abandon(struct tr_offload *o)
{
    kept += keeps_step;
    return keeps_step ? 0 : __real_tr_offload_abandon(o);
}

/* Sets elements first, first + step, ... of a tensor of a model folder. */
static void poke(const char *name, size_t first, size_t step, float value)
{
    struct tr_safetensors *s;
    const struct tr_st_tensor *t;
    uint16_t bits = tr_f32_bf16(value);
    int fd;

    assert_int_equal(tr_safetensors_open_folder(&s, scratch_path("model")), 0);
    t = tr_safetensors_find(s, name);
    assert_non_null(t);
    fd = open(tr_safetensors_path(s, t), O_WRONLY);
    assert_true(fd >= 0);
    for (size_t i = first; i < t->bytes / 2; i += step)
        assert_int_equal(
            pwrite(fd, &bits, 2, (off_t)(s->shards[t->shard].data + t->offset + 2 * i)), 2);
    close(fd);
    tr_safetensors_close(s);
}

/* Element 0 of the residual stream is 8 after every token but RARE, where it is -8. The head's row
 * LARGE makes of the one a logit without any weight, of the other one of 1e38: the loss is finite,
 * its gradient large. In block 1 it meets a large weight of `down` behind an activation that is
 * always zero: nothing of it is ever seen but that gradient, which overflows. */
static void make_model(void)
{
    tiny_model(scratch_path("model"), &shape, TR_TYPE_BF16, 4);
    poke("model.embed_tokens.weight", 0, WIDTH, 8);
    poke("model.embed_tokens.weight", RARE * WIDTH, SIZE_MAX / 4, -8);
    poke("lm_head.weight", LARGE * WIDTH, SIZE_MAX / 4, -2e37f);
    for (size_t i = 0; i < WIDTH; i++) {
        poke("model.layers.1.mlp.gate_proj.weight", i, SIZE_MAX / 4, 0);
        poke("model.layers.1.mlp.up_proj.weight", i, SIZE_MAX / 4, 0);
    }
    poke("model.layers.1.mlp.down_proj.weight", 0, SIZE_MAX / 4, 1e6f);
}

/* One row a line; those with a bit in `rare` meet RARE. */
static void make_data(const char *name, unsigned rows, unsigned rare)
{
    FILE *f = fopen(scratch_path("%s", name), "w");

    assert_non_null(f);
    for (unsigned r = 0; r < rows; r++) {
        fprintf(f, "{\"input_ids\": [20");
        for (unsigned i = 1; i < 40; i++)
            fprintf(f, ", %u", i == 20 && rare >> r & 1 ? RARE : 20 + (r * 131 + i * i * 7) % 270);
        fprintf(f, "]}\n");
    }
    fclose(f);
}

/* The last row of n comes last, and the others come as they would without it. */
static int keeps_order(uint64_t seed, int64_t epoch, size_t n)
{
    static const uint32_t length[ROWS] = {40, 40, 40, 40, 40, 40, 40, 40};
    struct rows_params p = {
        .length = length, .n = n, .row_tokens = 64, .shuffle = 1, .seed = seed, .epoch = epoch};
    struct rows with, without;
    int same;

    assert_int_equal(rows_make(&with, &p), 0);
    p.n--;
    assert_int_equal(rows_make(&without, &p), 0);
    same = with.sample[n - 1] == n - 1 &&
           !memcmp(with.sample, without.sample, (n - 1) * sizeof(*with.sample));
    rows_free(&with);
    rows_free(&without);
    return same;
}

/* The order of rows is a function of the seed: one is looked for that suits both data sets. */
static uint64_t find_seed(void)
{
    uint64_t seed = 1;

    while (!keeps_order(seed, 0, ROWS) || !keeps_order(seed, 1, ROWS))
        seed++;
    return seed;
}

static struct tr_train_params job(const char *out, const char *data)
{
    static char paths[3][4352];

    notices[0] = 0;
    snprintf(paths[0], sizeof(paths[0]), "%s", scratch_path("model"));
    snprintf(paths[1], sizeof(paths[1]), "%s", scratch_path("%s", data));
    snprintf(paths[2], sizeof(paths[2]), "%s", scratch_path("%s", out));
    return (struct tr_train_params){.model = paths[0],
                                    .data = paths[1],
                                    .out = paths[2],
                                    .steps = 2 * ROWS,
                                    .seed = order_seed,
                                    .batch_size = 1,
                                    .seq_len = 64,
                                    .packing = TR_NO,
                                    .optimizer = TR_OPT_SGD,
                                    .lr = 0.01,
                                    .schedule = TR_LR_CONSTANT,
                                    .warmup = -1,
                                    .durability = TR_KEEP_STEP,
                                    .checkpoint_every = 3,
                                    .device = getenv("TAILRACE_DEVICE"),
                                    .threads = 1,
                                    .log = take_notice};
}

static uint64_t model_hash(const char *out)
{
    return file_hash(scratch_path("%s/model/model.safetensors", out));
}

/* Trains to the end; how many steps were skipped, all of them with a finite loss. */
static int train_all(const struct tr_train_params *p)
{
    struct tr_step_report report;
    int skipped = 0, r;
    tr_run *run;

    assert_int_equal(tr_remove_tree(p->out), 0);
    if (tr_train_open(&run, p) < 0)
        fail_msg("%s", tr_message());
    while ((r = tr_train_step(run, &report)) == 1) {
        skipped += report.skipped;
        read_bytes = report.read_bytes;
        assert_true(isfinite(report.loss));
        assert_int_equal(report.skipped, strstr(p->data, "rare") && report.step % ROWS == 0);
    }
    if (r < 0 || tr_train_finish(run) < 0)
        fail_msg("%s", tr_message());
    tr_train_close(run);
    return skipped;
}

/* The bytes of a run whose data does not have the row. */
static uint64_t expected(void)
{
    struct tr_train_params p = job("without", "without.jsonl");

    p.steps -= 2;
    assert_int_equal(train_all(&p), 0);
    return model_hash("without");
}

/* Runs into the error that it expects. */
static void expect_end(const struct tr_train_params *p, const char *word)
{
    assert_int_equal(tr_remove_tree(p->out), 0);
    assert_int_equal(train(p, NULL), -EDOM);
    if (!strstr(tr_message(), word))
        fail_msg("not in \"%s\": %s", tr_message(), word);
}

/* By groups the head has been updated when the overflow is seen, unless it is of the same group. */
static void test_no_trace(void **state)
{
    static const enum tr_clip methods[] = {TR_CLIP_TWO_PASS, TR_CLIP_DEFERRED, TR_CLIP_GROUP + 1,
                                           TR_CLIP_GROUP + 4};
    uint64_t hash = expected();
    struct tr_train_params p = job("normed", "rare.jsonl");

    (void)state;
    for (size_t i = 0; i < sizeof(methods) / sizeof(methods[0]); i++) {
        p = job("normed", "rare.jsonl");
        p.optimizer = TR_OPT_LOMO;
        p.clip_norm = 1e30;
        p.clip_method = methods[i];
        assert_int_equal(train_all(&p), 2);
        assert_true(model_hash("normed") == hash);
    }
    for (size_t i = 0; i < 2; i++) {
        p = job("given-up", "rare.jsonl");
        p.device_memory = i == 1 && !p.device ? 3 << 19 : 0; /* streamed */
        p.serial = i == 1;
        p.update_on = i == 1 ? TR_UPDATE_CPU : TR_UPDATE_AUTO; /* of a GPU */
        assert_int_equal(train_all(&p), 2);
        assert_true(p.device_memory ? read_bytes > 0 : read_bytes == 0 || p.device);
        assert_true(model_hash("given-up") == hash);
        assert_null(strstr(notices, "note: without --clip-norm"));
    }
}

/* Between two commits there is a way back only while nothing has been updated since the first. */
static void test_checkpoint(void **state)
{
    struct tr_train_params p = job("without", "without.jsonl");
    uint64_t hash;
    int64_t step;

    (void)state;
    p.steps = ROWS - 1;
    assert_int_equal(train_all(&p), 0);
    hash = model_hash("without");
    p = job("given-up", "rare.jsonl");
    p.durability = TR_KEEP_CHECKPOINT;
    p.checkpoint_every = ROWS - 1;
    p.steps = ROWS;
    assert_int_equal(train_all(&p), 1);
    assert_true(model_hash("given-up") == hash);
    assert_non_null(strstr(notices, "note: without --clip-norm"));
    p = job("given-up", "rare.jsonl");
    p.durability = TR_KEEP_CHECKPOINT;
    expect_end(&p, "goes back to its last commit, step 6");
    assert_int_equal(
        tr_export_run(&(struct tr_export_run_params){.run = p.out, .out = scratch_path("at6")},
                      &step),
        0);
    assert_int_equal(step, 6);
}

/* Whoever looks at no error code gets nothing of such a step: not by the next step, nor by the end,
 * which would have committed and exported what it has left. */
static void test_last_word(void **state)
{
    static const enum tr_keep keeps[] = {TR_KEEP_CHECKPOINT, TR_KEEP_NONE};
    struct tr_step_report report;
    char said[1024];
    tr_run *run;
    int64_t step;

    (void)state;
    for (size_t i = 0; i < 2; i++) {
        struct tr_train_params p = job("last-word", "rare.jsonl");

        p.durability = keeps[i];
        p.steps = ROWS;
        assert_int_equal(tr_train_open(&run, &p), 0);
        for (int n = 1; n < ROWS; n++)
            assert_int_equal(tr_train_step(run, &report), 1);
        assert_int_equal(tr_train_step(run, &report), -EDOM);
        snprintf(said, sizeof(said), "%s", tr_message());
        tr_inspect_path("", 0, &(char *){NULL}); /* another message */
        assert_int_equal(tr_train_step(run, &report), -EDOM);
        assert_string_equal(tr_message(), said);
        assert_int_equal(tr_train_finish(run), -EDOM);
        assert_string_equal(tr_message(), said);
        tr_train_close(run);
        assert_int_equal(tr_folder_is_empty(scratch_path("last-word/model")), -ENOENT);
        step = tr_export_run(
            &(struct tr_export_run_params){.run = p.out, .out = scratch_path("last-at6")}, NULL);
        assert_int_equal(step, keeps[i] == TR_KEEP_NONE ? -EUCLEAN : 0);
        tr_remove_tree(scratch_path("last-at6"));
        assert_int_equal(tr_remove_tree(p.out), 0);
    }
}

static void test_none(void **state)
{
    struct tr_train_params p = job("given-up", "rare.jsonl");

    (void)state;
    p.durability = TR_KEEP_NONE;
    expect_end(&p, "has to be started again");
    assert_non_null(strstr(notices, "with --durability none the run would be lost"));
    assert_int_equal(train(&p, NULL), -EUCLEAN);
}

/* Nothing but such rows: the run ends, and its parameters are those that it began with. */
static void test_in_a_row(void **state)
{
    static const char *const names[] = {"lm_head.weight", "model.embed_tokens.weight",
                                        "model.layers.2.mlp.down_proj.weight"};
    struct tr_train_params p = job("given-up", "every.jsonl");
    int64_t step;

    (void)state;
    expect_end(&p, "step 3: loss or gradient was not finite in 3 steps in a row");
    assert_int_equal(
        tr_export_run(&(struct tr_export_run_params){.run = p.out, .out = scratch_path("at2")},
                      &step),
        0);
    assert_int_equal(step, 2);
    for (size_t i = 0; i < 3; i++) {
        size_t n, m;
        float *now = read_tensor(scratch_path("at2"), names[i], &n);
        float *then = read_tensor(scratch_path("model"), names[i], &m);

        assert_int_equal(n, m);
        assert_memory_equal(now, then, n * sizeof(float));
        free(now);
        free(then);
    }
}

/* The step that is kept is the last: no later one stumbles over what it has left, the bytes tell.
 */
static void test_mutant(void **state)
{
    struct tr_train_params p = job("without", "without.jsonl");
    uint64_t hash;

    (void)state;
    p.steps = ROWS - 1;
    assert_int_equal(train_all(&p), 0);
    hash = model_hash("without");
    for (keeps_step = 0; keeps_step < 2; keeps_step++) {
        p = job("given-up", "rare.jsonl");
        p.steps = ROWS;
        assert_int_equal(train_all(&p), 1);
        assert_int_equal(kept, keeps_step);
        assert_int_equal(model_hash("given-up") != hash, keeps_step);
    }
    keeps_step = 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_no_trace), cmocka_unit_test(test_checkpoint),
        cmocka_unit_test(test_none),     cmocka_unit_test(test_in_a_row),
        cmocka_unit_test(test_mutant),   cmocka_unit_test(test_last_word),
    };

    make_model();
    make_data("rare.jsonl", ROWS, 1 << (ROWS - 1));
    make_data("without.jsonl", ROWS - 1, 0);
    make_data("every.jsonl", ROWS, ~0u);
    order_seed = find_seed();
    return cmocka_run_group_tests_name("not finite", tests, NULL, NULL);
}
