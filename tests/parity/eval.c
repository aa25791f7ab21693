/* SPDX-License-Identifier: Apache-2.0
 *
 * Log-likelihoods of continuations as record_eval.py has them from transformers, in float64, by the
 * rules of the lm-evaluation-harness: the same ids, cut at the same place, sums within 1e-4.
 * Skipped where ../shared/data is absent.
 */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "src/infer/infer.h"
#include "src/infer/score.h"
#include "src/text/task.h"
#include "tests/device/budget.h"
#include "tests/parity/recorded.h"

#define MODEL CHECKPOINTS "/tinystories-656k-hf"
#define MOST  64 /* cases */

static struct infer *f;

static void expect_ids(const json_t *c, const struct tr_ids *ids, size_t first)
{
    const json_t *want = json_object_get(c, "ids");

    assert_int_equal(ids->n, json_array_size(want));
    for (size_t i = 0; i < ids->n; i++)
        assert_int_equal(ids->v[i], json_integer_value(json_array_get(want, i)));
    assert_int_equal(first, json_integer_value(json_object_get(c, "first")));
}

static void test_cases(void **state)
{
    char path[PATH_MAX];
    json_t *root = recorded_json(recorded_path(path, "eval/cases.json"));
    const json_t *cases = json_object_get(root, "cases"), *c;
    int32_t most = (int32_t)recorded_number(root, "most");
    struct score_request requests[MOST] = {0};
    struct tr_ids ids[MOST] = {0};
    double worst = 0;
    size_t i;

    (void)state;
    assert_true(json_array_size(cases) > 10 && json_array_size(cases) <= MOST);
    json_array_foreach(cases, i, c) {
        size_t first;

        assert_int_equal(
            tr_task_encode(f->run.tokenizer, json_string_value(json_object_get(c, "context")),
                           json_string_value(json_object_get(c, "continuation")), &ids[i], &first),
            0);
        expect_ids(c, &ids[i], first);
        requests[i] = (struct score_request){
            .ids = ids[i].v, .n = (int32_t)ids[i].n, .first = (int32_t)first};
    }
    if (score_requests(&f->run, requests, (int64_t)json_array_size(cases), most) < 0)
        fail_msg("%s", tr_message());
    json_array_foreach(cases, i, c) {
        double want = recorded_number(c, "sum"), off = fabs(requests[i].sum - want);

        worst = off > worst ? off : worst;
        if (!(off < 1e-4))
            fail_msg("case %zu: %.7f, recorded %.7f", i, requests[i].sum, want);
        tr_ids_free(&ids[i]);
    }
    printf("%zu cases, at most %.1e apart\n", json_array_size(cases), worst);
    json_decref(root);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_cases)};
    int r;

    if (access(MODEL "/tokenizer.json", R_OK) < 0) {
        puts("skipped: " MODEL " is not there");
        return 77;
    }
    if (infer_open(&f, &(struct infer_params){.model = MODEL,
                                              .shape.batch_tokens = 512,
                                              .shape.positions = 512,
                                              .device_memory = test_budget(NULL, 256 << 20)}) < 0) {
        printf("%s\n", tr_message());
        return 1;
    }
    r = cmocka_run_group_tests_name("eval", tests, NULL, NULL);
    infer_close(f);
    return r;
}
