/* SPDX-License-Identifier: Apache-2.0
 *
 * Splitting into words, one code point at a time, with the word so far in a small buffer. Bytes
 * that are not UTF-8 count as U+FFFD, as they do when a text is encoded.
 */
#include "src/text/bpe_words.h"

#include <string.h>

#include "src/base/err.h"
#include "src/base/mem.h"
#include "src/text/data_file.h"
#include "src/text/data_talk.h"
#include "src/text/tokenizer_utf8.h"

#define SPACE   0x2581
#define FILLING ((size_t)4 << 20) /* bytes of a plain text that are split at a time */

/* The word that is being read: `kind` is 0 for letters, else the character it repeats. */
struct word {
    char text[4 * BPE_WORD_MOST];
    size_t bytes, chars;
    uint32_t kind;
};

static const char *word_name(const void *owner, uint32_t value, size_t *bytes)
{
    const struct bpe_words *w = owner;

    *bytes = w->v[value].bytes;
    return w->text.v + w->v[value].at;
}

void bpe_words_init(struct bpe_words *w)
{
    *w = (struct bpe_words){.names.name = word_name, .names.owner = w};
}

void bpe_words_free(struct bpe_words *w)
{
    bpe_map_free(&w->names.map);
    tok_buf_free(&w->text);
    tr_free(TR_MEM_TEXT, w->v);
    *w = (struct bpe_words){0};
}

static int add_new(struct bpe_words *w, const char *text, size_t bytes)
{
    int r;

    if (w->n == w->room) {
        size_t room = w->room ? w->room * 2 : 4096;
        struct bpe_word *v = tr_realloc(TR_MEM_TEXT, w->v, room * sizeof(*v));

        if (!v)
            return -ENOMEM;
        w->v = v;
        w->room = room;
    }
    if (w->n >= INT32_MAX)
        return tr_error(-EFBIG, "more than %d different words", INT32_MAX);
    w->v[w->n] = (struct bpe_word){w->text.n, (uint32_t)bytes, 1};
    r = tok_buf_add(&w->text, text, bytes);
    return r < 0 ? r : bpe_names_add(&w->names, text, bytes, (uint32_t)w->n++);
}

static int count_word(struct bpe_words *w, struct word *x)
{
    int64_t i = x->bytes ? bpe_names_find(&w->names, x->text, x->bytes) : -1;
    int r = 0;

    if (i >= 0)
        w->v[i].count++;
    else if (x->bytes)
        r = add_new(w, x->text, x->bytes);
    x->bytes = x->chars = 0;
    x->kind = 0;
    return r;
}

/* A word that is full is counted as it is, and a new one begins in its middle. */
static int append(struct bpe_words *w, struct word *x, uint32_t cp)
{
    int r = x->chars == BPE_WORD_MOST ? count_word(w, x) : 0;

    x->bytes += (size_t)tr_utf8_encode(cp, x->text + x->bytes);
    x->chars++;
    return r;
}

/* A letter joins the last of the spaces before it; the others are a word. */
static int append_letter(struct bpe_words *w, struct word *x, uint32_t cp)
{
    int r = 0;

    if (x->kind == SPACE && x->chars == 1) {
        x->kind = 0;
    } else if (x->kind == SPACE) {
        x->bytes -= 3;
        r = count_word(w, x);
        if (r == 0)
            r = append(w, x, SPACE);
    } else if (x->kind) {
        r = count_word(w, x);
    }
    return r < 0 ? r : append(w, x, cp);
}

/* White space is a word of its own kind, run by run: indentation becomes few long pieces, and no
 * piece mixes a line's end with the word that follows. */
static int append_white(struct bpe_words *w, struct word *x, uint32_t cp)
{
    int r = 0;

    if (x->kind != cp)
        r = count_word(w, x);
    if (r == 0)
        r = append(w, x, cp);
    x->kind = cp;
    return r;
}

int bpe_words_add(struct bpe_words *w, const char *text, size_t bytes, int begins)
{
    struct word x = {.bytes = 0};
    int r = bytes && begins ? append_white(w, &x, SPACE) : 0;

    for (size_t i = 0; r == 0 && i < bytes;) {
        uint32_t cp;
        int k = tr_utf8_decode(text + i, bytes - i, &cp);

        cp = k < 0 ? 0xFFFD : cp == ' ' ? SPACE : cp;
        i += (size_t)(k < 0 ? -k : k);
        r = cp == SPACE || tr_unicode_is_space(cp) ? append_white(w, &x, cp)
                                                   : append_letter(w, &x, cp);
    }
    return r < 0 ? r : count_word(w, &x);
}

/* What stands in a record beside its format is learnt too: a prompt, with the text. */
static int add_strings(struct bpe_words *w, const char *where, json_t *o)
{
    static const char *const keys[] = {"text", "prompt", "completion", "question", "answer"};
    int r = 0, found = 0;

    for (int i = 0; r == 0 && i < 5; i++) {
        json_t *v = json_object_get(o, keys[i]);

        if (json_is_string(v))
            r = bpe_words_add(w, json_string_value(v), json_string_length(v), !found++);
    }
    return r < 0 || found ? r : tr_error(-EINVAL, "%s: no text to learn from", where);
}

/* What a template writes around the messages is special tokens for the most part. */
static int add_talk(struct bpe_words *w, const char *where, enum tr_data_format format, json_t *o)
{
    struct data_talk talk;
    json_t *m;
    size_t i;
    int r = data_talk_read(&talk, where, format, o);

    if (r < 0)
        return r;
    json_array_foreach(talk.messages, i, m) {
        json_t *v = json_object_get(m, "content");

        if (r == 0 && json_is_string(v))
            r = bpe_words_add(w, json_string_value(v), json_string_length(v), i == 0);
    }
    data_talk_free(&talk);
    return r;
}

/* All strings of a record are one document: what answers goes on where what asks ended. */
static int add_record(void *owner, const char *where, json_t *o)
{
    enum tr_data_format format;
    int r = data_format_of(where, o, &format);

    if (r < 0)
        return r;
    if (format >= TR_DATA_MESSAGES ||
        (format == TR_DATA_PROMPT && json_is_array(json_object_get(o, "prompt"))))
        return add_talk(owner, where, format, o);
    return add_strings(owner, where, o);
}

/* Ends a part before its last white space, so that no word is cut. */
static size_t last_space(const char *text, size_t n)
{
    size_t i = n;

    while (i && text[i - 1] != ' ' && text[i - 1] != '\n')
        i--;
    return i > 1 ? i - 1 : n;
}

/* Reads FILLING bytes at a time and leaves the word at the end to the next time. */
static int read_text(struct bpe_words *w, struct data_file *f)
{
    int begins = 1, more;

    do {
        size_t n;
        int r;

        do
            more = data_file_more(f);
        while (more > 0 && f->n - f->at < FILLING);
        if (more < 0)
            return more;
        n = more ? last_space(f->v + f->at, f->n - f->at) : f->n - f->at;
        r = bpe_words_add(w, f->v + f->at, n, begins);
        if (r < 0)
            return r;
        f->at += n;
        begins = 0;
    } while (more);
    return 0;
}

static int read_file(struct bpe_words *w, const char *path)
{
    struct data_file f;
    int r = data_file_open(&f, path);

    if (r < 0)
        return r;
    r = data_file_has_records(&f);
    if (r >= 0)
        r = r ? data_file_each(&f, add_record, w) : read_text(w, &f);
    data_file_close(&f);
    if (r == 0 && !w->n)
        r = tr_error(-ENODATA, "%s: holds no text to learn from", path);
    return r;
}

int bpe_words_read(struct bpe_words *w, const char *path)
{
    char *file;
    int r = data_file_find(path, 0, &file);

    if (r < 0)
        return r;
    r = read_file(w, file);
    tr_free(TR_MEM_TEXT, file);
    return r;
}
