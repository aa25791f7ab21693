/* SPDX-License-Identifier: Apache-2.0
 *
 * Every family of tokenizers against the reference, as recorded by record_families.py: 2,100 texts
 * each, the vectors of llama.cpp, what the reference says about every code point; then what must
 * hold for any byte-level tokenizer: decoding gives the text back, parts have the ids of the whole.
 */
#include "tests/text/text_test.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "src/base/file.h"
#include "src/base/mem.h"
#include "src/text/tokenizer.h"
#include "src/text/tokenizer_parts.h"
#include "src/text/tokenizer_utf8.h"

static json_t *families, *texts;

static json_t *shared_json(const char *name)
{
    char path[256];
    const char *found;

    snprintf(path, sizeof(path), "tokenizers/%s", name);
    found = text_shared(path);
    return found ? json_load_file(found, 0, NULL) : NULL;
}

static json_t *read_merges(const char *name)
{
    char path[256], *text;
    json_t *out = json_array();

    snprintf(path, sizeof(path), "tokenizers/%s", name);
    assert_int_equal(tr_file_read(text_shared(path), 1 << 24, &text, NULL), 0);
    for (char *line = text, *end; (end = strchr(line, '\n')); line = end + 1) {
        *end = 0;
        if (*line && strncmp(line, "#version", 8) != 0)
            json_array_append_new(out, json_string(line));
    }
    tr_free(TR_MEM_TEXT, text);
    return out;
}

/* The family's tokenizer.json, put together as record_families.py does; NULL where the shared data
 * is not at hand. */
static struct tr_tokenizer *open_family(const char *name)
{
    json_t *f = json_object_get(families, name), *frame = json_object_get(f, "frame");
    json_t *parts = json_object_get(f, "parts"), *root, *model;
    struct tr_tokenizer_text in = {.where = name};
    struct tr_tokenizer *t = NULL;
    char *json;

    root = shared_json(
        json_string_value(parts ? json_array_get(parts, 0) : json_object_get(f, "file")));
    if (!root)
        return NULL;
    if (parts) {
        json_t *vocab = root;

        root = json_deep_copy(frame);
        model = json_object_get(root, "model");
        json_object_set_new(model, "vocab", vocab);
        json_object_set_new(model, "merges",
                            read_merges(json_string_value(json_array_get(parts, 1))));
    } else {
        json_object_update(root, frame);
    }
    json = json_dumps(root, JSON_COMPACT);
    in.json = json;
    in.json_bytes = strlen(json);
    if (tr_tokenizer_parse(&t, &in) < 0)
        fail_msg("%s", tr_error_message());
    free(json);
    json_decref(root);
    return t;
}

static void every_family_agrees_with_the_reference(void **state)
{
    const char *name;
    json_t *f;
    int bad = 0;

    (void)state;
    assert_true(json_array_size(texts) >= 2000);
    json_object_foreach(families, name, f) {
        struct tr_tokenizer *t = open_family(name);

        if (!t)
            skip();
        bad += text_compare_crcs(t, name, texts, json_string_value(json_object_get(f, "crc")));
        tr_tokenizer_close(t);
    }
    assert_int_equal(bad, 0);
}

static void vectors_are_reproduced(void **state)
{
    static const char *const names[][2] = {{"gpt2", "gpt-2"}, {"qwen2", "qwen2"}};

    (void)state;
    for (int i = 0; i < 2; i++) {
        struct tr_tokenizer *t = open_family(names[i][0]);

        if (!t)
            skip();
        text_compare_vectors(t, names[i][1]);
        tr_tokenizer_close(t);
    }
}

/* Special tokens are left out when decoding; all else comes back byte for byte. */
static int comes_back(const struct tr_tokenizer *t, const char *text, size_t n)
{
    struct tr_ids ids = {0};
    char *decoded;
    size_t bytes;

    if (tr_utf8_valid(text, n) < n || memmem(text, n, "<|", 2) || memmem(text, n, "[|", 2) ||
        memmem(text, n, ">>", 2))
        return 0;
    assert_int_equal(tr_tokenizer_encode(t, text, n, &ids), 0);
    assert_int_equal(tr_tokenizer_decode_bytes(t, ids.v, ids.n, &decoded, &bytes), 0);
    if (bytes != n || memcmp(decoded, text, n) != 0)
        fail_msg("\"%.60s\" comes back as \"%.60s\"", text, decoded);
    tr_free(TR_MEM_TEXT, decoded);
    tr_ids_free(&ids);
    return 1;
}

static const char *const byte_level[] = {"gpt2",   "llama3", "llama3-old",
                                         "tekken", "falcon", "deepseek"};

static void a_byte_level_text_comes_back(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof(byte_level) / sizeof(byte_level[0]); i++) {
        struct tr_tokenizer *t = open_family(byte_level[i]);
        json_t *v;
        size_t k;
        int seen = 0;

        if (!t)
            skip();
        json_array_foreach(texts, k, v) {
            size_t n;
            char *text = text_bytes(v, &n);

            seen += comes_back(t, text, n);
            free(text);
        }
        assert_true(seen > 1000);
        tr_tokenizer_close(t);
    }
}

static void parts_have_the_ids_of_the_whole(void **state)
{
    static const char *const names[] = {"gpt2",   "qwen2",    "llama3",
                                        "tekken", "qwen3.5",  "llama3-old",
                                        "falcon", "deepseek", "mistral-metaspace"};

    (void)state;
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        struct tr_tokenizer *t = open_family(names[i]);

        if (!t)
            skip();
        text_compare_joined(t, texts);
        tr_tokenizer_close(t);
    }
}

/* tokenizer.model and tokenizer.json of one model are one tokenizer. */
static void a_sentencepiece_model_is_its_tokenizer_json(void **state)
{
    static const char folder[] = "tokenizers/minueza-32m-mistral/";
    struct tr_tokenizer_text in = {.where = "model", .is_model = 1};
    struct tr_tokenizer *t = NULL;
    char *model, *config, path[128];

    (void)state;
    snprintf(path, sizeof(path), "%stokenizer.model", folder);
    if (!text_shared(path))
        skip();
    assert_int_equal(tr_file_read(text_shared(path), 1 << 24, &model, &in.json_bytes), 0);
    snprintf(path, sizeof(path), "%stokenizer_config.json", folder);
    assert_int_equal(tr_file_read(text_shared(path), 1 << 24, &config, &in.config_bytes), 0);
    in.json = model;
    in.config = config;
    if (tr_tokenizer_parse(&t, &in) < 0)
        fail_msg("%s", tr_error_message());
    assert_int_equal(tr_tokenizer_adds_bos(t), 0); /* as its tokenizer_config.json says */
    assert_int_equal(tr_tokenizer_bos(t), 1);
    assert_int_equal(text_compare_crcs(t, "tokenizer.model", texts,
                                       json_string_value(json_object_get(
                                           json_object_get(families, "mistral"), "crc"))),
                     0);
    tr_tokenizer_close(t);
    in.config = NULL;
    assert_int_equal(tr_tokenizer_parse(&t, &in), 0);
    assert_int_equal(tr_tokenizer_adds_bos(t), 1);
    assert_int_equal(tr_tokenizer_vocab(t), 32000);
    tr_tokenizer_close(t);
    in.json_bytes = 7;
    TEXT_ERROR(tr_tokenizer_parse(&t, &in), "model: not a sentencepiece model");
    tr_free(TR_MEM_TEXT, model);
    tr_free(TR_MEM_TEXT, config);
}

static int count_word(void *owner, const char *text, size_t n)
{
    (void)text;
    (void)n;
    ++*(int *)owner;
    return 0;
}

/* One bit a code point: is it cut off between two others. */
static uint32_t property_crc(const struct tok_pres *pres)
{
    static unsigned char bits[0x110000 / 8];
    int words;
    struct tok_cutter c = {.pres = pres, .word = count_word, .owner = &words};

    memset(bits, 0, sizeof(bits));
    for (uint32_t cp = 0; cp < 0x110000; cp++) {
        char text[8] = "\x01";
        int n = 1 + tr_utf8_encode(cp, text + 1);

        if (cp >= 0xD800 && cp < 0xE000)
            continue;
        text[n++] = 1;
        words = 0;
        assert_int_equal(tok_pre_run(&c, text, (size_t)n), 0);
        if (words > 1)
            bits[cp >> 3] |= (unsigned char)(1 << (cp & 7));
    }
    tok_cutter_free(&c);
    return text_crc32(0, bits, sizeof(bits));
}

static uint32_t normal_crc(const char *name)
{
    static const char *const around[][2] = {
        {"", ""}, {"a", "\u0323\u0301\u0327"}, {"a\u0301", "\u0323"}};
    json_t *patch = json_pack("{s:{s:s}}", "normalizer", "type", name);
    struct tr_tokenizer *t = text_toy(patch, NULL);
    struct tok_buf b = {0};
    uint32_t crc = 0;

    for (uint32_t cp = 0; cp < 0x110000; cp++) {
        char c[4], text[32];
        int k = tr_utf8_encode(cp, c);

        for (int i = 0; i < 3 && (cp < 0xD800 || cp >= 0xE000); i++) {
            struct tok_span all = {.added = -1};
            char *end = stpcpy(text, around[i][0]);

            memcpy(end, c, (size_t)k);
            all.stop = (size_t)(stpcpy(end + k, around[i][1]) - text);
            assert_int_equal(tok_normalise(t, &all, text, 1, &b), 0);
            crc = text_crc32(crc, b.v, b.n);
        }
    }
    tok_buf_free(&b);
    tr_tokenizer_close(t);
    json_decref(patch);
    return crc;
}

static uint32_t fact_crc(const char *name)
{
    static const char *const normal[] = {"NFC", "NFD", "NFKC", "NFKD", "Lowercase", "StripAccents"};
    struct tok_pres pres = {0};
    json_t *o;
    uint32_t crc;

    for (size_t i = 0; i < sizeof(normal) / sizeof(normal[0]); i++)
        if (!strcmp(name, normal[i]))
            return normal_crc(name);
    if (strchr("\\[(", *name))
        o = json_pack("{s:s,s:{s:s},s:s}", "type", "Split", "pattern", "Regex", name, "behavior",
                      "Isolated");
    else
        o = json_pack("{s:s}", "type", name);
    if (tok_pre_load(&pres, name, o) < 0)
        fail_msg("%s", tr_error_message());
    crc = property_crc(&pres);
    tok_pre_free(&pres);
    json_decref(o);
    return crc;
}

static void every_code_point_is_what_the_reference_says(void **state)
{
    json_t *facts = json_load_file(TEST_RECORDS "unicode.json", 0, NULL), *v;
    const char *name;
    int bad = 0;

    (void)state;
    assert_true(json_object_size(facts) >= 25);
    json_object_foreach(facts, name, v) {
        if (fact_crc(name) != (uint32_t)json_integer_value(v)) {
            print_error("%s is not what the reference says\n", name);
            bad++;
        }
    }
    assert_int_equal(bad, 0);
    json_decref(facts);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_family_agrees_with_the_reference),
        cmocka_unit_test(vectors_are_reproduced),
        cmocka_unit_test(a_byte_level_text_comes_back),
        cmocka_unit_test(parts_have_the_ids_of_the_whole),
        cmocka_unit_test(a_sentencepiece_model_is_its_tokenizer_json),
        cmocka_unit_test(every_code_point_is_what_the_reference_says),
    };
    int failed;

    families = json_load_file(TEST_RECORDS "families.json", 0, NULL);
    texts = json_load_file(TEST_RECORDS "texts.json", JSON_ALLOW_NUL, NULL);
    failed = families && texts ? cmocka_run_group_tests(tests, text_setup, text_teardown) : 1;
    json_decref(families);
    json_decref(texts);
    return failed;
}
