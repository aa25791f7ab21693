/* SPDX-License-Identifier: Apache-2.0
 *
 * A program around the library may have chosen a locale with a decimal comma: run.yaml has the
 * bytes that it has without, each line of metrics.jsonl is JSON, and the run goes on. The locale is
 * compiled here, with the C library's own localedef.
 */
#include <jansson.h>
#include <locale.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "src/base/file.h"
#include "src/base/mem.h"
#include "tests/train/common.h"

static const char rules[] = "LC_NUMERIC\ndecimal_point \"<U002C>\"\nthousands_sep \"\"\n"
                            "grouping -1\nEND LC_NUMERIC\n";

/* 0: it cannot be made here. */
static int make_comma(void)
{
    char source[4352], command[9000];

    snprintf(source, sizeof(source), "%s", scratch_path("comma.src"));
    assert_int_equal(tr_file_write(source, rules, strlen(rules)), 0);
    /* -c, and a status that says nothing: there are no rules for the other categories */
    snprintf(command, sizeof(command), "localedef --no-archive -c -i %s %s > /dev/null 2>&1",
             source, scratch_path("comma"));
    if (system(command) < 0)
        return 0;
    setenv("LOCPATH", scratch_path("."), 1);
    return setlocale(LC_NUMERIC, "comma") != NULL;
}

static char *read_text(const char *name)
{
    char *text;
    size_t bytes;

    assert_int_equal(tr_file_read(scratch_path("run/%s", name), 1 << 20, &text, &bytes), 0);
    return text;
}

static void check_lines(int steps)
{
    char *text = read_text("metrics.jsonl");
    int n = 0;

    for (char *line = strtok(text, "\n"); line; line = strtok(NULL, "\n"), n++) {
        json_t *o = json_loads(line, 0, NULL);

        if (!o)
            fail_msg("no JSON: %s", line);
        assert_true(json_is_real(json_object_get(o, "loss")));
        json_decref(o);
    }
    assert_int_equal(n, steps);
    tr_free(TR_MEM_TEXT, text);
}

static void test_comma(void **state)
{
    static const struct tiny shape = {"llama", 32, 48, 2, 4, 2, 8, 300, 64, ""};
    char model[4352], data[4352], out[4352], number[16], *yaml[2];
    struct tr_train_params p = {.model = model,
                                .data = data,
                                .out = out,
                                .steps = 3,
                                .batch_size = 2,
                                .seq_len = 32,
                                .lr = 0.0625,
                                .clip_norm = 1.5,
                                .device_memory = 64 << 20,
                                .host_memory = TR_SHARE(12.5),
                                .threads = 2};

    (void)state;
    snprintf(model, sizeof(model), "%s", scratch_path("model"));
    snprintf(data, sizeof(data), "%s", scratch_path("data.jsonl"));
    snprintf(out, sizeof(out), "%s", scratch_path("run"));
    tiny_model(model, &shape, TR_TYPE_F32, 3);
    token_data(data, 6, 16, 32, shape.vocab);
    assert_true(train_part(&p, 1) >= 0);
    yaml[0] = read_text("run.yaml");
    assert_int_equal(tr_remove_tree(out), 0);
    if (!make_comma()) {
        print_message("skipped: localedef makes no locale here\n");
        skip();
    }
    snprintf(number, sizeof(number), "%.1f", 1.5);
    assert_string_equal(number, "1,5");
    assert_true(train_part(&p, 1) >= 0);
    yaml[1] = read_text("run.yaml");
    assert_string_equal(yaml[0], yaml[1]);
    check_lines(1);
    if (train(&p, NULL) < 0)
        fail_msg("%s", tr_message());
    check_lines(3);
    snprintf(number, sizeof(number), "%.1f", 1.5); /* which is as the program left it */
    assert_string_equal(number, "1,5");
    for (int i = 0; i < 2; i++)
        tr_free(TR_MEM_TEXT, yaml[i]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_comma)};

    return cmocka_run_group_tests_name("decimal comma", tests, NULL, NULL);
}
