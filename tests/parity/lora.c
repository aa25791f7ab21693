/* SPDX-License-Identifier: Apache-2.0
 *
 * Twenty steps of adapters that PEFT has made, read from its folder, beside what record_lora.py
 * has recorded of PEFT in float64: losses within 1e-5, norms that clip, and every trained tensor at
 * most three times as far off as PEFT's own f32 run is. With dropout, and with a model that trains
 * beside its adapters. What is written at the end has PEFT's names, and nothing else.
 */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "src/base/file.h"
#include "src/tailrace.h"
#include "tests/device/budget.h"
#include "tests/parity/recorded.h"

#define LOSS_TOLERANCE 1e-5
#define NORM_TOLERANCE 2e-5
#define TIMES_TORCH    3.0

struct run {
    const char *model, *name;
};

/* The worst of a run, each over what is allowed: up to 1 is good. */
struct verdict {
    double loss, norm, weights;
    int n_tensors;
    const json_t *distances;
    char tensor[128];
};

static struct run runs[] = {{"llama", "lora-adamw"},
                            {"qwen2", "lora-sgd-clip"},
                            {"qwen3", "lora-dropout"},
                            {"llama-tied", "lora-lomo"}};

static json_t *recorded_run(const struct run *run)
{
    char path[PATH_MAX];

    return recorded_json(recorded_path(path, "%s/%s.json", run->model, run->name));
}

static enum tr_optimizer optimizer_of(const json_t *recorded, const char *key)
{
    const char *name = json_string_value(json_object_get(recorded, key));

    return !name                   ? TR_OPT_DEFAULT
           : !strcmp(name, "sgd")  ? TR_OPT_SGD
           : !strcmp(name, "lomo") ? TR_OPT_LOMO
                                   : TR_OPT_ADAMW;
}

static double clip_of(const json_t *recorded, const char *key)
{
    double norm = recorded_number(recorded, key);

    return norm > 0 ? norm : -1;
}

static struct tr_train_params params_of(const json_t *recorded)
{
    int both = json_object_get(recorded, "lora_optimizer") != NULL;

    return (struct tr_train_params){
        .steps = (int64_t)recorded_number(recorded, "steps"),
        .batch_size = 4,
        .packing = TR_NO,
        .optimizer = optimizer_of(recorded, "optimizer"),
        .lora_optimizer = optimizer_of(recorded, "lora_optimizer"),
        .schedule = TR_LR_CONSTANT,
        .lr = recorded_number(recorded, "lr"),
        .lora_lr = recorded_number(recorded, "lora_lr"),
        .warmup = -1,
        .clip_norm = clip_of(recorded, "clip_norm"),
        .lora_clip_norm = both ? clip_of(recorded, "lora_clip_norm") : 0,
        .beta1 = recorded_number(recorded, "beta1"),
        .beta2 = recorded_number(recorded, "beta2"),
        .eps = recorded_number(recorded, "eps"),
        .seed = (uint64_t)recorded_number(recorded, "seed"),
        .device_memory = test_budget(NULL, 64 << 20),
        .host_memory = 256 << 20,
        .threads = 2,
    };
}

static void judge_step(struct verdict *v, const json_t *recorded, const struct tr_step_report *r)
{
    int both = json_object_get(recorded, "lora_optimizer") != NULL;
    size_t i = (size_t)r->step - 1;
    double loss = recorded_at(recorded, "losses", i);
    double norm = recorded_at(recorded, both ? "base_norms" : "norms", i);

    v->loss = recorded_worse(v->loss, fabs(r->loss - loss) / LOSS_TOLERANCE);
    if (recorded_number(recorded, "clip_norm") > 0)
        v->norm = recorded_worse(v->norm, fabs(r->grad_norm - norm) / norm / NORM_TOLERANCE);
}

static void judge_tensor(void *arg, const char *tensor, double distance)
{
    struct verdict *v = arg;
    double allowed = TIMES_TORCH * recorded_number(v->distances, tensor);

    if (!isnan(v->weights) && !(distance / allowed <= v->weights)) {
        v->weights = distance / allowed;
        snprintf(v->tensor, sizeof(v->tensor), "%s", tensor);
    }
    v->n_tensors++;
}

/* Opens FOLDER/NAME, which must be there. */
static struct tr_safetensors *opened(const char *folder, const char *name)
{
    char path[PATH_MAX + 64];
    struct tr_safetensors *s;

    snprintf(path, sizeof(path), "%s/%s", folder, name);
    if (tr_safetensors_open_file(&s, path) < 0)
        fail_msg("%s", tr_message());
    return s;
}

/* The tensors of `got` that are recorded, by name; the recording's others are of another file. */
static void judge_file(struct verdict *v, struct tr_safetensors *got, struct tr_safetensors *want)
{
    for (uint32_t i = 0; i < got->n_tensors; i++) {
        const char *name = got->tensors[i].name;
        double difference = 0, norm = 0;
        int64_t n, m;
        float *a, *b;

        if (!tr_safetensors_find(want, name))
            fail_msg("%s is not recorded", name);
        a = recorded_tensor(got, name, &n);
        b = recorded_tensor(want, name, &m);
        assert_int_equal(n, m);
        for (int64_t k = 0; k < n; k++) {
            difference += ((double)a[k] - b[k]) * ((double)a[k] - b[k]);
            norm += (double)b[k] * b[k];
        }
        judge_tensor(v, name, sqrt(difference) / sqrt(norm));
        free(a);
        free(b);
    }
}

static void judge_weights(struct verdict *v, const json_t *recorded, const struct run *run,
                          const char *out)
{
    int both = json_object_get(recorded, "lora_optimizer") != NULL;
    char path[PATH_MAX];
    struct tr_safetensors *want, *got;

    recorded_path(path, "%s/%s", run->model, run->name);
    want = opened(path, "final.safetensors");
    got = opened(out, both ? "model/adapter/adapter_model.safetensors"
                           : "model/adapter_model.safetensors");
    v->distances = json_object_get(recorded, "torch_f32_distance");
    judge_file(v, got, want);
    tr_safetensors_close(got);
    if (both) {
        got = opened(out, "model/model.safetensors");
        judge_file(v, got, want);
        tr_safetensors_close(got);
    }
    assert_int_equal(v->n_tensors, want->n_tensors);
    tr_safetensors_close(want);
}

static void train(const struct run *run, struct tr_train_params *p, const json_t *recorded,
                  struct verdict *v)
{
    char model[PATH_MAX], data[PATH_MAX], start[PATH_MAX], folder[PATH_MAX], out[PATH_MAX + 8];
    struct tr_step_report report;
    tr_run *trainer = NULL;
    int rc;

    p->model = recorded_path(model, "%s/model", run->model);
    p->adapter = recorded_path(start, "%s/%s/start", run->model, run->name);
    p->data = recorded_path(data, "%s/%s/train.jsonl", run->model, run->name);
    if (!recorded_exists(data))
        recorded_path(data, "%s/train.jsonl", run->model);
    snprintf(out, sizeof(out), "%s/run", recorded_temporary(folder));
    p->out = out;
    rc = tr_train_open(&trainer, p);
    while (rc >= 0 && (rc = tr_train_step(trainer, &report)) == 1)
        judge_step(v, recorded, &report);
    if (rc >= 0)
        rc = tr_train_finish(trainer);
    if (rc < 0)
        fail_msg("%s %s: %s", run->model, run->name, tr_message());
    tr_train_close(trainer);
    judge_weights(v, recorded, run, out);
    tr_remove_tree(folder);
    print_message("%s %s: of what is allowed: losses %.2f, norms %.2f, weights %.2f (%s)\n",
                  run->model, run->name, v->loss, v->norm, v->weights, v->tensor);
}

static void equals_peft(void **state)
{
    const struct run *run = *state;
    json_t *recorded = recorded_run(run);
    struct tr_train_params p = params_of(recorded);
    struct verdict v = {0};

    train(run, &p, recorded, &v);
    assert_true(v.loss <= 1);
    assert_true(v.norm <= 1);
    assert_true(v.weights <= 1);
    json_decref(recorded);
}

/* Off by little, or another mask: each is seen in the weights. */
static void catches_options_that_are_off(void **state)
{
    (void)state;
    for (int i = 0; i < 6; i++) {
        const struct run *run = &runs[i < 3 ? i : 3];
        json_t *recorded = recorded_run(run);
        struct tr_train_params p = params_of(recorded);
        struct verdict v = {0};

        p.beta2 -= i == 0 ? 1e-4 : 0;
        p.clip_norm *= i == 1 || i == 3 ? 1.001 : 1;
        p.seed += i == 2;
        p.lora_lr *= i == 4 ? 1.0002 : 1;
        p.lora_clip_norm *= i == 5 ? 1.02 : 1; /* AdamW hardly sees the size of a gradient */
        train(run, &p, recorded, &v);
        assert_true(v.weights > 1); /* nor is NaN a sign */
        json_decref(recorded);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        {"llama, q and v, AdamW", equals_peft, NULL, NULL, &runs[0]},
        {"qwen2, all matrices, SGD with clipping", equals_peft, NULL, NULL, &runs[1]},
        {"qwen3, dropout", equals_peft, NULL, NULL, &runs[2]},
        {"llama-tied, LoRA + LOMO", equals_peft, NULL, NULL, &runs[3]},
        cmocka_unit_test(catches_options_that_are_off),
    };

    return cmocka_run_group_tests_name("parity: adapters", tests, NULL, NULL);
}
