/* SPDX-License-Identifier: Apache-2.0
 *
 * A real checkpoint (TinyStories-656K) against recorded figures: token ids of a text, the negative
 * log-likelihood of every token from a float64 forward pass, logits, a greedy continuation. Skipped
 * where ../shared/data is absent.
 */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "src/base/json.h"
#include "src/infer/infer.h"

#define MODEL CHECKPOINTS "/tinystories-656k-hf"

static json_t *golden;
static struct infer *f;

static const json_t *entry(const char *key)
{
    return json_object_get(json_object_get(golden, "tinystories-656k"), key);
}

/* A batch of one document. */
static struct tr_batch one_document(int32_t *ids, int32_t n)
{
    static int32_t start[2], *position, *targets;
    static float *weight;

    start[1] = n;
    position = realloc(position, (size_t)n * sizeof(*position));
    targets = realloc(targets, (size_t)n * sizeof(*targets));
    weight = realloc(weight, (size_t)n * sizeof(*weight));
    for (int32_t i = 0; i < n; i++) {
        position[i] = i;
        targets[i] = -1;
        weight[i] = 0;
    }
    return (struct tr_batch){.n_tokens = n,
                             .n_rows = 1,
                             .n_docs = 1,
                             .n_grains = 1,
                             .ids = ids,
                             .targets = targets,
                             .weight = weight,
                             .position = position,
                             .row_start = start,
                             .doc_start = start,
                             .grain_start = start};
}

static void test_ids(void **state)
{
    const char *text = json_string_value(json_object_get(golden, "text"));
    const json_t *ids = entry("ids");
    struct tr_ids found = {0};

    (void)state;
    assert_int_equal(tr_ids_push(&found, tr_tokenizer_bos(f->run.tokenizer)), 0);
    assert_int_equal(tr_tokenizer_encode(f->run.tokenizer, text, strlen(text), &found), 0);
    assert_int_equal(found.n, json_array_size(ids));
    for (size_t i = 0; i < found.n; i++)
        assert_int_equal(found.v[i], json_integer_value(json_array_get(ids, i)));
    tr_ids_free(&found);
}

static double nll(const float *logits, int32_t vocab, int32_t id)
{
    double sum = 0;

    for (int32_t i = 0; i < vocab; i++)
        sum += exp((double)logits[i] - logits[id]);
    return log(sum);
}

static void test_nll(void **state)
{
    const json_t *list = entry("ids"), *expected = entry("nll");
    const json_t *first = entry("logits_after_bos_first8");
    int32_t n = (int32_t)json_array_size(list), vocab = f->run.model->config.vocab;
    int32_t *ids = calloc((size_t)n, sizeof(*ids)), *rows = calloc((size_t)n, sizeof(*rows));
    float *logits = calloc((size_t)n * (size_t)vocab, sizeof(*logits));
    struct tr_batch batch;
    double mean = 0;

    (void)state;
    for (int32_t i = 0; i < n; i++) {
        ids[i] = (int32_t)json_integer_value(json_array_get(list, (size_t)i));
        rows[i] = i;
    }
    batch = one_document(ids, n);
    if (infer_logits(&f->run, &batch, rows, n, logits) < 0)
        fail_msg("%s", tr_message());
    for (int32_t i = 0; i + 1 < n; i++) {
        double x = nll(logits + (int64_t)i * vocab, vocab, ids[i + 1]);
        double e = json_real_value(json_array_get(expected, (size_t)i));

        mean += x / (n - 1);
        if (!(fabs(x - e) < 2e-5 + 1e-5 * e)) /* recorded to six places */
            fail_msg("token %d: nll %.6f, recorded %.6f", i + 1, x, e);
    }
    assert_true(fabs(mean - json_real_value(entry("mean_nll"))) < 1e-5);
    for (size_t i = 0; i < 8; i++)
        assert_true(fabs(logits[i] - json_real_value(json_array_get(first, i))) < 1e-4);
    free(logits);
    free(rows);
    free(ids);
}

static void test_greedy(void **state)
{
    const json_t *expected = entry("greedy_ids");
    struct tr_ids s = {0};

    (void)state;
    assert_int_equal(tr_ids_push(&s, (int32_t)json_integer_value(json_array_get(expected, 0))), 0);
    if (infer_greedy(f, &s, 1, (int64_t)json_array_size(expected) - 1) < 0)
        fail_msg("%s", tr_message());
    assert_int_equal(s.n, json_array_size(expected));
    for (size_t i = 0; i < s.n; i++)
        assert_int_equal(s.v[i], json_integer_value(json_array_get(expected, i)));
    tr_ids_free(&s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_ids),
        cmocka_unit_test(test_nll),
        cmocka_unit_test(test_greedy),
    };
    int r;

    if (access(CHECKPOINTS "/golden.json", R_OK) < 0) {
        puts("skipped: " CHECKPOINTS "/golden.json is not there");
        return 77;
    }
    if (tr_json_read(CHECKPOINTS "/golden.json", 1 << 20, &golden) < 0 ||
        infer_open(&f, &(struct infer_params){.model = MODEL,
                                              .shape.batch_tokens = 512,
                                              .shape.positions = 512,
                                              .shape.logit_rows = 512,
                                              .device_memory = 256 << 20}) < 0) {
        printf("%s\n", tr_message());
        return 1;
    }
    r = cmocka_run_group_tests_name("golden", tests, NULL, NULL);
    infer_close(f);
    json_decref(golden);
    return r;
}
