/* SPDX-License-Identifier: Apache-2.0
 *
 * What a batch holds: the shift, the masks, BOS and EOS, windows, packing, order. Small files are
 * compared token by token with what their meaning says; random ones are checked for the properties
 * that must hold in every epoch.
 */
#include "tests/text/text_test.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "src/base/file.h"
#include "src/base/mem.h"
#include "src/text/data.h"
#include "src/text/preview.h"
#include "tests/json_blocks.h"

#define BOS 1
#define EOS 2

static struct tr_data_params params(const char *path, const struct tr_tokenizer *t)
{
    return (struct tr_data_params){.path = path,
                                   .tokenizer = t,
                                   .vocab = t ? tr_tokenizer_vocab(t) : 1000000,
                                   .seq_len = 64,
                                   .batch_size = 4,
                                   .grain_tokens = 16,
                                   .seed = 5};
}

static struct tr_batch batch_of(struct tr_data *d, int64_t epoch, int64_t step)
{
    struct tr_batch b;

    if (tr_data_batch(d, epoch, step, &b) < 0)
        fail_msg("%s", tr_error_message());
    return b;
}

static void expect_int(const int32_t *got, const int32_t *want, int n, const char *what)
{
    for (int i = 0; i < n; i++)
        if (got[i] != want[i])
            fail_msg("%s[%d] is %d, not %d", what, i, got[i], want[i]);
}

/* One document in one row: ids and targets are compared; weights and positions follow from them. */
static void expect_one(const char *name, const char *content, const struct tr_tokenizer *t, int n,
                       const int32_t want[2][32])
{
    struct tr_data_params p = params(text_file(name, content, strlen(content)), t);
    struct tr_data *d = text_open_data(&p);
    struct tr_batch b = batch_of(d, 0, 0);
    double sum = 0;

    assert_int_equal(tr_data_steps(d), 1);
    assert_int_equal(b.n_tokens, n);
    expect_int(b.ids, want[0], n, "ids");
    expect_int(b.targets, want[1], n, "targets");
    for (int i = 0; i < n; i++) {
        assert_true(b.weight[i] == (b.targets[i] >= 0));
        assert_int_equal(b.position[i], i);
        sum += b.weight[i];
    }
    assert_true(b.weight_sum == sum);
    assert_int_equal(b.n_rows, 1);
    assert_int_equal(b.n_docs, 1);
    assert_int_equal(b.row_start[1], n);
    assert_int_equal(b.doc_start[1], n);
    tr_data_close(d);
}

static int32_t id_of(const struct tr_tokenizer *t, const char *text)
{
    enum tr_text_place place = TR_TEXT_INSIDE;
    struct tr_ids ids = {0};
    int32_t id;

    assert_int_equal(tr_tokenizer_encode_more(t, text, strlen(text), &place, &ids), 0);
    assert_int_equal(ids.n, 1);
    id = ids.v[0];
    tr_ids_free(&ids);
    return id;
}

static void a_text_is_learnt_from_its_second_token_on(void **state)
{
    struct tr_tokenizer *t = text_toy_marked();
    int32_t a = id_of(t, " a"), d = id_of(t, "d");
    const int32_t want[2][32] = {{BOS, a, d, EOS}, {a, d, EOS, -1}};

    (void)state;
    expect_one("one.jsonl", "{\"text\":\"ad\",\"meta\":1}\n", t, 4, want);
    expect_one("one.jsonl", "\xEF\xBB\xBF\n{\"text\":\"ad\"}\r\n\n", t, 4, want);
    expect_one("one.txt", "ad", t, 4, want);
    tr_tokenizer_close(t);
}

/* A pipe is given what another program writes. */
static const char *pipe_with(const char *content)
{
    const char *path = text_path("pipe");

    unlink(path);
    assert_int_equal(mkfifo(path, 0600), 0);
    if (fork() == 0) {
        int fd = open(path, O_WRONLY);

        _exit(write(fd, content, strlen(content)) < 0);
    }
    return path;
}

/* What a file without a known ending holds is seen from its beginning. */
static void records_need_no_name(void **state)
{
    static const char line[] = "\n {\"text\":\"ad\"}\n", list[] = "[\n{\"text\":\"a,]d\"}]\n",
                      *const plain[] = {"{a\n", "{\"a\":1} d\n", "[{a}]", "[1]", "{", "[", "{a:{"};
    struct tr_tokenizer *t = text_toy_marked();
    int32_t a = id_of(t, " a"), d = id_of(t, "d");
    const int32_t want[2][32] = {{BOS, a, d, EOS}, {a, d, EOS, -1}};
    struct tr_data_params p = params(NULL, t);
    struct tr_data_info info;
    struct tr_data *data;

    (void)state;
    expect_one("one", line, t, 4, want);
    expect_one("one.jsonlines", "\xEF\xBB\xBF{\"text\":\"ad\"}", t, 4, want);
    /* a hash as some data sets have: a number that fits in no integer */
    expect_one("one", "{\"id\":18446744073709551615,\"text\":\"ad\"}", t, 4, want);
    expect_one("one", "[{\"text\":\"ad\"}]\n \t\r\n", t, 4, want);
    for (int i = 0; i < 3; i++) {
        p.path = i < 2 ? pipe_with(i ? list : line) : text_file("list", list, strlen(list));
        data = text_open_data(&p);
        tr_data_info(data, &info);
        assert_int_equal(info.format, TR_DATA_JSONL_TEXT);
        assert_int_equal(info.samples, 1);
        tr_data_close(data);
    }
    for (size_t i = 0; i < sizeof(plain) / sizeof(plain[0]); i++) {
        p.path = text_file("plain", plain[i], strlen(plain[i]));
        data = text_open_data(&p);
        tr_data_info(data, &info);
        assert_int_equal(info.format, TR_DATA_TEXT);
        assert_int_equal(info.bytes, strlen(plain[i]));
        tr_data_close(data);
    }
    unlink(text_path("pipe"));
    tr_tokenizer_close(t);
}

/* Tables write null for what a row has not. */
static void null_is_absent(void **state)
{
    struct tr_tokenizer *t = text_toy_marked();
    int32_t a = id_of(t, " a"), d = id_of(t, "d");
    const int32_t want[2][32] = {{BOS, a, d, EOS}, {a, d, EOS, -1}};

    (void)state;
    expect_one("n.jsonl",
               "{\"input_ids\":null,\"messages\":null,\"conversations\":null,\"instruction\":null,"
               "\"output\":null,\"prompt\":\"q\",\"completion\":null,\"text\":\"ad\"}",
               t, 4, want);
    expect_one("n.jsonl", "{\"text\":null,\"prompt\":\"\",\"completion\":\"ad\"}", t, 4, want);
    tr_tokenizer_close(t);
}

static void without_bos_the_first_token_is_no_target(void **state)
{
    struct tr_tokenizer *t = text_toy(NULL, NULL);
    int32_t a = id_of(t, " a"), d = id_of(t, "d");
    const int32_t want[2][32] = {{a, d}, {d, -1}};

    (void)state;
    expect_one("one.jsonl", "{\"text\":\"ad\"}\n", t, 2, want);
    tr_tokenizer_close(t);
}

/* The prompt is what `generate` would see; the completion follows it without a new beginning. */
static void only_the_completion_is_learnt(void **state)
{
    struct tr_tokenizer *t = text_toy_marked();
    int32_t a = id_of(t, " a"), d = id_of(t, "d"), he = id_of(t, " he"), c = id_of(t, "c");
    int32_t ab = id_of(t, "ab"), space = id_of(t, " ");
    const int32_t spaced[2][32] = {{BOS, a, d, he, EOS}, {-1, -1, he, EOS, -1}};
    const int32_t joined[2][32] = {{BOS, space, ab, c, d, EOS}, {-1, -1, c, d, EOS, -1}};
    const int32_t empty[2][32] = {{BOS, a, EOS}, {-1, EOS, -1}};
    const int32_t alone[2][32] = {{BOS, a, d, EOS}, {a, d, EOS, -1}};

    (void)state;
    expect_one("p.jsonl", "{\"prompt\":\"ad\",\"completion\":\" he\"}", t, 5, spaced);
    /* "abc" is one piece, but a token over the border would be half learnt: it stays two. */
    assert_true(id_of(t, "abc") >= 0);
    expect_one("p.jsonl", "{\"prompt\":\"ab\",\"completion\":\"cd\"}", t, 6, joined);
    expect_one("p.jsonl", "{\"prompt\":\"a\",\"completion\":\"\"}", t, 3, empty);
    expect_one("p.jsonl", "{\"prompt\":\"\",\"completion\":\"ad\"}", t, 4, alone);
    tr_tokenizer_close(t);
}

/* Both files are learnt as the same tokens. */
static void expect_alike(const char *template, const char *one, const char *other,
                         const struct tr_tokenizer *t)
{
    const char *content[2] = {one, other};
    struct tr_batch b[2];
    struct tr_data *d[2];

    for (int i = 0; i < 2; i++) {
        char name[16];
        struct tr_data_params p;

        snprintf(name, sizeof(name), "alike%d.jsonl", i);
        p = params(text_file(name, content[i], strlen(content[i])), t);
        p.template_name = template;
        p.seq_len = 256;
        d[i] = text_open_data(&p);
        b[i] = batch_of(d[i], 0, 0);
    }
    assert_int_equal(b[0].n_tokens, b[1].n_tokens);
    expect_int(b[0].ids, b[1].ids, b[0].n_tokens, "ids");
    expect_int(b[0].targets, b[1].targets, b[0].n_tokens, "targets");
    tr_data_close(d[0]);
    tr_data_close(d[1]);
}

static void a_question_is_laid_out_and_its_answer_learnt(void **state)
{
    static const char asked[] = "{\"question\":\"ad\",\"answer\":\"he\\n#### 7\"}\n";
    struct tr_tokenizer *t = text_toy_marked();

    (void)state;
    expect_alike(NULL, asked,
                 "{\"prompt\":\"Question: ad\\nAnswer:\",\"completion\":\" he\\n#### 7\"}\n", t);
    expect_alike("chatml", asked, "{\"prompt\":\"ad\",\"completion\":\"he\\n#### 7\"}\n", t);
    /* A text that happens to say which question it answers stays a text. */
    expect_alike(NULL, "{\"text\":\"ad\",\"question\":\"a\",\"answer\":\"d\"}\n",
                 "{\"text\":\"ad\"}\n", t);
    tr_tokenizer_close(t);
}

/* A text may hold a NUL: crawled ones do. */
static void a_nul_is_a_character(void **state)
{
    struct tr_tokenizer *t = text_toy_marked();
    int32_t a = id_of(t, " a"), d = id_of(t, "d");
    const int32_t text[2][32] = {{BOS, a, 3, d, EOS}, {a, 3, d, EOS, -1}};
    const int32_t pair[2][32] = {{BOS, a, 3, 3, d, EOS}, {-1, -1, 3, d, EOS, -1}};

    (void)state;
    expect_one("n.jsonl", "{\"text\":\"a\\u0000d\"}", t, 5, text);
    expect_one("n.jsonl", "{\"id\":18446744073709551615,\"text\":\"a\\u0000d\"}", t, 5, text);
    expect_one("n", "{\"text\":\"a\\u0000d\"}", t, 5, text);
    expect_one("n.jsonl", "{\"prompt\":\"a\\u0000\",\"completion\":\"\\u0000d\"}", t, 6, pair);
    expect_alike(NULL, "{\"question\":\"a\\u0000d\",\"answer\":\"h\\u0000e\"}\n",
                 "{\"prompt\":\"Question: a\\u0000d\\nAnswer:\","
                 "\"completion\":\" h\\u0000e\"}\n",
                 t);
    expect_alike("chatml",
                 "{\"instruction\":\"a\\u0000d\",\"input\":\"h\\u0000e\",\"output\":\"\\u0000\"}\n",
                 "{\"prompt\":\"a\\u0000d\\nh\\u0000e\",\"completion\":\"\\u0000\"}\n", t);
    tr_tokenizer_close(t);
}

static void labels_are_aligned_and_shifted_here(void **state)
{
    const int32_t plain[2][32] = {{7, 8, 9, 10}, {8, 9, 10, -1}};
    const int32_t masked[2][32] = {{7, 8, 9, 10}, {-1, 9, -1, -1}};

    (void)state;
    expect_one("i.jsonl", "{\"input_ids\":[7,8,9,10],\"attention_mask\":[1,1,1,1]}", NULL, 4,
               plain);
    expect_one("i.jsonl", "{\"input_ids\":[7,8,9,10],\"labels\":null}", NULL, 4, plain);
    expect_one("i.jsonl", "{\"id\":18446744073709551615,\"input_ids\":[7,8,9,10]}", NULL, 4, plain);
    expect_one("i.jsonl", "{\"input_ids\":[7,8,9,10],\"labels\":[7,-100,9,-100]}", NULL, 4, masked);
}

static void a_text_file_is_cut_into_windows(void **state)
{
    struct tr_tokenizer *t = text_toy_marked();
    char text[400];
    struct tr_data_params p = params(NULL, t);
    struct tr_ids ids = {0};
    struct tr_data *d;
    struct tr_data_info info;
    size_t at = 0;

    (void)state;
    for (size_t i = 0; i < sizeof(text); i++)
        text[i] = "abcde h\n"[(i * i + i / 7) % 8];
    p.path = text_file("windows.txt", text, sizeof(text));
    p.packing = 1;
    tr_ids_push(&ids, BOS);
    assert_int_equal(tr_tokenizer_encode(t, text, sizeof(text), &ids), 0);
    tr_ids_push(&ids, EOS);
    d = text_open_data(&p);
    for (int64_t s = 0; s < tr_data_steps(d); s++) {
        struct tr_batch b = batch_of(d, 0, s);

        for (int i = 0; i < b.n_tokens; i++, at++) {
            assert_int_equal(b.ids[i], ids.v[at]);
            assert_int_equal(b.targets[i], at + 1 < ids.n ? ids.v[at + 1] : -1);
            assert_int_equal(b.position[i], (int)(at % 64));
        }
        assert_int_equal(b.n_docs, b.n_rows);
    }
    assert_int_equal(at, ids.n);
    tr_data_info(d, &info);
    assert_int_equal(info.targets, ids.n - 1);
    assert_int_equal(info.samples, (ids.n + 63) / 64);
    tr_ids_free(&ids);
    tr_data_close(d);
    tr_tokenizer_close(t);
}

static void too_long_samples_lose_their_end(void **state)
{
    struct tr_tokenizer *t = text_toy_marked();
    static const char content[] = "{\"prompt\":\"d d d d d d\",\"completion\":\"d\"}\n"
                                  "{\"prompt\":\"d\",\"completion\":\"d d d d d d\"}\n"
                                  "{\"prompt\":\"d\",\"completion\":\"d\"}\n";
    struct tr_data_params p = params(text_file("long.jsonl", content, strlen(content)), t);
    struct tr_data_info info;
    struct tr_data *d;
    struct tr_batch b;

    (void)state;
    p.seq_len = 6;
    d = text_open_data(&p);
    tr_data_info(d, &info);
    assert_int_equal(info.format, TR_DATA_PROMPT);
    assert_int_equal(info.samples, 3);
    assert_int_equal(info.truncated, 2);
    assert_true(info.dropped_tokens > 4);
    assert_int_equal(info.without_target, 1); /* nothing is left of the first one's completion */
    b = batch_of(d, 0, 0);
    assert_int_equal(b.n_rows, 2);
    assert_int_equal(b.row_start[1], 6);
    assert_int_equal(b.targets[5], -1);
    assert_int_equal(tr_data_batch_tokens(d), 12);
    tr_data_close(d);
    tr_tokenizer_close(t);
}

/* n pre-tokenised samples; sample i has ids 1000 * i + 1, + 2, ... and a random length up to
 * `most`. */
static const char *numbered(const char *name, int n, int most, uint32_t seed, int *length)
{
    struct tr_ids text = {0};
    char *content = malloc((size_t)n * (size_t)most * 12 + (size_t)n * 40 + 1), *p = content;
    const char *path;

    tr_ids_free(&text);
    for (int i = 0; i < n; i++) {
        length[i] = 2 + (int)(text_random(&seed) % (uint32_t)(most - 1));
        p += sprintf(p, "{\"input_ids\":[");
        for (int k = 0; k < length[i]; k++)
            p += sprintf(p, "%s%d", k ? "," : "", 1000 * i + k + 1);
        p += sprintf(p, "]}\n");
    }
    path = text_file(name, content, (size_t)(p - content));
    free(content);
    return path;
}

/* Documents tile the tokens, lie inside rows, count positions from 0, and learn inside themselves.
 */
static void check_documents(const struct tr_batch *b, const int *length, int *seen)
{
    int row = 0;

    for (int k = 0; k < b->n_docs; k++) {
        int from = b->doc_start[k], to = b->doc_start[k + 1], sample = (b->ids[from] - 1) / 1000;

        while (from >= b->row_start[row + 1])
            row++;
        assert_true(to <= b->row_start[row + 1]);
        assert_int_equal(to - from, length[sample]);
        seen[sample]++;
        for (int i = from; i < to; i++) {
            assert_int_equal(b->ids[i], 1000 * sample + i - from + 1);
            assert_int_equal(b->targets[i], i + 1 < to ? b->ids[i] + 1 : -1);
            assert_int_equal(b->position[i], i - from);
        }
    }
    assert_int_equal(b->doc_start[b->n_docs], b->n_tokens);
    assert_int_equal(b->row_start[b->n_rows], b->n_tokens);
}

static int is_row_start(const struct tr_batch *b, int at)
{
    for (int k = 0; k <= b->n_rows; k++)
        if (b->row_start[k] == at)
            return 1;
    return 0;
}

/* A grain is the fewest whole rows that reach grain_tokens; only the last may fall short. */
static void check_grains(const struct tr_data *d, const struct tr_batch *b, int grain_tokens)
{
    assert_int_equal(b->grain_start[0], 0);
    assert_int_equal(b->grain_start[b->n_grains], b->n_tokens);
    for (int k = 0; k < b->n_grains; k++) {
        int from = b->grain_start[k], to = b->grain_start[k + 1], last = from;

        assert_true(is_row_start(b, to));
        for (int r = 0; r < b->n_rows; r++)
            if (b->row_start[r] < to && b->row_start[r] > last)
                last = b->row_start[r];
        assert_true(last - from < grain_tokens);
        assert_true(to - from >= grain_tokens || k + 1 == b->n_grains);
        assert_true(to - from <= tr_data_grain_tokens(d));
    }
}

/* Runs one epoch; returns a hash of everything in it, and the tokens in *tokens. */
static uint64_t run_epoch(struct tr_data *d, const struct tr_data_params *p, int64_t epoch,
                          const int *length, int n)
{
    int *seen = calloc((size_t)n, sizeof(*seen));
    int64_t steps = tr_data_steps(d), rows = 0;
    uint64_t hash = 1469598103934665603u;
    struct tr_data_info info;
    double weight = 0;

    for (int64_t s = 0; s < steps; s++) {
        struct tr_batch b = batch_of(d, epoch, s);

        check_documents(&b, length, seen);
        check_grains(d, &b, p->grain_tokens);
        assert_true(b.n_tokens <= tr_data_batch_tokens(d));
        assert_true(b.n_rows == p->batch_size || (s == steps - 1 && b.n_rows > 0));
        for (int k = 0; k < b.n_rows; k++)
            assert_true(b.row_start[k + 1] - b.row_start[k] <= p->seq_len);
        for (int i = 0; i < b.n_tokens; i++)
            hash = (hash ^ (uint32_t)b.ids[i]) * 1099511628211u;
        hash = (hash ^ (uint32_t)b.n_rows) * 1099511628211u;
        weight += b.weight_sum;
        rows += b.n_rows;
    }
    for (int i = 0; i < n; i++)
        assert_int_equal(seen[i], 1);
    tr_data_info(d, &info);
    assert_true(weight == (double)info.targets);
    assert_int_equal((rows + p->batch_size - 1) / p->batch_size, steps);
    free(seen);
    return hash;
}

static void every_token_comes_once_an_epoch(void **state)
{
    enum { N = 97 };
    int length[N];
    struct tr_data_params p = params(numbered("packed.jsonl", N, 40, 3, length), NULL);

    (void)state;
    for (int packed = 0; packed < 2; packed++) {
        for (p.shuffle = 0; p.shuffle < 2; p.shuffle++) {
            uint64_t first, second;
            struct tr_data *d;

            p.packing = p.packing_asked = packed;
            d = text_open_data(&p);
            first = run_epoch(d, &p, 0, length, N);
            second = run_epoch(d, &p, 1, length, N);
            assert_int_equal(first == second, !p.shuffle);
            for (int64_t e = 2; e < 20; e++)
                run_epoch(d, &p, e, length, N);
            assert_true(first == run_epoch(d, &p, 0, length, N));
            tr_data_close(d);
        }
    }
}

/* Rows of best fit against the least there can be, and against putting samples in as they come. */
static void check_tight(int row, int most)
{
    enum { N = 500 };
    int length[N], total = 0, next_fit = 1, room = row;
    struct tr_data_params p = params(numbered("tight.jsonl", N, most, 11, length), NULL);
    struct tr_data *d;

    p.packing = p.packing_asked = p.shuffle = 1;
    p.batch_size = 1;
    p.seq_len = row;
    for (int i = 0; i < N; i++) {
        total += length[i];
        next_fit += room < length[i];
        room = (room < length[i] ? row : room) - length[i];
    }
    d = text_open_data(&p);
    print_message("%d tokens in %lld rows of %d, at least %d, next fit %d\n", total,
                  (long long)tr_data_steps(d), row, (total + row - 1) / row, next_fit);
    assert_true(tr_data_steps(d) * row < total * 106 / 100);
    assert_true(tr_data_steps(d) * 108 / 100 < next_fit);
    run_epoch(d, &p, 0, length, N);
    tr_data_close(d);
}

static void packing_is_tight(void **state)
{
    (void)state;
    check_tight(64, 60);
    check_tight(300, 280);
    check_tight(1000, 300);
}

/* Packing puts long samples first; shuffled rows do not. */
static void packed_rows_are_shuffled(void **state)
{
    enum { N = 200 };
    int length[N], first = 0;
    struct tr_data_params p = params(numbered("mixed.jsonl", N, 60, 11, length), NULL);
    struct tr_data *d;

    (void)state;
    p.packing = p.packing_asked = p.shuffle = 1;
    p.batch_size = 1;
    d = text_open_data(&p);
    for (int64_t epoch = 0; epoch < 8; epoch++) {
        struct tr_batch b = batch_of(d, epoch, 0);

        first += b.doc_start[1] >= 58;
    }
    assert_true(first < 4);
    tr_data_close(d);
}

static void packing_is_not_assumed_for_ids(void **state)
{
    int length[20];
    struct tr_data_params p = params(numbered("rows.jsonl", 20, 10, 3, length), NULL);
    struct tr_data *d;

    (void)state;
    p.packing = 1;
    p.batch_size = 100;
    d = text_open_data(&p);
    assert_int_equal(batch_of(d, 0, 0).n_rows, 20);
    tr_data_close(d);
    p.packing_asked = 1;
    d = text_open_data(&p);
    assert_true(batch_of(d, 0, 0).n_rows < 5);
    tr_data_close(d);
}

static uint64_t hash_of(const struct tr_data_params *p, int64_t epoch, const int *length, int n)
{
    struct tr_data *d = text_open_data(p);
    uint64_t hash = run_epoch(d, p, epoch, length, n);

    tr_data_close(d);
    return hash;
}

static void the_order_is_a_function_of_seed_and_epoch(void **state)
{
    enum { N = 61 };
    int length[N];
    struct tr_data_params p = params(numbered("order.jsonl", N, 30, 9, length), NULL);
    uint64_t a, b;

    (void)state;
    p.packing = p.packing_asked = p.shuffle = 1;
    a = hash_of(&p, 3, length, N);
    assert_true(a == hash_of(&p, 3, length, N));
    assert_true(a != hash_of(&p, 4, length, N));
    assert_true(a != hash_of(&p, 3 + (1ll << 32), length, N));
    p.seed = 6;
    b = hash_of(&p, 3, length, N);
    assert_true(a != b);
    p.seed = 5 + (1ull << 32);
    assert_true(a != hash_of(&p, 3, length, N));
}

/* A cursor (epoch, step) in a data set just opened gives what the straight run gave there. */
static void a_cursor_resumes_exactly(void **state)
{
    enum { N = 61 };
    int length[N];
    struct tr_data_params p = params(numbered("resume.jsonl", N, 30, 9, length), NULL);
    struct tr_data *straight, *resumed;

    (void)state;
    p.packing = p.packing_asked = p.shuffle = 1;
    straight = text_open_data(&p);
    for (int64_t epoch = 0; epoch < 3; epoch++)
        for (int64_t step = 0; step < tr_data_steps(straight); step++) {
            struct tr_batch a = batch_of(straight, epoch, step), b;

            resumed = text_open_data(&p);
            b = batch_of(resumed, epoch, step);
            assert_int_equal(a.n_tokens, b.n_tokens);
            expect_int(b.ids, a.ids, a.n_tokens, "ids");
            expect_int(b.row_start, a.row_start, a.n_rows + 1, "row_start");
            tr_data_close(resumed);
        }
    tr_data_close(straight);
}

static void evaluation_keeps_the_order_of_the_file(void **state)
{
    int length[30], sample = 0;
    struct tr_data_params p = params(numbered("eval.jsonl", 30, 20, 2, length), NULL);
    struct tr_data *d = text_open_data(&p);

    (void)state;
    for (int64_t s = 0; s < tr_data_steps(d); s++) {
        struct tr_batch b = batch_of(d, 0, s);

        for (int k = 0; k < b.n_rows; k++)
            assert_int_equal(b.ids[b.row_start[k]], 1000 * sample++ + 1);
    }
    assert_int_equal(sample, 30);
    tr_data_close(d);
}

/* A file of more than one window has the tokens of one call, in four bytes each. */
static void a_large_file_is_read_through_a_window(void **state)
{
    const char *path = text_shared("datasets/text/tinystories-4MB.txt"), *twice;
    const char *folder = text_shared("checkpoints/tinystories-656k-hf");
    struct tr_data_params p;
    struct tr_tokenizer *t = NULL;
    struct tr_ids ids = {0};
    struct tr_data *d;
    char *text, *both;
    size_t n, at = 1;
    uint64_t before;

    (void)state;
    if (!path || !folder)
        skip();
    assert_int_equal(tr_tokenizer_open(&t, folder), 0);
    assert_int_equal(
        tr_file_read(text_shared("datasets/text/tinystories-4MB.txt"), 1 << 24, &text, &n), 0);
    both = malloc(2 * n);
    memcpy(both, text, n);
    memcpy(both + n, text, n);
    twice = text_file("twice.txt", both, 2 * n);
    tr_free(TR_MEM_TEXT, text);
    p = params(twice, t);
    p.seq_len = 2048;
    before = tr_mem_now(TR_MEM_TEXT);
    d = text_open_data(&p);
    assert_int_equal(tr_tokenizer_encode(t, both, 2 * n, &ids), 0);
    for (int64_t s = 0; s < tr_data_steps(d); s++) {
        struct tr_batch b = batch_of(d, 0, s);

        for (int i = s == 0; i < b.n_tokens; i++, at++)
            assert_int_equal(b.ids[i], at <= ids.n ? ids.v[at - 1] : EOS);
    }
    assert_int_equal(at, ids.n + 2);
    tr_ids_free(&ids);
    print_message("%zu tokens in %llu bytes\n", at,
                  (unsigned long long)(tr_mem_now(TR_MEM_TEXT) - before));
    assert_true(tr_mem_now(TR_MEM_TEXT) - before < 4 * at + at / 10);
    free(both);
    tr_data_close(d);
    tr_tokenizer_close(t);
}

static int collect(void *arg, const char *text, size_t bytes)
{
    strncat(arg, text, bytes);
    strcat(arg, "\n");
    return 0;
}

static void a_preview_shows_the_mask(void **state)
{
    static const char content[] = "{\"prompt\":\"ad\",\"completion\":\" he\\u0007\"}\n"
                                  "{\"prompt\":\"d\",\"completion\":\"d\"}\n";
    struct tr_tokenizer *t = text_toy_marked();
    struct tr_data_params p = params(text_file("pre.jsonl", content, strlen(content)), t);
    struct tr_data *d = text_open_data(&p);
    char out[1000] = "", want[200];
    struct tr_preview_sample_params v = {d, t, 1, 0, collect, out};

    (void)state;
    assert_int_equal(tr_preview(&v), 0);
    assert_string_equal(out, "sample 0: 6 tokens, 3 with loss\n"
                             "<s> \u2581a d [\u2581he <0x07> </s>]\n");
    *out = 0;
    v.json = 1;
    assert_int_equal(tr_preview(&v), 0);
    snprintf(want, sizeof(want),
             "{\"input_ids\":[1,%d,%d,%d,10,2],\"labels\":[-100,-100,-100,%d,10,2]}\n",
             id_of(t, " a"), id_of(t, "d"), id_of(t, " he"), id_of(t, " he"));
    assert_string_equal(out, want);
    tr_data_close(d);
    tr_tokenizer_close(t);
}

/* Where memory ends no token or key is left out: there is the whole line, or an error. */
static void a_preview_is_whole(void **state)
{
    static const char content[] = "{\"input_ids\":[5,6,7,8,9,10,11,12,13,14,15,16]}\n";
    struct tr_data_params p = params(text_file("whole.jsonl", content, strlen(content)), NULL);
    struct tr_data *d = text_open_data(&p);
    char whole[1000] = "", out[1000];
    struct tr_preview_sample_params v = {d, NULL, 1, 1, collect, whole};
    int r = -1, refused = 0;

    (void)state;
    assert_int_equal(tr_preview(&v), 0);
    v.arg = out;
    for (int blocks = 0; r < 0; blocks++) {
        *out = 0;
        blocks_lack(blocks);
        r = tr_preview(&v);
        blocks_lack(-1);
        refused += r < 0;
        assert_string_equal(out, r < 0 ? "" : whole);
    }
    assert_true(refused > 24); /* a block for each id and each label at least */
    tr_data_close(d);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_text_is_learnt_from_its_second_token_on),
        cmocka_unit_test(records_need_no_name),
        cmocka_unit_test(null_is_absent),
        cmocka_unit_test(without_bos_the_first_token_is_no_target),
        cmocka_unit_test(only_the_completion_is_learnt),
        cmocka_unit_test(a_question_is_laid_out_and_its_answer_learnt),
        cmocka_unit_test(a_nul_is_a_character),
        cmocka_unit_test(labels_are_aligned_and_shifted_here),
        cmocka_unit_test(a_text_file_is_cut_into_windows),
        cmocka_unit_test(too_long_samples_lose_their_end),
        cmocka_unit_test(every_token_comes_once_an_epoch),
        cmocka_unit_test(packing_is_tight),
        cmocka_unit_test(packed_rows_are_shuffled),
        cmocka_unit_test(packing_is_not_assumed_for_ids),
        cmocka_unit_test(the_order_is_a_function_of_seed_and_epoch),
        cmocka_unit_test(a_cursor_resumes_exactly),
        cmocka_unit_test(evaluation_keeps_the_order_of_the_file),
        cmocka_unit_test(a_large_file_is_read_through_a_window),
        cmocka_unit_test(a_preview_shows_the_mask),
        cmocka_unit_test(a_preview_is_whole),
    };

    return cmocka_run_group_tests(tests, text_setup, text_teardown);
}
