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

static uint32_t crc32_of(uint32_t crc, const void *bytes, size_t n)
{
    static uint32_t table[256];
    const unsigned char *p = bytes;

    for (uint32_t i = 0; !table[1] && i < 256; i++) {
        uint32_t x = 255 - i;

        for (int k = 0; k < 8; k++)
            x = x >> 1 ^ (x & 1 ? 0xEDB88320u : 0);
        table[255 - i] = x;
    }
    crc = ~crc;
    for (size_t i = 0; i < n; i++)
        crc = crc >> 8 ^ table[(crc ^ p[i]) & 0xFF];
    return ~crc;
}

/* A recorded text: a string, or hex digits where it is no UTF-8. */
static char *text_bytes(json_t *v, size_t *n)
{
    const char *hex = json_string_value(json_array_get(v, 0));
    char *out;

    *n = hex ? strlen(hex) / 2 : json_string_length(v);
    out = malloc(*n + 1);
    for (size_t i = 0; hex && i < *n; i++) {
        unsigned byte;

        sscanf(hex + 2 * i, "%2x", &byte);
        out[i] = (char)byte;
    }
    if (!hex)
        memcpy(out, json_string_value(v), *n);
    return out;
}

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

static uint32_t answer(const struct tr_tokenizer *t, const char *text, size_t n)
{
    struct tr_ids ids = {0};
    char *decoded;
    size_t bytes;
    uint32_t crc;

    if (tr_tokenizer_encode(t, text, n, &ids) < 0 ||
        tr_tokenizer_decode_bytes(t, ids.v, ids.n, &decoded, &bytes) < 0)
        fail_msg("%s", tr_error_message());
    crc = crc32_of(0, ids.v, ids.n * sizeof(*ids.v));
    crc = crc32_of(crc, decoded, bytes);
    tr_free(TR_MEM_TEXT, decoded);
    tr_ids_free(&ids);
    return crc;
}

static int compare_texts(const struct tr_tokenizer *t, const char *name, const char *crcs)
{
    json_t *v;
    size_t i;
    int bad = 0;

    assert_int_equal(strlen(crcs), 8 * json_array_size(texts));
    json_array_foreach(texts, i, v)
    {
        size_t n;
        char *text = text_bytes(v, &n), hex[9];

        snprintf(hex, sizeof(hex), "%08x", answer(t, text, n));
        if (strncmp(hex, crcs + 8 * i, 8) != 0 && bad++ < 5)
            print_error("%s: text %zu (\"%.60s\") differs from the reference\n", name, i, text);
        free(text);
    }
    return bad;
}

static void every_family_agrees_with_the_reference(void **state)
{
    const char *name;
    json_t *f;
    int bad = 0;

    (void)state;
    assert_true(json_array_size(texts) >= 2000);
    json_object_foreach(families, name, f)
    {
        struct tr_tokenizer *t = open_family(name);

        if (!t)
            skip();
        bad += compare_texts(t, name, json_string_value(json_object_get(f, "crc")));
        tr_tokenizer_close(t);
    }
    assert_int_equal(bad, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_family_agrees_with_the_reference),
    };
    int failed;

    families = json_load_file(TEST_RECORDS "families.json", 0, NULL);
    texts = json_load_file(TEST_RECORDS "texts.json", JSON_ALLOW_NUL, NULL);
    failed = families && texts ? cmocka_run_group_tests(tests, text_setup, text_teardown) : 1;
    json_decref(families);
    json_decref(texts);
    return failed;
}
