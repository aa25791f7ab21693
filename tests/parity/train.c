/* SPDX-License-Identifier: Apache-2.0
 *
 * Twenty training steps of every recorded run through the public API: losses within 1e-5 of the
 * float64 run, exported weights per tensor at most three times as far from it as PyTorch's own f32
 * run is. lomo-optim runs in f32 itself: losses, norms and weights within 1e-5 of it. The same
 * judgement must reject runs whose options are off by little.
 */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "src/base/file.h"
#include "src/tailrace.h"
#include "tests/device/budget.h"
#include "tests/parity/recorded.h"

#define LOSS_TOLERANCE 1e-5
#define LOMO_TOLERANCE 1e-5
#define TIMES_TORCH    3.0

struct run {
    char title[96];
    char model[64], name[32];
};

/* The worst of a run, each over what is allowed: up to 1 is good. */
struct verdict {
    double loss, norm, weights;
    char tensor[128];
    double final_loss;
};

static enum tr_optimizer optimizer_of(const json_t *recorded)
{
    const char *name = json_string_value(json_object_get(recorded, "optimizer"));

    return !strcmp(name, "adamw")       ? TR_OPT_ADAMW
           : !strcmp(name, "sgd")       ? TR_OPT_SGD
           : !strcmp(name, "lomo")      ? TR_OPT_LOMO
           : !strcmp(name, "adam-mini") ? TR_OPT_ADAM_MINI
           : !strcmp(name, "adalomo")   ? TR_OPT_ADALOMO
                                        : TR_OPT_DEFAULT;
}

static struct tr_train_params params_of(const json_t *recorded)
{
    int linear = json_object_get(recorded, "schedule") != NULL;
    double clip_norm = recorded_number(recorded, "clip_norm");

    return (struct tr_train_params){
        .steps = (int64_t)recorded_number(recorded, "steps"),
        .batch_size = 4,
        .packing = TR_NO,
        .optimizer = optimizer_of(recorded),
        .schedule = linear ? TR_LR_LINEAR : TR_LR_CONSTANT,
        .lr = recorded_number(recorded, "lr"),
        .warmup = linear ? recorded_number(recorded, "warmup") : -1,
        .weight_decay = recorded_number(recorded, "weight_decay"),
        .clip_norm = clip_norm > 0 ? clip_norm : -1,
        .momentum = recorded_number(recorded, "momentum"),
        .beta1 = recorded_number(recorded, "beta1"),
        .beta2 = recorded_number(recorded, "beta2"),
        .eps = recorded_number(recorded, "eps"),
        .durability = TR_KEEP_NONE,
        .device_memory = test_budget(NULL, 64 << 20),
        .host_memory = 256 << 20,
        .threads = 2,
    };
}

static void judge_step(struct verdict *v, const json_t *recorded, const struct tr_step_report *r)
{
    size_t i = (size_t)r->step - 1;
    double loss = recorded_at(recorded, "losses", i), norm = recorded_at(recorded, "grad_norms", i);

    v->loss = recorded_worse(v->loss, fabs(r->loss - loss) / LOSS_TOLERANCE);
    if (recorded_number(recorded, "clip_norm") > 0)
        v->norm = recorded_worse(v->norm, fabs(r->grad_norm - norm) / norm / LOSS_TOLERANCE);
    v->final_loss = r->loss;
}

struct weights_judge {
    const json_t *distances; /* of PyTorch's own run; NULL: LOMO_TOLERANCE for all */
    struct verdict *verdict;
    int n;
};

static void judge_tensor(void *arg, const char *tensor, double distance)
{
    struct weights_judge *j = arg;
    double allowed = LOMO_TOLERANCE;

    if (j->distances)
        allowed = TIMES_TORCH * recorded_number(j->distances, tensor);
    if (!isnan(j->verdict->weights) && !(distance / allowed <= j->verdict->weights)) {
        j->verdict->weights = distance / allowed;
        snprintf(j->verdict->tensor, sizeof(j->verdict->tensor), "%s", tensor);
    }
    j->n++;
}

static void judge_weights(struct verdict *v, const json_t *recorded, const char *model,
                          const char *out)
{
    const char *file = json_string_value(json_object_get(recorded, "weights"));
    struct weights_judge j = {json_object_get(recorded, "torch_f32_distance"), v, 0};
    struct tr_safetensors *got, *want;
    char path[PATH_MAX + 16];

    if (!file)
        fail_msg("a recorded run of %s names no file of weights", model);
    snprintf(path, sizeof(path), "%s/run/model", out);
    if (tr_safetensors_open_folder(&got, path) < 0)
        fail_msg("%s", tr_message());
    if (tr_safetensors_open_file(&want, recorded_path(path, "%s/%s", model, file)) < 0)
        fail_msg("%s", tr_message());
    recorded_distances(got, want, judge_tensor, &j);
    assert_int_equal(j.n, got->n_tensors);
    tr_safetensors_close(got);
    tr_safetensors_close(want);
}

static void train(const struct run *run, struct tr_train_params *p, const json_t *recorded,
                  struct verdict *v)
{
    char model[PATH_MAX], data[PATH_MAX], folder[PATH_MAX], out[PATH_MAX + 8];
    struct tr_step_report report;
    tr_run *trainer = NULL;
    int rc, steps = 0;

    p->model = recorded_path(model, "%s/model", run->model);
    p->data = recorded_path(data, "%s/train.jsonl", run->model);
    snprintf(out, sizeof(out), "%s/run", recorded_temporary(folder));
    p->out = out;
    rc = tr_train_open(&trainer, p);
    for (; rc >= 0 && (rc = tr_train_step(trainer, &report)) == 1; steps++)
        judge_step(v, recorded, &report);
    if (rc >= 0)
        rc = tr_train_finish(trainer);
    if (rc < 0)
        fail_msg("%s: %s", run->title, tr_message());
    tr_train_close(trainer);
    assert_int_equal(steps, p->steps);
    judge_weights(v, recorded, run->model, folder);
    tr_remove_tree(folder);
}

static json_t *recorded_run(const struct run *run)
{
    char path[PATH_MAX];

    return recorded_json(recorded_path(path, "%s/%s.json", run->model, run->name));
}

static void report(const struct run *run, const struct verdict *v)
{
    print_message("%s: of what is allowed: losses %.2f, norms %.2f, weights %.2f (%s)\n",
                  run->title, v->loss, v->norm, v->weights, v->tensor);
}

static void equals_torch(void **state)
{
    const struct run *run = *state;
    json_t *recorded = recorded_run(run);
    struct tr_train_params p = params_of(recorded);
    struct verdict v = {0};

    train(run, &p, recorded, &v);
    report(run, &v);
    assert_true(recorded_at(recorded, "losses", 0) - v.final_loss > 1);
    assert_true(v.loss <= 1);
    assert_true(v.norm <= 1);
    assert_true(v.weights <= 1);
    json_decref(recorded);
}

/* A learning rate, a decay and an eps that are slightly off: each is seen in weights or losses. */
static void catches_options_that_are_off(void **state)
{
    static const struct run runs[] = {{"sgd, lr * 1.0001", "qwen3", "sgd"},
                                      {"adamw, beta2 0.9989", "qwen2", "adamw"},
                                      {"adamw, eps 1.1e-5", "mistral", "adamw"},
                                      {"adamw, no decay", "llama-tied", "adamw-decay"},
                                      {"sgd, clip 1.001", "llama-tied", "sgd-clip"},
                                      {"sgd, momentum 0.9001", "llama", "sgd-momentum"},
                                      {"adam-mini, decay 0.0999", "qwen2", "adam-mini"},
                                      {"adam-mini, beta2 0.9989", "qwen3", "adam-mini"},
                                      {"adalomo, lr * 1.0001", "llama-tied", "adalomo"},
                                      {"adalomo, no decay", "mistral", "adalomo"}};

    (void)state;
    for (size_t i = 0; i < sizeof(runs) / sizeof(runs[0]); i++) {
        json_t *recorded = recorded_run(&runs[i]);
        struct tr_train_params p = params_of(recorded);
        struct verdict v = {0};

        p.lr *= i == 0 || i == 8 ? 1.0001 : 1;
        p.beta2 = i == 1 || i == 7 ? 0.9989 : p.beta2;
        p.eps *= i == 2 ? 1.1 : 1;
        p.weight_decay = i == 3 || i == 9 ? 0 : i == 6 ? 0.0999 : p.weight_decay;
        p.momentum = i == 5 ? 0.9001 : p.momentum;
        p.clip_norm *= i == 4 ? 1.001 : 1;
        train(&runs[i], &p, recorded, &v);
        report(&runs[i], &v);
        assert_true(v.weights > 1); /* nor is NaN a sign */
        json_decref(recorded);
    }
}

static int list_runs(struct run *runs, int room)
{
    static const char *const names[] = {"adamw",   "adamw-clip", "adamw-decay",
                                        "sgd",     "sgd-clip",   "sgd-momentum",
                                        "adalomo", "adam-mini",  "lomo"};
    char models[RECORDED_MODELS][64], path[PATH_MAX];
    int n_models = recorded_models(models, "sgd.json"), n = 0;

    for (int m = 0; m < n_models; m++)
        for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
            struct run *run = &runs[n];

            if (!recorded_exists(recorded_path(path, "%s/%s.json", models[m], names[i])))
                continue;
            if (++n > room)
                return 0;
            strcpy(run->model, models[m]);
            strcpy(run->name, names[i]);
            snprintf(run->title, sizeof(run->title), "%s %s", run->model, run->name);
        }
    return n;
}

int main(void)
{
    static struct run runs[64];
    struct CMUnitTest tests[64] = {cmocka_unit_test(catches_options_that_are_off)};
    int n = list_runs(runs, 63);

    if (n < 33)
        return 1;
    for (int i = 0; i < n; i++)
        tests[i + 1] = (struct CMUnitTest){
            .name = runs[i].title, .test_func = equals_torch, .initial_state = &runs[i]};
    return cmocka_run_group_tests_name("parity: training", tests, NULL, NULL);
}
