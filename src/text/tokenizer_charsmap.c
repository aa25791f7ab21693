/* SPDX-License-Identifier: Apache-2.0
 *
 * The table of replacements ("Precompiled") that sentencepiece puts before its models: what NFKC
 * does and what its authors added. It is asked as the reference asks it: a grapheme of fewer than 6
 * bytes as a whole, and where that gives nothing, each of its characters; the answer is the
 * replacement of the shortest beginning that has one, and takes the place of all that was asked.
 * Sentencepiece itself replaces, from left to right, the longest beginning of what is left; so does
 * a table with `longest`.
 *
 * A unit of the double array: bits 0 to 7 and 31 are the label, bit 8 says that a value hangs
 * there, bits 10 on are the offset (shifted by 8 where bit 9 is set). The file is not trusted:
 * every place is checked before it is read.
 */
#include "src/text/tokenizer_parts.h"

#include <string.h>

#include <utf8proc.h>

#include "src/base/err.h"
#include "src/base/mem.h"
#include "src/text/tokenizer_utf8.h"

#define GRAPHEME_MOST 6  /* bytes; from there on characters are asked alone */
#define LONGEST_MOST  64 /* bytes of what is replaced: a damaged array may go round */

static int digit(char c)
{
    if (c >= 'A' && c <= 'Z')
        return c - 'A';
    if (c >= 'a' && c <= 'z')
        return c - 'a' + 26;
    if (c >= '0' && c <= '9')
        return c - '0' + 52;
    return c == '+' ? 62 : c == '/' ? 63 : -1;
}

/* *bytes: how many there are in out, which has room for 3 bytes of every 4 digits. */
static int decode(const char *text, size_t n, unsigned char *out, size_t *bytes)
{
    uint32_t bits = 0;
    size_t k = 0;

    while (n && text[n - 1] == '=')
        n--;
    for (size_t i = 0; i < n; i++) {
        int d = digit(text[i]);

        if (d < 0)
            return -EINVAL;
        bits = bits << 6 | (uint32_t)d;
        if (i % 4)
            out[k++] = (unsigned char)(bits >> (6 - 2 * (i % 4)));
    }
    *bytes = k;
    return n % 4 == 1 ? -EINVAL : 0;
}

static uint32_t little(const unsigned char *p)
{
    return p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
}

/* The bytes of the array, the array, the strings. */
static int split(struct tok_charsmap *m, const unsigned char *p, size_t n)
{
    size_t units = n < 4 ? 0 : little(p);

    if (!units || units % 4 || units > n - 4)
        return -EINVAL;
    m->n_units = units / 4;
    m->bytes = n - 4 - units;
    m->unit = tr_alloc_array(TR_MEM_TEXT, m->n_units, sizeof(*m->unit));
    m->text = tr_alloc(TR_MEM_TEXT, m->bytes + 1);
    if (!m->unit || !m->text)
        return -ENOMEM;
    for (size_t i = 0; i < m->n_units; i++)
        m->unit[i] = little(p + 4 + 4 * i);
    memcpy(m->text, p + 4 + units, m->bytes);
    m->text[m->bytes] = 0;
    return tr_utf8_valid(m->text, m->bytes) == m->bytes ? 0 : -EINVAL;
}

int tok_charsmap_load(struct tok_charsmap *m, const char *where, const char *base64, size_t n)
{
    unsigned char *p = tr_alloc(TR_MEM_TEXT, n);
    size_t bytes = 0;
    int r;

    if (!p)
        return -ENOMEM;
    r = decode(base64, n, p, &bytes);
    if (r == 0)
        r = split(m, p, bytes);
    tr_free(TR_MEM_TEXT, p);
    if (r == -EINVAL)
        return tr_error(r, "%s: normalizer: \"precompiled_charsmap\" is damaged", where);
    return r;
}

void tok_charsmap_free(struct tok_charsmap *m)
{
    tr_free(TR_MEM_TEXT, m->unit);
    tr_free(TR_MEM_TEXT, m->text);
    memset(m, 0, sizeof(*m));
}

static size_t offset(uint32_t unit)
{
    return (size_t)(unit >> 10) << ((unit & 1u << 9) >> 6);
}

/* The string that a unit's value leads to, or NULL. */
static const char *string_at(const struct tok_charsmap *m, size_t at)
{
    at = at < m->n_units ? m->unit[at] & ~(1u << 31) : m->bytes;
    return at < m->bytes && ((unsigned char)m->text[at] & 0xC0) != 0x80 ? m->text + at : NULL;
}

/* The string for the shortest beginning of text[0..n) that has one, or the longest; NULL: none has.
 * *bytes: of that beginning. */
static const char *find(const struct tok_charsmap *m, const char *text, size_t n, size_t *bytes)
{
    size_t at = offset(m->unit[0]);
    const char *found = NULL;

    for (size_t i = 0; i < n && text[i]; i++) {
        uint32_t unit;

        at ^= (unsigned char)text[i];
        if (at >= m->n_units)
            break;
        unit = m->unit[at];
        if ((unit & (1u << 31 | 0xFF)) != (unsigned char)text[i])
            break;
        at ^= offset(unit);
        if (!(unit >> 8 & 1) || (i + 1 < n && ((unsigned char)text[i + 1] & 0xC0) == 0x80))
            continue;
        found = string_at(m, at);
        *bytes = i + 1;
        if (!m->longest)
            break;
    }
    return found;
}

/* Bytes of the grapheme at text[0..n). */
static size_t grapheme(const char *text, size_t n)
{
    utf8proc_int32_t state = 0;
    uint32_t before, cp;
    size_t at = (size_t)tr_utf8_decode(text, n, &before);

    while (at < n) {
        int k = tr_utf8_decode(text + at, n - at, &cp);

        if (utf8proc_grapheme_break_stateful((utf8proc_int32_t)before, (utf8proc_int32_t)cp,
                                             &state))
            break;
        at += (size_t)k;
        before = cp;
    }
    return at;
}

static int map_chars(const struct tok_charsmap *m, const char *text, size_t n, struct tok_buf *out)
{
    int r = 0;

    for (size_t i = 0, k, of; r == 0 && i < n; i += k) {
        uint32_t cp;
        const char *to;

        k = (size_t)tr_utf8_decode(text + i, n - i, &cp);
        to = find(m, text + i, k, &of);
        r = to ? tok_buf_add(out, to, strlen(to)) : tok_buf_add(out, text + i, k);
    }
    return r;
}

/* One replacement, or one grapheme or character; *k: how much of the text it took. */
static int map_next(const struct tok_charsmap *m, const char *text, size_t n, size_t *k,
                    struct tok_buf *out)
{
    const char *to = NULL;
    uint32_t cp;
    size_t of;

    if (m->longest) {
        to = find(m, text, n < LONGEST_MOST ? n : LONGEST_MOST, k);
        if (!to)
            *k = (size_t)tr_utf8_decode(text, n, &cp);
        return to ? tok_buf_add(out, to, strlen(to)) : tok_buf_add(out, text, *k);
    }
    *k = grapheme(text, n);
    if (*k < GRAPHEME_MOST)
        to = find(m, text, *k, &of);
    return to ? tok_buf_add(out, to, strlen(to)) : map_chars(m, text, *k, out);
}

int tok_charsmap_run(const struct tok_charsmap *m, struct tok_buf *b, size_t most)
{
    struct tok_buf out = {0};
    int r = tok_buf_add(&out, "", 0);

    for (size_t i = 0, k = 0; r == 0 && i < b->n; i += k) {
        r = map_next(m, b->v + i, b->n - i, &k, &out);
        if (r == 0 && out.n > most)
            r = tr_error(-EFBIG, "the normalizer makes %zu bytes of text too long", b->n);
    }
    tok_buf_free(r < 0 ? &out : b);
    if (r == 0)
        *b = out;
    return r;
}
