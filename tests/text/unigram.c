/* SPDX-License-Identifier: Apache-2.0
 *
 * Unigram against the reference, as recorded by record_unigram.py: every family of parts around one
 * vocabulary, the model file of sentencepiece, what the normalizers make of every code point; then
 * what the reference cannot say: parts and whole, pathological texts, damaged files.
 */
#include "tests/text/text_test.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "src/base/file.h"
#include "src/base/mem.h"
#include "src/text/tokenizer_parts.h"
#include "src/text/tokenizer_utf8.h"

#define SPACE "\xE2\x96\x81"

static json_t *records, *texts;

/* "charsmap" in a frame stands for the table. */
static void put_charsmap(json_t *v)
{
    const char *key;
    json_t *member;
    size_t i;

    if (json_object_get(v, "precompiled_charsmap"))
        json_object_set(v, "precompiled_charsmap", json_object_get(records, "charsmap"));
    json_object_foreach(v, key, member)
        put_charsmap(member);
    json_array_foreach(v, i, member)
        put_charsmap(member);
}

static int parse(struct tr_tokenizer **t, json_t *root)
{
    char *json = json_dumps(root, JSON_COMPACT | JSON_REAL_PRECISION(17));
    struct tr_tokenizer_text in = {.json = json, .json_bytes = strlen(json), .where = "unigram"};
    int r = tr_tokenizer_parse(t, &in);

    free(json);
    return r;
}

static struct tr_tokenizer *open_family(const char *name)
{
    json_t *f = json_object_get(json_object_get(records, "families"), name);
    json_t *root = json_deep_copy(json_object_get(f, "frame"));
    struct tr_tokenizer *t = NULL;

    json_object_set(json_object_get(root, "model"), "vocab", json_object_get(records, "vocab"));
    put_charsmap(root);
    if (parse(&t, root) < 0)
        fail_msg("%s", tr_error_message());
    json_decref(root);
    return t;
}

/* A model of these pieces, [["a", -1.5], ...], with `model` (more of its fields, or NULL) and
 * `frame` (fields beside it, or NULL). */
static int open_toy(struct tr_tokenizer **t, const char *pieces, const char *model,
                    const char *frame)
{
    json_t *root = frame ? json_loads(frame, 0, NULL) : json_object();
    json_t *o = model ? json_loads(model, 0, NULL) : json_pack("{s:i}", "unk_id", 0);
    int r;

    assert_non_null(root);
    assert_non_null(o);
    json_object_set_new(o, "type", json_string("Unigram"));
    json_object_set_new(o, "vocab", json_loads(pieces, 0, NULL));
    json_object_set_new(root, "model", o);
    r = parse(t, root);
    json_decref(root);
    return r;
}

static void expect(const struct tr_tokenizer *t, const char *text, size_t n, const int32_t *want)
{
    struct tr_ids ids = {0};

    if (tr_tokenizer_encode(t, text, strlen(text), &ids) < 0)
        fail_msg("%s", tr_error_message());
    assert_int_equal(ids.n, n);
    for (size_t i = 0; i < n; i++)
        assert_int_equal(ids.v[i], want[i]);
    tr_ids_free(&ids);
}

#define EXPECT(t, text, ...)                                                                       \
    expect(t, text, sizeof((int32_t[]){__VA_ARGS__}) / 4, (int32_t[]){__VA_ARGS__})

static void every_family_agrees_with_the_reference(void **state)
{
    const char *name;
    json_t *f;
    int bad = 0;

    (void)state;
    assert_true(json_array_size(texts) >= 2000);
    json_object_foreach(json_object_get(records, "families"), name, f) {
        struct tr_tokenizer *t = open_family(name);

        bad += text_compare_crcs(t, name, texts, json_string_value(json_object_get(f, "crc")));
        tr_tokenizer_close(t);
    }
    assert_int_equal(bad, 0);
}

static struct tr_tokenizer *open_model(const char *name)
{
    struct tr_tokenizer_text in = {.where = name, .is_model = 1};
    struct tr_tokenizer *t = NULL;
    char path[256], *model;

    snprintf(path, sizeof(path), TEST_RECORDS "%s.model", name);
    assert_int_equal(tr_file_read(path, 1 << 20, &model, &in.json_bytes), 0);
    in.json = model;
    if (tr_tokenizer_parse(&t, &in) < 0)
        fail_msg("%s", tr_error_message());
    tr_free(TR_MEM_TEXT, model);
    return t;
}

/* Sentencepiece's own ids. */
static void a_sentencepiece_model_has_its_ids(void **state)
{
    static const char *const names[] = {"unigram", "bpe"};

    (void)state;
    for (int i = 0; i < 2; i++) {
        struct tr_tokenizer *t = open_model(names[i]);
        json_t *crcs = json_object_get(json_object_get(records, "models"), names[i]);

        assert_int_equal(tr_tokenizer_adds_bos(t), 1);
        assert_int_equal(text_compare_crcs(t, names[i], texts, json_string_value(crcs)), 0);
        tr_tokenizer_close(t);
    }
}

static uint32_t fact(const struct tr_tokenizer *t)
{
    uint32_t crc = 0;

    for (uint32_t cp = 1; cp < 0x110000; cp++) {
        static const char *const around[][3] = {
            {"%s", "", ""}, {"a", "%s", "\u0301"}, {"%s", "\u0301", "%s"}};
        char c[5] = "", text[16];
        struct tok_buf b = {0};

        if (cp >= 0xD800 && cp < 0xE000)
            continue;
        tr_utf8_encode(cp, c);
        for (int i = 0; i < 3; i++) {
            *text = 0;
            for (int k = 0; k < 3; k++)
                strcat(text, strcmp(around[i][k], "%s") ? around[i][k] : c);
            assert_int_equal(tok_normalise(t, &(struct tok_span){-1, 0, strlen(text)}, text, 1, &b),
                             0);
            crc = text_crc32(crc, b.v, b.n);
        }
        tok_buf_free(&b);
    }
    return crc;
}

static void every_code_point_is_normalised_as_the_reference_does(void **state)
{
    static const char *const names[] = {"Precompiled", "Nmt"};

    (void)state;
    for (int i = 0; i < 2; i++) {
        json_t *root = json_pack("{s:{s:s,s:s},s:{s:s,s:[[s,f]]}}", "normalizer", "type", names[i],
                                 "precompiled_charsmap", "charsmap", "model", "type", "Unigram",
                                 "vocab", "a", -1.0);
        struct tr_tokenizer *t = NULL;

        put_charsmap(root);
        assert_int_equal(parse(&t, root), 0);
        assert_int_equal(fact(t), json_integer_value(json_object_get(
                                      json_object_get(records, "facts"), names[i])));
        tr_tokenizer_close(t);
        json_decref(root);
    }
}

static void the_best_sum_wins_and_the_first_of_equal_ones(void **state)
{
    struct tr_tokenizer *t = NULL;

    (void)state;
    assert_int_equal(open_toy(&t,
                              "[[\"?\",0],[\"a\",-1],[\"b\",-1],[\"ab\",-1.5],[\"abc\",-9],"
                              "[\"c\",-2],[\"aa\",-2],[\"\",-1],[\"<0xC3>\",-1],[\"xyz\",-3]]",
                              NULL, NULL),
                     0);
    EXPECT(t, "ab", 3);
    EXPECT(t, "abc", 3, 5);         /* -3.5, not -9 */
    EXPECT(t, "aa", 6);             /* equal: the longer way was there first */
    EXPECT(t, "aaa", 1, 6);         /* the last piece is the one found first */
    EXPECT(t, "aq\xC3\xA9z", 1, 0); /* a run without pieces is one unk */
    EXPECT(t, "xyzx", 9, 0);
    EXPECT(t, "xyxyz", 0, 9);
    tr_tokenizer_close(t);
    assert_int_equal(open_toy(&t, "[[\"a\",-1],[\"a\",-2],[\"<0xC3>\",-1],[\"<0xA9>\",-1]]",
                              "{\"unk_id\":null,\"byte_fallback\":true}", NULL),
                     0);
    EXPECT(t, "a", 1); /* named twice: the later counts */
    TEXT_ERROR(tr_tokenizer_encode(t, "b", 1, &(struct tr_ids){0}), "no \"unk_id\"");
    tr_tokenizer_close(t);
    assert_int_equal(open_toy(&t, "[[\"?\",-1],[\"a\",-1],[\"<0xC3>\",-1],[\"<0xA9>\",-1]]",
                              "{\"unk_id\":0,\"byte_fallback\":true}", NULL),
                     0);
    EXPECT(t, "a\xC3\xA9", 1, 2, 3);
    EXPECT(t, "a\xC3\xA9z", 1, 0); /* a byte without a piece: none of the run's bytes */
    tr_tokenizer_close(t);
}

/* What the reference gives: the sum that stands before "ab" decides how the two ways round. */
static void rounding_and_penalty_are_the_references(void **state)
{
    struct tr_tokenizer *t = NULL;

    (void)state;
    assert_int_equal(open_toy(&t,
                              "[[\"?\",0],[\"a\",-1.1],[\"b\",-2.2],"
                              "[\"ab\",-3.3000000000000003],[\"c\",-0.2]]",
                              NULL, NULL),
                     0);
    EXPECT(t, "ab", 3);
    EXPECT(t, "cab", 4, 1, 2);
    tr_tokenizer_close(t);
    assert_int_equal(open_toy(&t, "[[\"?\",0],[\"a\",5],[\"ab\",-9],[\"c\",16]]", NULL, NULL), 0);
    EXPECT(t, "ab", 2); /* -9; by way of unk it is 5 - 19 */
    EXPECT(t, "cab", 3, 2);
    tr_tokenizer_close(t);
}

static void parts_have_the_ids_of_the_whole(void **state)
{
    static const char *const names[] = {"xlm-r", "t5", "unigram"};

    (void)state;
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        struct tr_tokenizer *t = i < 2 ? open_family(names[i]) : open_model(names[i]);

        text_compare_joined(t, texts);
        tr_tokenizer_close(t);
    }
}

/* Where words are not cut, rounding runs through the whole text: it must stay in one piece. */
static void a_whole_document_has_no_cut(void **state)
{
    static const char text[] = "so it goes on and on, and then once more";
    struct tr_tokenizer *t = open_family("llama");

    (void)state;
    assert_int_equal(tr_tokenizer_cut(t, text, sizeof(text) - 1), 0);
    tr_tokenizer_close(t);
}

/* The work space holds the stretch between two places that no piece reaches over, not the text. */
static void a_long_text_takes_little_memory(void **state)
{
    static const char *const runs[] = {"a", " ", "\xF0\x9F\x98\x80", "ab ", "the "};

    (void)state;
    for (size_t i = 0; i < sizeof(runs) / sizeof(runs[0]); i++) {
        struct tr_tokenizer *t = open_family("llama");
        struct tok_unigram_work w = {0};
        struct tok_buf b = {0};
        struct tr_ids ids = {0};

        while (b.n < 1 << 20)
            assert_int_equal(tok_buf_add(&b, runs[i], strlen(runs[i])), 0);
        assert_int_equal(tok_unigram_encode(t, &w, b.v, b.n, &ids), 0);
        assert_true(ids.n > 0);
        if (i != 0 && i != 1)
            assert_true(w.room < 4096);
        tok_unigram_work_free(&w);
        tr_ids_free(&ids);
        tok_buf_free(&b);
        tr_tokenizer_close(t);
    }
}

static void damaged_files_are_refused(void **state)
{
    static const char *const bad[][3] = {
        {"[]", NULL, "an array of 1 to"},
        {"{\"a\":1}", NULL, "an array of 1 to"},
        {"[[\"a\"]]", NULL, "piece 0 is not a pair"},
        {"[[\"a\",-1],[\"b\",\"-1\"]]", NULL, "piece 1 is not a pair"},
        {"[[\"a\",-1],\"b\"]", NULL, "piece 1 is not a pair"},
        {"[[1,-1]]", NULL, "piece 0 is not a pair"},
        {"[[\"a\",-1]]", "{\"unk_id\":1}", "\"unk_id\" is not in the vocabulary"},
        {"[[\"a\",-1]]", "{\"unk_id\":-1}", "\"unk_id\" is not in the vocabulary"},
        {"[[\"a\",-1]]", "{\"unk_id\":\"a\"}", "\"unk_id\" is not in the vocabulary"},
        {"[[\"a\",-1]]", "{\"byte_fallback\":1}", "\"byte_fallback\" must be true or false"},
    };
    static const char *const tables[] = {
        "AAAA", "BAAAAA==", "BAAAAAEAAAD/", "CAAAAAEAAAA=", "!!!!", "AwAAAAEAAAA=", "A"};
    struct tr_tokenizer *t = NULL;

    (void)state;
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
        TEXT_ERROR(open_toy(&t, bad[i][0], bad[i][1], NULL), "unigram", bad[i][2]);
    for (size_t i = 0; i < sizeof(tables) / sizeof(tables[0]); i++) {
        char frame[160];

        snprintf(frame, sizeof(frame),
                 "{\"normalizer\":{\"type\":\"Precompiled\",\"precompiled_charsmap\":\"%s\"}}",
                 tables[i]);
        TEXT_ERROR(open_toy(&t, "[[\"a\",-1]]", NULL, frame),
                   "unigram: normalizer: \"precompiled_charsmap\" is damaged");
    }
    TEXT_ERROR(open_toy(&t, "[[\"a\",-1]]", NULL, "{\"normalizer\":{\"type\":\"BertNormalizer\"}}"),
               "normalizer", "\"BertNormalizer\" is not supported");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_family_agrees_with_the_reference),
        cmocka_unit_test(a_sentencepiece_model_has_its_ids),
        cmocka_unit_test(every_code_point_is_normalised_as_the_reference_does),
        cmocka_unit_test(the_best_sum_wins_and_the_first_of_equal_ones),
        cmocka_unit_test(rounding_and_penalty_are_the_references),
        cmocka_unit_test(parts_have_the_ids_of_the_whole),
        cmocka_unit_test(a_whole_document_has_no_cut),
        cmocka_unit_test(a_long_text_takes_little_memory),
        cmocka_unit_test(damaged_files_are_refused),
    };
    int failed;

    records = json_load_file(TEST_RECORDS "unigram.json", 0, NULL);
    texts = json_load_file(TEST_RECORDS "texts.json", JSON_ALLOW_NUL, NULL);
    failed = records && texts ? cmocka_run_group_tests(tests, text_setup, text_teardown) : 1;
    json_decref(records);
    json_decref(texts);
    return failed;
}
