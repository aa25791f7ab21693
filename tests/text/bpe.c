/* SPDX-License-Identifier: Apache-2.0
 *
 * The heap against the definition: always the leftmost of the lowest-ranked pairs merges, found by
 * looking at all of them. The definition in a wrong form (rightmost first, or a chain cut in two)
 * must be told apart. Then the time: a document of 4 MB, and texts that make one long chain.
 */
#include "tests/text/text_test.h"

#include <stdlib.h>
#include <string.h>

#include "src/base/file.h"
#include "src/base/mem.h"
#include "src/text/tokenizer_parts.h"
#include "src/text/tokenizer_utf8.h"

enum wrong { RIGHT, RIGHTMOST_FIRST, CUT_IN_TWO };

/* Merges v[0..n) in place; returns the new length. */
static size_t merge_naively(const struct bpe *b, int32_t *v, size_t n, enum wrong wrong)
{
    for (;;) {
        uint32_t best = UINT32_MAX;
        size_t at = 0;

        for (size_t i = 0; i + 1 < n; i++) {
            const struct bpe_map_entry *m = bpe_map_find(&b->pairs, bpe_pair_key(v[i], v[i + 1]));

            if (!m || m->value > best || (m->value == best && wrong != RIGHTMOST_FIRST))
                continue;
            best = m->value;
            at = i;
        }
        if (best == UINT32_MAX)
            return n;
        v[at] = b->result[best];
        memmove(v + at + 1, v + at + 2, (n - at - 2) * sizeof(*v));
        n--;
    }
}

static size_t merge_definition(const struct bpe *b, int32_t *v, size_t n, enum wrong wrong)
{
    size_t half = n / 2, first;

    if (wrong != CUT_IN_TWO)
        return merge_naively(b, v, n, wrong);
    first = merge_naively(b, v, half, RIGHT);
    memmove(v + first, v + half, (n - half) * sizeof(*v));
    return first + merge_naively(b, v + first, n - half, RIGHT);
}

static void merge_fast(const struct bpe *b, const int32_t *v, size_t n, struct tr_ids *out)
{
    struct bpe_work w = {.bpe = b, .out = out};

    for (size_t i = 0; i < n; i++)
        assert_int_equal(bpe_push(&w, v[i]), 0);
    assert_int_equal(bpe_flush(&w), 0);
    bpe_work_free(&w);
}

static int same(const struct tr_ids *a, const int32_t *v, size_t n)
{
    return a->n == n && (n == 0 || !memcmp(a->v, v, n * sizeof(*v)));
}

/* A random table over a few letters: symbol 0..k-1 are letters, every merge makes a new symbol, and
 * a pair may be named twice. Letters at the ends of symbols are tracked, for the joins. */
static void random_table(struct bpe *b, uint32_t *seed, int letters, int merges)
{
    int32_t first[64], last[64];

    assert_int_equal(bpe_init(b, (size_t)merges), 0);
    for (int32_t i = 0; i < letters + merges; i++)
        first[i] = last[i] = i;
    for (int32_t i = 0; i < merges; i++) {
        int32_t left = (int32_t)(text_random(seed) % (uint32_t)(letters + i));
        int32_t right = (int32_t)(text_random(seed) % (uint32_t)(letters + i));

        assert_int_equal(bpe_add(b, left, right, letters + i), 0);
        assert_int_equal(bpe_add_join(b, last[left], first[right]), 0);
        first[letters + i] = first[left];
        last[letters + i] = last[right];
    }
}

static void check_random(uint32_t *seed, int wrong_ways[3])
{
    int letters = 2 + (int)(text_random(seed) % 4), merges = 1 + (int)(text_random(seed) % 50);
    size_t n = text_random(seed) % 60;
    int32_t text[64], v[64];
    struct bpe b;

    random_table(&b, seed, letters, merges);
    for (size_t i = 0; i < n; i++)
        text[i] = (int32_t)(text_random(seed) % (uint32_t)letters);
    for (enum wrong w = RIGHT; w <= CUT_IN_TWO; w++) {
        struct tr_ids got = {0};

        memcpy(v, text, sizeof(v));
        merge_fast(&b, text, n, &got);
        wrong_ways[w] += !same(&got, v, merge_definition(&b, v, n, w));
        tr_ids_free(&got);
    }
    bpe_free(&b);
}

static void the_heap_is_the_definition(void **state)
{
    uint32_t seed = 7;
    int wrong[3] = {0};

    (void)state;
    for (int i = 0; i < 20000; i++)
        check_random(&seed, wrong);
    assert_int_equal(wrong[RIGHT], 0);
    assert_true(wrong[RIGHTMOST_FIRST] > 100);
    assert_true(wrong[CUT_IN_TWO] > 100);
}

static struct tr_tokenizer *open_or_skip(const char *name)
{
    const char *folder = text_shared(name);
    struct tr_tokenizer *t = NULL;

    if (!folder)
        skip();
    assert_int_equal(tr_tokenizer_open(&t, folder), 0);
    return t;
}

/* The first symbols of a text that begins with a word: "▁" before it and for every space. */
static size_t first_symbols(const struct tr_tokenizer *t, const char *text, size_t n, int32_t *v)
{
    size_t k = 0;

    v[k++] = tok_char_id(t, 0x2581);
    for (size_t i = 0; i < n;) {
        uint32_t cp;
        int bytes = tr_utf8_decode(text + i, n - i, &cp), id;

        assert_true(bytes > 0);
        id = tok_char_id(t, cp == ' ' ? 0x2581 : cp);
        if (id >= 0)
            v[k++] = id;
        for (int j = 0; id < 0 && j < bytes; j++)
            v[k++] = t->byte_id[(unsigned char)text[i + (size_t)j]];
        i += (size_t)bytes;
    }
    return k;
}

static void compare_piece(const struct tr_tokenizer *t, const char *text, size_t n,
                          double seconds[2])
{
    int32_t *v = malloc((n + 1) * sizeof(*v));
    struct tr_ids got = {0};
    double start = text_seconds();
    size_t k;

    assert_int_equal(tr_tokenizer_encode(t, text, n, &got), 0);
    seconds[0] += text_seconds() - start;
    k = first_symbols(t, text, n, v);
    start = text_seconds();
    k = merge_naively(&t->bpe, v, k, RIGHT);
    seconds[1] += text_seconds() - start;
    assert_true(same(&got, v, k));
    tr_ids_free(&got);
    free(v);
}

static void real_text_is_merged_as_defined(void **state)
{
    static const char *const names[] = {"tokenizers/phi-3-mini", "checkpoints/tinystories-656k-hf"};
    const char *path = text_shared("datasets/text/tinyshakespeare.txt");
    size_t bytes;
    char *text;

    (void)state;
    if (!path)
        skip();
    assert_int_equal(tr_file_read(path, 1 << 24, &text, &bytes), 0);
    for (int i = 0; i < 2; i++) {
        struct tr_tokenizer *t = open_or_skip(names[i]);
        double seconds[2] = {0};

        for (size_t at = 0; at + 2000 < bytes; at += bytes / 8)
            compare_piece(t, text + at, 2000, seconds);
        print_message("%s: the definition takes %.0f times as long on 2000 bytes\n", names[i],
                      seconds[1] / seconds[0]);
        tr_tokenizer_close(t);
    }
    tr_free(TR_MEM_TEXT, text);
}

static double time_of(const struct tr_tokenizer *t, const char *text, size_t n)
{
    struct tr_ids ids = {0};
    double start = text_seconds();

    assert_int_equal(tr_tokenizer_encode(t, text, n, &ids), 0);
    start = text_seconds() - start;
    assert_true(ids.n > 0);
    tr_ids_free(&ids);
    return start;
}

static void a_long_document_takes_seconds(void **state)
{
    static const char *const names[] = {"tokenizers/phi-3-mini", "tokenizers/minueza-32m-mistral",
                                        "checkpoints/tinystories-656k-hf"};
    const char *path = text_shared("datasets/text/tinystories-4MB.txt");
    size_t bytes;
    char *text;

    (void)state;
    if (!path)
        skip();
    assert_int_equal(tr_file_read(path, 1 << 24, &text, &bytes), 0);
    for (int i = 0; i < 3; i++) {
        struct tr_tokenizer *t = open_or_skip(names[i]);
        double seconds = time_of(t, text, bytes);

        print_message("%s: %zu bytes as one document in %.2f s\n", names[i], bytes, seconds);
        assert_true(seconds < 8);
        tr_tokenizer_close(t);
    }
    tr_free(TR_MEM_TEXT, text);
}

static void fill(char *text, size_t n, const char *pattern)
{
    for (size_t i = 0; i < n; i++)
        text[i] = pattern[i % strlen(pattern)];
}

/* Four times the text may take little more than four times as long; a square would take sixteen. */
static void check_growth(const struct tr_tokenizer *t, char *text, const char *pattern)
{
    double quarter = 1e9, whole = 1e9;

    fill(text, 1 << 20, pattern);
    for (int i = 0; i < 2; i++) {
        double a = time_of(t, text, 1 << 18), b = time_of(t, text, 1 << 20);

        quarter = a < quarter ? a : quarter;
        whole = b < whole ? b : whole;
    }
    print_message("1 MiB of \"%s\" in %.2f s, %.1f times a quarter of it\n", pattern, whole,
                  whole / quarter);
    assert_true(whole < 4);
    assert_true(whole < 10 * quarter || whole < 0.1);
}

static void long_chains_stay_fast(void **state)
{
    struct tr_tokenizer *t = open_or_skip("tokenizers/phi-3-mini"), *toy = text_toy(NULL, NULL);
    char *text = malloc(1 << 20);

    (void)state;
    check_growth(t, text, "a");
    check_growth(t, text, " ");
    check_growth(t, text, "ab");
    check_growth(toy, text, "ea");
    check_growth(toy, text, "abche ");
    free(text);
    tr_tokenizer_close(toy);
    tr_tokenizer_close(t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_heap_is_the_definition),
        cmocka_unit_test(real_text_is_merged_as_defined),
        cmocka_unit_test(a_long_document_takes_seconds),
        cmocka_unit_test(long_chains_stay_fast),
    };

    return cmocka_run_group_tests(tests, text_setup, text_teardown);
}
