/* SPDX-License-Identifier: Apache-2.0
 *
 * Generation: the same tokens with and without the cache, alone and in groups, on the cpu and on
 * the device at hand, for every kind of block; draws that follow their probabilities; budgets in
 * which the cache has no room; texts that end where they should.
 */
#include <errno.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "src/base/file.h"
#include "src/base/philox.h"
#include "src/infer/infer.h"
#include "src/text/tokenizer_utf8.h"
#include "tests/device/budget.h"
#include "tests/train/common.h"

#define PROMPTS 3
#define MORE    14
#define VOCAB   320

static const struct tiny blocks[] = {
    {"llama", 32, 48, 2, 4, 2, 8, VOCAB, 64, ""},
    {"mistral", 32, 48, 2, 4, 4, 8, VOCAB, 64, "\"sliding_window\": 6"},
    {"qwen2", 48, 64, 2, 6, 2, 8, VOCAB, 64, ""},
    {"qwen3", 32, 48, 3, 4, 1, 16, VOCAB, 64, ""},
};

/* Prompts of different lengths. */
static void make_prompts(struct tr_ids s[PROMPTS])
{
    memset(s, 0, PROMPTS * sizeof(*s));
    for (uint32_t i = 0; i < PROMPTS; i++)
        for (uint32_t k = 0; k < 1 + 9 * i; k++)
            assert_int_equal(
                tr_ids_push(
                    &s[i], (int32_t)(tr_philox4x32((struct tr_philox){{i, k}}, 5, 6).v[0] % VOCAB)),
                0);
}

struct way {
    const char *device; /* NULL: the one at hand */
    int cached, group;
    struct sample_params sample;
};

static void run(const char *model, const struct way *way, struct tr_ids s[PROMPTS])
{
    struct infer_shape shape = {.positions = 64, .cache_tokens = way->cached};
    struct infer_params p = {.model = model,
                             .device = way->device,
                             .threads = 2,
                             .device_memory = test_budget(way->device, 64 << 20)};
    struct infer *f;

    make_prompts(s);
    if (infer_open_model(&f, &p) < 0)
        fail_msg("%s", tr_message());
    infer_shape_of(&shape, s, PROMPTS, way->group, MORE);
    if (infer_start(f, &shape) < 0 ||
        infer_generate(f, s, PROMPTS,
                       &(struct infer_generation){.max_tokens = MORE, .sample = way->sample}) < 0)
        fail_msg("%s", tr_message());
    infer_close(f);
}

static void free_ids(struct tr_ids s[PROMPTS])
{
    for (int i = 0; i < PROMPTS; i++)
        tr_ids_free(&s[i]);
}

static void expect_same(const char *what, const struct tr_ids a[PROMPTS],
                        const struct tr_ids b[PROMPTS])
{
    for (int i = 0; i < PROMPTS; i++) {
        if (a[i].n != b[i].n || memcmp(a[i].v, b[i].v, a[i].n * sizeof(*a[i].v)) != 0)
            fail_msg("%s: sequence %d differs", what, i);
        assert_int_equal(a[i].n, 1 + 9 * i + MORE);
    }
}

static void test_same_tokens(void **state)
{
    static const struct way ways[] = {
        {NULL, 1, PROMPTS, {0}}, {NULL, 1, 2, {0}}, {NULL, 0, 1, {0}}};

    (void)state;
    for (size_t m = 0; m < sizeof(blocks) / sizeof(blocks[0]); m++) {
        struct tr_ids want[PROMPTS], got[PROMPTS];
        const char *model = scratch_path("blocks");

        tiny_model(model, &blocks[m], TR_TYPE_F32, 11 + m);
        run(model, &(struct way){"cpu", 0, PROMPTS, {0}}, want);
        for (size_t i = 0; i < sizeof(ways) / sizeof(ways[0]); i++) {
            run(model, &ways[i], got);
            expect_same(blocks[m].family, want, got);
            free_ids(got);
        }
        free_ids(want);
        tr_remove_tree(model);
    }
}

/* Draws of a prompt do not depend on its neighbours or the cache; another seed draws others. */
static void test_same_draws(void **state)
{
    struct way way = {NULL, 1, PROMPTS, {.temperature = 1.5, .top_p = 0.9, .seed = 9}};
    const char *model = scratch_path("drawn");
    struct tr_ids a[PROMPTS], b[PROMPTS];

    (void)state;
    tiny_model(model, &blocks[0], TR_TYPE_F32, 3);
    run(model, &way, a);
    way.group = 1;
    way.cached = 0;
    run(model, &way, b);
    expect_same("draws", a, b);
    free_ids(b);
    way.sample.seed++;
    run(model, &way, b);
    assert_memory_not_equal(a[1].v + 10, b[1].v + 10, MORE * sizeof(int32_t));
    free_ids(a);
    free_ids(b);
    tr_remove_tree(model);
}

static void test_likeliest(void **state)
{
    const float x[] = {NAN, 1, 3, NAN, 3, -INFINITY}, none[] = {-INFINITY, -INFINITY};
    struct sample_entry work[6];

    (void)state;
    assert_int_equal(sample_likeliest(x, 6), 2);
    assert_int_equal(sample_likeliest(none, 2), 0);
    assert_int_equal(sample_token(&(struct sample_params){0}, x, 6, work), 2);
    for (int t = 0; t < 2; t++) {
        const struct sample_params p = {.temperature = t};
        const float infinite[] = {1, 2, INFINITY, NAN}, broken[] = {NAN, -NAN};

        assert_int_equal(sample_token(&p, infinite, 4, work), 2);
        assert_int_equal(sample_token(&p, broken, 2, work), -1);
    }
}

#define DRAWS 20000

static void count_draws(const struct sample_params *s, const float *x, int n, int *count)
{
    struct sample_params p = *s;
    struct sample_entry work[8];

    memset(count, 0, 8 * sizeof(*count));
    for (p.position = 0; p.position < DRAWS; p.position++)
        count[sample_token(&p, x, n, work)]++;
}

/* Within four standard deviations of what the shares say. */
static void expect_shares(const int *count, const double *share, int n)
{
    for (int i = 0; i < n; i++)
        if (fabs(count[i] - DRAWS * share[i]) > 4 * sqrt(DRAWS * share[i] * (1 - share[i])))
            fail_msg("token %d: drawn %d times, share %g", i, count[i], share[i]);
}

static void test_shares(void **state)
{
    const float x[] = {logf(1), logf(4), NAN, logf(2), -INFINITY, logf(1)};
    int count[8];

    (void)state;
    count_draws(&(struct sample_params){.temperature = 1, .seed = 1}, x, 6, count);
    expect_shares(count, (double[]){0.125, 0.5, 0, 0.25, 0, 0.125}, 6);
    count_draws(&(struct sample_params){.temperature = 0.5, .seed = 2}, x, 6, count);
    expect_shares(count, (double[]){1 / 22.0, 16 / 22.0, 0, 4 / 22.0, 0, 1 / 22.0}, 6);
    count_draws(&(struct sample_params){.temperature = 1, .top_p = 0.7, .seed = 3}, x, 6, count);
    expect_shares(count, (double[]){0, 2 / 3.0, 0, 1 / 3.0, 0, 0}, 6);
    /* The first of two equal ones is the one that reaches it. */
    count_draws(&(struct sample_params){.temperature = 1, .top_p = 0.8, .seed = 4}, x, 6, count);
    expect_shares(count, (double[]){1 / 7.0, 4 / 7.0, 0, 2 / 7.0, 0, 0}, 6);
    count_draws(&(struct sample_params){.temperature = 1, .top_p = 1e-9, .seed = 5}, x, 6, count);
    expect_shares(count, (double[]){0, 1, 0, 0, 0, 0}, 6);
}

#define MANY 1000

static int larger_first(const void *a, const void *b)
{
    const struct sample_entry *x = a, *y = b;

    return x->p != y->p ? (x->p < y->p ? 1 : -1) : x->id - y->id;
}

/* Of how many of the largest shares, all of them sorted, a draw may be: these are moved to front.
 */
static int nucleus(const float *x, double top_p, struct sample_entry *w)
{
    double most = -INFINITY, sum = 0, kept = 0;
    int n = 0;

    for (int i = 0; i < MANY; i++)
        most = x[i] > most ? x[i] : most;
    for (int i = 0; i < MANY; i++)
        sum += (w[i] = (struct sample_entry){exp(x[i] - most), i}).p;
    qsort(w, MANY, sizeof(*w), larger_first);
    while (n < MANY && kept < top_p * sum)
        kept += w[n++].p;
    return n;
}

/* Not all shares are sorted for a nucleus, which is the same. Without a share left out that belongs
 * there no draw is outside of it, and of its last ones some are drawn where it is small. */
static void test_nucleus(void **state)
{
    static const double tops[] = {0.01, 0.3, 0.9, 0.999, 1 - 1e-6, 1 - 1e-12};
    static float x[MANY];
    static struct sample_entry all[MANY], work[MANY];

    (void)state;
    for (uint32_t k = 0; k < 24; k++) {
        double top = tops[k % 6], width = k < 6 ? 0 : k < 12 ? 1 : k < 18 ? 5 : 40;
        struct sample_params p = {.temperature = 1, .top_p = top, .seed = k};
        int in[MANY] = {0}, n, last = 0;

        for (uint32_t i = 0; i < MANY; i++)
            x[i] =
                (float)(width * (int32_t)tr_philox4x32((struct tr_philox){{i / 2, k}}, 7, 8).v[0] *
                        0x1p-31);
        n = nucleus(x, top, all);
        for (int i = 0; i < n; i++)
            in[all[i].id] = i + 1;
        for (p.position = 0; p.position < 200; p.position++) {
            int rank = in[sample_token(&p, x, MANY, work)];

            if (!rank)
                fail_msg("top_p %g: a draw is not one of the %d likeliest", top, n);
            last = rank > last ? rank : last;
        }
        assert_true(n > 8 || last == n);
    }
}

/* Every word of what a draw is a function of matters. */
static void test_draws_differ(void **state)
{
    static const struct sample_params others[] = {{.temperature = 1, .seed = 1},
                                                  {.temperature = 1, .seed = 1ull << 32},
                                                  {.temperature = 1, .sequence = 1},
                                                  {.temperature = 1, .sequence = 1ull << 32}};
    const float x[] = {0, 0, 0, 0, 0, 0, 0, 0};
    struct sample_params p = {.temperature = 1};
    struct sample_entry work[8];

    (void)state;
    for (size_t i = 0; i < sizeof(others) / sizeof(others[0]); i++) {
        struct sample_params other = others[i];
        int same = 0;

        for (p.position = 0; p.position < 800; p.position++) {
            other.position = p.position;
            same += sample_token(&p, x, 8, work) == sample_token(&other, x, 8, work);
        }
        assert_true(same > 50 && same < 150); /* an eighth */
    }
}

static char model[4352], tokenizer[4352];

static int open_texts(void **state)
{
    char text[4352];
    FILE *f;

    (void)state;
    snprintf(text, sizeof(text), "%s", scratch_path("text.txt"));
    snprintf(tokenizer, sizeof(tokenizer), "%s", scratch_path("tokenizer"));
    snprintf(model, sizeof(model), "%s", scratch_path("texts"));
    f = fopen(text, "w");
    fputs("the cat sat on the mat, the cat ran; \xC3\xA9\xE2\x82\xAC and the dog, too", f);
    fclose(f);
    if (tr_learn_tokenizer(
            &(struct tr_learn_params){.data = text, .out = tokenizer, .vocab = 280}) < 0)
        fail_msg("%s", tr_message());
    tiny_model(model, &(struct tiny){"llama", 32, 48, 2, 4, 2, 8, 280, 64, ""}, TR_TYPE_F32, 21);
    return 0;
}

static char *texts(const struct tr_generate_params *params)
{
    struct tr_generate_params p = *params;
    char *out;

    p.model = model;
    p.tokenizer = tokenizer;
    p.max_tokens = p.max_tokens ? p.max_tokens : 12;
    p.device_memory = p.device_memory ? p.device_memory : test_budget(NULL, 64 << 20);
    if (tr_generate_text(&p, &out) < 0)
        fail_msg("%s", tr_message());
    return out;
}

static void add_piece(void *arg, const char *text)
{
    assert_int_equal(tr_utf8_valid(text, strlen(text)), strlen(text));
    assert_true(*text != 0);
    strcat(arg, text);
}

/* What is handed on piece by piece is the text, wherever tokens are parts of characters. */
static void test_pieces(void **state)
{
    int whole = 0;

    (void)state;
    for (uint64_t seed = 0; seed < 12; seed++) {
        struct tr_generate_params p = {.prompt = "the cat", .temperature = 1, .seed = seed};
        char told[4096] = "", *text;

        p.piece = add_piece;
        p.piece_arg = told;
        text = texts(&p);
        assert_true(*told != 0);
        if (!strstr(text, "\xEF\xBF\xBD")) {
            assert_string_equal(told, text);
            whole++;
        }
        tr_free_text(text);
    }
    printf("%d of 12 texts without broken characters\n", whole);
}

/* A file of prompts gives for each what it gives alone. */
static void test_prompts(void **state)
{
    const char *path = scratch_path("prompts.jsonl");
    static const char *const prompts[] = {"the cat", "a dog and the cat sat", "on"};
    char *all, want[8192] = "";
    FILE *f = fopen(path, "w");

    (void)state;
    fprintf(f, "{\"prompt\": \"the cat\"}\n\na dog and the cat sat\r\non\n");
    fclose(f);
    for (int i = 0; i < 3; i++) {
        char *text = texts(&(struct tr_generate_params){.prompt = prompts[i]});
        json_t *line = json_pack("{s:s, s:s}", "prompt", prompts[i], "text", text);
        char *dumped = json_dumps(line, JSON_COMPACT);

        strcat(strcat(want, dumped), "\n");
        free(dumped);
        json_decref(line);
        tr_free_text(text);
    }
    all = texts(&(struct tr_generate_params){.prompts = path});
    assert_string_equal(all, want);
    tr_free_text(all);
}

static void refused(const char *line, const char *words)
{
    const char *path = scratch_path("bad.jsonl");
    struct tr_generate_params p = {.model = model, .tokenizer = tokenizer, .prompts = path};
    FILE *f = fopen(path, "w");
    char *out = tokenizer;

    fprintf(f, "fine\n%s\n", line);
    fclose(f);
    assert_true(tr_generate_text(&p, &out) < 0);
    assert_null(out);
    if (!strstr(tr_message(), words) || !strstr(tr_message(), "bad.jsonl:2"))
        fail_msg("%s", tr_message());
}

static void test_bad_prompts(void **state)
{
    (void)state;
    refused("{\"text\": \"no prompt\"}", "\"prompt\"");
    refused("{\"prompt\": 3}", "\"prompt\"");
    refused("{\"prompt\": \"a\"", "");
    refused("not \xff\xfe UTF-8", "is not UTF-8");
}

/* Where keys and values have no room they are computed again, with the same result; asked for by
 * name they are refused with what would do. */
static void test_budget_of_cache(void **state)
{
    struct tr_generate_params p = {.prompt = "the cat sat on the mat and the dog sat on it",
                                   .max_tokens = 2,
                                   .kv_cache = TR_YES};
    uint64_t low = 0, high = test_budget(NULL, 64 << 20);
    char *want, *got, *out;

    (void)state;
    want = texts(&p);
    p.model = model;
    p.tokenizer = tokenizer;
    while (high - low > 4096) { /* the smallest budget with a cache */
        p.device_memory = (low + high) / 2 / 4096 * 4096;
        if (tr_generate_text(&p, &out) == 0) {
            tr_free_text(out);
            high = p.device_memory;
        } else {
            low = p.device_memory;
        }
    }
    p.device_memory = high - 4096;
    assert_int_equal(tr_generate_text(&p, &out), -ENOMEM);
    assert_non_null(strstr(tr_message(), "smallest"));
    p.kv_cache = TR_AUTO;
    got = texts(&p);
    assert_string_equal(got, want);
    tr_free_text(got);
    tr_free_text(want);
}

/* A text ends before any of the tokens that generation_config.json names. */
static void test_stops(void **state)
{
    struct tr_ids all[PROMPTS], s = {0};
    const char *folder = scratch_path("stopping");
    char path[4352];
    struct infer *f;
    FILE *to;

    (void)state;
    tiny_model(folder, &blocks[0], TR_TYPE_F32, 3);
    run(folder, &(struct way){.group = PROMPTS}, all);
    snprintf(path, sizeof(path), "%s/generation_config.json", folder);
    to = fopen(path, "w");
    fprintf(to, "{\"eos_token_id\": [1000, %d]}", all[1].v[10 + 4]);
    fclose(to);
    for (int i = 0; i < 10; i++)
        assert_int_equal(tr_ids_push(&s, all[1].v[i]), 0);
    if (infer_open(&f, &(struct infer_params){.model = folder,
                                              .shape.batch_tokens = 32,
                                              .shape.positions = 64,
                                              .shape.logit_rows = 1,
                                              .shape.cache_tokens = 32,
                                              .device_memory = test_budget(NULL, 64 << 20)}) < 0 ||
        infer_greedy(f, &s, 1, MORE) < 0)
        fail_msg("%s", tr_message());
    assert_true(s.n >= 10 && s.n <= 14);
    for (size_t i = 0; i < s.n; i++) {
        assert_int_equal(s.v[i], all[1].v[i]);
        assert_true(i < 10 || s.v[i] != all[1].v[14]);
    }
    infer_close(f);
    tr_ids_free(&s);
    free_ids(all);
    tr_remove_tree(folder);
}

/* No text where no logit is a number: any token would be as likely. */
static void test_no_numbers(void **state)
{
    const char *folder = scratch_path("broken");
    struct tr_ids s[PROMPTS];
    struct infer *f;

    (void)state;
    tiny_model(folder, &blocks[0], TR_TYPE_F32, 3);
    break_model(folder);
    make_prompts(s);
    if (infer_open(&f, &(struct infer_params){.model = folder,
                                              .shape.batch_tokens = 64,
                                              .shape.positions = 64,
                                              .shape.logit_rows = PROMPTS,
                                              .device_memory = test_budget(NULL, 64 << 20)}) < 0)
        fail_msg("%s", tr_message());
    assert_int_equal(infer_greedy(f, s, PROMPTS, MORE), -EDOM);
    assert_non_null(strstr(tr_message(), "prompt 1: no logit of token 1 is a number"));
    infer_close(f);
    free_ids(s);
    tr_remove_tree(folder);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_likeliest),       cmocka_unit_test(test_shares),
        cmocka_unit_test(test_draws_differ),    cmocka_unit_test(test_nucleus),
        cmocka_unit_test(test_same_tokens),     cmocka_unit_test(test_same_draws),
        cmocka_unit_test(test_stops),           cmocka_unit_test_setup(test_pieces, open_texts),
        cmocka_unit_test(test_prompts),         cmocka_unit_test(test_bad_prompts),
        cmocka_unit_test(test_budget_of_cache), cmocka_unit_test(test_no_numbers),
    };

    scratch();
    return cmocka_run_group_tests_name("generate", tests, NULL, NULL);
}
