/* SPDX-License-Identifier: Apache-2.0
 *
 * The tokenizer against the reference: ids and decoded texts recorded in golden.json (record.py),
 * the vectors of llama.cpp, and the ids of the golden checkpoint; then what must hold for any text:
 * round trips, broken UTF-8, and reading in parts.
 */
#include "tests/text/text_test.h"

#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "src/base/file.h"
#include "src/base/mem.h"
#include "src/text/tokenizer.h"

static void expect_ids(const struct tr_ids *ids, json_t *want, const char *text)
{
    assert_int_equal(ids->n, json_array_size(want));
    for (size_t i = 0; i < ids->n; i++)
        if (ids->v[i] != json_integer_value(json_array_get(want, i)))
            fail_msg("id %zu of \"%.80s\" is %d", i, text, ids->v[i]);
}

/* A NUL of the text is U+FFFD in what ends with NUL, and itself where the length is told. */
static void expect_text(const struct tr_tokenizer *t, const int32_t *ids, size_t n, json_t *want)
{
    const char *all = json_string_value(want);
    size_t bytes, length = json_string_length(want), at = 0;
    char *text;

    assert_int_equal(tr_tokenizer_decode_bytes(t, ids, n, &text, &bytes), 0);
    assert_int_equal(bytes, length);
    assert_memory_equal(text, all, length);
    tr_free(TR_MEM_TEXT, text);
    assert_int_equal(tr_tokenizer_decode(t, ids, n, &text), 0);
    for (size_t i = 0; i < length; i++) {
        size_t k = all[i] ? 1 : 3;

        assert_memory_equal(text + at, all[i] ? all + i : "\xEF\xBF\xBD", k);
        at += k;
    }
    assert_int_equal(text[at], 0);
    tr_free(TR_MEM_TEXT, text);
}

static void compare(const struct tr_tokenizer *t, json_t *texts, json_t *ids, json_t *decoded)
{
    json_t *text;
    size_t i;

    assert_true(json_array_size(texts) > 10);
    json_array_foreach(texts, i, text) {
        struct tr_ids got = {0};

        assert_int_equal(
            tr_tokenizer_encode(t, json_string_value(text), json_string_length(text), &got), 0);
        expect_ids(&got, json_array_get(ids, i), json_string_value(text));
        expect_text(t, got.v, got.n, json_array_get(decoded, i));
        tr_ids_free(&got);
    }
}

static void compare_random(const struct tr_tokenizer *t, json_t *random)
{
    json_t *list, *id;
    size_t i, k;

    json_array_foreach(json_object_get(random, "ids"), i, list) {
        int32_t ids[64];

        assert_true(json_array_size(list) <= 64);
        json_array_foreach(list, k, id)
            ids[k] = (int32_t)json_integer_value(id);
        expect_text(t, ids, json_array_size(list),
                    json_array_get(json_object_get(random, "decoded"), i));
    }
}

static void compare_folder(const char *name, const char *folder)
{
    json_t *golden = json_object_get(text_golden(), name);
    struct tr_tokenizer *t = NULL;

    assert_non_null(golden);
    if (tr_tokenizer_open(&t, folder) < 0)
        fail_msg("%s", tr_error_message());
    compare(t, json_object_get(golden, "texts"), json_object_get(golden, "ids"),
            json_object_get(golden, "decoded"));
    compare_random(t, json_object_get(golden, "random"));
    tr_tokenizer_close(t);
}

static void real_tokenizers_agree_with_the_reference(void **state)
{
    static const char *const names[] = {"tokenizers/phi-3-mini", "tokenizers/minueza-32m-mistral",
                                        "checkpoints/tinystories-656k-hf"};

    (void)state;
    for (int i = 0; i < 3; i++) {
        const char *folder = text_shared(names[i]);

        if (!folder)
            skip();
        compare_folder(names[i], folder);
    }
}

static void a_trained_tokenizer_agrees_with_the_reference(void **state)
{
    struct tr_tokenizer_train_params p = {TEST_LICENSE, text_path("trained"), 600};

    (void)state;
    assert_int_equal(tr_tokenizer_train(&p), 0);
    compare_folder("trained", p.out);
}

static void every_variant_agrees_with_the_reference(void **state)
{
    json_t *toy = json_object_get(text_golden(), "toy"), *v;
    size_t i;

    (void)state;
    json_array_foreach(json_object_get(toy, "variants"), i, v) {
        struct tr_tokenizer *t = text_toy(json_object_get(v, "patch"), NULL);

        compare(t, json_object_get(toy, "texts"), json_object_get(v, "ids"),
                json_object_get(v, "decoded"));
        tr_tokenizer_close(t);
    }
    assert_true(i > 30);
}

static void vectors_are_reproduced(void **state)
{
    const char *folder = text_shared("tokenizers/phi-3-mini");
    struct tr_tokenizer *t = NULL;

    (void)state;
    if (!folder)
        skip();
    assert_int_equal(tr_tokenizer_open(&t, folder), 0);
    text_compare_vectors(t, "phi-3");
    text_compare_vectors(t, "llama-spm");
    tr_tokenizer_close(t);
}

static void the_golden_checkpoint_has_its_ids(void **state)
{
    const char *path = text_shared("checkpoints/golden.json");
    json_t *golden = path ? json_load_file(path, 0, NULL) : NULL, *ids;
    const char *text = json_string_value(json_object_get(golden, "text"));
    struct tr_tokenizer *t = NULL;
    struct tr_ids got = {0};

    (void)state;
    if (!golden)
        skip();
    ids = json_object_get(json_object_get(golden, "tinystories-656k"), "ids");
    assert_int_equal(tr_tokenizer_open(&t, text_shared("checkpoints/tinystories-656k-hf")), 0);
    assert_int_equal(tr_tokenizer_adds_bos(t), 1);
    assert_int_equal(tr_tokenizer_bos(t), 1);
    assert_int_equal(tr_tokenizer_eos(t), 2);
    assert_int_equal(tr_tokenizer_vocab(t), 2048);
    tr_ids_push(&got, tr_tokenizer_bos(t));
    assert_int_equal(tr_tokenizer_encode(t, text, strlen(text), &got), 0);
    expect_ids(&got, ids, text);
    tr_ids_free(&got);
    tr_tokenizer_close(t);
    json_decref(golden);
}

static void names_and_pieces_are_known(void **state)
{
    struct tr_tokenizer *t =
        text_toy(NULL, "{\"bos_token\":\"<s>\",\"eos_token\":{\"content\":\"</s>\"},"
                       "\"model_max_length\":1000000000000000019884624838656}");

    (void)state;
    assert_int_equal(tr_tokenizer_bos(t), 1);
    assert_int_equal(tr_tokenizer_eos(t), 2);
    assert_int_equal(tr_tokenizer_adds_bos(t), 0);
    assert_string_equal(tr_tokenizer_piece(t, 0), "<unk>");
    assert_string_equal(tr_tokenizer_piece(t, 3), "<0x00>");
    assert_null(tr_tokenizer_piece(t, -1));
    assert_null(tr_tokenizer_piece(t, tr_tokenizer_vocab(t)));
    tr_tokenizer_close(t);
    t = text_toy(NULL, NULL);
    assert_int_equal(tr_tokenizer_bos(t), -1);
    assert_int_equal(tr_tokenizer_eos(t), -1);
    tr_tokenizer_close(t);
}

/* Where every byte has a piece, decoding gives the text back; "▁", added tokens and NUL cannot. */
static int must_return(const char *text, size_t n)
{
    return strlen(text) == n && !strstr(text, "\xE2\x96\x81") && !strstr(text, "<s") &&
           !strstr(text, "</s") && !strstr(text, "<unk") && !strstr(text, "<|");
}

/* Of a folder with these two files (NULL: none). */
static void expect_marks(const char *config, const char *map, int32_t bos, int32_t eos)
{
    json_t *base = json_object_get(json_object_get(text_golden(), "toy"), "base");
    char *json = json_dumps(base, JSON_COMPACT), folder[512];
    struct tr_tokenizer *t = NULL;

    snprintf(folder, sizeof(folder), "%s", text_path("marks"));
    assert_int_equal(mkdir(folder, 0777), 0);
    text_file("marks/tokenizer.json", json, strlen(json));
    if (config)
        text_file("marks/tokenizer_config.json", config, strlen(config));
    if (map)
        text_file("marks/special_tokens_map.json", map, strlen(map));
    if (tr_tokenizer_open(&t, folder) < 0)
        fail_msg("%s", tr_error_message());
    assert_int_equal(tr_tokenizer_bos(t), bos);
    assert_int_equal(tr_tokenizer_eos(t), eos);
    tr_tokenizer_close(t);
    free(json);
    unlink(text_path("marks/tokenizer.json"));
    unlink(text_path("marks/tokenizer_config.json"));
    unlink(text_path("marks/special_tokens_map.json"));
    rmdir(folder);
}

static void a_map_names_what_the_config_does_not(void **state)
{
    static const char map[] = "{\"bos_token\":\"<s>\",\"eos_token\":{\"content\":\"</s>\"}}";

    (void)state;
    expect_marks(NULL, NULL, -1, -1);
    expect_marks(NULL, map, 1, 2);
    expect_marks("{\"model_max_length\":512}", map, 1, 2);
    expect_marks("{\"bos_token\":null,\"eos_token\":\"<unk>\"}", map, 1, 0);
    expect_marks("{\"added_tokens_decoder\":{},\"eos_token\":\"<unk>\"}", map, -1, 0);
}

static void a_text_comes_back(void **state)
{
    json_t *texts = json_object_get(json_object_get(text_golden(), "trained"), "texts"), *text;
    struct tr_tokenizer *t = NULL;
    size_t i, seen = 0;

    (void)state;
    assert_int_equal(tr_tokenizer_open(&t, text_path("trained")), 0);
    json_array_foreach(texts, i, text) {
        struct tr_ids ids = {0};
        const char *s = json_string_value(text);

        if (!must_return(s, json_string_length(text)))
            continue;
        assert_int_equal(tr_tokenizer_encode(t, s, strlen(s), &ids), 0);
        expect_text(t, ids.v, ids.n, text);
        tr_ids_free(&ids);
        seen++;
    }
    assert_true(seen > 20);
    tr_tokenizer_close(t);
}

static void broken_utf8_becomes_replacement_characters(void **state)
{
    /* What Python's bytes.decode("utf-8", "replace") gives. */
    static const char *const cases[][2] = {
        {"a\xFF"
         "b",
         "a\uFFFDb"},
        {"\x80\x80", "\uFFFD\uFFFD"},
        {"\xE2\x82", "\uFFFD"},
        {"\xE2\x82 x", "\uFFFD x"},
        {"\xED\xA0\x80", "\uFFFD\uFFFD\uFFFD"},
        {"\xF0\x9F\x98", "\uFFFD"},
        {"\xF5\x80", "\uFFFD\uFFFD"},
        {"\xC0\xAF", "\uFFFD\uFFFD"},
        {"\xE0\x80\xAF", "\uFFFD\uFFFD\uFFFD"},
        {"\xF4\x90\x80\x80", "\uFFFD\uFFFD\uFFFD\uFFFD"},
        {"caf\xC3", "caf\uFFFD"},
    };
    struct tr_tokenizer *t = NULL;

    (void)state;
    assert_int_equal(tr_tokenizer_open(&t, text_path("trained")), 0);
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct tr_ids ids = {0};
        json_t *want = json_string(cases[i][1]);

        assert_int_equal(tr_tokenizer_encode(t, cases[i][0], strlen(cases[i][0]), &ids), 0);
        expect_text(t, ids.v, ids.n, want);
        tr_ids_free(&ids);
        json_decref(want);
    }
    tr_tokenizer_close(t);
}

static void parts_have_the_ids_of_the_whole(void **state)
{
    json_t *toy = json_object_get(text_golden(), "toy"), *v, *text;
    int changed = 0, cuts = 0;
    size_t i, k;

    (void)state;
    json_array_foreach(json_object_get(toy, "variants"), i, v) {
        struct tr_tokenizer *t = text_toy(json_object_get(v, "patch"), NULL);

        json_array_foreach(json_object_get(toy, "texts"), k, text)
            changed +=
                text_compare_parts(t, json_string_value(text), json_string_length(text), &cuts);
        tr_tokenizer_close(t);
    }
    assert_true(cuts > 100);
    assert_true(changed > 100);
}

/* What an expression makes of two characters is not known from each of them alone. */
static void an_expression_in_the_normalizer_leaves_no_cut(void **state)
{
    static const char text[] = "hezz hezz";
    json_t *patch = json_pack("{s:{s:s,s:{s:s},s:s}}", "normalizer", "type", "Replace", "pattern",
                              "String", "q", "content", "h");
    struct tr_tokenizer *t = text_toy(patch, NULL);

    (void)state;
    assert_true(tr_tokenizer_cut(t, text, sizeof(text) - 1) > 0);
    tr_tokenizer_close(t);
    json_object_set_new(json_object_get(patch, "normalizer"), "pattern",
                        json_pack("{s:s}", "Regex", "[^a-y ]+"));
    t = text_toy(patch, NULL);
    assert_int_equal(tr_tokenizer_cut(t, text, sizeof(text) - 1), 0);
    tr_tokenizer_close(t);
    json_decref(patch);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(real_tokenizers_agree_with_the_reference),
        cmocka_unit_test(a_trained_tokenizer_agrees_with_the_reference),
        cmocka_unit_test(every_variant_agrees_with_the_reference),
        cmocka_unit_test(vectors_are_reproduced),
        cmocka_unit_test(the_golden_checkpoint_has_its_ids),
        cmocka_unit_test(names_and_pieces_are_known),
        cmocka_unit_test(a_map_names_what_the_config_does_not),
        cmocka_unit_test(a_text_comes_back),
        cmocka_unit_test(broken_utf8_becomes_replacement_characters),
        cmocka_unit_test(parts_have_the_ids_of_the_whole),
        cmocka_unit_test(an_expression_in_the_normalizer_leaves_no_cut),
    };

    return cmocka_run_group_tests(tests, text_setup, text_teardown);
}
