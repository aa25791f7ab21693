/* SPDX-License-Identifier: Apache-2.0
 *
 * Text to ids: the way drawn in tokenizer_parts.h. Knows the order of the stops; merging is
 * bpe.c's, added tokens are tokenizer_added.c's. Every buffer belongs to one call, so that threads
 * may encode with one tokenizer at the same time.
 */
#include "src/text/tokenizer_parts.h"

#include <string.h>

#include "src/base/err.h"
#include "src/base/mem.h"
#include "src/text/tokenizer_utf8.h"

struct encoder {
    const struct tr_tokenizer *t;
    struct bpe_work work;
    struct tok_unigram_work unigram;
    struct tr_ids *ids;
    struct tok_cutter cutter;
    struct tok_cache *cache;
    struct tok_buf valid, normal;
    enum tr_text_place place;
    int32_t held_unk; /* an unk that the next one may fuse with, or -1 */
};

/* The unk that was held back stands before the next piece of the vocabulary (and behind bytes that
 * came in between, as in the reference). */
static int push_unk(struct encoder *e)
{
    int32_t id = e->held_unk;

    e->held_unk = -1;
    return id < 0 ? 0 : bpe_push(&e->work, id);
}

static int push_bytes(struct encoder *e, const char *text, size_t n)
{
    int r = 0;

    for (size_t i = 0; r == 0 && i < n; i++)
        r = bpe_push(&e->work, e->t->byte_id[(unsigned char)text[i]]);
    return r;
}

static int has_bytes(const struct tr_tokenizer *t, const char *text, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (t->byte_id[(unsigned char)text[i]] < 0)
            return 0;
    return 1;
}

/* A character of the vocabulary, or its bytes where all of them are pieces, or unk, or nothing. */
static int push_char(struct encoder *e, const char *text, size_t n, uint32_t cp)
{
    int32_t id = tok_char_id(e->t, cp);
    int r = 0;

    if (id >= 0) {
        r = push_unk(e);
        return r < 0 ? r : bpe_push(&e->work, id);
    }
    if (has_bytes(e->t, text, n))
        return push_bytes(e, text, n);
    if (!e->t->fuse_unk)
        r = push_unk(e);
    e->held_unk = e->t->unk;
    return r;
}

/* One pre-token: nothing merges across its ends. */
static int encode_word(struct encoder *e, const char *text, size_t n)
{
    int r = 0;

    if (e->t->unigram.on)
        return tok_unigram_encode(e->t, &e->unigram, text, n, e->ids);
    if (e->t->ignore_merges) {
        int32_t id = tok_piece_id(e->t, text, n);

        if (id >= 0 && !(e->t->flags[id] & TOK_OUTSIDE))
            return tr_ids_push(e->ids, id);
    }
    for (size_t i = 0; r == 0 && i < n;) {
        uint32_t cp = 0xFFFD;
        int k = tr_utf8_decode(text + i, n - i, &cp);

        k = k < 0 ? -k : k;
        r = push_char(e, text + i, (size_t)k, cp);
        i += (size_t)k;
    }
    if (r == 0)
        r = push_unk(e);
    return r < 0 ? r : bpe_flush(&e->work);
}

/* A word of the pre-tokenizers, as they hand it on. */
static int cached_word(void *owner, const char *text, size_t n)
{
    struct encoder *e = owner;
    size_t before = e->ids->n;
    int found, r = 0;
    struct tok_cache_line *line = tok_cache_line(e->cache, text, n, &found);

    if (!found) {
        r = encode_word(e, text, n);
        if (r == 0 && line && e->ids->n > before) /* a word of unknown bytes may have no ids */
            tok_cache_put(line, text, n, e->ids->v + before, e->ids->n - before);
        return r;
    }
    for (int i = 0; r == 0 && i < line->n_ids; i++)
        r = tr_ids_push(e->ids, line->id[i]);
    return r;
}

static int encode_words(struct encoder *e, const char *text, size_t n)
{
    if (!e->t->pre.n)
        return encode_word(e, text, n);
    e->cutter.place = e->place;
    return tok_pre_run(&e->cutter, text, n);
}

static int encode_added(struct encoder *e, const struct tok_span *span)
{
    e->place = TR_TEXT_AFTER_ADDED;
    return tr_ids_push(e->ids, e->t->added[span->added].id);
}

/* A segment between added tokens of the raw text. */
static int encode_segment(struct encoder *e, const char *text, const struct tok_span *span)
{
    struct tok_scan scan;
    struct tok_span s;
    int r = tok_normalise(e->t, span, text, e->place != TR_TEXT_INSIDE, &e->normal);

    tok_scan_start(&scan, e->t, &e->t->normal, e->normal.v, e->normal.n);
    while (r == 0 && tok_scan_next(&scan, &s)) {
        if (s.added >= 0) {
            r = encode_added(e, &s);
            continue;
        }
        r = encode_words(e, e->normal.v + s.start, s.stop - s.start);
        e->place = TR_TEXT_INSIDE;
    }
    return r;
}

/* Puts U+FFFD for every longest beginning of a sequence that goes wrong, as every decoder does. */
int tok_make_valid(struct tok_buf *out, const char *text, size_t bytes)
{
    size_t i = tr_utf8_valid(text, bytes);
    int r = tok_buf_add(out, text, i);

    while (r == 0 && i < bytes) {
        uint32_t cp;
        int k = tr_utf8_decode(text + i, bytes - i, &cp);

        r = k < 0 ? tok_buf_add(out, "\xEF\xBF\xBD", 3) : tok_buf_add(out, text + i, (size_t)k);
        i += (size_t)(k < 0 ? -k : k);
    }
    return r;
}

/* A text that is valid, as most are, is not copied. */
static int make_valid(struct tok_buf *out, const char **text, size_t *bytes)
{
    int r;

    if (tr_utf8_valid(*text, *bytes) == *bytes)
        return 0;
    r = tok_make_valid(out, *text, *bytes);
    *text = out->v;
    *bytes = out->n;
    return r;
}

/* On failure the ids are as they were, and so is the place. */
int tr_tokenizer_encode_more(const struct tr_tokenizer *t, const char *text, size_t bytes,
                             enum tr_text_place *place, struct tr_ids *ids)
{
    struct encoder e = {.t = t, .ids = ids, .place = *place, .held_unk = -1};
    struct tok_scan scan;
    struct tok_span span;
    size_t before = ids->n;
    int r;

    e.work.bpe = &t->bpe;
    e.work.out = ids;
    e.cutter = (struct tok_cutter){.pres = &t->pre, .word = cached_word, .owner = &e};
    e.cache = tok_cache_take(t->cache);
    r = make_valid(&e.valid, &text, &bytes);
    tok_scan_start(&scan, t, &t->raw, text, bytes);
    while (r == 0 && tok_scan_next(&scan, &span))
        r = span.added >= 0 ? encode_added(&e, &span) : encode_segment(&e, text, &span);
    tok_cache_give_back(e.cache);
    tok_cutter_free(&e.cutter);
    bpe_work_free(&e.work);
    tok_unigram_work_free(&e.unigram);
    tok_buf_free(&e.valid);
    tok_buf_free(&e.normal);
    if (r < 0)
        ids->n = before;
    else
        *place = e.place;
    return r;
}

int tr_tokenizer_encode(const struct tr_tokenizer *t, const char *text, size_t bytes,
                        struct tr_ids *ids)
{
    enum tr_text_place place = TR_TEXT_START;

    return tr_tokenizer_encode_more(t, text, bytes, &place, ids);
}
