/* SPDX-License-Identifier: Apache-2.0
 *
 * Running the pre-tokenizers. A piece goes through step i by its matches: matched and unmatched
 * spans are folded as the step's behaviour says, and every span that results goes to step i + 1.
 * The depth of the recursion is the number of steps; each has buffers of its own for changed text.
 */
#include "src/text/tokenizer_pre.h"

#include <string.h>

#include "src/base/err.h"
#include "src/text/tokenizer_parts.h"
#include "src/text/tokenizer_utf8.h"
#include "src/text/unicode.h"

/* One piece at one step. */
struct fold {
    struct tok_cutter *c;
    const struct tok_pre *pre;
    const char *text;
    size_t n, from, to; /* from, to: the span held back, where `holding` */
    int step, first, holding, was_match;
};

static int run(struct tok_cutter *c, int step, const char *text, size_t n, int first);

static int map_bytes(struct tok_buf *out, const char *text, size_t n)
{
    int r = 0;

    out->n = 0;
    for (size_t i = 0; r == 0 && i < n; i++) {
        char c[4];
        int k = tr_utf8_encode(tok_byte_char((unsigned char)text[i]), c);

        r = tok_buf_add(out, c, (size_t)k);
    }
    return r;
}

static int give(struct fold *f, size_t from, size_t to)
{
    struct tok_buf *part = &f->c->part[f->step];
    int first = f->first && from == 0;
    int r;

    if (from == to)
        return 0;
    if (f->pre->kind != TOK_PRE_BYTE_LEVEL)
        return run(f->c, f->step + 1, f->text + from, to - from, first);
    r = map_bytes(part, f->text + from, to - from);
    return r < 0 ? r : run(f->c, f->step + 1, part->v, part->n, first);
}

static int let_go(struct fold *f)
{
    int held = f->holding;

    f->holding = 0;
    return held ? give(f, f->from, f->to) : 0;
}

/* 1 where the span belongs to the one held back. */
static int joins(const struct fold *f, int match)
{
    switch (f->pre->how) {
    case TOK_CONTIGUOUS:
        return match == f->was_match;
    case TOK_PREVIOUS:
        return match && !f->was_match;
    case TOK_NEXT:
        return !match && f->was_match;
    default:
        return 0;
    }
}

static int take(struct fold *f, size_t from, size_t to, int match)
{
    int r;

    match ^= f->pre->invert;
    if (f->pre->how == TOK_ISOLATED || f->pre->how == TOK_REMOVED)
        return match && f->pre->how == TOK_REMOVED ? 0 : give(f, from, to);
    if (f->holding && joins(f, match)) {
        f->to = to;
        f->was_match = match;
        return 0;
    }
    r = let_go(f);
    f->from = from;
    f->to = to;
    f->holding = 1;
    f->was_match = match;
    return r;
}

static int is_of_kind(enum tok_pre_kind kind, uint32_t cp)
{
    switch (kind) {
    case TOK_PRE_DIGITS:
        return tr_unicode_is_number(cp);
    case TOK_PRE_PUNCTUATION:
        return tr_unicode_is_punctuation(cp);
    default:
        return tr_unicode_is_space(cp);
    }
}

/* The next character of the step's kind. */
static int next_of_kind(const struct fold *f, size_t at, size_t place[2])
{
    while (at < f->n) {
        uint32_t cp = 0;
        int k = tr_utf8_decode(f->text + at, f->n - at, &cp);

        k = k < 0 ? -k : k;
        place[0] = at;
        at += (size_t)k;
        place[1] = at;
        if (is_of_kind(f->pre->kind, cp))
            return 1;
    }
    return 0;
}

static int next_match(struct fold *f, size_t at, size_t place[2])
{
    if (f->pre->regex)
        return tr_regex_next(f->pre->regex, &f->c->find, f->text, f->n, at, place);
    if (!f->pre->text)
        return next_of_kind(f, at, place);
    place[0] = at + tok_find(f->text + at, f->n - at, f->pre->text, f->pre->bytes);
    place[1] = place[0] + f->pre->bytes;
    return place[0] < f->n;
}

/* An empty match counts, unless it stands where the last match ended: then the search goes on one
 * character further, as the reference's does. */
static int fold_matches(struct fold *f)
{
    size_t done = 0, at = 0, last = SIZE_MAX, place[2];
    int r;

    while ((r = next_match(f, at, place)) > 0) {
        uint32_t cp;
        int k;

        if (place[0] == place[1] && place[1] == last) {
            if (at == f->n)
                break;
            k = tr_utf8_decode(f->text + at, f->n - at, &cp);
            at += (size_t)(k < 0 ? -k : k);
            continue;
        }
        r = done < place[0] ? take(f, done, place[0], 0) : 0;
        if (r == 0)
            r = take(f, place[0], place[1], 1);
        if (r < 0)
            return r;
        done = at = last = place[1];
    }
    if (r >= 0)
        r = done < f->n ? take(f, done, f->n, 0) : 0;
    return r < 0 ? r : let_go(f);
}

/* "first" means the beginning of the whole text; "always", of every piece. A text that goes on
 * where another ended begins with neither. */
static int wants_prefix(const struct fold *f, const char *what, size_t bytes)
{
    if (f->pre->prefix == TOK_PREFIX_NEVER || (f->first && f->c->place == TR_TEXT_INSIDE))
        return 0;
    if (f->n >= bytes && !memcmp(f->text, what, bytes))
        return 0;
    return f->pre->prefix == TOK_PREFIX_ALWAYS || (f->first && f->c->place == TR_TEXT_START);
}

/* Spaces become the replacement, before it is asked whether one stands first. */
static int metaspace(struct fold *f)
{
    const struct tok_pre *p = f->pre;
    struct tok_buf *out = &f->c->whole[f->step];
    int prefix = *f->text != ' ' && wants_prefix(f, p->text, p->bytes);
    int r = 0;

    out->n = 0;
    if (prefix)
        r = tok_buf_add(out, p->text, p->bytes);
    for (size_t at = 0; r == 0 && at < f->n;) {
        size_t k = tok_find(f->text + at, f->n - at, " ", 1);

        r = tok_buf_add(out, f->text + at, k);
        at += k;
        if (r == 0 && at++ < f->n)
            r = tok_buf_add(out, p->text, p->bytes);
    }
    f->text = out->v;
    f->n = out->n;
    return r;
}

static int put_space(struct fold *f)
{
    struct tok_buf *out = &f->c->whole[f->step];
    int r;

    if (!wants_prefix(f, " ", 1))
        return 0;
    out->n = 0;
    r = tok_buf_add(out, " ", 1);
    if (r == 0)
        r = tok_buf_add(out, f->text, f->n);
    f->text = out->v;
    f->n = out->n;
    return r;
}

static int run(struct tok_cutter *c, int step, const char *text, size_t n, int first)
{
    struct fold f = {.c = c, .text = text, .n = n, .step = step, .first = first};
    int r = 0;

    if (step == c->pres->n)
        return c->word(c->owner, text, n);
    f.pre = &c->pres->v[step];
    if (f.pre->kind == TOK_PRE_METASPACE)
        r = metaspace(&f);
    else if (f.pre->kind == TOK_PRE_BYTE_LEVEL)
        r = put_space(&f);
    if (r < 0)
        return r;
    return f.pre->split ? fold_matches(&f) : give(&f, 0, f.n);
}

int tok_pre_run(struct tok_cutter *c, const char *text, size_t n)
{
    return n ? run(c, 0, text, n, 1) : 0;
}

void tok_cutter_free(struct tok_cutter *c)
{
    for (int i = 0; i < TOK_PRE_MOST; i++) {
        tok_buf_free(&c->whole[i]);
        tok_buf_free(&c->part[i]);
    }
    tr_regex_find_free(&c->find);
}
