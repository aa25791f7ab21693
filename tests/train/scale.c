/* SPDX-License-Identifier: Apache-2.0
 *
 * The loss scale of f16 runs, by data and scale alone: a start that is too high is halved until
 * nothing overflows, and the run then has the bits of one that starts there, but for the data and
 * learning rates that the skipped steps have used up; a thousand clean steps double it, and an
 * interruption on the way changes nothing; an overflow at scale 1 ends the run, whose parameters
 * are those that it began with.
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

#include "src/base/dtype.h"
#include "src/base/file.h"
#include "src/checkpoint/safetensors.h"
#include "src/run/cursor.h"
#include "tests/train/common.h"

#define WIDTH 16

static const struct tiny shape = {"llama", WIDTH, 16, 1, 1, 1, 16, 64, 16, ""};

static struct tr_train_params job(const char *out, int64_t steps)
{
    static char paths[3][4352];

    snprintf(paths[0], sizeof(paths[0]), "%s", scratch_path("model"));
    snprintf(paths[1], sizeof(paths[1]), "%s", scratch_path("data.jsonl"));
    snprintf(paths[2], sizeof(paths[2]), "%s", scratch_path("%s", out));
    return (struct tr_train_params){.model = paths[0],
                                    .data = paths[1],
                                    .out = paths[2],
                                    .steps = steps,
                                    .batch_size = 1,
                                    .seq_len = 16,
                                    .optimizer = TR_OPT_LOMO,
                                    .lr = 1e-3,
                                    .schedule = TR_LR_CONSTANT,
                                    .warmup = -1,
                                    .durability = TR_KEEP_CHECKPOINT,
                                    .checkpoint_every = 400,
                                    .threads = 1,
                                    .device_memory = 32 << 20,
                                    .clip_method = TR_CLIP_TWO_PASS};
}

static struct tr_cursor cursor_of(const struct tr_train_params *p)
{
    char store[4400];
    struct tr_cursor c;
    struct tr_store *s;

    snprintf(store, sizeof(store), "%s/store", p->out);
    assert_int_equal(tr_store_open(&s, store, TR_STORE_READ), 0);
    assert_int_equal(tr_cursor_read(s, &c), 0);
    tr_store_close(s);
    return c;
}

static uint64_t model_hash(const struct tr_train_params *p)
{
    char path[4400];

    snprintf(path, sizeof(path), "%s/model/model.safetensors", p->out);
    return file_hash(path);
}

/* Steps are skipped while it overflows: data and schedule advance, the optimizer's count does not,
 * and deferred updates lose none of the steps that count. */
static void test_falls(void **state)
{
    uint64_t hash[2];

    (void)state;
    for (int k = 0; k < 2; k++) {
        struct tr_train_params p = job("falls", 60);
        struct tr_step_report report;
        int64_t skipped = 0;
        struct tr_cursor c;
        tr_run *run;

        p.loss_scale = 0x1p60;
        p.clip_method = k ? TR_CLIP_DEFERRED : TR_CLIP_TWO_PASS;
        assert_int_equal(tr_train_open(&run, &p), 0);
        while (tr_train_step(run, &report) == 1) {
            assert_true(isfinite(report.loss));
            skipped += report.skipped;
        }
        if (tr_train_finish(run) < 0)
            fail_msg("%s", tr_message());
        tr_train_close(run);
        c = cursor_of(&p);
        assert_true(skipped > 20 && skipped < 50);
        assert_true(c.step == 60 && c.skipped == (uint64_t)skipped && c.t == 60 - c.skipped);
        assert_true(c.loss_scale == ldexp(1, 60 - (int)skipped) && c.clean < c.t + 1);
        hash[k] = model_hash(&p);
        tr_remove_tree(p.out);
    }
    assert_true(hash[0] == hash[1]);
}

static void test_rises(void **state)
{
    struct tr_train_params p = job("rises", 1003);
    uint64_t whole;
    struct tr_cursor c;

    (void)state;
    p.loss_scale = 64;
    assert_int_equal(train(&p, NULL), 0);
    whole = model_hash(&p);
    c = cursor_of(&p);
    assert_int_equal(c.skipped, 0);
    assert_true(c.loss_scale == 128 && c.clean == 3);
    tr_remove_tree(p.out);
    assert_int_equal(train_part(&p, 900), 0);
    c = cursor_of(&p);
    assert_true(c.loss_scale == 64 && c.clean == c.step && c.clean >= 800);
    assert_int_equal(train(&p, NULL), 0);
    c = cursor_of(&p);
    assert_true(c.loss_scale == 128 && c.clean == 3 && model_hash(&p) == whole);
    tr_remove_tree(p.out);
    p.clip_method = TR_CLIP_DEFERRED; /* an update that waits has the scale of its own step */
    assert_int_equal(train(&p, NULL), 0);
    assert_true(model_hash(&p) == whole);
    tr_remove_tree(p.out);
}

/* One row of the head is as large as f16 goes: its gradient at the residual stream is not finite in
 * f16, while the loss is. */
static void make_large(void)
{
    uint16_t large = tr_f32_f16(60000);
    struct tr_safetensors *s;
    const struct tr_st_tensor *t;
    int fd;

    assert_int_equal(tr_safetensors_open_folder(&s, scratch_path("large")), 0);
    t = tr_safetensors_find(s, "lm_head.weight");
    fd = open(tr_safetensors_path(s, t), O_WRONLY);
    for (off_t i = 0; i < WIDTH; i++)
        assert_int_equal(
            pwrite(fd, &large, 2, (off_t)(s->shards[t->shard].data + t->offset) + 2 * i), 2);
    close(fd);
    tr_safetensors_close(s);
}

static void test_ends(void **state)
{
    static const char *const names[] = {"lm_head.weight", "model.embed_tokens.weight"};
    struct tr_train_params p = job("ends", 8);
    char model[4352], out[4352], at[4352];
    int64_t step;

    (void)state;
    snprintf(model, sizeof(model), "%s", scratch_path("large"));
    snprintf(out, sizeof(out), "%s", scratch_path("ends"));
    snprintf(at, sizeof(at), "%s", scratch_path("at"));
    tiny_model(model, &shape, TR_TYPE_F16, 4);
    make_large();
    p.model = model;
    p.durability = TR_KEEP_STEP;
    p.loss_scale = 8;
    assert_int_equal(train(&p, NULL), -EDOM);
    if (!strstr(tr_message(), "step 4: a gradient overflows f16 at a loss scale of 1"))
        fail_msg("%s", tr_message());
    assert_true(cursor_of(&p).loss_scale == 1);
    assert_int_equal(tr_export_run(&(struct tr_export_run_params){.run = out, .out = at}, &step),
                     0);
    for (size_t i = 0; i < 2; i++) {
        size_t n, m;
        float *now = read_tensor(at, names[i], &n), *then = read_tensor(model, names[i], &m);

        assert_int_equal(n, m);
        assert_memory_equal(now, then, n * sizeof(float));
        free(now);
        free(then);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_falls), cmocka_unit_test(test_rises),
                                       cmocka_unit_test(test_ends)};

    tiny_model(scratch_path("model"), &shape, TR_TYPE_F16, 4);
    token_data(scratch_path("data.jsonl"), 30, 8, 16, shape.vocab);
    return cmocka_run_group_tests_name("loss scale", tests, NULL, NULL);
}
