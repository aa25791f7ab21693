/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/text/text_test.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "src/base/file.h"
#include "src/base/mem.h"
#include "src/text/buf.h"

static char folder[64];
static json_t *golden;

json_t *text_golden(void)
{
    json_error_t e;

    if (!golden)
        golden = json_load_file(TEST_GOLDEN, JSON_ALLOW_NUL, &e);
    assert_non_null(golden);
    return golden;
}

const char *text_shared(const char *name)
{
    static char path[4096];
    const char *root = getenv("TAILRACE_SHARED_DATA"); /* where the checkout has no ../shared */

    snprintf(path, sizeof(path), "%s/%s", root ? root : TEST_SHARED, name);
    if (access(path, R_OK) == 0)
        return path;
    print_message("skipped: no %s\n", path);
    return NULL;
}

const char *text_path(const char *name)
{
    static char path[16][256];
    static int turn;

    turn = (turn + 1) % 16;
    snprintf(path[turn], sizeof(path[turn]), "%s/%s", folder, name);
    return path[turn];
}

const char *text_file(const char *name, const char *content, size_t bytes)
{
    const char *path = text_path(name);
    FILE *f = fopen(path, "wb");

    assert_non_null(f);
    assert_int_equal(fwrite(content, 1, bytes, f), bytes);
    assert_int_equal(fclose(f), 0);
    return path;
}

struct tr_tokenizer *text_toy(json_t *patch, const char *config)
{
    json_t *toy = json_object_get(text_golden(), "toy"), *v;
    json_t *root = json_deep_copy(json_object_get(toy, "base"));
    struct tr_tokenizer_text text = {.config = config, .where = "toy"};
    struct tr_tokenizer *t = NULL;
    const char *key;
    char *json;
    int r;

    json_object_foreach(patch, key, v) {
        if (!strcmp(key, "model"))
            json_object_update(json_object_get(root, "model"), v);
        else
            json_object_set(root, key, v);
    }
    json = json_dumps(root, JSON_COMPACT);
    text.json = json;
    text.json_bytes = strlen(json);
    text.config_bytes = config ? strlen(config) : 0;
    r = tr_tokenizer_parse(&t, &text);
    if (r < 0)
        fail_msg("%s", tr_error_message());
    free(json);
    json_decref(root);
    return t;
}

struct tr_tokenizer *text_toy_marked(void)
{
    json_t *patch = json_loads("{\"post_processor\":{\"type\":\"TemplateProcessing\",\"single\":["
                               "{\"SpecialToken\":{\"id\":\"<s>\"}},{\"Sequence\":{\"id\":\"A\"}}],"
                               "\"special_tokens\":{\"<s>\":{\"ids\":[1]}}}}",
                               0, NULL);
    struct tr_tokenizer *t = text_toy(patch, "{\"eos_token\":\"</s>\"}");

    json_decref(patch);
    return t;
}

struct tr_data *text_open_data(const struct tr_data_params *p)
{
    struct tr_data *d = NULL;

    if (tr_data_open(&d, p) < 0)
        fail_msg("%s", tr_error_message());
    return d;
}

uint32_t text_random(uint32_t *state)
{
    *state = *state * 1664525u + 1013904223u;
    return *state >> 8;
}

double text_seconds(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

int text_setup(void **state)
{
    (void)state;
    snprintf(folder, sizeof(folder), "/tmp/tailrace-text-XXXXXX");
    return mkdtemp(folder) ? 0 : -1;
}

int text_teardown(void **state)
{
    (void)state;
    json_decref(golden);
    golden = NULL;
    if (tr_mem_now(TR_MEM_TEXT) || tr_mem_now(TR_MEM_BATCH) || tr_mem_now(TR_MEM_MISC)) {
        print_error("memory not given back: %llu text, %llu batch, %llu tables\n",
                    (unsigned long long)tr_mem_now(TR_MEM_TEXT),
                    (unsigned long long)tr_mem_now(TR_MEM_BATCH),
                    (unsigned long long)tr_mem_now(TR_MEM_MISC));
        return -1;
    }
    return tr_remove_tree(folder);
}

void text_expect_error(int r, const char *const *parts)
{
    const char *message = tr_error_message();
    size_t n = strlen(message);

    if (r >= 0)
        fail_msg("no error where \"%s\" was expected", parts[0]);
    for (; *parts; parts++)
        if (!strstr(message, *parts))
            fail_msg("\"%s\" does not say \"%s\"", message, *parts);
    assert_null(strchr(message, '\n'));
    assert_true(n && message[n - 1] != '.');
}

/* One case of NAME.inp against one line of NAME.out. */
static void compare_vector(const struct tr_tokenizer *t, const char *text, size_t n,
                           const char **ids)
{
    struct tr_ids got = {0};

    assert_int_equal(tr_tokenizer_encode(t, text, n, &got), 0);
    for (size_t i = 0; i < got.n; i++) {
        char *end;
        long want = strtol(*ids, &end, 10);

        if (end == *ids || got.v[i] != want)
            fail_msg("vector \"%.*s\": id %zu is %d", (int)n, text, i, got.v[i]);
        *ids = end;
    }
    *ids += strspn(*ids, " ");
    assert_int_equal(**ids, '\n');
    ++*ids;
    tr_ids_free(&got);
}

static int compare_vectors(const struct tr_tokenizer *t, const char *text, const char *ids)
{
    static const char mark[] = "\n__ggml_vocab_test__\n";
    int n = 0;

    while (*text) {
        const char *end = strstr(text, mark);

        compare_vector(t, text, end ? (size_t)(end - text) : strlen(text), &ids);
        n++;
        text = end ? end + sizeof(mark) - 1 : "";
    }
    return n;
}

void text_compare_vectors(const struct tr_tokenizer *t, const char *name)
{
    char path[128], *text, *ids;

    snprintf(path, sizeof(path), "tokenizers/vectors/%s.inp", name);
    assert_int_equal(tr_file_read(text_shared(path), 1 << 20, &text, NULL), 0);
    snprintf(path, sizeof(path), "tokenizers/vectors/%s.out", name);
    assert_int_equal(tr_file_read(text_shared(path), 1 << 20, &ids, NULL), 0);
    assert_true(compare_vectors(t, text, ids) > 40);
    tr_free(TR_MEM_TEXT, text);
    tr_free(TR_MEM_TEXT, ids);
}

/* Encodes in parts of about `window` bytes. `careless` cuts anywhere. Returns the number of cuts.
 */
static int encode_parts(const struct tr_tokenizer *t, const char *text, size_t n, size_t window,
                        int careless, struct tr_ids *ids)
{
    enum tr_text_place place = TR_TEXT_START;
    size_t want = window;
    int cuts = 0;

    while (n) {
        size_t part = n;

        if (want < n)
            part = careless ? want : tr_tokenizer_cut(t, text, want);
        if (!part) {
            want *= 2;
            continue;
        }
        assert_int_equal(tr_tokenizer_encode_more(t, text, part, &place, ids), 0);
        cuts += part < n;
        text += part;
        n -= part;
        want = window;
    }
    return cuts;
}

static int differs(const struct tr_ids *a, const struct tr_ids *b)
{
    return a->n != b->n || (a->n && memcmp(a->v, b->v, a->n * sizeof(*a->v)) != 0);
}

int text_compare_parts(const struct tr_tokenizer *t, const char *text, size_t n, int *cuts)
{
    int changed = 0;

    for (size_t window = 1; window < 40; window += 1 + window / 4) {
        struct tr_ids whole = {0}, parts = {0}, careless = {0};

        assert_int_equal(tr_tokenizer_encode(t, text, n, &whole), 0);
        *cuts += encode_parts(t, text, n, window, 0, &parts);
        encode_parts(t, text, n, window, 1, &careless);
        if (differs(&whole, &parts))
            fail_msg("parts of %zu bytes change the ids of \"%.60s\"", window, text);
        changed += differs(&whole, &careless);
        tr_ids_free(&whole);
        tr_ids_free(&parts);
        tr_ids_free(&careless);
    }
    return changed;
}

void text_compare_joined(const struct tr_tokenizer *t, json_t *texts)
{
    int cuts = 0, changed = 0;

    for (size_t k = 0; k + 8 < json_array_size(texts); k += 16) {
        struct tok_buf b = {0};

        for (size_t m = k; m < k + 8; m++) {
            size_t n;
            char *text = text_bytes(json_array_get(texts, m), &n);

            assert_int_equal(tok_buf_add(&b, text, n), 0);
            assert_int_equal(tok_buf_add(&b, " so it goes on", 14), 0);
            free(text);
        }
        changed += text_compare_parts(t, b.v, b.n, &cuts);
        tok_buf_free(&b);
    }
    assert_true(cuts > 500);
    assert_true(changed > 500);
}

uint32_t text_crc32(uint32_t crc, const void *bytes, size_t n)
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
char *text_bytes(json_t *v, size_t *n)
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

static uint32_t answer(const struct tr_tokenizer *t, const char *text, size_t n)
{
    struct tr_ids ids = {0};
    char *decoded = NULL;
    size_t bytes = 0;
    uint32_t crc;

    if (tr_tokenizer_encode(t, text, n, &ids) < 0 ||
        tr_tokenizer_decode_bytes(t, ids.v, ids.n, &decoded, &bytes) < 0)
        fail_msg("%s", tr_error_message());
    crc = text_crc32(0, ids.v, ids.n * sizeof(*ids.v));
    crc = text_crc32(crc, decoded, bytes);
    tr_free(TR_MEM_TEXT, decoded);
    tr_ids_free(&ids);
    return crc;
}

int text_compare_crcs(const struct tr_tokenizer *t, const char *name, json_t *texts,
                      const char *crcs)
{
    json_t *v;
    size_t i;
    int bad = 0;

    assert_int_equal(strlen(crcs), 8 * json_array_size(texts));
    json_array_foreach(texts, i, v) {
        size_t n;
        char *text = text_bytes(v, &n), hex[9];

        snprintf(hex, sizeof(hex), "%08x", answer(t, text, n));
        if (crcs[8 * i] != '-' && strncmp(hex, crcs + 8 * i, 8) != 0 && bad++ < 5)
            print_error("%s: text %zu (\"%.60s\") differs from the reference\n", name, i, text);
        free(text);
    }
    return bad;
}
