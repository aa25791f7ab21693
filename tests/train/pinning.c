/* SPDX-License-Identifier: Apache-2.0
 *
 * A driver that pins some host memory and then no more: staging buffers are pinned when a run is
 * opened, homes in its first step, and what is refused there is said after it, once.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "tests/device/budget.h"
#include "tests/train/common.h"

static const struct tiny shape = {"llama", 256, 768, 12, 8, 4, 32, 500, 512, ""};

static int told; /* how often */

static void listen(void *arg, const char *line)
{
    (void)arg;
    told += strstr(line, "the driver does not pin host memory") != NULL;
}

static void test_late_refusal(void **state)
{
    char model[4352], data[4352];
    struct tr_train_params p = {.model = model,
                                .data = data,
                                .out = scratch_path("run"),
                                .steps = 3,
                                .batch_size = 1,
                                .seq_len = 64,
                                .device = "cuda",
                                .device_memory = test_budget("cuda", 24 << 20),
                                .host_memory = 160 << 20,
                                .export_model = TR_NO,
                                .log = listen};
    struct tr_step_report report;
    tr_run *run;

    (void)state;
    snprintf(model, sizeof(model), "%s", scratch_path("model"));
    snprintf(data, sizeof(data), "%s", scratch_path("data.jsonl"));
    tiny_model(model, &shape, TR_TYPE_F32, 3);
    token_data(data, 4, 64, 64, shape.vocab);
    if (tr_train_open(&run, &p) < 0)
        fail_msg("%s", tr_message());
    assert_null(strstr(tr_train_summary(run), "does not pin"));
    assert_int_equal(told, 0);
    for (int i = 0; i < 3; i++) {
        assert_int_equal(tr_train_step(run, &report), 1);
        assert_int_equal(told, 1);
    }
    assert_int_equal(tr_train_finish(run), 0);
    tr_train_close(run);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_late_refusal)};

    return cmocka_run_group_tests_name("pinning", tests, NULL, NULL);
}
