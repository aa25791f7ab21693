/* SPDX-License-Identifier: Apache-2.0
 *
 * Logits of every recorded model within 1e-4 of transformers in float64, at every position: the
 * sequences as rows of their own, and as documents packed into one row, which must not see each
 * other. A model read with another model's config.json must be caught.
 */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "src/base/err.h"
#include "src/base/file.h"
#include "src/infer/infer.h"
#include "tests/device/budget.h"
#include "tests/parity/recorded.h"

#define TOLERANCE 1e-4
#define TOKENS    256
#define SEQUENCES 8

struct sequences {
    json_t *list;
    int32_t n, n_tokens;
    int32_t ids[TOKENS], targets[TOKENS], position[TOKENS], rows[TOKENS];
    int32_t start[SEQUENCES + 1], whole[2];
    float weight[TOKENS];
};

static void read_sequences(struct sequences *s, const char *model)
{
    char path[PATH_MAX];
    json_t *sequence, *id;
    size_t i, k;

    memset(s, 0, sizeof(*s));
    s->list = recorded_json(recorded_path(path, "%s/logits.json", model));
    json_array_foreach(json_object_get(s->list, "sequences"), i, sequence) {
        json_array_foreach(json_object_get(sequence, "ids"), k, id) {
            assert_true(s->n_tokens < TOKENS && s->n < SEQUENCES);
            s->ids[s->n_tokens] = (int32_t)json_integer_value(id);
            s->targets[s->n_tokens] = -1;
            s->position[s->n_tokens] = (int32_t)k;
            s->rows[s->n_tokens] = s->n_tokens;
            s->n_tokens++;
        }
        s->start[++s->n] = s->n_tokens;
    }
    s->whole[1] = s->n_tokens;
}

static struct tr_batch make_batch(const struct sequences *s, int packed)
{
    return (struct tr_batch){.n_tokens = s->n_tokens,
                             .n_rows = packed ? 1 : s->n,
                             .n_docs = s->n,
                             .n_grains = 1,
                             .ids = s->ids,
                             .targets = s->targets,
                             .weight = s->weight,
                             .position = s->position,
                             .row_start = packed ? s->whole : s->start,
                             .doc_start = s->start,
                             .grain_start = s->whole};
}

/* The largest distance of ours to the recorded logits; NaN where any is NaN. */
static double worst_distance(const struct sequences *s, const char *model, const float *ours)
{
    struct tr_safetensors *file;
    char path[PATH_MAX], name[32];
    double worst = 0;

    if (tr_safetensors_open_file(&file, recorded_path(path, "%s/logits.safetensors", model)) < 0)
        fail_msg("%s", tr_error_message());
    for (int32_t i = 0; i < s->n; i++) {
        int64_t n;
        float *want;

        snprintf(name, sizeof(name), "logits.%d", i);
        want = recorded_tensor(file, name, &n);
        for (int64_t k = 0; k < n; k++) {
            double distance = fabs((double)*ours++ - want[k]);

            worst = recorded_worse(worst, distance);
        }
        free(want);
    }
    tr_safetensors_close(file);
    return worst;
}

static double distance_of(const char *folder, const char *model, int packed)
{
    struct sequences s;
    struct infer *f = NULL;
    struct tr_batch batch;
    double distance;
    float *logits;

    read_sequences(&s, model);
    batch = make_batch(&s, packed);
    if (infer_open(&f, &(struct infer_params){.model = folder,
                                              .shape.batch_tokens = s.n_tokens,
                                              .shape.positions = s.n_tokens < 64 ? s.n_tokens : 64,
                                              .shape.logit_rows = s.n_tokens,
                                              .threads = 2,
                                              .device_memory = test_budget(NULL, 64 << 20)}) < 0)
        fail_msg("%s: %s", folder, tr_error_message());
    logits = calloc((size_t)s.n_tokens * (size_t)f->run.model->config.vocab, sizeof(float));
    assert_non_null(logits);
    if (infer_logits(&f->run, &batch, s.rows, s.n_tokens, logits) < 0)
        fail_msg("%s: %s", folder, tr_error_message());
    distance = worst_distance(&s, model, logits);
    free(logits);
    infer_close(f);
    json_decref(s.list);
    return distance;
}

static void equals_transformers(void **state)
{
    const char *model = *state;
    char folder[PATH_MAX];

    recorded_path(folder, "%s/model", model);
    for (int packed = 0; packed < 2; packed++) {
        double distance = distance_of(folder, model, packed);

        print_message("%s, %s: logits within %.1e\n", model, packed ? "packed" : "rows", distance);
        assert_true(distance <= TOLERANCE);
    }
}

/* The weights of one model under the config.json of another of the same shapes. */
static void catches_another_rope(void **state)
{
    char folder[PATH_MAX], path[PATH_MAX + 32], from[PATH_MAX];

    (void)state;
    recorded_temporary(folder);
    snprintf(path, sizeof(path), "%s/config.json", folder);
    assert_int_equal(
        tr_file_copy(recorded_path(from, "llama-rope-yarn/model/config.json"), path, UINT64_MAX),
        0);
    snprintf(path, sizeof(path), "%s/model.safetensors", folder);
    recorded_path(from, "llama-rope-llama3/model/model.safetensors");
    assert_int_equal(tr_file_copy(from, path, UINT64_MAX), 0);
    assert_true(distance_of(folder, "llama-rope-llama3", 0) > 100 * TOLERANCE);
    tr_remove_tree(folder);
}

int main(void)
{
    static char models[RECORDED_MODELS][64];
    struct CMUnitTest tests[RECORDED_MODELS + 1] = {cmocka_unit_test(catches_another_rope)};
    int n = recorded_models(models, "logits.json");

    if (n < 12)
        return 1;
    for (int i = 0; i < n; i++)
        tests[i + 1] = (struct CMUnitTest){
            .name = models[i], .test_func = equals_transformers, .initial_state = models[i]};
    return cmocka_run_group_tests_name("parity: logits", tests, NULL, NULL);
}
