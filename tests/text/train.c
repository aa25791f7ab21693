/* SPDX-License-Identifier: Apache-2.0
 *
 * Training a tokenizer: the merges against a second, naive learner, one result for one text,
 * whatever the form of the file, and what is refused. That the result is the reference's as well is
 * shown by tokenizer.c.
 */
#include "tests/text/text_test.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "src/base/file.h"
#include "src/base/json.h"
#include "src/base/mem.h"
#include "src/text/bpe_train.h"
#include "tests/json_blocks.h"

#define MOST 4096

/* The naive learner: symbols of all words as strings, counted anew for every merge. */
struct naive {
    char symbol[MOST][24]; /* "" ends a word */
    uint64_t count[MOST];  /* of the word it stands in */
    size_t n;
};

static void spell(struct naive *s, const struct bpe_words *w)
{
    for (size_t i = 0; i < w->n; i++) {
        for (uint32_t k = 0; k < w->v[i].bytes;) {
            const char *p = w->text.v + w->v[i].at + k;
            uint32_t bytes = 1;

            while (k + bytes < w->v[i].bytes && ((unsigned char)p[bytes] & 0xC0) == 0x80)
                bytes++;
            memcpy(s->symbol[s->n], p, bytes);
            s->count[s->n++] = w->v[i].count;
            k += bytes;
        }
        s->n++;
        assert_true(s->n < MOST - BPE_WORD_MOST);
    }
}

static uint64_t count_pair(const struct naive *s, const char *a, const char *b)
{
    uint64_t n = 0;

    for (size_t i = 0; i + 1 < s->n; i++)
        if (!strcmp(s->symbol[i], a) && !strcmp(s->symbol[i + 1], b))
            n += s->count[i];
    return n;
}

static void merge(struct naive *s, const char *a, const char *b)
{
    size_t k = 0;

    for (size_t i = 0; i < s->n; i++, k++) {
        int hit = i + 1 < s->n && !strcmp(s->symbol[i], a) && !strcmp(s->symbol[i + 1], b);

        memmove(s->symbol[k], s->symbol[i], sizeof(s->symbol[k]));
        s->count[k] = s->count[i];
        if (hit) {
            strcat(s->symbol[k], b);
            i++;
        }
    }
    s->n = k;
}

static int64_t piece_id(const struct bpe_learnt *l, const char *text)
{
    return bpe_names_find(&l->names, text, strlen(text));
}

/* No pair may be more frequent than the one that was merged, unless it could not be merged; and of
 * equally frequent ones the merged one has the smaller ids. Returns how often a tie was decided. */
static int check_choice(const struct naive *s, const struct bpe_learnt *l, int32_t id,
                        uint64_t best)
{
    int ties = 0;

    for (size_t i = 0; i + 1 < s->n; i++) {
        const char *a = s->symbol[i], *b = s->symbol[i + 1];
        char both[48];
        int64_t known, pair, mine = (int64_t)bpe_pair_key(l->v[id].left, l->v[id].right);
        uint64_t n;

        if (!*a || !*b)
            continue;
        strcpy(both, a);
        strcat(both, b);
        known = piece_id(l, both);
        n = count_pair(s, a, b);
        if (known >= 0 && known < id)
            continue;
        assert_true(n <= best);
        pair = (int64_t)bpe_pair_key((int32_t)piece_id(l, a), (int32_t)piece_id(l, b));
        assert_true(n < best || pair >= mine);
        ties += n == best && pair > mine;
    }
    return ties;
}

static void merges_are_those_of_the_naive_learner(void **state)
{
    static const char text[] =
        "the cat sat on the mat. the cat ate the rat; that rat sat, the mat is "
        "flat\n\nthe  the   the\tcat hat bat chat at that";
    struct naive *s = calloc(1, sizeof(*s));
    struct bpe_words words;
    struct bpe_learnt l;
    int ties = 0, merges = 0;

    (void)state;
    bpe_words_init(&words);
    assert_int_equal(bpe_words_add(&words, text, strlen(text), 1), 0);
    assert_int_equal(bpe_train(&l, &words, BPE_TRAIN_FIRST + 52), 0);
    spell(s, &words);
    for (int32_t id = BPE_TRAIN_FIRST; id < l.n; id++) {
        char a[24] = "", b[24] = "";

        if (l.v[id].left < 0)
            continue;
        memcpy(a, l.text.v + l.v[l.v[id].left].at, l.v[l.v[id].left].bytes);
        memcpy(b, l.text.v + l.v[l.v[id].right].at, l.v[l.v[id].right].bytes);
        ties += check_choice(s, &l, id, count_pair(s, a, b));
        merge(s, a, b);
        merges++;
    }
    assert_true(merges > 25);
    assert_true(ties > 10);
    bpe_learnt_free(&l);
    bpe_words_free(&words);
    free(s);
}

static void words_are_counted_as_said(void **state)
{
    static const struct {
        const char *word;
        uint64_t count;
    } want[] = {{"\u2581a", 2}, {"\u2581b\u00e9", 1}, {"\u2581\u2581", 1}, {"\n\n", 1}, {"c", 1}};
    static const char text[] = "a b\u00e9   a\n\nc";
    struct bpe_words w;

    (void)state;
    bpe_words_init(&w);
    assert_int_equal(bpe_words_add(&w, text, strlen(text), 1), 0);
    assert_int_equal(w.n, sizeof(want) / sizeof(want[0]));
    for (size_t i = 0; i < w.n; i++) {
        int64_t k = bpe_names_find(&w.names, want[i].word, strlen(want[i].word));

        assert_true(k >= 0);
        assert_int_equal(w.v[k].count, want[i].count);
    }
    bpe_words_free(&w);
}

static char *read_result(const char *folder, const char *name)
{
    char *path = tr_path(folder, name), *text;

    assert_int_equal(tr_file_read(path, 1 << 24, &text, NULL), 0);
    tr_free(TR_MEM_MISC, path);
    return text;
}

static char *train(const char *data, const char *out, int32_t vocab)
{
    struct tr_tokenizer_train_params p = {data, out, vocab};

    if (tr_tokenizer_train(&p) < 0)
        fail_msg("%s", tr_error_message());
    return read_result(out, "tokenizer.json");
}

/* One JSON record a paragraph of the text. */
static const char *as_jsonl(const char *text, const char *key)
{
    json_t *o = json_pack("{s:s}", key, text);
    char *line = json_dumps(o, JSON_COMPACT);
    const char *path = text_file("text.jsonl", line, strlen(line));

    free(line);
    json_decref(o);
    return path;
}

static void one_text_has_one_tokenizer(void **state)
{
    char *text, *a, *b, *c;

    (void)state;
    assert_int_equal(tr_file_read(TEST_LICENSE, 1 << 20, &text, NULL), 0);
    a = train(TEST_LICENSE, text_path("a"), 400);
    b = train(TEST_LICENSE, text_path("b"), 400);
    c = train(as_jsonl(text, "text"), text_path("c"), 400);
    assert_string_equal(a, b);
    assert_string_equal(a, c);
    tr_free(TR_MEM_TEXT, c);
    c = train(TEST_LICENSE, text_path("d"), 401);
    assert_string_not_equal(a, c);
    tr_free(TR_MEM_TEXT, text);
    tr_free(TR_MEM_TEXT, a);
    tr_free(TR_MEM_TEXT, b);
    tr_free(TR_MEM_TEXT, c);
}

/* Every shape that training takes says the same words. */
static void records_are_those_of_training(void **state)
{
    static const char *const shapes[][2] = {
        {"s.jsonl", "{\"prompt\":\"the cat\",\"completion\":\"sat\"}"},
        {"s.json", "[\n{\"text\":\"the cat\",\"answer\":\"sat\"}]"},
        {"s", "{\"question\":\"the cat\",\"answer\":\"sat\"}"},
        {"s.jsonl", "{\"instruction\":\"the cat\",\"output\":\"sat\"}"},
        {"s.jsonl", "{\"conversations\":[{\"from\":\"human\",\"value\":\"the cat\"},"
                    "{\"from\":\"gpt\",\"value\":\"sat\"}]}"},
        {"s.jsonl", "{\"prompt\":\"x\",\"messages\":[{\"role\":\"user\",\"content\":\"the cat\"},"
                    "{\"role\":\"assistant\",\"content\":[{\"text\":\"s\"},{\"text\":\"at\"}]}]}"},
        {"s.jsonl", "{\"prompt\":[{\"role\":\"user\",\"content\":\"the cat\"}],"
                    "\"completion\":[{\"role\":\"assistant\",\"content\":\"sat\"}]}"},
    };
    static const char *const words[] = {"\u2581the", "\u2581cat", "sat"};
    char folder[512];

    (void)state;
    for (size_t i = 0; i <= sizeof(shapes) / sizeof(shapes[0]); i++) {
        const char *path;
        struct bpe_words w;

        if (i < sizeof(shapes) / sizeof(shapes[0])) {
            path = text_file(shapes[i][0], shapes[i][1], strlen(shapes[i][1]));
        } else {
            snprintf(folder, sizeof(folder), "%s", text_path("folder"));
            assert_int_equal(mkdir(folder, 0777), 0);
            text_file("folder/train.jsonl", shapes[0][1], strlen(shapes[0][1]));
            path = folder;
        }
        bpe_words_init(&w);
        if (bpe_words_read(&w, path) < 0)
            fail_msg("%zu: %s", i, tr_error_message());
        assert_int_equal(w.n, 3);
        for (size_t k = 0; k < 3; k++)
            assert_int_equal(bpe_names_find(&w.names, words[k], strlen(words[k])), k);
        bpe_words_free(&w);
    }
    unlink(text_path("folder/train.jsonl"));
    rmdir(folder);
}

static void the_result_has_the_asked_size_and_names(void **state)
{
    char *json = train(TEST_LICENSE, text_path("sized"), 321);
    struct tr_tokenizer *t = NULL;

    (void)state;
    assert_int_equal(tr_tokenizer_open(&t, text_path("sized")), 0);
    assert_int_equal(tr_tokenizer_vocab(t), 321);
    assert_int_equal(tr_tokenizer_bos(t), 1);
    assert_int_equal(tr_tokenizer_eos(t), 2);
    assert_int_equal(tr_tokenizer_adds_bos(t), 1);
    tr_tokenizer_close(t);
    tr_free(TR_MEM_TEXT, json);
}

/* Texts that name the fixed pieces must not learn them anew, and a chain must not take forever. */
static void awkward_texts_are_learnt(void **state)
{
    size_t n = 1 << 20;
    char *text = malloc(n), *json;
    double start = text_seconds();

    (void)state;
    for (size_t i = 0; i < n; i++)
        text[i] = "<0x0A><s></s><unk>\xFF\x01zz"[i % 22];
    json = train(text_file("odd.txt", text, n), text_path("odd"), 300);
    assert_true(text_seconds() - start < 20);
    tr_free(TR_MEM_TEXT, json);
    free(text);
}

static void a_megabyte_trains_quickly(void **state)
{
    const char *path = text_shared("datasets/text/tinyshakespeare.txt");
    double start = text_seconds();
    char *json;

    (void)state;
    if (!path)
        skip();
    json = train(path, text_path("quick"), 2048);
    print_message("1.1 MB to 2048 pieces in %.2f s\n", text_seconds() - start);
    assert_true(text_seconds() - start < 20);
    tr_free(TR_MEM_TEXT, json);
}

static void refuse(const char *data, const char *out, int32_t vocab, const char *say)
{
    struct tr_tokenizer_train_params p = {data, out, vocab};

    TEXT_ERROR(tr_tokenizer_train(&p), say);
}

static void bad_wishes_are_refused(void **state)
{
    const char *file = text_file("small.txt", "a b c", 5), *out = text_path("refused");

    (void)state;
    refuse(text_path("absent"), out, 300, "absent: cannot open");
    refuse(text_file("empty.txt", "", 0), out, 300, "empty.txt: holds no text");
    refuse(file, out, 100, "100 pieces");
    refuse(file, out, 5000, "only 266 pieces to learn; ask for a vocabulary of at most that");
    refuse(file, out, 263, "small.txt: a vocabulary of 263 pieces has room for 2");
    refuse(text_file("short.txt", "a\n", 2), out, 264, "only 263 pieces to learn; it must be");
    refuse(text_file("bad.jsonl", "{\"text\":\"a\"}\n{\"x\":1}\n", 21), out, 300,
           "bad.jsonl:2: no known record: it has \"x\", and needs");
    refuse(text_file("ids.jsonl", "{\"input_ids\":[1]}\n", 18), out, 300,
           "ids.jsonl:1: no text to learn from");
    refuse(text_file("bad.jsonl", "{\"text\":\"a\"\n", 12), out, 300, "bad.jsonl:1: ");
    assert_int_equal(access(out, F_OK), -1);
    refuse(file, text_path("small.txt"), 300, "exists and is not an empty folder");
    refuse(TEST_LICENSE, text_path("no/where"), 300, "no/where: cannot create");
}

/* Where memory ends there is the whole tokenizer, or none. */
static void what_is_written_is_whole(void **state)
{
    const char *file = text_file("small.txt", "a b c", 5), *out = text_path("whole");
    struct tr_tokenizer_train_params p = {file, out, 264};
    char *want = train(file, text_path("want"), 264), *got;
    int r = -1, refused = 0;

    (void)state;
    for (int blocks = 0; r < 0; blocks += 5) {
        blocks_lack(blocks);
        r = tr_tokenizer_train(&p);
        blocks_lack(-1);
        refused += r < 0;
        assert_int_equal(access(out, F_OK) == 0, r == 0);
    }
    got = read_result(out, "tokenizer.json");
    assert_string_equal(got, want);
    assert_true(refused > 264 / 5);
    tr_free(TR_MEM_TEXT, got);
    tr_free(TR_MEM_TEXT, want);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(words_are_counted_as_said),
        cmocka_unit_test(merges_are_those_of_the_naive_learner),
        cmocka_unit_test(one_text_has_one_tokenizer),
        cmocka_unit_test(records_are_those_of_training),
        cmocka_unit_test(the_result_has_the_asked_size_and_names),
        cmocka_unit_test(awkward_texts_are_learnt),
        cmocka_unit_test(a_megabyte_trains_quickly),
        cmocka_unit_test(bad_wishes_are_refused),
        cmocka_unit_test(what_is_written_is_whole),
    };

    return cmocka_run_group_tests(tests, text_setup, text_teardown);
}
