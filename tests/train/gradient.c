/* SPDX-License-Identifier: Apache-2.0
 *
 * The gradient of whole tiny models of every family against finite differences of the loss, and the
 * order of update and input gradient (invariant 5).
 *
 * One step of plain SGD with lr 1 on f32 weights moves every tensor by exactly its gradient g. For
 * each tensor the loss is measured at w + e g and w - e g: the slope must be |g|^2. What g lacks
 * (rows, a head that are 0) has no part in that: along random directions d, too, the slope must be
 * that of g, its product with d; an eighth of g left out (a mutant of each tensor) fails it. And
 * since g is the gradient at the old weights, it may not depend on the learning rate; a device that
 * is made to run an update before the input gradient (the other mutant) fails that.
 */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "src/base/file.h"
#include "src/base/philox.h"
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
    return take_all || !on_cuda() || !strstr(tensor, ".layers.1.");
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
static uint64_t tensor_place(const char *folder, uint32_t i, char *name)
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
                               .device_memory = test_budget(NULL, 16 << 20),
                               .threads = 1};

    if (tr_eval_data(&p, &report) < 0)
        fail_msg("%s", tr_message());
    return report.loss;
}

/* A tensor of SCRATCH/model: where its values stand, what they are, and their gradient. */
struct subject {
    const char *model, *data, *family, *name;
    uint64_t at;
    size_t n;
    float *w, *g;
};

static double dot(const float *a, const float *b, size_t n)
{
    double sum = 0;

    for (size_t i = 0; i < n; i++)
        sum += (double)a[i] * b[i];
    return sum;
}

/* The loss at w + e d. */
static double loss_beside(const struct subject *t, const float *d, double e)
{
    float *x = malloc(t->n * sizeof(*x));

    for (size_t i = 0; i < t->n; i++)
        x[i] = (float)(t->w[i] + e * d[i]);
    write_floats(t->model, t->at, x, t->n);
    free(x);
    return loss_at(t->model, t->data);
}

/* The slope of the loss along d at w, by a central difference. */
static double slope(const struct subject *t, const float *d, double e)
{
    return (loss_beside(t, d, e) - loss_beside(t, d, -e)) / (2 * e);
}

/* The step moves the loss by about 1e-3. */
static void check_along_gradient(const struct subject *t, double norm2)
{
    double s, e = 1e-3 / norm2;

    if (e * sqrt(norm2) > 0.02) /* flat tensors: bound the distance too */
        e = 0.02 / sqrt(norm2);
    s = slope(t, t->g, e) / norm2;
    if (!(fabs(s - 1) < 5e-3))
        fail_msg("%s: %s: slope is %.6f of |g|^2 = %g", t->family, t->name, s, norm2);
}

/* Every element +1 or -1. */
static void random_direction(float *d, size_t n, uint32_t seed)
{
    for (size_t i = 0; i < n; i++)
        d[i] = tr_philox4x32((struct tr_philox){{(uint32_t)i, seed}}, 7, 7).v[0] & 1 ? 1 : -1;
}

/* [*from, *to): of eight parts of the values the one with most of |g|^2. No head is less. */
static void heaviest_eighth(const struct subject *t, size_t *from, size_t *to)
{
    double most = -1;

    for (size_t k = 0; k < 8; k++) {
        size_t a = t->n * k / 8, b = t->n * (k + 1) / 8;
        double sum = dot(t->g + a, t->g + a, b - a);

        if (sum > most) {
            most = sum;
            *from = a;
            *to = b;
        }
    }
}

/* Along d, whose elements are +1 or -1, a part of g that should be there shows as its own norm
 * times a number of the size of 1: a tensor's row of 60 as an eighth of |g|, in the mean. The f32
 * loss wavers by 5e-8, which is little against a change by 5e-4; where g is small, a weight moves
 * by a hundredth, a tenth of what it is, at most, for what a central difference leaves out goes
 * with the square of that. Both together have been 0.0044 |g| at most, and the mutants' least
 * 0.064. */
#define DIRECTIONS 2
#define OFF        0.02 /* of |g| */

static void check_at_random(const struct subject *t, double norm2)
{
    double norm = sqrt(norm2), e = fmin(5e-4 / norm, 0.01), off = 0, mutant_off = 0;
    float *d = malloc(t->n * sizeof(*d));
    size_t from = 0, to = 0;

    heaviest_eighth(t, &from, &to);
    for (uint32_t seed = 1; seed <= DIRECTIONS; seed++) {
        double lacking;

        random_direction(d, t->n, seed);
        lacking = slope(t, d, e) - dot(t->g, d, t->n);
        off = fmax(off, fabs(lacking) / norm);
        lacking += dot(t->g + from, d + from, to - from);
        mutant_off = fmax(mutant_off, fabs(lacking) / norm);
    }
    free(d);
    if (!(off < OFF))
        fail_msg("%s: %s: %.4f |g| off at random, |g|^2 = %g", t->family, t->name, off, norm2);
    if (!(mutant_off > OFF))
        fail_msg("%s: %s: values %zu to %zu could be 0, unseen: %.4f |g| off", t->family, t->name,
                 from, to, mutant_off);
}

static void check_tensor(const struct subject *t)
{
    double norm2 = dot(t->g, t->g, t->n);

    if (norm2 > 1e-12) {
        check_along_gradient(t, norm2);
        check_at_random(t, norm2);
        write_floats(t->model, t->at, t->w, t->n);
    } else if (!strstr(t->name, "k_proj.bias")) { /* softmax does not see a bias of all keys */
        fail_msg("%s: %s: no gradient", t->family, t->name);
    }
}

static void check_family(const struct tiny *t)
{
    char model[4352], data[4352], out[4352], trained[4400], name[256];
    struct tr_train_params p;
    uint64_t at;

    snprintf(model, sizeof(model), "%s", scratch_path("model"));
    snprintf(data, sizeof(data), "%s", scratch_path("data.jsonl"));
    snprintf(out, sizeof(out), "%s", scratch_path("run"));
    snprintf(trained, sizeof(trained), "%s/model", out);
    tiny_model(model, t, TR_TYPE_F32, 5);
    token_data(data, 4, 20, 64, t->vocab);
    p = params(model, data, out, 1);
    if (train(&p, NULL) < 0)
        fail_msg("%s", tr_message());
    for (uint32_t i = 0; (at = tensor_place(model, i, name)); i++) {
        struct subject s = {model, data, t->family, name, .at = at};

        if (!is_due(name))
            continue;
        s.w = read_tensor(model, name, &s.n);
        s.g = read_tensor(trained, name, &s.n);
        for (size_t k = 0; k < s.n; k++)
            s.g[k] = s.w[k] - s.g[k];
        check_tensor(&s);
        free(s.w);
        free(s.g);
    }
    remove_folder(out);
    remove_folder(model);
}

/* On the fake device every second: what is tied and has biases, a window, norms of q and k. */
static void test_families(void **state)
{
    size_t step = take_all || !on_cuda() ? 1 : 2;

    (void)state;
    for (size_t i = step - 1; i < sizeof(families) / sizeof(families[0]); i += step)
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
    if (!(distance(small, wrong, n) >= 1e-2)) /* nor is NaN a sign */
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
