/* SPDX-License-Identifier: Apache-2.0
 *
 * Conversations as data: which tokens a record becomes, which of them are learnt, and how much they
 * count. What is expected is written as parts of text with a weight each; parts are encoded one
 * after the other, as chat.h says.
 */
#include "tests/text/text_test.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "src/base/mem.h"
#include "src/text/data.h"
#include "src/text/preview.h"

struct part {
    const char *text; /* NULL ends the list */
    float weight;
};

#define USER(text) "{\"role\":\"user\",\"content\":\"" text "\"}"
#define SAYS(text) "{\"role\":\"assistant\",\"content\":\"" text "\"}"
#define TALK(...)  "{\"messages\":[" __VA_ARGS__ "]}\n"

static struct tr_data_params params(const char *path, const struct tr_tokenizer *t)
{
    return (struct tr_data_params){.path = path,
                                   .tokenizer = t,
                                   .template_name = "chatml",
                                   .vocab = tr_tokenizer_vocab(t),
                                   .seq_len = 4096,
                                   .batch_size = 4,
                                   .grain_tokens = 16};
}

/* Tokens from..to of the batch are the parts. */
static int32_t expect_parts(const struct tr_tokenizer *t, const struct tr_batch *b, int32_t at,
                            const struct part *want)
{
    enum tr_text_place place = TR_TEXT_START;
    int32_t from = at;

    for (; want->text; want++) {
        struct tr_ids ids = {0};

        assert_int_equal(tr_tokenizer_encode_more(t, want->text, strlen(want->text), &place, &ids),
                         0);
        for (size_t i = 0; i < ids.n; i++, at++) {
            assert_true(at < b->n_tokens);
            assert_int_equal(b->ids[at], ids.v[i]);
            if (at == from)
                continue;
            assert_int_equal(b->targets[at - 1], want->weight > 0 ? ids.v[i] : -1);
            assert_true(b->weight[at - 1] == want->weight);
        }
        tr_ids_free(&ids);
    }
    return at;
}

/* One record, with a template, in a file of that name. */
static void expect(const char *name, const char *template, const char *record,
                   const struct part *want)
{
    struct tr_tokenizer *t = text_toy_marked();
    struct tr_data_params p = params(text_file(name, record, strlen(record)), t);
    struct tr_batch b;
    struct tr_data *d;
    double sum = 0;

    p.template_name = template;
    d = text_open_data(&p);
    assert_int_equal(tr_data_batch(d, 0, 0, &b), 0);
    assert_int_equal(b.n_docs, 1);
    assert_int_equal(expect_parts(t, &b, 0, want), b.n_tokens);
    for (int32_t i = 0; i < b.n_tokens; i++)
        sum += b.weight[i];
    assert_true(b.weight_sum == sum);
    tr_data_close(d);
    tr_tokenizer_close(t);
}

static const struct part two_turns[] = {
    {"<|im_start|>user\nq<|im_end|>\n<|im_start|>assistant\n", 0},
    {"a b<|im_end|>", 1},
    {"\n<|im_start|>user\nr<|im_end|>\n"
     "<|im_start|>assistant\n",
     0},
    {"c<|im_end|>", 1},
    {"\n", 0},
    {NULL, 0}};

static void every_shape_is_the_same_conversation(void **state)
{
    (void)state;
    expect("m.jsonl", "chatml", TALK(USER("q") "," SAYS("a b") "," USER("r") "," SAYS("c")),
           two_turns);
    expect(
        "l.jsonl", "chatml",
        TALK("{\"role\":\"user\",\"content\":[{\"type\":\"text\",\"text\":\"q\"}],\"loss_weight\":"
             "0},"
             "{\"role\":\"assistant\",\"content\":[{\"type\":\"text\",\"value\":\"a \"},"
             "{\"type\":\"text\",\"text\":\"b\"}],\"loss_weight\":1.0}," USER("r") "," SAYS("c")),
        two_turns);
    expect("c.jsonl", "chatml",
           "{\"conversations\":[{\"from\":\"human\",\"value\":\"q\"},{\"from\":\"gpt\",\"value\":"
           "\"a b\"},{\"from\":\"human\",\"value\":\"r\"},{\"from\":\"gpt\",\"value\":\"c\"}]}",
           two_turns);
    expect("r.jsonl", "chatml",
           "{\"conversations\":[" USER("q") "," SAYS("a b") "," USER("r") "," SAYS("c") "]}",
           two_turns);
    expect("a.json", "chatml",
           "[ {\"instruction\":\"r\",\"input\":\"\",\"output\":\"c\",\n\"history\":[[\"q\",\"a "
           "b\"]]} ]",
           two_turns);
}

/* Of a message that only calls a tool the content is null, which is what its template asks. */
static void null_is_a_content(void **state)
{
    static const char template[] =
        "{% for m in messages %}<{{ m.role }}>{% if m.content is none %}none{% else %}"
        "{{ m.content }}{% endif %};{% endfor %}";
    static const struct part want[] = {{"<user>q;", 0}, {"<assistant>none;", 1}, {NULL, 0}};
    char path[512];

    (void)state;
    snprintf(path, sizeof(path), "%s", text_file("none.jinja", template, strlen(template)));
    expect("n.jsonl", path,
           TALK(USER("q") ",{\"role\":\"assistant\",\"content\":null,\"name\":null,"
                          "\"tool_calls\":[{\"type\":\"function\",\"function\":{\"name\":\"f\","
                          "\"arguments\":{}}}]}"),
           want);
}

/* Only the number that fits in no integer is written as a real, and none in a text. */
static void a_long_number_leaves_the_others(void **state)
{
    static const char template[] =
        "{% for m in messages %}<{{ m.role }}>{{ m.content }} {{ m.args|tojson }};{% endfor %}";
    static const struct part want[] = {
        {"<user>q\"18446744073709551615 {\"a\": 5, \"b\": -9223372036854775808, "
         "\"c\": 1.8446744073709552e+19};",
         0},
        {"<assistant>c {};", 1},
        {NULL, 0}};
    char path[512];

    (void)state;
    snprintf(path, sizeof(path), "%s", text_file("args.jinja", template, strlen(template)));
    expect("n.jsonl", path,
           TALK("{\"role\":\"user\",\"content\":\"q\\\"18446744073709551615\",\"args\":{\"a\":5,"
                "\"b\":-9223372036854775808,\"c\":18446744073709551615}},"
                "{\"role\":\"assistant\",\"content\":\"c\",\"args\":{}}"),
           want);
}

static void of_a_prompt_nothing_is_learnt(void **state)
{
    static const struct part want[] = {
        {"<|im_start|>user\nq<|im_end|>\n<|im_start|>assistant\na b<|im_end|>\n"
         "<|im_start|>user\nr<|im_end|>\n<|im_start|>assistant\n",
         0},
        {"c<|im_end|>", 1},
        {"\n", 0},
        {NULL, 0}};
    static const struct part strings[] = {
        {"<|im_start|>user\nq<|im_end|>\n<|im_start|>assistant\n", 0},
        {"c<|im_end|>", 1},
        {"\n", 0},
        {NULL, 0}};

    (void)state;
    expect(
        "p.jsonl", "chatml",
        "{\"prompt\":[" USER("q") "," SAYS("a b") "," USER("r") "],\"completion\":[" SAYS("c") "]}",
        want);
    expect("s.jsonl", "chatml", "{\"prompt\":\"q\",\"completion\":\"c\"}", strings);
}

static void a_message_has_a_weight(void **state)
{
    static const struct part want[] = {
        {"<|im_start|>user\nq<|im_end|>\n<|im_start|>assistant\n", 0},
        {"a<|im_end|>", 0.25f},
        {"\n<|im_start|>assistant\nb<|im_end|>\n<|im_start|>assistant\n", 0},
        {"c<|im_end|>", 1},
        {"\n<|im_start|>assistant\nd<|im_end|>\n", 0},
        {NULL, 0}};

    (void)state;
    expect("w.jsonl", "chatml",
           TALK(USER("q") ",{\"role\":\"assistant\",\"content\":\"a\",\"weight\":0.25},"
                          "{\"role\":\"assistant\",\"content\":\"b\",\"weight\":1e-60}," SAYS(
                              "c") ","
                                   "{\"role\":\"assistant\",\"content\":\"d\",\"train\":false}"),
           want);
}

/* Parts are joined in one go. */
static void a_message_may_have_many_parts(void **state)
{
    static const char part[] = "{\"type\":\"text\",\"text\":\"a ad he d a ad he d a ad he d\"}";
    size_t n = 60000, bytes = sizeof(part);
    char *record = malloc(n * bytes + 256), *p = record;
    struct tr_tokenizer *t = text_toy_marked();
    struct tr_data_params params_of = params(NULL, t);
    double start = text_seconds();
    struct tr_data *d;

    (void)state;
    p += sprintf(p, "{\"messages\":[" SAYS("a") ",{\"role\":\"user\",\"content\":[%s", part);
    for (size_t i = 1; i < n; i++)
        p += sprintf(p, ",%s", part);
    p += sprintf(p, "]}]}\n");
    params_of.path = text_file("parts.jsonl", record, (size_t)(p - record));
    d = text_open_data(&params_of);
    assert_true(text_seconds() - start < 6);
    tr_data_close(d);
    free(record);
    tr_tokenizer_close(t);
}

/* The template says BOS: no other is put before it. */
static void there_is_one_bos(void **state)
{
    static const struct part want[] = {{"<s>[INST] q [/INST]", 0}, {" c</s>", 1}, {NULL, 0}};

    (void)state;
    expect("b.jsonl", "mistral", TALK(USER("q") "," SAYS("c")), want);
}

static void instructions_have_a_format(void **state)
{
    static const struct part want[] = {{"<s>S\n\n### Instruction:\nq\ni\n\n### Response:\n", 0},
                                       {"c</s>", 1},
                                       {"\n\n", 0},
                                       {NULL, 0}};

    (void)state;
    expect("i.jsonl", NULL,
           "{\"system\":\"S\",\"instruction\":\"q\",\"input\":\"i\",\"output\":\"c\"}", want);
}

/* Rows are at most seq_len long; a sample keeps its position, its weights, and its own attention.
 */
static void packed_conversations_stay_apart(void **state)
{
    static const char record[] =
        TALK(USER("q") ",{\"role\":\"assistant\",\"content\":\"a\",\"weight\":0.5}")
            TALK(USER("q") "," SAYS("a b") "," USER("r") "," SAYS("c"));
    static const struct part first[] = {
        {"<|im_start|>user\nq<|im_end|>\n<|im_start|>assistant\n", 0},
        {"a<|im_end|>", 0.5f},
        {"\n", 0},
        {NULL, 0}};
    struct tr_tokenizer *t = text_toy_marked();
    struct tr_data_params p = params(text_file("k.jsonl", record, strlen(record)), t);
    struct tr_batch b;
    struct tr_data *d;
    int32_t end;

    (void)state;
    p.packing = 1;
    d = text_open_data(&p);
    assert_int_equal(tr_data_batch(d, 0, 0, &b), 0);
    assert_int_equal(b.n_rows, 1);
    assert_int_equal(b.n_docs, 2);
    end = expect_parts(t, &b, 0, first);
    assert_int_equal(b.doc_start[1], end);
    assert_int_equal(b.position[end], 0);
    assert_int_equal(b.targets[end - 1], -1);
    assert_int_equal(expect_parts(t, &b, end, two_turns), b.n_tokens);
    tr_data_close(d);
    tr_tokenizer_close(t);
}

static void a_long_conversation_loses_its_end(void **state)
{
    static const char record[] = TALK(USER("q") "," SAYS("a b") "," USER("r") "," SAYS("c"));
    struct tr_tokenizer *t = text_toy_marked();
    struct tr_data_params p = params(text_file("l.jsonl", record, strlen(record)), t);
    struct tr_data_info whole, cut;
    struct tr_data *d = text_open_data(&p);

    (void)state;
    tr_data_info(d, &whole);
    tr_data_close(d);
    p.seq_len = (int)whole.tokens - 5;
    d = text_open_data(&p);
    tr_data_info(d, &cut);
    assert_int_equal(cut.truncated, 1);
    assert_int_equal(cut.dropped_tokens, 5);
    assert_int_equal(cut.tokens, whole.tokens - 5);
    assert_int_equal(cut.targets, whole.targets - 4); /* the line's end was no target */
    assert_int_equal(cut.format, TR_DATA_MESSAGES);
    assert_string_equal(cut.template_from, "chatml");
    tr_data_close(d);
    tr_tokenizer_close(t);
}

static void a_folder_has_a_file_to_learn_and_one_held_out(void **state)
{
    static const char learn[] = "{\"text\":\"a b\"}\n{\"text\":\"c\"}\n",
                      held[] = "{\"text\":\"d\"}\n";
    struct tr_tokenizer *t = text_toy_marked();
    char folder[512];
    struct tr_data_params p;
    struct tr_data_info info;
    struct tr_data *d;

    (void)state;
    snprintf(folder, sizeof(folder), "%s", text_path("folder"));
    assert_int_equal(mkdir(folder, 0777), 0);
    text_file("folder/train.jsonl", learn, strlen(learn));
    p = params(folder, t);
    p.held_out = 1;
    assert_int_equal(tr_data_has_held_out(folder), 0);
    TEXT_ERROR(tr_data_open(&d, &p), "folder: is a folder without valid.jsonl");
    text_file("folder/valid.jsonl", held, strlen(held));
    assert_int_equal(tr_data_has_held_out(folder), 1);
    d = text_open_data(&p);
    tr_data_info(d, &info);
    assert_int_equal(info.samples, 1);
    tr_data_close(d);
    p.held_out = 0;
    d = text_open_data(&p);
    tr_data_info(d, &info);
    assert_int_equal(info.samples, 2);
    tr_data_close(d);
    unlink(text_path("folder/train.jsonl"));
    unlink(text_path("folder/valid.jsonl"));
    rmdir(folder);
    tr_tokenizer_close(t);
}

/* The model's own template: of the config, and before it the file beside it. */
static void the_folder_says_the_template(void **state)
{
    static const char record[] = TALK(USER("q") "," SAYS("a"));
    static const char list[] =
        "{\"chat_template\":[{\"name\":\"rag\",\"template\":\"x\"},{\"name\":\"default\","
        "\"template\":\"{% for m in messages %}{{ m.content }}{{ eos_token }}{% endfor %}\"}],"
        "\"eos_token\":{\"content\":\"</"
        "s>\"},\"model_max_length\":1000000000000000019884624838656}";
    static const char file[] = "{% for m in messages %}{{ m.role[0] ~ m.content }}{% endfor %}";
    struct tr_tokenizer *t = text_toy_marked();
    char folder[512];
    struct tr_data_params p = params(text_file("f.jsonl", record, strlen(record)), t);
    struct tr_data_info info;
    struct tr_data *d;

    (void)state;
    snprintf(folder, sizeof(folder), "%s", text_path("model"));
    assert_int_equal(mkdir(folder, 0777), 0);
    p.template_name = NULL;
    p.folder = folder;
    TEXT_ERROR(tr_data_open(&d, &p), "f.jsonl:1: ", "model: has no chat template; give --template");
    text_file("model/tokenizer_config.json", list, strlen(list));
    d = text_open_data(&p);
    tr_data_info(d, &info);
    assert_non_null(strstr(info.template_from, "tokenizer_config.json: chat_template"));
    assert_int_equal(info.targets, 2); /* a and </s> */
    tr_data_close(d);
    text_file("model/chat_template.jinja", file, strlen(file));
    d = text_open_data(&p);
    tr_data_info(d, &info);
    assert_non_null(strstr(info.template_from, "chat_template.jinja"));
    tr_data_close(d);
    p.template_name = "nosuch";
    TEXT_ERROR(tr_data_open(&d, &p), "template \"nosuch\" is not known: give one of llama2|");
    unlink(text_path("model/tokenizer_config.json"));
    unlink(text_path("model/chat_template.jinja"));
    rmdir(folder);
    tr_tokenizer_close(t);
}

static void expect_targets(const struct tr_data_params *p, uint64_t targets)
{
    struct tr_data *d = text_open_data(p);
    struct tr_data_info info;

    tr_data_info(d, &info);
    assert_int_equal(info.targets, targets);
    tr_data_close(d);
}

/* Conversations with tools have a template of their own, in a list or in a file; one that cannot be
 * read is in the way of these alone. */
static void tools_have_a_template(void **state)
{
    static const char records[] = "{\"messages\":[" USER("q") "," SAYS(
        "a") "]}\n"
             "{\"messages\":[" USER("q") "," SAYS(
                 "a") "],\"tools\":"
                      "[{\"type\":\"function\",\"function\":{\"name\":\"f\"}}]}\n";
    static const char list[] =
        "{\"chat_template\":[{\"name\":\"tool_use\",\"template\":\"{% for m in messages %}"
        "{{ m.content ~ tools[0].function.name }}{% endfor %}\"},{\"name\":\"default\",\"template"
        "\":\"{% for m in messages %}{{ m.content }}{% endfor %}\"}]}";
    static const char file[] = "{% for m in messages %}{{ m.content ~ 'xyz' }}{% endfor %}";
    static const char bad[] = "{% for %}";
    struct tr_tokenizer *t = text_toy_marked();
    struct tr_data_params p = params(text_file("t.jsonl", records, strlen(records)), t);
    char folder[512];
    struct tr_data *d;

    (void)state;
    snprintf(folder, sizeof(folder), "%s", text_path("tools"));
    assert_int_equal(mkdir(folder, 0777), 0);
    assert_int_equal(mkdir(text_path("tools/additional_chat_templates"), 0777), 0);
    p.template_name = NULL;
    p.folder = folder;
    text_file("tools/tokenizer_config.json", list, strlen(list));
    expect_targets(&p, 1 + 2); /* a, and a with f */
    text_file("tools/additional_chat_templates/tool_use.jinja", file, strlen(file));
    expect_targets(&p, 1 + 4);
    text_file("tools/additional_chat_templates/tool_use.jinja", bad, strlen(bad));
    TEXT_ERROR(tr_data_open(&d, &p), "t.jsonl:2: ", "tool_use.jinja");
    unlink(text_path("tools/additional_chat_templates/tool_use.jinja"));
    rmdir(text_path("tools/additional_chat_templates"));
    unlink(text_path("tools/tokenizer_config.json"));
    rmdir(folder);
    tr_tokenizer_close(t);
}

/* </s> is a token of the toy's; <|im_end|> is a text of ten letters to it. */
static void an_answer_ends_with_a_special_token(void **state)
{
    static const char record[] = TALK(USER("q") "," SAYS("a") "," USER("r") "," SAYS("b"));
    static const char *const template[] = {"mistral", "chatml"};
    struct tr_tokenizer *t = text_toy_marked();

    (void)state;
    for (int i = 0; i < 2; i++) {
        struct tr_data_params p = params(text_file("e.jsonl", record, strlen(record)), t);
        struct tr_data_info info;
        struct tr_data *d;

        p.template_name = template[i];
        d = text_open_data(&p);
        tr_data_info(d, &info);
        assert_int_equal(info.endless, i ? 2 : 0);
        tr_data_close(d);
    }
    tr_tokenizer_close(t);
}

/* A template that writes no other answer has a header by chance: it ends inside of a token, and the
 * turn begins where the token does. */
static void a_turn_begins_with_a_whole_token(void **state)
{
    static const char template[] =
        "{% for m in messages %}{% if m.content is string and m.content not in ['q', 'r', '</s>b'] "
        "%}{{ raise_exception('another') }}{% endif %}<{{ m.role }}>{{ m.content }};{% endfor %}"
        "{% if add_generation_prompt %}<assistant><think>{% endif %}";
    static const struct part want[] = {{"<user>q;<assistant>", 0},
                                       {"</s>b;", 1},
                                       {"<user>r;<assistant>", 0},
                                       {"</s>b;", 1},
                                       {NULL, 0}};
    char path[512];

    (void)state;
    snprintf(path, sizeof(path), "%s", text_file("whole.jinja", template, strlen(template)));
    expect("w.jsonl", path, TALK(USER("q") "," SAYS("</s>b") "," USER("r") "," SAYS("</s>b")),
           want);
}

/* A conversation of n questions and answers. */
static char *long_talk(int n, const char *answer)
{
    char *record = malloc((size_t)n * (100 + strlen(answer)) + 100), *p = record;

    if (!record)
        abort();
    p += sprintf(p, "{\"messages\":[");
    for (int i = 0; i < n; i++)
        p += sprintf(p, "%s" USER("a ad he d a ad he d") "," SAYS("%s"), i ? "," : "", answer);
    sprintf(p, "]}\n");
    return record;
}

/* What a row holds of a conversation is the same, however long the conversation is. */
static void a_row_of_a_long_conversation_is_that_of_a_short_one(void **state)
{
    struct tr_tokenizer *t = text_toy_marked();
    struct tr_batch b[2];
    struct tr_data *d[2];

    (void)state;
    for (int i = 0; i < 2; i++) {
        char *record = long_talk(i ? 4000 : 40, "d a he");
        struct tr_data_params p =
            params(text_file(i ? "long.jsonl" : "short.jsonl", record, strlen(record)), t);

        p.seq_len = 200;
        d[i] = text_open_data(&p);
        assert_int_equal(tr_data_batch(d[i], 0, 0, &b[i]), 0);
        assert_int_equal(b[i].n_tokens, 200);
        free(record);
    }
    assert_memory_equal(b[0].ids, b[1].ids, 200 * sizeof(int32_t));
    assert_memory_equal(b[0].targets, b[1].targets, 200 * sizeof(int32_t));
    tr_data_close(d[0]);
    tr_data_close(d[1]);
    tr_tokenizer_close(t);
}

/* Tokens of many bytes: a row holds more of the text than is looked at first. */
static void a_row_may_hold_many_bytes(void **state)
{
    static const char word[] =
        "<a-token-of-the-tokenizer-that-is-as-long-as-seventy-letters-or-so-is>";
    static const char template[] = "{% for m in messages %}{{ m.content }};{% endfor %}";
    json_t *patch =
        json_pack("{s:[{s:i,s:s},{s:i,s:s},{s:i,s:s},{s:i,s:s,s:b,s:b}]}", "added_tokens", "id", 0,
                  "content", "<unk>", "id", 1, "content", "<s>", "id", 2, "content", "</s>", "id",
                  289, "content", word, "normalized", 0, "special", 0);
    struct tr_tokenizer *t = text_toy(patch, NULL);
    char answer[16 * sizeof(word)] = "", *record;
    struct tr_data_params p;
    struct tr_data_info info;
    struct tr_data *d;

    (void)state;
    for (int i = 0; i < 15; i++)
        strcat(answer, word);
    record = long_talk(6, answer);
    p = params(text_file("wide.jsonl", record, strlen(record)), t);
    p.template_name = text_file("wide.jinja", template, strlen(template));
    p.seq_len = 256;
    d = text_open_data(&p);
    tr_data_info(d, &info);
    assert_int_equal(info.truncated, 0);
    assert_true(info.targets >= 6 * 15);
    tr_data_close(d);
    json_decref(patch);
    free(record);
    tr_tokenizer_close(t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_shape_is_the_same_conversation),
        cmocka_unit_test(null_is_a_content),
        cmocka_unit_test(a_long_number_leaves_the_others),
        cmocka_unit_test(of_a_prompt_nothing_is_learnt),
        cmocka_unit_test(a_message_has_a_weight),
        cmocka_unit_test(a_message_may_have_many_parts),
        cmocka_unit_test(there_is_one_bos),
        cmocka_unit_test(instructions_have_a_format),
        cmocka_unit_test(packed_conversations_stay_apart),
        cmocka_unit_test(a_long_conversation_loses_its_end),
        cmocka_unit_test(a_folder_has_a_file_to_learn_and_one_held_out),
        cmocka_unit_test(the_folder_says_the_template),
        cmocka_unit_test(tools_have_a_template),
        cmocka_unit_test(an_answer_ends_with_a_special_token),
        cmocka_unit_test(a_turn_begins_with_a_whole_token),
        cmocka_unit_test(a_row_of_a_long_conversation_is_that_of_a_short_one),
        cmocka_unit_test(a_row_may_hold_many_bytes),
    };

    return cmocka_run_group_tests(tests, text_setup, text_teardown);
}
