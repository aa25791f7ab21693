/* SPDX-License-Identifier: Apache-2.0
 *
 * Tokenizer files that are broken, hostile or of another kind: each gives one error that names the
 * file and what is wrong (invariant 9). Every case is the toy with one change.
 */
#include "tests/text/text_test.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "src/text/regex.h"
#include "src/text/tokenizer.h"

struct bad {
    const char *path,
        *value; /* what is set: "model.vocab.a" to a JSON value; NULL: it is taken out */
    const char *say;
};

static const struct bad cases[] = {
    {"model", NULL, "\"model\" is missing"},
    {"model.type", "\"WordPiece\"", "the model is \"WordPiece\""},
    {"model.type", "\"WordPiece\"", "the model is \"WordPiece\""},
    {"model.vocab", "[]", "\"vocab\" (an object)"},
    {"model.vocab", "{}", "\"vocab\" (an object)"},
    {"model.merges", "{}", "\"merges\" (an array)"},
    {"model.vocab.a", "-1", "the id of \"a\", -1, is not between 0 and"},
    {"model.vocab.a", "4194304", "the id of \"a\", 4194304"},
    {"model.vocab.a", "9223372036854775807", "the id of \"a\", 9223372036854775807"},
    {"model.vocab.a", "92233720368547758070", "not valid JSON: too big integer"},
    {"model.vocab.a", "1.5", "the id of \"a\" is not a number"},
    {"model.vocab.a", "null", "the id of \"a\" is not a number"},
    {"model.vocab.a", "0", "have the same id 0"},
    {"model.vocab.a", NULL, "merge 0 (\"a\" \"b\") names a piece that is not in the vocabulary"},
    {"model.merges", "[\"a b\", \"a\"]", "merge 1 is not a pair"},
    {"model.merges", "[\"a b c\"]", "merge 0 is not a pair"},
    {"model.merges", "[[\"a\"]]", "merge 0 is not a pair"},
    {"model.merges", "[[\"a\", 1]]", "merge 0 is not a pair"},
    {"model.merges", "[7]", "merge 0 is not a pair"},
    {"model.merges", "[\"a \"]", "merge 0 (\"a\" \"\")"},
    {"model.merges", "[\"a c\"]", "merge 0 (\"a\" \"c\") names a piece"},
    {"model.unk_token", "\"<none>\"", "\"unk_token\" is not in the vocabulary"},
    {"model.unk_token", "3", "\"unk_token\" is not in the vocabulary"},
    {"model.byte_fallback", "1", "\"byte_fallback\" must be true or false"},
    {"model.dropout", "0.1", "\"dropout\" is not supported"},
    {"model.end_of_word_suffix", "\"</w>\"", "\"end_of_word_suffix\" is not supported"},
    {"model.continuing_subword_prefix", "\"##\"", "\"continuing_subword_prefix\" is not supported"},
    {"normalizer", "{\"type\":\"BertNormalizer\"}",
     "normalizer: \"BertNormalizer\" is not supported"},
    {"normalizer", "{\"type\":\"Sequence\",\"normalizers\":[{\"type\":\"ByteLevel\"}]}",
     "\"ByteLevel\""},
    {"normalizer", "{\"type\":\"Sequence\"}", "normalizer: a Sequence without"},
    {"normalizer", "{\"type\":\"Replace\",\"pattern\":{\"Regex\":\"a(\"},\"content\":\"\"}",
     "normalizer: bad regular expression"},
    {"decoder", "{\"type\":\"Replace\",\"pattern\":{\"Regex\":\" \"},\"content\":\"\"}",
     "decoder: \"Replace with a Regex\" is not supported"},
    {"normalizer", "{\"type\":\"Replace\",\"pattern\":{\"String\":\"\"},\"content\":\"\"}",
     "empty pattern"},
    {"normalizer", "{\"type\":\"Replace\",\"pattern\":{\"String\":\"x\"}}",
     "\"content\" must be a string"},
    {"normalizer", "{\"type\":\"Prepend\",\"prepend\":1}", "\"prepend\" must be a string"},
    {"normalizer", "3", "normalizer: \"\" is not supported"},
    {"pre_tokenizer", "{\"type\":\"UnicodeScripts\"}",
     "pre_tokenizer: \"UnicodeScripts\" is not supported"},
    {"pre_tokenizer", "{\"type\":\"Sequence\"}", "a Sequence without \"pretokenizers\""},
    {"pre_tokenizer", "{\"type\":\"Split\",\"pattern\":{\"Regex\":\"a\"},\"behavior\":\"Kept\"}",
     "behavior \"Kept\" is not supported"},
    {"pre_tokenizer", "{\"type\":\"Split\",\"pattern\":{\"String\":\"\"}}", "an empty pattern"},
    {"pre_tokenizer", "{\"type\":\"Split\",\"pattern\":{\"Regex\":\"a(\"}}",
     "bad regular expression"},
    {"pre_tokenizer", "{\"type\":\"Split\",\"pattern\":{\"Regex\":\"a\\\\K\"}}",
     "expression with \"\\K\" is not supported"},
    {"pre_tokenizer", "{\"type\":\"Split\",\"pattern\":{\"Regex\":\"[a&&b]\"}}",
     "expression with \"&&b]\""},
    {"pre_tokenizer", "{\"type\":\"Split\",\"pattern\":{\"Regex\":\"\\\\p{Han}\"}}",
     "expression with \"\\p{Han}\""},
    {"pre_tokenizer", "{\"type\":\"ByteLevel\",\"use_regex\":1}",
     "\"use_regex\" must be true or false"},
    {"pre_tokenizer", "{\"type\":\"Metaspace\"}", "\"replacement\" must be a string"},
    {"pre_tokenizer", "{\"type\":\"Metaspace\",\"replacement\":\"__\"}", "must be one character"},
    {"pre_tokenizer", "{\"type\":\"Metaspace\",\"replacement\":\"_\",\"prepend_scheme\":\"last\"}",
     "prepend_scheme \"last\" is not supported"},
    {"pre_tokenizer",
     "{\"type\":\"Metaspace\",\"replacement\":\"_\",\"prepend_scheme\":\"first\",\"add_prefix_"
     "space\":false}",
     "contradicts"},
    {"decoder", "{\"type\":\"CTC\"}", "decoder: \"CTC\" is not supported"},
    {"decoder", "{\"type\":\"Strip\",\"content\":\" \",\"start\":-1,\"stop\":0}",
     "\"start\" must be a number"},
    {"decoder", "{\"type\":\"Strip\",\"content\":\"ab\",\"start\":1,\"stop\":0}",
     "must be one character"},
    {"post_processor", "{\"type\":\"BertProcessing\"}",
     "post_processor: \"BertProcessing\" is not supported"},
    {"post_processor", "{\"type\":\"RobertaProcessing\",\"cls\":[\"q\",99999]}",
     "\"cls\" is not a piece and its id"},
    {"post_processor", "{\"type\":\"TemplateProcessing\",\"single\":[]}", "no sequence"},
    {"post_processor",
     "{\"type\":\"TemplateProcessing\",\"single\":[{\"SpecialToken\":{\"id\":\"<s>\"}},"
     "{\"Sequence\":{\"id\":\"A\"}}],\"special_tokens\":{}}",
     "\"<s>\" needs exactly one id"},
    {"post_processor",
     "{\"type\":\"TemplateProcessing\",\"single\":[{\"SpecialToken\":{\"id\":\"<s>\"}},"
     "{\"Sequence\":{\"id\":\"A\"}}],\"special_tokens\":{\"<s>\":{\"ids\":[99999]}}}",
     "the id of \"<s>\", 99999, is not in the vocabulary"},
    {"post_processor",
     "{\"type\":\"TemplateProcessing\",\"single\":[{\"SpecialToken\":{\"id\":\"<s>\"}},"
     "{\"SpecialToken\":{\"id\":\"<s>\"}},{\"Sequence\":{\"id\":\"A\"}}],"
     "\"special_tokens\":{\"<s>\":{\"ids\":[1]}}}",
     "two tokens on one side"},
    {"added_tokens", "[{\"id\":1,\"content\":\"<other>\"}]", "\"<other>\" with id 1 contradicts"},
    {"added_tokens", "[{\"id\":5000,\"content\":\"a\"}]", "\"a\" with id 5000 contradicts"},
    {"added_tokens", "[{\"id\":-5,\"content\":\"q\"}]", "the id of \"q\", -5"},
    {"added_tokens", "[{\"content\":\"q\"}]", "the id of \"q\" is not a number"},
    {"added_tokens", "[{\"id\":1}]", "\"content\" must be a string"},
    {"added_tokens", "[{\"id\":1,\"content\":\"<s>\",\"lstrip\":1}]",
     "\"lstrip\" must be true or false"},
};

static void set_path(json_t *root, const char *path, const char *value)
{
    json_t *v = value ? json_loads(value, JSON_DECODE_ANY, NULL) : NULL;
    char name[64];

    for (const char *dot; (dot = strchr(path, '.')); path = dot + 1) {
        snprintf(name, sizeof(name), "%.*s", (int)(dot - path), path);
        root = json_object_get(root, name);
    }
    if (value && !v) /* more than JSON's own numbers hold: put in by text, see change() */
        v = json_string("HUGE");
    if (v)
        json_object_set_new(root, path, v);
    else
        json_object_del(root, path);
}

static char *change(const struct bad *bad)
{
    json_t *root = json_deep_copy(json_object_get(json_object_get(text_golden(), "toy"), "base"));
    char *json, *huge;

    set_path(root, bad->path, bad->value);
    json = json_dumps(root, JSON_COMPACT);
    json_decref(root);
    huge = strstr(json, "\"HUGE\"");
    if (huge) {
        char *longer = malloc(strlen(json) + 64);

        sprintf(longer, "%.*s%s%s", (int)(huge - json), json, bad->value, huge + 6);
        free(json);
        json = longer;
    }
    return json;
}

static int parse(const char *json, const char *config, struct tr_tokenizer **t)
{
    struct tr_tokenizer_text text = {.json = json,
                                     .json_bytes = strlen(json),
                                     .config = config,
                                     .config_bytes = config ? strlen(config) : 0,
                                     .where = "toy.json"};

    return tr_tokenizer_parse(t, &text);
}

static void every_bad_file_is_named(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct tr_tokenizer *t = NULL;
        char *json = change(&cases[i]);

        TEXT_ERROR(parse(json, NULL, &t), cases[i].say, "toy.json: ");
        assert_null(t);
        free(json);
    }
}

static void broken_json_is_named(void **state)
{
    struct tr_tokenizer *t = NULL;

    (void)state;
    TEXT_ERROR(parse("", NULL, &t), "toy.json: line");
    TEXT_ERROR(parse("{\"model\":", NULL, &t), "toy.json: line 1");
    TEXT_ERROR(parse("{\"model\":{\"vocab\":{\"a\":1,\"a\":2}}}", NULL, &t), "duplicate");
    TEXT_ERROR(parse("{} x", NULL, &t), "toy.json: line 1");
    TEXT_ERROR(parse("[]", NULL, &t), "\"model\" is missing");
}

static void a_bad_config_is_named(void **state)
{
    struct tr_tokenizer *t = NULL;
    char *json = change(&(struct bad){"version", "\"1.0\"", NULL});

    (void)state;
    TEXT_ERROR(parse(json, "{", &t), "toy.json: tokenizer_config: line");
    TEXT_ERROR(parse(json, "{\"bos_token\":\"<none>\"}", &t),
               "bos_token \"<none>\" is not a piece");
    TEXT_ERROR(parse(json, "{\"eos_token\":[1]}", &t), "\"eos_token\" is not a string");
    free(json);
}

/* The same file unchanged is read: the cases fail for their change alone. */
static void the_unchanged_file_is_read(void **state)
{
    struct tr_tokenizer *t = NULL;
    char *json = change(&(struct bad){"version", "\"1.0\"", NULL});

    (void)state;
    assert_int_equal(parse(json, NULL, &t), 0);
    tr_tokenizer_close(t);
    free(json);
}

/* Some classes put before a text what their configuration says, though the file has no such step;
 * others only what the file has. */
static void the_configuration_may_add_bos(void **state)
{
    static const struct {
        const char *config;
        int adds;
    } of[] = {
        {"{\"bos_token\":\"a\",\"add_bos_token\":true,\"tokenizer_class\":\"LlamaTokenizerFast\"}",
         1},
        {"{\"bos_token\":\"a\",\"add_bos_token\":false,\"tokenizer_class\":\"LlamaTokenizerFast\"}",
         0},
        {"{\"add_bos_token\":true,\"tokenizer_class\":\"LlamaTokenizerFast\"}", 0},
        {"{\"bos_token\":\"a\",\"add_bos_token\":true,\"tokenizer_class\":\"Qwen2Tokenizer\"}", 0},
    };
    char *json = change(&(struct bad){"post_processor", NULL, NULL});

    (void)state;
    for (size_t i = 0; i < sizeof(of) / sizeof(of[0]); i++) {
        struct tr_tokenizer *t = NULL;

        assert_int_equal(parse(json, of[i].config, &t), 0);
        assert_int_equal(tr_tokenizer_adds_bos(t), of[i].adds);
        tr_tokenizer_close(t);
    }
    free(json);
}

/* `steps` replacements of a pattern by 500 times itself. */
static json_t *growing(const char *pattern, int steps)
{
    json_t *list = json_array();
    char content[1200] = "";

    for (int i = 0; i < 500; i++)
        strcat(content, pattern);
    for (int i = 0; i < steps; i++)
        json_array_append_new(list, json_pack("{s:s,s:{s:s},s:s}", "type", "Replace", "pattern",
                                              "String", pattern, "content", content));
    return json_pack("{s:{s:s,s:o}}", "normalizer", "type", "Sequence", "normalizers", list);
}

/* Five steps would make 500^5 characters of one: stopped by the bound, not by the memory. */
static void a_growing_normalizer_is_stopped(void **state)
{
    json_t *patch = growing("xy", 5);
    struct tr_tokenizer *t = text_toy(patch, NULL);
    struct tr_ids ids = {0};

    (void)state;
    TEXT_ERROR(tr_tokenizer_encode(t, "a xy", 4, &ids), "bytes of text too long");
    assert_int_equal(ids.n, 0);
    assert_int_equal(tr_tokenizer_encode(t, "a x y", 5, &ids), 0);
    tr_tokenizer_close(t);
    tr_ids_free(&ids);
    json_decref(patch);
}

/* A BPE with the pieces "a" * n ... "a": each can be cut everywhere. Allocated. */
static char *chain_model(int n, size_t *bytes)
{
    char *model = malloc((size_t)n * ((size_t)n + 16) + 16), *p = model;

    for (int k = n; k > 0; k--) {
        p += sprintf(p, "\n%c%c\n%c%c", 0x80 | ((k + 8) & 0x7F), (k + 8) >> 7, 0x80 | (k & 0x7F),
                     k >> 7);
        memset(p, 'a', (size_t)k);
        p += k;
        memcpy(p, "\x15\0\0\x80\x3F", 5);
        p += 5;
    }
    memcpy(p, "\x12\x02\x18\x02", 4);
    *bytes = (size_t)(p + 4 - model);
    return model;
}

static void a_small_model_has_few_merges(void **state)
{
    struct tr_tokenizer *t = NULL;
    struct tr_ids ids = {0};
    struct tr_tokenizer_text in = {.where = "chain", .is_model = 1};
    double start = text_seconds();
    char *model = chain_model(100, &in.json_bytes);

    (void)state;
    in.json = model;
    assert_int_equal(tr_tokenizer_parse(&t, &in), 0);
    assert_int_equal(tr_tokenizer_encode(t, "aaa", 3, &ids), 0);
    tr_ids_free(&ids);
    tr_tokenizer_close(t);
    free(model);
    model = chain_model(1000, &in.json_bytes);
    in.json = model;
    TEXT_ERROR(tr_tokenizer_parse(&t, &in), "chain: 1000 pieces with more than 20096 ways to");
    assert_true(text_seconds() - start < 5);
    free(model);
}

static void an_absent_folder_is_named(void **state)
{
    struct tr_tokenizer *t = NULL;

    (void)state;
    TEXT_ERROR(tr_tokenizer_open(&t, "/nonexistent"), "/nonexistent/tokenizer.json: cannot open");
}

/* A group that repeats keeps a place for each time round. */
static void a_search_has_a_share_of_memory(void **state)
{
    static const char pattern[] = "(?:a|ba)+";
    struct tr_regex_find find = {0};
    struct tr_regex *r = NULL;
    size_t n = 2 << 20, place[2];
    char *text = malloc(n);

    (void)state;
    memset(text, 'a', n);
    assert_int_equal(tr_regex_open(&r, pattern, strlen(pattern)), 0);
    assert_int_equal(tr_regex_next(r, &find, text, 100000, 0, place), 1);
    assert_int_equal(place[1], 100000);
    TEXT_ERROR(tr_regex_next(r, &find, text, n, 0, place),
               "a regular expression of the tokenizer takes too much");
    tr_regex_find_free(&find);
    tr_regex_close(r);
    free(text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_bad_file_is_named),
        cmocka_unit_test(broken_json_is_named),
        cmocka_unit_test(a_bad_config_is_named),
        cmocka_unit_test(the_unchanged_file_is_read),
        cmocka_unit_test(the_configuration_may_add_bos),
        cmocka_unit_test(a_growing_normalizer_is_stopped),
        cmocka_unit_test(a_small_model_has_few_merges),
        cmocka_unit_test(an_absent_folder_is_named),
        cmocka_unit_test(a_search_has_a_share_of_memory),
    };

    return cmocka_run_group_tests(tests, text_setup, text_teardown);
}
