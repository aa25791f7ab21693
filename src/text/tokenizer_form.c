/* SPDX-License-Identifier: Apache-2.0
 *
 * Unicode normal forms. utf8proc knows how a character falls apart and which ones compose; the
 * ordering of marks is done here, because utf8proc's takes quadratic time on a long run of them.
 * Characters that the reference does not know are walls: what is between two of them is normalised
 * by itself.
 */
#include <string.h>

#include <utf8proc.h>

#include "src/base/err.h"
#include "src/base/mem.h"
#include "src/text/tokenizer_parts.h"
#include "src/text/tokenizer_utf8.h"
#include "src/text/unicode.h"

#define LONGEST 32 /* code points of one full decomposition: the longest has 18 */

struct form {
    int32_t *v, *spare; /* (room) */
    size_t n, room;
    int options;
    struct tok_buf *out;
};

static int class_of(int32_t cp)
{
    return cp < 0x300 ? 0 : utf8proc_get_property(cp)->combining_class;
}

/* Stable, by counting: linear for any run. */
static void order_run(int32_t *v, size_t n, int32_t *spare)
{
    size_t count[257] = {0};

    for (size_t i = 0; i < n; i++)
        count[class_of(v[i]) + 1]++;
    for (int c = 0; c < 256; c++)
        count[c + 1] += count[c];
    for (size_t i = 0; i < n; i++)
        spare[count[class_of(v[i])]++] = v[i];
    memcpy(v, spare, n * sizeof(*v));
}

static void order(struct form *f)
{
    size_t from = 0;

    for (size_t i = 0; i <= f->n; i++) {
        if (i < f->n && class_of(f->v[i]))
            continue;
        if (i - from > 1)
            order_run(f->v + from, i - from, f->spare);
        from = i + 1;
    }
}

/* Writes out what was gathered. */
static int finish(struct form *f)
{
    ptrdiff_t n = (ptrdiff_t)f->n;
    int r = 0;

    order(f);
    if (f->options & UTF8PROC_COMPOSE)
        n = utf8proc_normalize_utf32(f->v, n, (utf8proc_option_t)f->options);
    if (n < 0)
        return tr_error(-EINVAL, "cannot normalise a text: %s", utf8proc_errmsg(n));
    for (ptrdiff_t i = 0; r == 0 && i < n; i++) {
        char c[4];
        int k = tr_utf8_encode((uint32_t)f->v[i], c);

        r = tok_buf_add(f->out, c, (size_t)k);
    }
    f->n = 0;
    return r;
}

static int grow(struct form *f)
{
    size_t room = f->room ? f->room * 2 : 256;
    int32_t *v = tr_realloc(TR_MEM_TEXT, f->v, room * sizeof(*v));

    if (!v)
        return -ENOMEM;
    f->v = v;
    v = tr_realloc(TR_MEM_TEXT, f->spare, room * sizeof(*v));
    if (!v)
        return -ENOMEM;
    f->spare = v;
    f->room = room;
    return 0;
}

static int gather(struct form *f, uint32_t cp)
{
    int options = (f->options & ~UTF8PROC_COMPOSE) | UTF8PROC_DECOMPOSE, last = 0;
    ptrdiff_t k;

    if (f->room - f->n < LONGEST) {
        int r = grow(f);

        if (r < 0)
            return r;
    }
    k = utf8proc_decompose_char((utf8proc_int32_t)cp, f->v + f->n, LONGEST,
                                (utf8proc_option_t)options, &last);
    if (k < 0 || k > LONGEST)
        return tr_error(-EINVAL, "cannot normalise U+%04X", cp);
    f->n += (size_t)k;
    return 0;
}

/* A wall ends what stands before it, and is itself never changed. */
static int add(struct form *f, const char *text, size_t n, uint32_t cp)
{
    int r;

    if (cp < 0x300 || !tr_unicode_is_opaque(cp))
        return gather(f, cp);
    r = finish(f);
    return r < 0 ? r : tok_buf_add(f->out, text, n);
}

/* 1 where every character is below U+0300 and composed: NFC leaves such a text alone. */
static int is_plain(const struct tok_buf *b, int options)
{
    int most = options == (UTF8PROC_STABLE | UTF8PROC_COMPOSE) ? 0xCB : 0x7F;

    for (size_t i = 0; i < b->n; i++)
        if ((unsigned char)b->v[i] > most)
            return 0;
    return 1;
}

int tok_normal_form(enum tok_form form, struct tok_buf *b)
{
    static const int options[] = {
        [TOK_NFC] = UTF8PROC_STABLE | UTF8PROC_COMPOSE,
        [TOK_NFD] = UTF8PROC_STABLE,
        [TOK_NFKC] = UTF8PROC_STABLE | UTF8PROC_COMPOSE | UTF8PROC_COMPAT,
        [TOK_NFKD] = UTF8PROC_STABLE | UTF8PROC_COMPAT,
    };
    struct tok_buf out = {0};
    struct form f = {.options = options[form], .out = &out};
    int r;

    if (is_plain(b, f.options))
        return 0;
    r = tok_buf_add(&out, "", 0);
    for (size_t i = 0; r == 0 && i < b->n;) {
        uint32_t cp = 0;
        int k = tr_utf8_decode(b->v + i, b->n - i, &cp);

        k = k < 0 ? -k : k;
        r = add(&f, b->v + i, (size_t)k, cp);
        i += (size_t)k;
    }
    if (r == 0)
        r = finish(&f);
    tr_free(TR_MEM_TEXT, f.v);
    tr_free(TR_MEM_TEXT, f.spare);
    tok_buf_free(r < 0 ? &out : b);
    if (r == 0)
        *b = out;
    return r;
}
