/* SPDX-License-Identifier: Apache-2.0
 *
 * The normalizer's steps, each a pass over the whole text. A normalised text of more than 64 times
 * its own bytes is refused, so that a hostile list of replacements cannot eat the memory.
 */
#include "src/text/tokenizer_parts.h"

#include <string.h>

#include "src/base/err.h"
#include "src/base/mem.h"
#include "src/text/tokenizer_utf8.h"
#include "src/text/unicode.h"

#define BLOW_UP 64

/* Not memmem: a search must cost what it walks over, and a checked memmem costs all that is left.
 */
size_t tok_find(const char *text, size_t n, const char *what, size_t bytes)
{
    for (size_t i = 0; bytes <= n && i <= n - bytes; i++)
        if (text[i] == *what && !memcmp(text + i, what, bytes))
            return i;
    return n;
}

/* Bytes of the character at p, never 0. */
static size_t char_bytes(const char *p, size_t n)
{
    uint32_t cp;
    int k = tr_utf8_decode(p, n, &cp);

    return (size_t)(k < 0 ? -k : k);
}

static int too_long(const struct tok_buf *b)
{
    return tr_error(-EFBIG, "the normalizer makes %zu bytes of text too long", b->n);
}

static int replace_all(const struct tok_step *s, struct tok_buf *b, size_t most)
{
    struct tok_buf out = {0};
    size_t at = 0;
    int r = 0;

    while (r == 0) {
        size_t n = tok_find(b->v + at, b->n - at, s->a, s->a_bytes);

        r = tok_buf_add(&out, b->v + at, n);
        at += n;
        if (r < 0 || at == b->n)
            break;
        r = tok_buf_add(&out, s->b, s->b_bytes);
        if (r == 0 && out.n > most)
            r = too_long(b);
        at += s->a_bytes;
    }
    tok_buf_free(b);
    *b = out;
    return r;
}

static int prepend(const struct tok_step *s, struct tok_buf *b)
{
    int r;

    if (!b->n)
        return 0;
    r = tok_buf_add(b, s->a, s->a_bytes); /* makes room */
    if (r < 0)
        return r;
    memmove(b->v + s->a_bytes, b->v, b->n - s->a_bytes);
    memcpy(b->v, s->a, s->a_bytes);
    return 0;
}

/* An empty match counts, unless it stands where the last match ended. */
static int replace_matches(const struct tok_step *s, struct tok_buf *b, size_t most)
{
    struct tr_regex_find find = {0};
    struct tok_buf out = {0};
    size_t done = 0, at = 0, last = SIZE_MAX, place[2];
    int r = tok_buf_add(&out, "", 0);

    while (r == 0 && at <= b->n &&
           (r = tr_regex_next(s->regex, &find, b->v, b->n, at, place)) > 0) {
        r = 0;
        if (place[0] == place[1] && place[1] == last) {
            at = at < b->n ? at + char_bytes(b->v + at, b->n - at) : at + 1;
            continue;
        }
        r = tok_buf_add(&out, b->v + done, place[0] - done);
        if (r == 0)
            r = tok_buf_add(&out, s->b, s->b_bytes);
        if (r == 0 && out.n > most)
            r = too_long(b);
        done = at = last = place[1];
    }
    if (r == 0)
        r = tok_buf_add(&out, b->v + done, b->n - done);
    tr_regex_find_free(&find);
    tok_buf_free(r < 0 ? &out : b);
    if (r == 0)
        *b = out;
    return r;
}

/* Every white space, or only the character that the step names. */
static int goes(const struct tok_step *s, const char *text, size_t n)
{
    uint32_t cp;

    if (s->a)
        return n == s->a_bytes && !memcmp(text, s->a, n);
    return tr_utf8_decode(text, n, &cp) > 0 && tr_unicode_is_space(cp);
}

static void trim(const struct tok_step *s, struct tok_buf *b, int start, int stop)
{
    size_t from = 0;

    while (stop && b->n) {
        size_t at = tr_utf8_back(b->v, b->n);

        if (!goes(s, b->v + at, b->n - at))
            break;
        b->n = at;
    }
    while (start && from < b->n) {
        size_t k = char_bytes(b->v + from, b->n - from);

        if (!goes(s, b->v + from, k))
            break;
        from += k;
    }
    b->n -= from;
    memmove(b->v, b->v + from, b->n);
    b->v[b->n] = 0;
}

/* What the authors of sentencepiece drop, and what they count as a space. */
static int is_dropped(uint32_t cp)
{
    return (cp >= 1 && cp <= 8) || cp == 0xB || (cp >= 0xE && cp <= 0x1F) || cp == 0x7F ||
           cp == 0x8F || cp == 0x9F;
}

static int is_blank(uint32_t cp)
{
    return cp == 9 || cp == 0xA || cp == 0xC || cp == 0xD || cp == 0x1680 ||
           (cp >= 0x200B && cp <= 0x200F) || cp == 0x2028 || cp == 0x2029 || cp == 0x2581 ||
           cp == 0xFEFF || cp == 0xFFFD;
}

static int put_nmt(struct tok_buf *out, const char *c, size_t n, uint32_t cp)
{
    if (is_blank(cp))
        return tok_buf_add(out, " ", 1);
    return is_dropped(cp) ? 0 : tok_buf_add(out, c, n);
}

static int put_lower(struct tok_buf *out, const char *c, size_t n, uint32_t cp)
{
    uint32_t lower[2];
    int k = tr_unicode_lower(cp, lower), r = 0;

    if (k == 1 && lower[0] == cp)
        return tok_buf_add(out, c, n);
    for (int i = 0; r == 0 && i < k; i++) {
        char small[4];

        r = tok_buf_add(out, small, (size_t)tr_utf8_encode(lower[i], small));
    }
    return r;
}

static int put_unmarked(struct tok_buf *out, const char *c, size_t n, uint32_t cp)
{
    return tr_unicode_is_mark(cp) ? 0 : tok_buf_add(out, c, n);
}

/* Each character by itself. */
static int each_char(struct tok_buf *b,
                     int (*put)(struct tok_buf *out, const char *c, size_t n, uint32_t cp))
{
    struct tok_buf out = {0};
    int r = tok_buf_add(&out, "", 0);

    for (size_t i = 0, k; r == 0 && i < b->n; i += k) {
        uint32_t cp = 0;

        k = char_bytes(b->v + i, b->n - i);
        tr_utf8_decode(b->v + i, b->n - i, &cp);
        r = put(&out, b->v + i, k, cp);
    }
    tok_buf_free(r < 0 ? &out : b);
    if (r == 0)
        *b = out;
    return r;
}

static int run_step(const struct tok_step *s, struct tok_buf *b, int prefix, size_t most)
{
    switch (s->kind) {
    case TOK_REPLACE:
        return s->regex ? replace_matches(s, b, most) : replace_all(s, b, most);
    case TOK_FORM:
        return tok_normal_form(s->form, b);
    case TOK_CHARSMAP:
        return tok_charsmap_run(&s->map, b, most);
    case TOK_NMT:
        return each_char(b, put_nmt);
    case TOK_LOWER:
        return each_char(b, put_lower);
    case TOK_NO_MARKS:
        return each_char(b, put_unmarked);
    case TOK_TRIM:
        trim(s, b, s->start && prefix, s->stop != 0);
        return 0;
    default:
        return prefix ? prepend(s, b) : 0;
    }
}

int tok_normalise(const struct tr_tokenizer *t, const struct tok_span *span, const char *text,
                  int prefix, struct tok_buf *out)
{
    size_t bytes = span->stop - span->start, most = BLOW_UP * (bytes + TOK_STRING_MOST);
    int r;

    out->n = 0;
    r = tok_buf_add(out, text + span->start, bytes);
    for (int i = 0; r == 0 && i < t->norm.n; i++)
        r = run_step(&t->norm.v[i], out, prefix, most);
    return r;
}
