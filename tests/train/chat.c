/* SPDX-License-Identifier: Apache-2.0
 *
 * Chat: a prompt by a template is the text that the template writes, with one BOS; a conversation
 * is the prompt that its history makes; an answer ends where a turn ends; exact match asks the last
 * turn of a conversation; a run brings its own template.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <jansson.h>

#include "src/base/file.h"
#include "src/infer/infer.h"
#include "src/infer/match.h"
#include "tests/device/budget.h"
#include "tests/train/common.h"

#define MORE 5

static char model[4352], tokenizer[4352], template[4352];

static void write_file(const char *path, const char *text)
{
    FILE *f = fopen(path, "w");

    assert_non_null(f);
    fputs(text, f);
    fclose(f);
}

/* "<s>" is no end of a text, but here it is one of a turn. The template judges what it is given: a
 * random model hardly cares for what it has read. */
static int open_all(void **state)
{
    char text[4352];

    (void)state;
    snprintf(text, sizeof(text), "%s", scratch_path("text.txt"));
    snprintf(tokenizer, sizeof(tokenizer), "%s", scratch_path("tokenizer"));
    snprintf(model, sizeof(model), "%s", scratch_path("model"));
    snprintf(template, sizeof(template), "%s", scratch_path("t.jinja"));
    write_file(text, "the cat sat on the mat, the cat ran; and the dog, too");
    write_file(template,
               "{% if messages|length > 2 and messages[1].role != 'assistant' %}"
               "{{ raise_exception('no history') }}{% endif %}"
               "{{ bos_token }}{% for m in messages %}{% if m.role == 'user' %}{{ m.content }}:"
               "{% else %}>{{ m.content }}<s>{% endif %}{% endfor %}"
               "{% if add_generation_prompt %}>{% endif %}");
    if (tr_learn_tokenizer(
            &(struct tr_learn_params){.data = text, .out = tokenizer, .vocab = 280}) < 0)
        fail_msg("%s", tr_message());
    tiny_model(model, &(struct tiny){"llama", 32, 48, 2, 4, 2, 8, 280, 64, ""}, TR_TYPE_F32, 12);
    return 0;
}

static struct tr_generate_params asked(const char *prompt, const char *by)
{
    return (struct tr_generate_params){.model = model,
                                       .tokenizer = tokenizer,
                                       .prompt = prompt,
                                       .chat_template = by,
                                       .max_tokens = MORE,
                                       .device_memory = test_budget(NULL, 64 << 20)};
}

static char *answer(const char *prompt, const char *by)
{
    struct tr_generate_params p = asked(prompt, by);
    char *out;

    if (tr_generate_text(&p, &out) < 0)
        fail_msg("%s", tr_message());
    return out;
}

static void same_answer(const char *prompt, const char *by, const char *plain)
{
    char *a = answer(prompt, by), *b = answer(plain, NULL);

    assert_string_equal(a, b);
    assert_true(strlen(a) > 0);
    tr_free_text(a);
    tr_free_text(b);
}

/* A plain prompt gets its BOS from the tokenizer, a turn from the template: one each. */
static void test_turn(void **state)
{
    struct tr_ids ids = {0}, want = {0};
    struct tr_tokenizer *t;
    struct chat c;
    char *a, *b;

    (void)state;
    same_answer("the cat", template, "the cat:>");
    a = answer("the cat:", NULL);
    b = answer("the cat:>", NULL);
    assert_string_not_equal(a, b); /* or the comparison above would say nothing */
    tr_free_text(a);
    tr_free_text(b);
    assert_int_equal(tr_tokenizer_open(&t, tokenizer), 0);
    assert_int_equal(chat_open(&c, &(struct chat_params){.name = template, .tokenizer = t}), 0);
    assert_int_equal(infer_encode_turn(t, &c, "the cat", &ids), 0);
    assert_int_equal(infer_encode_prompt(t, "the cat:>", &want), 0);
    assert_int_equal(want.v[0], tr_tokenizer_bos(t));
    assert_int_equal(ids.n, want.n);
    assert_memory_equal(ids.v, want.v, want.n * sizeof(*want.v));
    tr_ids_free(&want);
    chat_close(&c);
    tr_ids_free(&ids);
    tr_tokenizer_close(t);
}

struct talk {
    const char *const *turns;
    char told[3][256];
    int n;
};

static const char *next_turn(void *arg)
{
    struct talk *t = arg;

    return t->turns[t->n] ? t->turns[t->n++] : NULL;
}

static void hear(void *arg, const char *text)
{
    struct talk *t = arg;

    strcat(t->told[t->n - 1], text);
}

/* Each answer is the one to the whole history, written as the template writes it. */
static void test_conversation(void **state)
{
    static const char *const turns[] = {"the cat", "and the dog", NULL};
    struct talk talk = {.turns = turns};
    struct tr_generate_params p = asked(NULL, template);
    char *out, *first = answer("the cat", template), history[512], *second;

    (void)state;
    p.chat = 1;
    p.ask = next_turn;
    p.ask_arg = p.piece_arg = &talk;
    p.piece = hear;
    if (tr_generate_text(&p, &out) < 0)
        fail_msg("%s", tr_message());
    assert_int_equal(talk.n, 2);
    assert_string_equal(talk.told[0], first);
    snprintf(history, sizeof(history), "the cat:>%s<s>and the dog:>", first);
    second = answer(history, NULL);
    assert_string_equal(talk.told[1], second);
    tr_free_text(out);
    tr_free_text(first);
    tr_free_text(second);
}

/* 64 positions: the history outgrows them. */
static void test_conversation_that_is_too_long(void **state)
{
    static const char *const turns[] = {"the cat sat on the mat and the dog sat on it, too, and so",
                                        "the cat sat on the mat and the dog sat on it, too, and so",
                                        "the cat sat on the mat and the dog sat on it, too, and so",
                                        NULL};
    struct talk talk = {.turns = turns};
    struct tr_generate_params p = asked(NULL, template);
    char *out = NULL;

    (void)state;
    p.chat = 1;
    p.ask = next_turn;
    p.ask_arg = &talk;
    p.max_tokens = INT64_MAX; /* all the room that there is */
    assert_int_equal(tr_generate_text(&p, &out), -E2BIG);
    assert_non_null(strstr(tr_message(), "the conversation has"));
    p.prompt = "x";
    assert_int_equal(tr_generate_text(&p, &out), -EINVAL);
    p.prompt = NULL;
    p.chat = 0;
    assert_int_equal(tr_generate_text(&p, &out), -EINVAL);
}

static void test_end_of_turn(void **state)
{
    struct infer_params p = {
        .model = model, .tokenizer = tokenizer, .device_memory = test_budget(NULL, 64 << 20)};
    struct infer *f;
    struct chat c;

    (void)state;
    if (infer_open_model(&f, &p) < 0)
        fail_msg("%s", tr_message());
    assert_false(infer_stops(f, 1));
    if (infer_chat_open(f, model, template, &c) < 0)
        fail_msg("%s", tr_message());
    assert_true(infer_stops(f, 1));
    chat_close(&c);
    infer_close(f);
}

static struct tr_eval_report match(const char *data, const char *by, const char *folder)
{
    struct tr_eval_report r;
    struct tr_eval_params p = {.model = folder,
                               .tokenizer = tokenizer,
                               .data = data,
                               .chat_template = by,
                               .exact_match = 1,
                               .batch_size = 2,
                               .max_tokens = MORE,
                               .device_memory = test_budget(NULL, 64 << 20)};

    if (tr_eval_data(&p, &r) < 0)
        fail_msg("%s", tr_message());
    return r;
}

/* The shape with the answer in the place of its '@'. */
static void fill(char *line, size_t bytes, const char *shape, const char *with)
{
    const char *at = strchr(shape, '@');

    snprintf(line, bytes, "%.*s%s%s", (int)(at - shape), shape, with, at + 1);
}

/* The right answer to "the cat" as a turn, in every shape that says so. */
static void test_exact_match(void **state)
{
    static const char *const shapes[] = {
        "{\"messages\":[{\"role\":\"user\",\"content\":\"the cat\"},{\"role\":\"assistant\","
        "\"content\":@}]}",
        "{\"conversations\":[{\"from\":\"human\",\"value\":\"the cat\"},{\"from\":\"gpt\","
        "\"value\":@}]}",
        "{\"instruction\":\"the cat\",\"output\":@}",
        "{\"prompt\":\"the cat\",\"completion\":@}",
        "{\"question\":\"the cat\",\"answer\":@}",
        "[{\"prompt\":\"the cat\",\n\"completion\":@}]",
    };
    char *right = answer("the cat", template), line[512], path[4352];
    json_t *text = json_string(right);
    char *quoted = json_dumps(text, JSON_ENCODE_ANY);
    struct tr_eval_report r;

    (void)state;
    snprintf(path, sizeof(path), "%s", scratch_path("match.json"));
    for (size_t i = 0; i < sizeof(shapes) / sizeof(shapes[0]); i++) {
        fill(line, sizeof(line), shapes[i], quoted);
        write_file(path, line);
        r = match(path, template, model);
        assert_int_equal(r.samples, 1);
        assert_int_equal(r.matched, 1);
        fill(line, sizeof(line), shapes[i], "\"another answer\"");
        write_file(path, line);
        assert_int_equal(match(path, template, model).matched, 0);
    }
    snprintf(line, sizeof(line), "{\"prompt\":\"the cat:>\",\"completion\":%s}", quoted);
    write_file(path, line); /* without a template a prompt is as it stands */
    assert_int_equal(match(path, NULL, model).matched, 1);
    assert_int_equal(match(path, template, model).matched, 0);
    free(quoted);
    json_decref(text);
    tr_free_text(right);
}

#define SAID 4096 /* bytes of a line that is kept */

static void keep_line(void *arg, const char *line)
{
    snprintf(arg, SAID, "%s", line);
}

/* The line that is said of the answer to "the cat", when nobody asks for a number of tokens. */
static void judge_cat(const char *right, char said[SAID])
{
    char record[2048];
    struct tr_eval_params p = {.model = model,
                               .tokenizer = tokenizer,
                               .data = scratch_path("cat.jsonl"),
                               .exact_match = 1,
                               .log = keep_line,
                               .log_arg = said,
                               .device_memory = test_budget(NULL, 64 << 20)};
    struct tr_eval_report report;

    snprintf(record, sizeof(record), "{\"prompt\":\"the cat\",\"completion\":\"%s\"}", right);
    write_file(p.data, record);
    if (tr_eval_data(&p, &report) < 0)
        fail_msg("%s", tr_message());
}

/* Unless asked for, answers may be half as long again as the right ones. */
static void test_room_for_answers(void **state)
{
    static const char right[] = "the cat sat on the mat, the cat ran; and the dog, too";
    struct tr_generate_params g = asked("the cat", NULL);
    char line[1024], said[SAID] = "", *out;
    struct tr_ids ids = {0};
    struct tr_tokenizer *t;

    (void)state;
    judge_cat(right, said);
    assert_int_equal(tr_tokenizer_open(&t, tokenizer), 0);
    assert_int_equal(tr_tokenizer_encode(t, right, strlen(right), &ids), 0);
    assert_in_range(ids.n, 23, 36); /* more than 32, and within the model's 64 */
    g.max_tokens = (int64_t)(ids.n + ids.n / 2);
    if (tr_generate_text(&g, &out) < 0)
        fail_msg("%s", tr_message());
    snprintf(line, sizeof(line), "miss the cat -> %s (expected %s)", out, right);
    assert_string_equal(said, line);
    tr_free_text(out);
    tr_ids_free(&ids);
    tr_tokenizer_close(t);
}

/* However long an answer is, its line has what was expected instead. */
static void test_long_answer(void **state)
{
    char right[1501], expected[2048], said[SAID] = "", *end;

    (void)state;
    memset(right, 'a', sizeof(right) - 1);
    right[sizeof(right) - 1] = 0;
    judge_cat(right, said);
    end = strstr(said, " (expected ");
    snprintf(expected, sizeof(expected), " (expected %s)", right);
    assert_non_null(end);
    assert_string_equal(end, expected);
}

/* Without a template a question is laid out, and its answer is what the model then says. */
static void test_laid_out_question(void **state)
{
    char *right = answer("Question: the cat\nAnswer:", NULL), line[512], path[4352];
    json_t *record = json_pack("{s:s, s:s}", "question", "the cat", "answer", right);
    char *written = json_dumps(record, 0);

    (void)state;
    snprintf(path, sizeof(path), "%s", scratch_path("asked.jsonl"));
    write_file(path, written);
    assert_int_equal(match(path, NULL, model).matched, 1);
    snprintf(line, sizeof(line), "%s", "{\"question\":\"the dog\",\"answer\":\"#### 3\"}");
    write_file(path, line);
    assert_int_equal(match(path, NULL, model).matched, 0);
    free(written);
    json_decref(record);
    tr_free_text(right);
}

static void test_results_are_numbers(void **state)
{
    static const struct {
        const char *answer, *expected;
        enum tr_data_format format;
        int right;
    } cases[] = {
        {"2+2=4\n#### 1,234", "by another way\n#### 1234", TR_DATA_QUESTION, 1},
        {"#### 72.", "#### 72", TR_DATA_QUESTION, 0},
        {"#### -5 apples", "#### -5", TR_DATA_QUESTION, 1},
        {"#### 5", "#### -5", TR_DATA_QUESTION, 0},
        {"#### 7\n#### 8", "#### 7", TR_DATA_QUESTION, 1},
        {"72", "so it is\n#### 72", TR_DATA_QUESTION, 0},
        {"#### 72", "#### 723", TR_DATA_QUESTION, 0},
        {" Paris\n", "Paris", TR_DATA_QUESTION, 1},
        {"#### 1", "Paris", TR_DATA_QUESTION, 0},
        {"a #### 7", "b #### 7", TR_DATA_PROMPT, 0},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
        if (match_is_right(cases[i].format, cases[i].answer, cases[i].expected) != cases[i].right)
            fail_msg("\"%s\" for \"%s\"", cases[i].answer, cases[i].expected);
}

static void refused(const char *line, const char *words)
{
    char path[4352];
    struct tr_eval_report r;
    struct tr_eval_params p = {.model = model,
                               .tokenizer = tokenizer,
                               .chat_template = template,
                               .exact_match = 1,
                               .device_memory = test_budget(NULL, 64 << 20)};

    snprintf(path, sizeof(path), "%s", scratch_path("bad.jsonl"));
    write_file(path, line);
    p.data = path;
    assert_true(tr_eval_data(&p, &r) < 0);
    if (!strstr(tr_message(), words) || !strstr(tr_message(), "bad.jsonl:"))
        fail_msg("%s", tr_message());
}

static void test_bad_questions(void **state)
{
    (void)state;
    refused("{\"messages\":[{\"role\":\"assistant\",\"content\":\"b\"}]}", "ends with a text");
    refused("{\"prompt\":\"a\",\"completion\":\"b\"}\n{\"prompt\":\"a\"}", "bad.jsonl:2");
    refused("{\"text\":\"a\"}", "exact match needs");
    refused("{\"prompt\":\"a\",\"completion\":\"b\\u0000c\"}", "bad.jsonl:1: a text with a NUL");
    refused("{\"messages\":[{\"role\":\"user\",\"content\":\"b\"}]}", "");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(test_turn, open_all),
        cmocka_unit_test(test_conversation),
        cmocka_unit_test(test_conversation_that_is_too_long),
        cmocka_unit_test(test_end_of_turn),
        cmocka_unit_test(test_exact_match),
        cmocka_unit_test(test_room_for_answers),
        cmocka_unit_test(test_long_answer),
        cmocka_unit_test(test_laid_out_question),
        cmocka_unit_test(test_results_are_numbers),
        cmocka_unit_test(test_bad_questions),
    };

    scratch();
    return cmocka_run_group_tests_name("chat", tests, NULL, NULL);
}
