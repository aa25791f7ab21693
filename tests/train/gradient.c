/* SPDX-License-Identifier: Apache-2.0
 *
 * The gradient of whole tiny models of every family against finite differences of the loss, and the
 * order of update and input gradient (invariant 5).
 *
 * One step of plain SGD with lr 1 on f32 weights moves every tensor by exactly its gradient g. For
 * each tensor the loss is measured at w + e g and w - e g: the slope must be |g|^2. And since g is
 * the gradient at the old weights, it may not depend on the learning rate; a device that is made to
 * run an update before the input gradient (the mutant) fails that.
 */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "src/base/file.h"
#include "src/checkpoint/safetensors.h"
#include "src/run/run.h"
#include "tests/device/budget.h"
#include "tests/train/common.h"

static const struct tiny families[] = {
    {"llama", 32, 48, 2, 4, 2, 8, 60, 64, ""},
    {"llama-tied", 32, 48, 2, 4, 4, 8, 60, 64, "\"attention_bias\": true"},
    {"llama", 32, 48, 2, 4, 1, 8, 60, 64,
     "\"rope_scaling\": {\"rope_type\": \"llama3\", \"factor\": 8.0, \"low_freq_factor\": 1.0, "
     "\"high_freq_factor\": 4.0, \"original_max_position_embeddings\": 16}"},
    {"mistral", 32, 48, 2, 4, 2, 8, 60, 64, "\"sliding_window\": 7"},
    {"qwen2", 32, 48, 2, 4, 2, 8, 60, 64, ""},
    {"qwen3", 32, 48, 2, 4, 2, 12, 60, 64, ""},
};

static int take_all; /* "--all" */

/* The fake device takes long for every loss. Its kernels are the same in every block, and which
 * tensor they are given is seen on the cpu device: of two blocks the first one will do, whose
 * gradient has come the longest way. */
static int is_due(const char *tensor)
{
    return take_all || strncmp(tr_devices_default(), "cuda", 4) || !strstr(tensor, ".layers.1.");
}

static struct tr_train_params params(const char *model, const char *data, const char *out,
                                     double lr)
{
    return (struct tr_train_params){.model = model,
                                    .data = data,
                                    .out = out,
                                    .steps = 1,
                                    .batch_size = 4,
                                    .seq_len = 64,
                                    .optimizer = TR_OPT_SGD,
                                    .schedule = TR_LR_CONSTANT,
                                    .warmup = -1,
                                    .lr = lr,
                                    .device_memory = test_budget(NULL, 192 << 20),
                                    .threads = 2,
                                    .packing = TR_NO,
                                    .durability = TR_KEEP_NONE};
}

static void remove_folder(const char *path)
{
    assert_int_equal(tr_remove_tree(path), 0);
}

/* Where a tensor's values stand in FOLDER/model.safetensors. */
static uint64_t tensor_place(const char *folder, uint32_t i, char *name, size_t *n)
{
    const struct tr_st_tensor *t;
    struct tr_safetensors *s;
    uint64_t at;

    assert_int_equal(tr_safetensors_open_folder(&s, folder), 0);
    if (i >= s->n_tensors) {
        tr_safetensors_close(s);
        return 0;
    }
    t = &s->tensors[i];
    snprintf(name, 256, "%s", t->name);
    *n = t->bytes / 4;
    at = s->shards[t->shard].data + t->offset;
    tr_safetensors_close(s);
    return at;
}

static void write_floats(const char *folder, uint64_t at, const float *x, size_t n)
{
    char path[4352];
    FILE *f;

    snprintf(path, sizeof(path), "%s/model.safetensors", folder);
    f = fopen(path, "r+b");
    assert_non_null(f);
    fseek(f, (long)at, SEEK_SET);
    assert_int_equal(fwrite(x, 4, n, f), n);
    fclose(f);
}

static double loss_at(const char *model, const char *data)
{
    struct tr_eval_report report;
    struct tr_eval_params p = {.model = model,
                               .data = data,
                               .batch_size = 4,
                               .seq_len = 64,
                               .device_memory = test_budget(NULL, 192 << 20),
                               .threads = 1};

    if (tr_eval_data(&p, &report) < 0)
        fail_msg("%s", tr_message());
    return report.loss;
}

/* Slope of the loss along g at w, by the five-point rule; the step moves the loss by about 1e-2. */
static double slope(const char *model, const char *data, uint64_t at, const float *w,
                    const float *g, size_t n)
{
    static const double where[4] = {-2, -1, 1, 2}, factor[4] = {1, -8, 8, -1};
    double norm2 = 0, e, sum = 0;
    float *x = malloc(n * sizeof(*x));

    for (size_t i = 0; i < n; i++)
        norm2 += (double)g[i] * g[i];
    e = 1e-2 / norm2;
    if (e * sqrt(norm2) > 0.05) /* flat tensors: bound the distance too */
        e = 0.05 / sqrt(norm2);
    for (int k = 0; k < 4; k++) {
        for (size_t i = 0; i < n; i++)
            x[i] = (float)(w[i] + where[k] * e * g[i]);
        write_floats(model, at, x, n);
        sum += factor[k] * loss_at(model, data);
    }
    write_floats(model, at, w, n);
    free(x);
    return sum / (12 * e) / norm2;
}

static void check_family(const struct tiny *t)
{
    char model[4352], data[4352], out[4352], trained[4400], name[256];
    struct tr_train_params p;
    uint64_t at;
    size_t n;

    snprintf(model, sizeof(model), "%s", scratch_path("model"));
    snprintf(data, sizeof(data), "%s", scratch_path("data.jsonl"));
    snprintf(out, sizeof(out), "%s", scratch_path("run"));
    snprintf(trained, sizeof(trained), "%s/model", out);
    tiny_model(model, t, TR_TYPE_F32, 5);
    token_data(data, 4, 20, 64, t->vocab);
    p = params(model, data, out, 1);
    if (train(&p, NULL) < 0)
        fail_msg("%s", tr_message());
    for (uint32_t i = 0; (at = tensor_place(model, i, name, &n)); i++) {
        float *w, *g;
        double norm2 = 0, s;

        if (!is_due(name))
            continue;
        w = read_tensor(model, name, &n);
        g = read_tensor(trained, name, &n);
        for (size_t k = 0; k < n; k++) {
            g[k] = w[k] - g[k];
            norm2 += (double)g[k] * g[k];
        }
        if (norm2 > 1e-12) {
            s = slope(model, data, at, w, g, n);
            if (!(fabs(s - 1) < 5e-3))
                fail_msg("%s: %s: slope is %.6f of |g|^2 = %g", t->family, name, s, norm2);
        } else if (!strstr(name, "k_proj.bias")) { /* softmax does not see a bias of all keys */
            fail_msg("%s: %s: no gradient", t->family, name);
        }
        free(w);
        free(g);
    }
    remove_folder(out);
    remove_folder(model);
}

static void test_families(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof(families) / sizeof(families[0]); i++)
        check_family(&families[i]);
}

/* --- invariant 5 ---------------------------------------------------------------------------- */

static enum tr_streaming streaming;

/* A device that holds back the input gradient of each block's down projection until its update. */
static struct {
    struct tr_device base;
    struct tr_device *inner;
    struct tr_device_ops ops;
    struct tr_op held;
    int holding, swapped;
    int64_t ffn;
} mutant;

static int mutant_run(struct tr_device *d, enum tr_stream s, const struct tr_op *op)
{
    struct tr_device *in = mutant.inner;
    int r;

    (void)d;
    if (op->kind == TR_OP_MATMUL_DX && op->matmul.k == mutant.ffn) {
        mutant.held = *op;
        mutant.holding = 1;
        return 0;
    }
    r = in->ops->run(in, s, op);
    if (r == 0 && mutant.holding && op->kind == TR_OP_SGD && op->update.w == mutant.held.matmul.w) {
        mutant.holding = 0;
        mutant.swapped++;
        r = in->ops->run(in, s, &mutant.held);
    }
    return r;
}

static int mutant_sync(struct tr_device *d, enum tr_stream s)
{
    (void)d;
    return mutant.inner->ops->sync(mutant.inner, s);
}

static int mutant_copy_in(struct tr_device *d, enum tr_stream s, void *to, const void *host,
                          size_t n)
{
    (void)d;
    return mutant.inner->ops->copy_in(mutant.inner, s, to, host, n);
}

static int mutant_fill(struct tr_device *d, enum tr_stream s, void *to, int byte, size_t n)
{
    (void)d;
    return mutant.inner->ops->fill(mutant.inner, s, to, byte, n);
}

/* The gradient of the first block's q projection, from one step with this learning rate. */
static float *gradient(const char *model, const char *data, double lr, int mutate, size_t *n)
{
    static const char name[] = "model.layers.0.self_attn.q_proj.weight";
    struct tr_train_params p = params(model, data, scratch_path("run5"), lr);
    struct tr_step_report report;
    struct tr_run *run;
    float *w, *g;

    p.streaming = streaming;
    if (tr_train_open(&run, &p) < 0)
        fail_msg("%s", tr_message());
    assert_int_equal(run->plan.by_parts, streaming == TR_STREAMING_MATRICES);
    if (mutate) {
        mutant.inner = run->device;
        mutant.ops = (struct tr_device_ops){
            .run = mutant_run, .sync = mutant_sync, .copy_in = mutant_copy_in, .fill = mutant_fill};
        mutant.base.ops = &mutant.ops;
        mutant.ffn = run->model->config.ffn;
        run->pass.device = &mutant.base;
    }
    assert_int_equal(tr_train_step(run, &report), 1);
    assert_int_equal(tr_train_finish(run), 0);
    tr_train_close(run);
    w = read_tensor(model, name, n);
    g = read_tensor(scratch_path("run5/model"), name, n);
    for (size_t i = 0; i < *n; i++)
        g[i] = (float)((w[i] - g[i]) / lr);
    free(w);
    remove_folder(scratch_path("run5"));
    return g;
}

static double distance(const float *a, const float *b, size_t n)
{
    double d = 0, s = 0;

    for (size_t i = 0; i < n; i++) {
        d += (double)(a[i] - b[i]) * (a[i] - b[i]);
        s += (double)a[i] * a[i];
    }
    return sqrt(d / s);
}

static void check_old_weights(enum tr_streaming how)
{
    char model[4352], data[4352];
    float *small, *large, *wrong;
    size_t n;

    streaming = how;
    mutant.swapped = 0;
    snprintf(model, sizeof(model), "%s", scratch_path("model5"));
    snprintf(data, sizeof(data), "%s", scratch_path("data5.jsonl"));
    tiny_model(model, &families[0], TR_TYPE_F32, 5);
    token_data(data, 4, 20, 64, families[0].vocab);
    small = gradient(model, data, 0.0625, 0, &n);
    large = gradient(model, data, 4, 0, &n);
    wrong = gradient(model, data, 4, 1, &n);
    assert_int_equal(mutant.swapped, families[0].layers);
    assert_true(distance(small, large, n) < 1e-4);
    if (distance(small, wrong, n) < 1e-2)
        fail_msg("updating before the input gradient went unseen: %g", distance(small, wrong, n));
    free(small);
    free(large);
    free(wrong);
    remove_folder(model);
}

static void test_old_weights(void **state)
{
    (void)state;
    check_old_weights(TR_STREAMING_BLOCKS);
    check_old_weights(TR_STREAMING_MATRICES);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_families),
        cmocka_unit_test(test_old_weights),
    };

    take_all = argc > 1 && !strcmp(argv[1], "--all");
    return cmocka_run_group_tests_name("gradients", tests, NULL, NULL);
}
