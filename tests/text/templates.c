/* SPDX-License-Identifier: Apache-2.0
 *
 * Chat templates: everything that templates.json records of the reference (record_templates.py) is
 * written here as well, to the byte; what the reference refuses is refused. Then what is learnt of
 * a conversation, by small examples; what is not supported; and the limits.
 */
#include "tests/text/text_test.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "src/base/file.h"
#include "src/base/mem.h"
#include "src/text/chat.h"

static json_t *records;

static char *read_text(const char *path)
{
    FILE *f = fopen(path, "rb");
    char *text = calloc(1, 65536);

    assert_non_null(f);
    assert_non_null(text);
    assert_true(fread(text, 1, 65535, f) > 0);
    fclose(f);
    return text;
}

/* The template's text, allocated; NULL where shared data are not at hand. */
static char *template_text(const char *name, const json_t *entry)
{
    const char *recorded = json_string_value(json_object_get(entry, "template"));
    char path[512];
    json_t *config;
    char *text;

    if (recorded) {
        assert_string_equal(recorded, chat_builtin(name + strlen("builtin ")));
        return strdup(recorded);
    }
    snprintf(path, sizeof(path), "%s.jinja", name);
    if (tr_folder_has(TEST_RECORDS "templates", path)) {
        snprintf(path, sizeof(path), TEST_RECORDS "templates/%s.jinja", name);
        return read_text(path);
    }
    snprintf(path, sizeof(path), "tokenizers/%s/tokenizer_config.json", name);
    if (!text_shared(path))
        return NULL;
    config = json_load_file(text_shared(path), 0, NULL);
    text = strdup(json_string_value(json_object_get(config, "chat_template")));
    json_decref(config);
    return text;
}

/* Fails where the text, or what generation blocks wrote, is not what is recorded. */
static void compare(const char *template, json_t *variables, const json_t *want, const char *what)
{
    const char *text = json_string_value(json_object_get(want, "text"));
    struct jinja_output o = {0};
    struct jinja *j = NULL;
    json_t *spans = json_object_get(want, "spans");
    size_t k = 0;
    int r = jinja_open(&j, template, strlen(template), "t");

    if (r == 0)
        r = jinja_render(j, &(struct jinja_input){.variables = variables}, &o);
    if (!text && r == 0)
        fail_msg("%s: \"%s\", which the reference refuses", what, o.text.v);
    if (text && r < 0)
        fail_msg("%s: %s", what, tr_error_message());
    if (text && strcmp(text, o.text.v ? o.text.v : "") != 0)
        fail_msg("%s: \"%s\", not \"%s\"", what, o.text.v, text);
    for (; spans && k < o.n_spans; k++) {
        json_t *s = json_array_get(spans, k);

        assert_int_equal(o.spans[k].from, json_integer_value(json_array_get(s, 0)));
        assert_int_equal(o.spans[k].to, json_integer_value(json_array_get(s, 1)));
    }
    assert_int_equal(k, json_array_size(spans));
    jinja_output_free(&o);
    jinja_close(j);
}

static void compare_cases(const char *name, const char *template, const json_t *entry)
{
    json_t *talks = json_object_get(records, "conversations"), *one;
    size_t i;

    json_array_foreach(json_object_get(entry, "cases"), i, one) {
        const char *talk = json_string_value(json_object_get(one, "talk"));
        json_t *variables = json_copy(json_object_get(records, "tokens"));
        char what[256];

        json_object_update(variables, json_object_get(talks, talk));
        json_object_set_new(variables, "documents", json_null());
        json_object_set(variables, "add_generation_prompt", json_object_get(one, "prompt"));
        snprintf(what, sizeof(what), "%s: %s", name, talk);
        compare(template, variables, one, what);
        json_decref(variables);
    }
}

static void conversations_are_written_as_the_reference_does(void **state)
{
    const char *name;
    json_t *entry;
    int compared = 0;

    (void)state;
    json_object_foreach(json_object_get(records, "templates"), name, entry) {
        char *template = template_text(name, entry);

        if (template)
            compare_cases(name, template, entry);
        compared += template != NULL;
        free(template);
    }
    assert_true(compared >= 12);
}

static void constructs_are_written_as_the_reference_does(void **state)
{
    json_t *one;
    size_t i;

    (void)state;
    json_array_foreach(json_object_get(records, "lines"), i, one) {
        const char *template = json_string_value(json_object_get(one, "template"));

        compare(template, json_object_get(records, "variables"), one, template);
    }
    assert_true(i > 90);
}

/* What comes behind a NUL of a text is not lost on the way. */
static void a_nul_is_kept(void **state)
{
    static const char template[] = "{% set x = m.strip().split('d') %}{{ x|join('-') }} {{ "
                                   "m|indent }} {{ m|tojson }} {{ [m] }} "
                                   "{{ m > 'a' }} {{ m|length }} {{ m[2] }}",
                      want[] = "a\0- a\0d \"a\\u0000d\" ['a\\x00d'] True 3 d";
    json_t *variables = json_object();
    struct jinja_output o = {0};
    struct jinja *j = NULL;

    (void)state;
    json_object_set_new(variables, "m", json_stringn("a\0d", 3));
    assert_int_equal(jinja_open(&j, template, strlen(template), "t"), 0);
    assert_int_equal(jinja_render(j, &(struct jinja_input){.variables = variables}, &o), 0);
    assert_int_equal(o.text.n, sizeof(want) - 1);
    assert_memory_equal(o.text.v, want, o.text.n);
    jinja_output_free(&o);
    jinja_close(j);
    json_decref(variables);
}

/* The next number of a range may be none. */
static void a_range_ends_at_the_last_number(void **state)
{
    json_t *variables = json_pack("{s:I,s:I,s:I,s:I}", "high", (json_int_t)INT64_MAX - 1, "most",
                                  (json_int_t)INT64_MAX, "low", (json_int_t)INT64_MIN + 1, "least",
                                  (json_int_t)INT64_MIN);
    json_t *want =
        json_pack("{s:s}", "text", "[9223372036854775806] [-9223372036854775807] [4, 2, 0, -2]");

    (void)state;
    compare("{{ range(high, most, 5)|list }} {{ range(low, least, -9)|list }} "
            "{{ range(4, -3, -2)|list }}",
            variables, want, "range");
    json_decref(variables);
    json_decref(want);
}

/* message, generation prompt, and the learnt parts of what is written, between bars. */
static void expect_turns(const char *template, const char *messages, const char *want)
{
    struct chat c = {.from = NULL};
    struct chat_text t = {0};
    json_t *m = json_loads(messages, 0, NULL);
    char got[1024] = "";

    c.tokens = json_loads("{\"bos_token\":\"<s>\",\"eos_token\":\"</s>\"}", 0, NULL);
    assert_non_null(m);
    if (jinja_open(&c.template, template, strlen(template), "t") < 0 ||
        chat_write(&c, &(struct chat_conversation){.messages = m}, &t) < 0) {
        if (*want != '!' || !strstr(tr_error_message(), want + 1))
            fail_msg("%s, not %s", tr_error_message(), want);
    } else {
        for (size_t i = 0; i < t.n_turns; i++)
            snprintf(got + strlen(got), sizeof(got) - strlen(got), "%d:%.*s|", t.turn[i].message,
                     (int)(t.turn[i].to - t.turn[i].from), t.text + t.turn[i].from);
        snprintf(got + strlen(got), sizeof(got) - strlen(got), "%zu", t.rewritten);
        assert_string_equal(got, want);
    }
    chat_text_free(&t);
    chat_close(&c);
    json_decref(m);
}

#define TALK                                                                                       \
    "[{\"role\":\"user\",\"content\":\"q\"},{\"role\":\"assistant\",\"content\":\"a\"},"           \
    "{\"role\":\"user\",\"content\":\"r\"},{\"role\":\"assistant\",\"content\":\" b\\n\"}]"

static void the_turns_of_the_assistant_are_learnt(void **state)
{
    (void)state;
    expect_turns(chat_builtin("chatml"), TALK, "1:a<|im_end|>|3: b\n<|im_end|>|0");
    expect_turns(chat_builtin("llama2"), TALK, "1: a </s>|3: b </s>|0");
    expect_turns(chat_builtin("llama3"), TALK, "1:a<|eot_id|>|3:b<|eot_id|>|0");
    expect_turns(chat_builtin("mistral"), TALK, "1: a</s>|3: b</s>|0");
    expect_turns(chat_builtin("zephyr"), TALK, "1:a</s>|3: b\n</s>|0");
    expect_turns(chat_builtin("phi3"), TALK, "1:a<|end|>|3: b\n<|end|>\n</s>|0");
    expect_turns(chat_builtin("gemma"), TALK, "1:a<end_of_turn>|3:b<end_of_turn>|0");
    expect_turns(chat_builtin("alpaca"), TALK, "1:a</s>|3: b\n</s>|0");
    expect_turns(chat_builtin("chatml"), "[{\"role\":\"assistant\",\"content\":\"a\"}]",
                 "0:a<|im_end|>|0");
    expect_turns(chat_builtin("llama3"), /* which does not ask for null */
                 "[{\"role\":\"user\",\"content\":\"q\"},"
                 "{\"role\":\"assistant\",\"content\":null}]",
                 "1:<|eot_id|>|0");
}

/* An answer that repeats the question, or the header, is still learnt where it stands. */
static void a_turn_is_found_by_its_place(void **state)
{
    (void)state;
    expect_turns(chat_builtin("chatml"),
                 "[{\"role\":\"user\",\"content\":\"a<|im_end|>\"},"
                 "{\"role\":\"assistant\",\"content\":\"a<|im_end|>\"},"
                 "{\"role\":\"assistant\",\"content\":\"<|im_start|>assistant\\n\"}]",
                 "1:a<|im_end|><|im_end|>|2:<|im_start|>assistant\n<|im_end|>|0");
}

static void a_template_may_mark_what_is_learnt(void **state)
{
    (void)state;
    expect_turns("{% for m in messages %}{{ m.role }}:{% generation %}{{ m.content }}"
                 "{% endgeneration %};{% endfor %}",
                 TALK, "0:q|1:a|2:r|3: b\n|0");
    expect_turns("{% generation %}x{% endgeneration %}", TALK, "-1:x|0");
}

static void hindsight_is_told(void **state)
{
    char *thinking = read_text(TEST_RECORDS "templates/thinking.jinja");

    (void)state;
    expect_turns(thinking,
                 "[{\"role\":\"user\",\"content\":\"q\"},"
                 "{\"role\":\"assistant\",\"content\":\"<think>\\nx\\n</think>\\n\\na\"},"
                 "{\"role\":\"user\",\"content\":\"r\"},"
                 "{\"role\":\"assistant\",\"content\":\"<think>\\ny\\n</think>\\n\\nb\"}]",
                 "1:a<|im_end|>|3:<think>\ny\n</think>\n\nb<|im_end|>|1");
    free(thinking);
    /* A prompt that goes on where a past turn does not. */
    expect_turns("{% for m in messages %}<{{ m.role }}>{{ m.content }}!{% endfor %}"
                 "{% if add_generation_prompt %}<assistant><think>{% endif %}",
                 TALK, "1:a!|3: b\n!|0");
}

/* An answer may begin as the prompt goes on, an empty one may end so; and blanks are no header. */
static void a_header_ends_before_the_answer(void **state)
{
    (void)state;
    expect_turns("{% for m in messages %}<{{ m.role }}>{{ m.content }}</s>{% endfor %}"
                 "{% if add_generation_prompt %}<assistant><think>{% endif %}",
                 "[{\"role\":\"user\",\"content\":\"q\"},"
                 "{\"role\":\"assistant\",\"content\":\"<table>\"},"
                 "{\"role\":\"user\",\"content\":\"r\"},"
                 "{\"role\":\"assistant\",\"content\":\"\"}]",
                 "1:<table></s>|3:</s>|0");
    expect_turns("{% for m in messages %}{% if m.role == 'user' %}{{ m.content }}{% else %}"
                 "{{ '\n\n\n### A:\n' + m.content }}</s>{% endif %}{% endfor %}"
                 "{% if add_generation_prompt %}{{ '\n### A:\n' }}{% endif %}",
                 TALK, "1:a</s>|3: b\n</s>|0");
    expect_turns("{% for m in messages %}{{ m.content }}{{ '\n' }}{% endfor %}"
                 "{% if add_generation_prompt %}{{ ' ' }}{% endif %}",
                 TALK, "!message 1 does not begin with the template's generation prompt");
}

/* A turn that calls a tool, and begins by chance as the prompt goes on. */
#define CALLING                                                                                    \
    "[{\"role\":\"user\",\"content\":\"q\"},{\"role\":\"assistant\",\"content\":null,"             \
    "\"tool_calls\":[{\"name\":\"f\"}]},{\"role\":\"tool\",\"content\":\"3\"},"                    \
    "{\"role\":\"assistant\",\"content\":\"b\"}]"

#define CALLS   "{% if m.tool_calls %}<tool_call>{{ m.tool_calls[0].name }}</tool_call>{% endif %}"
#define CONTENT "{% if m.content is not none %}{{ m.content }}{% endif %}"
/* The last turn alone shows its reasoning. */
#define ROUNDS(...) "{% for m in messages %}<{{ m.role }}>" __VA_ARGS__ ";{% endfor %}"
#define LATE        ROUNDS("{% if loop.last %}<think>\n{% endif %}" CONTENT CALLS)
#define THINK       "{% if add_generation_prompt %}<assistant><think>\n{% endif %}"
#define STRICT                                                                                     \
    "{% for m in messages %}{% if m.role == 'tool' and "                                           \
    "not messages[loop.index0 - 1].tool_calls %}{{ raise_exception('no call') }}{% endif %}"       \
    "{% endfor %}"

static void a_header_ends_before_the_call(void **state)
{
    (void)state;
    expect_turns(ROUNDS(CALLS CONTENT) THINK, CALLING, "1:<tool_call>f</tool_call>;|3:b;|0");
    expect_turns(LATE THINK, CALLING, "1:<tool_call>f</tool_call>;|3:b;|1");
    expect_turns(STRICT ROUNDS(CALLS CONTENT) THINK, CALLING, "1:<tool_call>f</tool_call>;|3:b;|0");
    expect_turns(STRICT LATE THINK, CALLING, "1:<tool_call>f</tool_call>;|3:b;|1");
}

static void what_cannot_be_told_is_refused(void **state)
{
    (void)state;
    expect_turns("{{ messages[0].content }}{{ messages[1].content }}", TALK,
                 "!message 1 outside of a loop");
    expect_turns("{% for m in messages %}{{ m.content }}{% endfor %}"
                 "{% for m in messages %}{{ m.content }}{% endfor %}",
                 TALK, "!message 1 in two places");
    expect_turns("{% for m in messages[::-1] %}{{ m.content }}{% endfor %}", TALK,
                 "!in another order");
    expect_turns("{% for m in messages %}{{ m.content }}{% endfor %}"
                 "{% if add_generation_prompt %}PROMPT{% endif %}",
                 TALK, "!message 1 does not begin with the template's generation prompt");
}

/* Which message a round is of is found at once, however many there are. */
static void a_long_conversation_is_written_quickly(void **state)
{
    static const char template[] = "{% for m in messages %}{{ m.content }}{% endfor %}";
    struct chat c = {.tokens = json_object()};
    json_t *messages = json_array();
    struct jinja_output o;
    double start;
    int n = 100000;

    (void)state;
    for (int i = 0; i < n; i++)
        json_array_append_new(messages, json_pack("{s:s,s:s}", "role", "user", "content", "a"));
    assert_int_equal(jinja_open(&c.template, template, strlen(template), "t"), 0);
    start = text_seconds();
    assert_int_equal(
        chat_render(&c, &(struct chat_conversation){.messages = messages}, (size_t)n, 0, &o), 0);
    assert_true(text_seconds() - start < 4);
    assert_int_equal(o.n_spans, n);
    for (int i = 0; i < n; i++)
        assert_int_equal(o.spans[i].message, i);
    jinja_output_free(&o);
    json_decref(messages);
    chat_close(&c);
}

static const struct {
    const char *template, *say;
} refused[] = {
    {"a\n{{ x", "t:2: a tag without an end"},
    {"{% if 1 %}", "t:1: a block is not ended at \"the end\""},
    {"{% for x of y %}", "t:1: \"in\" is expected at \"of\""},
    {"\n\n{% include 'x' %}", "t:3: a tag that is not supported at \"include\""},
    {"{{ 'a", "t:1: a string without an end"},
    {"{{ a ? b }}", "t:1: a character that no expression has"},
    {"{% break %}", "t:1: break and continue stand in a loop only"},
    {"{{ 1|nosuch }}", "t:1: the filter \"nosuch\" is not supported"},
    {"{{ 1 is nosuch }}", "t:1: the test \"nosuch\" is not supported"},
    {"{{ 'a'.format(1) }}", "t:1: a text's .format() is not supported"},
    {"{{ 'a'.__class__.x }}", "t:1: __class__ is undefined, and has no .x"},
    {"{{ 'a\\x4' }}", "t:1: an escape in a text that names no character"},
    {"{{ '\\ud83d' }}", "t:1: an escape in a text that names no character"},
    {"{{ '\\U00110000' }}", "t:1: an escape in a text that names no character"},
    {"{{ '\\N{DASH}' }}", "t:1: an escape in a text that names no character, or by its name"},
    {"{{ 'a'.splitlines(true) }}", "t:1: splitlines with arguments is not supported"},
    {"{{ 'a'.find('a', 1.5) }}", "t:1: a place in a text is a whole number"},
    {"{{ '1_0'|int }}", "t:1: int of a number with _ in it is not supported"},
    {"{{ '10'|int(0, 2) }}", "t:1: int with a base is not supported"},
    {"{{ '9999999999999999999'|int }}", "t:1: a whole number out of bounds"},
    {"{{ '1e30'|int }}", "t:1: a whole number out of bounds"},
    {"{{ 'a'|indent('> ') }}", "t:1: indent by something that is no whole number"},
    {"{{ x.y }}", "t:1: x is undefined, and has no .y"},
    {"\n{{ raise_exception('roles') }}", "t:2: the template refuses the conversation: roles"},
    {"{{ 9223372036854775807 + 1 }}", "t:1: a number of more than 18 digits"},
    {"{{ 999999999999999999 * 999 }}", "t:1: a whole number out of bounds"},
    {"{{ range(1000000) }}", "t:1: a range of more than"},
    {"{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}",
     "t:1: the template takes more than"},
    {"{% set ns = namespace(s='aaaaaaaa') %}{% for i in range(99) %}{% set ns.s = ns.s + ns.s %}"
     "{% endfor %}",
     "t:1: the template makes more than"},
    {"{% set ns = namespace(s=[]) %}{% for i in range(999) %}{% set ns.s = [ns.s] %}{% endfor %}",
     "t:1: a value nested more than"},
    {"{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}", "t:1: calls nested too deeply"},
};

static void what_is_not_supported_has_a_line(void **state)
{
    json_t *none = json_object();

    (void)state;
    for (size_t i = 0; i < sizeof(refused) / sizeof(refused[0]); i++) {
        struct jinja_output o = {0};
        struct jinja *j = NULL;
        int r = jinja_open(&j, refused[i].template, strlen(refused[i].template), "t");

        if (r == 0)
            r = jinja_render(j, &(struct jinja_input){.variables = none}, &o);
        TEXT_ERROR(r, refused[i].say);
        jinja_output_free(&o);
        jinja_close(j);
    }
    json_decref(none);
}

/* A text of 4 MiB, looked at in every way that makes nothing of it. */
static void looking_has_a_bound(void **state)
{
    static const char *const looks[] = {"ns.s|length",
                                        "ns.s[0]",
                                        "ns.s == ns.t",
                                        "'b' in ns.s",
                                        "ns.s.find('b')",
                                        "ns.s.count('b')",
                                        "ns.s < ns.t",
                                        "ns.s.startswith(ns.t)",
                                        "ns.s.isdigit()",
                                        "ns.s|int",
                                        "ns.d.get(ns.s)",
                                        "ns.d[ns.s] is defined",
                                        "ns.w|trim",
                                        "ns.w.split()",
                                        "ns.s == [ns.t][0]",
                                        "ns.s in [ns.t]",
                                        "ns.s.replace('0', '', 0)",
                                        "'b'.strip(ns.s)"};
    json_t *none = json_object();

    (void)state;
    for (size_t i = 0; i < sizeof(looks) / sizeof(looks[0]); i++) {
        struct jinja_output o = {0};
        struct jinja *j = NULL;
        char text[512];
        double start = text_seconds();

        snprintf(text, sizeof(text),
                 "{%% set ns = namespace(s='0', t='0', w=' ', d={}) %%}{%% for i in range(22) %%}"
                 "{%% set ns.s = ns.s + ns.s %%}{%% set ns.t = ns.t + ns.t %%}"
                 "{%% set ns.w = ns.w + ns.w %%}{%% endfor %%}"
                 "{%% for i in range(3000) %%}{%% set x = %s %%}{%% endfor %%}",
                 looks[i]);
        assert_int_equal(jinja_open(&j, text, strlen(text), "t"), 0);
        if (jinja_render(j, &(struct jinja_input){.variables = none}, &o) == 0)
            fail_msg("%s is not bounded: %.1f s", looks[i], text_seconds() - start);
        assert_non_null(strstr(tr_error_message(), "t:1: the template "));
        assert_true(text_seconds() - start < 10);
        jinja_output_free(&o);
        jinja_close(j);
    }
    json_decref(none);
}

/* Names that are looked for among many cost what it takes, where they are set and where they are
 * read. */
static void names_have_a_bound(void **state)
{
    static const struct {
        int names;
        const char *read;
    } cases[] = {{60000, ""}, {5000, "{% for i in range(99999) %}{{ a0 }}{{ x }}{% endfor %}"}};
    size_t room = 2 << 20;
    char *text = malloc(room);
    json_t *none = json_object();

    (void)state;
    for (int c = 0; c < 2; c++) {
        struct jinja_output o = {0};
        struct jinja *j = NULL;
        size_t n = 0;

        for (int i = 0; i < cases[c].names; i++)
            n += (size_t)snprintf(text + n, room - n, "{%%set a%d=1%%}", i);
        n += (size_t)snprintf(text + n, room - n, "%s", cases[c].read);
        assert_int_equal(jinja_open(&j, text, n, "t"), 0);
        TEXT_ERROR(jinja_render(j, &(struct jinja_input){.variables = none}, &o),
                   "t:1: the template takes more than");
        jinja_output_free(&o);
        jinja_close(j);
    }
    json_decref(none);
    free(text);
}

static void nesting_has_a_bound(void **state)
{
    static const char *const nested[] = {"(", "[", "not ", "-", "x.", "1+", "1 if ", "{1:"};
    char text[65536];

    (void)state;
    for (size_t i = 0; i < sizeof(nested) / sizeof(nested[0]); i++) {
        struct jinja *j = NULL;

        size_t n = (size_t)snprintf(text, sizeof(text), "{{ ");

        for (int k = 0; k < 10000; k++)
            n += (size_t)snprintf(text + n, sizeof(text) - n, "%s", nested[i]);
        snprintf(text + n, sizeof(text) - n, "1 }}");
        TEXT_ERROR(jinja_open(&j, text, strlen(text), "t"), "t:1: ");
    }
}

static int setup(void **state)
{
    records = json_load_file(TEST_RECORDS "templates.json", 0, NULL);
    return records ? text_setup(state) : -1;
}

static int teardown(void **state)
{
    json_decref(records);
    return text_teardown(state);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(conversations_are_written_as_the_reference_does),
        cmocka_unit_test(constructs_are_written_as_the_reference_does),
        cmocka_unit_test(a_nul_is_kept),
        cmocka_unit_test(a_range_ends_at_the_last_number),
        cmocka_unit_test(the_turns_of_the_assistant_are_learnt),
        cmocka_unit_test(a_turn_is_found_by_its_place),
        cmocka_unit_test(a_template_may_mark_what_is_learnt),
        cmocka_unit_test(hindsight_is_told),
        cmocka_unit_test(a_header_ends_before_the_answer),
        cmocka_unit_test(a_header_ends_before_the_call),
        cmocka_unit_test(what_cannot_be_told_is_refused),
        cmocka_unit_test(a_long_conversation_is_written_quickly),
        cmocka_unit_test(what_is_not_supported_has_a_line),
        cmocka_unit_test(looking_has_a_bound),
        cmocka_unit_test(names_have_a_bound),
        cmocka_unit_test(nesting_has_a_bound),
    };

    return cmocka_run_group_tests(tests, setup, teardown);
}
