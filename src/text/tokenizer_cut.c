/* SPDX-License-Identifier: Apache-2.0
 *
 * Where a long text may be cut, so that a file of any size is encoded through a small window with
 * the very ids of one call. A cut lies between two ASCII characters that (1) are pieces, normalise
 * to one piece each and stand in no longer pattern of the normalizer, (2) no merge can ever join,
 * (3) cannot stand beside each other in an added token, nor end and begin one (so that no strip,
 * prefix or word boundary of an added token reaches over the cut). Where pre-tokenizers cut words,
 * the place is before a space between two letters, if all of them are known to cut there whatever
 * stands around. Where a tokenizer has no such pairs, there is no cut, and the caller's window
 * grows.
 */
#include "src/text/tokenizer_parts.h"

#include <stdio.h>
#include <string.h>

#include "src/text/tokenizer_utf8.h"

/* The id that character c becomes by itself, or -1 where its neighbours have a say. */
static int lone_id(const struct tr_tokenizer *t, char c, int32_t *id)
{
    struct tok_buf b = {0};
    uint32_t cp;
    int r;

    *id = -1;
    for (int i = 0; i < t->norm.n; i++) {
        const struct tok_step *s = &t->norm.v[i];

        if (s->kind == TOK_REPLACE && s->a_bytes > 1 && memchr(s->a, c, s->a_bytes))
            return 0;
    }
    r = tok_normalise(t, &(struct tok_span){-1, 0, 1}, &c, 0, &b);
    if (r == 0 && b.n && (size_t)tr_utf8_decode(b.v, b.n, &cp) == b.n)
        *id = tok_char_id(t, cp);
    tok_buf_free(&b);
    return r;
}

/* Takes away the pairs that touch an added token, in the raw or the normalised form. */
static void forbid(struct tr_tokenizer *t, const char *text, size_t n)
{
    unsigned char last = n ? (unsigned char)text[n - 1] : 0;
    unsigned char first = n ? (unsigned char)text[0] : 0;

    for (int c = 0; n && c < 128; c++) {
        if (last < 128)
            t->cut[last][c] = 0;
        if (first < 128)
            t->cut[c][first] = 0;
    }
    for (size_t i = 0; i + 1 < n; i++)
        if ((unsigned char)text[i] < 128 && (unsigned char)text[i + 1] < 128)
            t->cut[(unsigned char)text[i]][(unsigned char)text[i + 1]] = 0;
}

static int forbid_added(struct tr_tokenizer *t)
{
    struct tok_buf normal = {0};
    int r = 0;

    for (size_t i = 0; r == 0 && i < t->n_added; i++) {
        const char *text = t->added[i].text;
        struct tok_span all = {-1, 0, strlen(text)};

        forbid(t, text, all.stop);
        r = tok_normalise(t, &all, text, 0, &normal);
        if (r == 0)
            forbid(t, normal.v, normal.n);
        if (r == 0 && memchr(text, ' ', all.stop))
            memset(t->cut, 0, sizeof(t->cut)); /* a space has become another character */
    }
    tok_buf_free(&normal);
    return r;
}

/* A space before an added token may be its own prefix in the normalised text. */
static void forbid_spaces(struct tr_tokenizer *t)
{
    for (int c = 0; c < 128; c++)
        for (int d = 0; d < 128; d++)
            if (tr_unicode_is_space((uint32_t)c) || tr_unicode_is_space((uint32_t)d))
                t->cut[c][d] &= (uint8_t)(t->normal.n == 0 && !t->pre.n && c > ' ');
}

static int is_letter(unsigned char c)
{
    return (c | 0x20) >= 'a' && (c | 0x20) <= 'z';
}

/* Steps that look at one character at a time never reach over a space between letters, nor do
 * expressions that match elsewhere; one step at least must cut there. What comes behind that one
 * sees the words apart. A normal form changes neither letter nor space of ASCII. */
static int words_are_safe(const struct tr_tokenizer *t)
{
    int safe = 0;

    for (int i = 0; i < t->pre.n; i++) {
        const struct tok_pre *p = &t->pre.v[i];

        if (p->kind == TOK_PRE_METASPACE || p->kind == TOK_PRE_SPACES)
            return 0;
        if (!safe && p->kind == TOK_PRE_SPLIT && !p->safe && !p->elsewhere)
            return 0;
        safe |= p->safe && tok_pre_isolates(p);
    }
    for (int i = 0; i < t->norm.n; i++)
        if (t->norm.v[i].kind != TOK_FORM)
            return 0;
    return safe && t->normal.n == 0;
}

static void allow_words(struct tr_tokenizer *t)
{
    t->cut_words = 1;
    for (int c = 0; c < 128; c++)
        t->cut[c][' '] = is_letter((unsigned char)c);
}

/* Unigram: sums of scores are rounded, and run from the beginning of a word; so a cut must be one
 * between words too. Metaspace makes one of every space that comes through the normalizer. */
static int is_local(const struct tok_step *s)
{
    if (s->kind == TOK_REPLACE)
        return s->regex ? !strcmp(s->a, " {2,}") : s->a_bytes == 1;
    return s->kind == TOK_CHARSMAP || s->kind == TOK_FORM || s->kind == TOK_NMT ||
           s->kind == TOK_TRIM || s->kind == TOK_PREPEND;
}

static int spaces_cut(const struct tr_tokenizer *t)
{
    const struct tok_pre *last = t->pre.n ? &t->pre.v[t->pre.n - 1] : NULL;

    if (!last || last->kind != TOK_PRE_METASPACE || !last->split || t->pre.n > 2 ||
        (t->pre.n == 2 && t->pre.v[0].kind != TOK_PRE_SPACES) || t->normal.n)
        return 0;
    for (int i = 0; i < t->norm.n; i++)
        if (!is_local(&t->norm.v[i]))
            return 0;
    return 1;
}

/* Only where all letters come through as they are, and between them the space, or what stands for
 * it. */
static int allow_spaces(struct tr_tokenizer *t)
{
    const char *space = t->pre.v[t->pre.n - 1].text;
    struct tok_buf b = {0};
    int r = 0, safe = 1;

    for (int c = 0; r == 0 && c < 128; c++) {
        char text[] = {(char)c, ' ', (char)c, 0}, other[8];

        if (!is_letter((unsigned char)c))
            continue;
        r = tok_normalise(t, &(struct tok_span){-1, 0, 3}, text, 0, &b);
        snprintf(other, sizeof(other), "%c%s%c", c, space, c);
        safe &= r == 0 && (!strcmp(b.v, text) || !strcmp(b.v, other));
    }
    tok_buf_free(&b);
    if (safe)
        allow_words(t);
    return r;
}

/* Steps whose reach lone_id knows. */
static int pairs_are_safe(const struct tr_tokenizer *t)
{
    for (int i = 0; i < t->norm.n; i++) {
        const struct tok_step *s = &t->norm.v[i];

        if (s->regex || (s->kind != TOK_REPLACE && s->kind != TOK_PREPEND && s->kind != TOK_FORM))
            return 0;
    }
    return 1;
}

int tok_build_cuts(struct tr_tokenizer *t)
{
    int32_t id[128];

    if (t->unigram.on) {
        int r = spaces_cut(t) ? allow_spaces(t) : 0;

        return r < 0 ? r : forbid_added(t);
    }
    if (t->pre.n > 1 || (t->pre.n && t->pre.v[0].kind != TOK_PRE_METASPACE)) {
        if (words_are_safe(t))
            allow_words(t);
        return forbid_added(t);
    }

    if (!pairs_are_safe(t))
        return 0;
    for (int c = 0; c < 128; c++) {
        int r = lone_id(t, (char)c, &id[c]);

        if (r < 0)
            return r;
    }
    for (int c = 1; c < 128; c++)
        for (int d = 1; d < 128; d++)
            t->cut[c][d] = id[c] >= 0 && id[d] >= 0 && !t->ignore_merges &&
                           !bpe_may_join(&t->bpe, id[c], id[d]);
    forbid_spaces(t);
    return forbid_added(t);
}

size_t tr_tokenizer_cut(const struct tr_tokenizer *t, const char *text, size_t bytes)
{
    for (size_t i = bytes ? bytes - 1 : 0; i > 0; i--) {
        unsigned char c = (unsigned char)text[i - 1], d = (unsigned char)text[i];

        if (c >= 128 || d >= 128 || !t->cut[c][d])
            continue;
        if (!t->cut_words || (i + 1 < bytes && is_letter((unsigned char)text[i + 1])))
            return i;
    }
    return 0;
}
