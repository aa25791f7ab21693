/* SPDX-License-Identifier: Apache-2.0
 *
 * Ids to text: the pieces stand one behind the other in a buffer, and each decoder step makes a new
 * such list of the old one. Linear in the bytes, except that replacements are bounded as when
 * encoding. Unknown ids and special tokens are left out.
 */
#include "src/text/tokenizer_parts.h"

#include <string.h>

#include "src/base/err.h"
#include "src/base/mem.h"
#include "src/text/tokenizer_utf8.h"

#define BLOW_UP 64

/* Pieces: piece i is text[end[i - 1] .. end[i]). */
struct list {
    struct tok_buf text;
    size_t *end, n, room;
};

static void list_free(struct list *l)
{
    tok_buf_free(&l->text);
    tr_free(TR_MEM_TEXT, l->end);
    memset(l, 0, sizeof(*l));
}

/* Everything added to l->text since the last piece becomes a piece. */
static int end_piece(struct list *l)
{
    if (l->n == l->room) {
        size_t room = l->room ? l->room * 2 : 64;
        size_t *end = tr_realloc(TR_MEM_TEXT, l->end, room * sizeof(*end));

        if (!end)
            return -ENOMEM;
        l->end = end;
        l->room = room;
    }
    l->end[l->n++] = l->text.n;
    return 0;
}

static const char *piece(const struct list *l, size_t i, size_t *n)
{
    size_t from = i ? l->end[i - 1] : 0;

    *n = l->end[i] - from;
    return l->text.v + from;
}

static int replace(const struct tok_step *s, const char *p, size_t n, struct list *out)
{
    size_t at = 0;
    int r = 0;

    while (r == 0) {
        size_t k = tok_find(p + at, n - at, s->a, s->a_bytes);

        r = tok_buf_add(&out->text, p + at, k);
        at += k;
        if (r < 0 || at == n)
            break;
        r = tok_buf_add(&out->text, s->b, s->b_bytes);
        at += s->a_bytes;
    }
    return r;
}

static int strip(const struct tok_step *s, const char *p, size_t n, struct list *out)
{
    for (size_t i = 0; i < s->start && n >= s->a_bytes && !memcmp(p, s->a, s->a_bytes); i++) {
        p += s->a_bytes;
        n -= s->a_bytes;
    }
    for (size_t i = 0; i < s->stop && n >= s->a_bytes; i++) {
        if (memcmp(p + n - s->a_bytes, s->a, s->a_bytes) != 0)
            break;
        n -= s->a_bytes;
    }
    return tok_buf_add(&out->text, p, n);
}

/* The replacement becomes a space; in the first piece it goes, unless nothing was put there. */
static int metaspace(const struct tok_step *s, const char *p, size_t n, int drop, struct list *out)
{
    struct tok_step to = *s;

    to.b = drop ? (char[]){""} : (char[]){" "};
    to.b_bytes = !drop;
    return replace(&to, p, n, out);
}

static int hex(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    c |= 0x20;
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* The value of a piece "<0xNN>", or -1. */
static int byte_of(const char *p, size_t n)
{
    if (n != 6 || memcmp(p, "<0x", 3) || p[5] != '>' || hex(p[3]) < 0 || hex(p[4]) < 0)
        return -1;
    return hex(p[3]) << 4 | hex(p[4]);
}

/* Ends a run of bytes: the text they are, or one U+FFFD a byte where they are none. */
static int end_bytes(struct tok_buf *run, struct list *out)
{
    int r = 0, valid = tr_utf8_valid(run->v, run->n) == run->n;

    if (!run->n)
        return 0;
    if (valid)
        r = tok_buf_add(&out->text, run->v, run->n);
    for (size_t i = 0; r == 0 && !valid && i < run->n; i++)
        r = tok_buf_add(&out->text, "\xEF\xBF\xBD", 3);
    run->n = 0;
    return r < 0 ? r : end_piece(out);
}

/* A run of bytes becomes one piece, so that a character may come from several tokens. */
static int join_bytes(const struct list *in, struct list *out)
{
    struct tok_buf run = {0};
    int r = 0;

    for (size_t i = 0; r == 0 && i < in->n; i++) {
        size_t n;
        const char *p = piece(in, i, &n);
        int value = byte_of(p, n);

        if (value >= 0) {
            r = tok_buf_add(&run, &(char){(char)value}, 1);
            continue;
        }
        r = end_bytes(&run, out);
        if (r == 0)
            r = tok_buf_add(&out->text, p, n);
        if (r == 0)
            r = end_piece(out);
    }
    if (r == 0)
        r = end_bytes(&run, out);
    tok_buf_free(&run);
    return r;
}

/* All pieces are bytes of one text; a piece that is not made of their characters (an added token)
 * stands for its own bytes. What is no UTF-8 becomes U+FFFD. */
static int join_byte_level(const struct list *in, struct list *out)
{
    struct tok_buf bytes = {0};
    int r = 0;

    for (size_t i = 0; r == 0 && i < in->n; i++) {
        size_t n, start = bytes.n;
        const char *p = piece(in, i, &n);
        int value = 0;

        for (size_t at = 0; r == 0 && value >= 0 && at < n;) {
            uint32_t cp = 0;
            int k = tr_utf8_decode(p + at, n - at, &cp);

            value = k < 0 ? -1 : tok_char_byte(cp);
            r = value < 0 ? 0 : tok_buf_add(&bytes, &(char){(char)value}, 1);
            at += (size_t)(k < 0 ? -k : k);
        }
        if (value < 0) {
            bytes.n = start;
            r = tok_buf_add(&bytes, p, n);
        }
    }
    if (r == 0)
        r = tok_make_valid(&out->text, bytes.v, bytes.n);
    tok_buf_free(&bytes);
    return r < 0 ? r : end_piece(out);
}

static int each_piece(const struct tok_step *s, const struct list *in, struct list *out)
{
    size_t most = BLOW_UP * (in->text.n + TOK_STRING_MOST);
    int r = 0;

    for (size_t i = 0; r == 0 && i < in->n; i++) {
        size_t n;
        const char *p = piece(in, i, &n);

        if (s->kind == TOK_REPLACE)
            r = replace(s, p, n, out);
        else if (s->kind == TOK_STRIP)
            r = strip(s, p, n, out);
        else
            r = metaspace(s, p, n, i == 0 && !s->keep_first, out);
        if (r == 0)
            r = end_piece(out);
        if (r == 0 && out->text.n > most)
            r = tr_error(-EFBIG, "the decoder makes %zu bytes of text too long", in->text.n);
    }
    return r;
}

static int run_step(const struct tok_step *s, struct list *l)
{
    struct list out = {0};
    int r;

    if (s->kind == TOK_FUSE) {
        l->n = 0;
        return end_piece(l);
    }
    if (s->kind == TOK_BYTES)
        r = join_bytes(l, &out);
    else
        r = s->kind == TOK_BYTE_LEVEL ? join_byte_level(l, &out) : each_piece(s, l, &out);
    if (r == 0)
        r = tok_buf_add(&out.text, "", 0);
    list_free(l);
    *l = out;
    return r;
}

/* What the decoder is given for an id: the form that stood in the normalised text. */
static const char *text_of(const struct tr_tokenizer *t, int32_t id)
{
    const char *p = tr_tokenizer_piece(t, id);
    const struct bpe_map_entry *e;

    if (!p || (t->flags[id] & TOK_SPECIAL))
        return NULL;
    e = bpe_map_find(&t->normal_of, (uint64_t)id);
    return e ? t->added[e->value].normal : p;
}

static int gather(const struct tr_tokenizer *t, const int32_t *ids, size_t n, struct list *l)
{
    int r = tok_buf_add(&l->text, "", 0);

    for (size_t i = 0; r == 0 && i < n; i++) {
        const char *p = text_of(t, ids[i]);

        if (!p)
            continue;
        if (l->n && !t->has_decoder)
            r = tok_buf_add(&l->text, " ", 1); /* as the reference does without a decoder */
        if (r == 0)
            r = tok_buf_add(&l->text, p, strlen(p));
        if (r == 0)
            r = end_piece(l);
    }
    return r;
}

/* What a text that ends with NUL cannot hold stands in it as what cannot be shown. */
static int replace_nuls(char **text, size_t bytes)
{
    struct tok_buf whole = {0};
    int r = 0;

    if (!memchr(*text, 0, bytes))
        return 0;
    for (size_t at = 0; at < bytes && r == 0;) {
        size_t n = strlen(*text + at);

        r = tok_buf_add(&whole, *text + at, n);
        at += n + 1;
        if (r == 0 && at <= bytes)
            r = tok_buf_add(&whole, "\xEF\xBF\xBD", 3);
    }
    tr_free(TR_MEM_TEXT, *text);
    *text = whole.v;
    return r;
}

int tr_tokenizer_decode(const struct tr_tokenizer *t, const int32_t *ids, size_t n, char **out)
{
    size_t bytes;
    int r = tr_tokenizer_decode_bytes(t, ids, n, out, &bytes);

    return r == 0 ? replace_nuls(out, bytes) : r;
}

int tr_tokenizer_decode_bytes(const struct tr_tokenizer *t, const int32_t *ids, size_t n,
                              char **out, size_t *bytes)
{
    struct list l = {0};
    int r = gather(t, ids, n, &l);

    for (int i = 0; r == 0 && i < t->decode.n; i++)
        r = run_step(&t->decode.v[i], &l);
    if (r == 0) {
        *out = l.text.v;
        *bytes = l.text.n;
        l.text.v = NULL;
    }
    list_free(&l);
    return r;
}
