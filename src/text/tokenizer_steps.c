/* SPDX-License-Identifier: Apache-2.0
 *
 * The components of tokenizer.json around the model: normalizer and decoder (the pre_tokenizer is
 * tokenizer_pre_load.c's). Each becomes a short list of steps; a kind that is not known here is
 * refused by its name, never skipped.
 */
#include "src/text/tokenizer_parts.h"

#include <string.h>

#include "src/base/err.h"
#include "src/base/mem.h"
#include "src/text/tokenizer_utf8.h"

#define DEPTH 8 /* of Sequence inside Sequence */

struct reader {
    const char *where, *what; /* "normalizer" */
    struct tok_steps *steps;
    int (*read)(struct reader *r, json_t *o, const char *type);
};

void tok_steps_free(struct tok_steps *s)
{
    for (int i = 0; i < s->n; i++) {
        tr_free(TR_MEM_TEXT, s->v[i].a);
        tr_free(TR_MEM_TEXT, s->v[i].b);
        tr_regex_close(s->v[i].regex);
        tok_charsmap_free(&s->v[i].map);
    }
    s->n = 0;
}

static int unsupported(const struct reader *r, const char *type)
{
    return tr_error(-ENOTSUP, "%s: %s: \"%.64s\" is not supported", r->where, r->what, type);
}

/* A fixed number of steps: real files have a handful, and a list that grows would have to be
 * bounded all the same. */
static struct tok_step *add_step(struct reader *r, enum tok_step_kind kind)
{
    struct tok_step *s;

    if (r->steps->n == TOK_STEPS) {
        tr_error(-ENOTSUP, "%s: %s: more than %d steps", r->where, r->what, TOK_STEPS);
        return NULL;
    }
    s = &r->steps->v[r->steps->n++];
    memset(s, 0, sizeof(*s));
    s->kind = kind;
    return s;
}

static int copy_text(struct reader *r, json_t *o, const char *key, char **out, size_t *bytes)
{
    const char *s;
    int e = tok_get_text(o, key, r->where, &s, bytes);

    if (e < 0)
        return e;
    *out = tr_strdup(TR_MEM_TEXT, s);
    return *out ? 0 : -ENOMEM;
}

static int read_decoder(struct reader *r, json_t *o, const char *type);

static int read_prepend(struct reader *r, json_t *o)
{
    struct tok_step *s = add_step(r, TOK_PREPEND);

    return s ? copy_text(r, o, "prepend", &s->a, &s->a_bytes) : -ENOTSUP;
}

/* The expression stays in s->a: tokenizer_cut.c knows one. */
static int read_regex(struct reader *r, json_t *pattern, struct tok_step *s)
{
    int e = copy_text(r, pattern, "Regex", &s->a, &s->a_bytes);

    if (e < 0)
        return e;
    e = tr_regex_open(&s->regex, s->a, s->a_bytes);
    return e < 0 ? tr_error_prefix(e, "%s: %s", r->where, r->what) : 0;
}

static int read_replace(struct reader *r, json_t *o)
{
    json_t *pattern = json_object_get(o, "pattern");
    int regex = json_object_get(pattern, "Regex") != NULL, e;
    struct tok_step *s;

    if (regex && r->read == read_decoder)
        return unsupported(r, "Replace with a Regex");
    s = add_step(r, TOK_REPLACE);
    if (!s)
        return -ENOTSUP;
    e = regex ? read_regex(r, pattern, s) : copy_text(r, pattern, "String", &s->a, &s->a_bytes);
    if (e == 0 && !s->a_bytes)
        e = tr_error(-EINVAL, "%s: %s: Replace has an empty pattern", r->where, r->what);
    return e < 0 ? e : copy_text(r, o, "content", &s->b, &s->b_bytes);
}

/* The value of `key` must be exactly one character. */
static int read_char(struct reader *r, json_t *o, const char *key, struct tok_step *s)
{
    uint32_t cp;
    int e = copy_text(r, o, key, &s->a, &s->a_bytes);

    if (e < 0)
        return e;
    if (!s->a_bytes || (size_t)tr_utf8_decode(s->a, s->a_bytes, &cp) != s->a_bytes)
        return tr_error(-EINVAL, "%s: %s: \"%s\" must be one character", r->where, r->what, key);
    return 0;
}

static int read_strip(struct reader *r, json_t *o)
{
    struct tok_step *s = add_step(r, TOK_STRIP);
    int e = s ? read_char(r, o, "content", s) : -ENOTSUP;

    if (e == 0)
        e = tok_get_count(o, "start", 1 << 20, r->where, &s->start);
    return e < 0 ? e : tok_get_count(o, "stop", 1 << 20, r->where, &s->stop);
}

/* The decoder's scheme says only whether a first "▁" was put there and has to go. */
static int read_metaspace_decoder(struct reader *r, json_t *o)
{
    struct tok_step *s = add_step(r, TOK_METASPACE);
    enum tok_prefix prefix;
    int e = s ? read_char(r, o, "replacement", s) : -ENOTSUP;

    if (e == 0)
        e = tok_get_prefix(o, r->where, r->what, &prefix);
    if (e == 0)
        s->keep_first = prefix == TOK_PREFIX_NEVER;
    return e;
}

static int read_form(struct reader *r, enum tok_form form)
{
    struct tok_step *s = add_step(r, TOK_FORM);

    if (!s)
        return -ENOTSUP;
    s->form = form;
    return 0;
}

/* null is a table without replacements; "longest" is sentencepiece.c's. */
static int read_charsmap(struct reader *r, json_t *o)
{
    json_t *v = json_object_get(o, "precompiled_charsmap");
    struct tok_step *s;

    if (json_is_null(v) || (json_is_string(v) && !json_string_length(v)))
        return 0;
    if (!json_is_string(v))
        return tr_error(-EINVAL, "%s: %s: \"precompiled_charsmap\" must be a string", r->where,
                        r->what);
    s = add_step(r, TOK_CHARSMAP);
    if (s)
        s->map.longest = json_is_true(json_object_get(o, "longest"));
    return s ? tok_charsmap_load(&s->map, r->where, json_string_value(v), json_string_length(v))
             : -ENOTSUP;
}

/* "content" is sentencepiece.c's: only that one goes. */
static int read_trim(struct reader *r, json_t *o)
{
    struct tok_step *s = add_step(r, TOK_TRIM);
    int left = 0, right = 0, e;

    if (!s)
        return -ENOTSUP;
    e = tok_get_flag(o, "strip_left", 0, r->where, &left);
    if (e == 0)
        e = tok_get_flag(o, "strip_right", 0, r->where, &right);
    s->start = (size_t)left;
    s->stop = (size_t)right;
    return e < 0 || !json_object_get(o, "content") ? e
                                                   : copy_text(r, o, "content", &s->a, &s->a_bytes);
}

static int read_normalizer(struct reader *r, json_t *o, const char *type)
{
    static const char *const forms[] = {
        [TOK_NFC] = "NFC", [TOK_NFD] = "NFD", [TOK_NFKC] = "NFKC", [TOK_NFKD] = "NFKD"};

    for (int i = 0; i < 4; i++)
        if (!strcmp(type, forms[i]))
            return read_form(r, (enum tok_form)i);
    if (!strcmp(type, "Prepend"))
        return read_prepend(r, o);
    if (!strcmp(type, "Replace"))
        return read_replace(r, o);
    if (!strcmp(type, "Precompiled"))
        return read_charsmap(r, o);
    if (!strcmp(type, "Strip"))
        return read_trim(r, o);
    if (!strcmp(type, "Nmt"))
        return add_step(r, TOK_NMT) ? 0 : -ENOTSUP;
    if (!strcmp(type, "Lowercase"))
        return add_step(r, TOK_LOWER) ? 0 : -ENOTSUP;
    if (!strcmp(type, "StripAccents"))
        return add_step(r, TOK_NO_MARKS) ? 0 : -ENOTSUP;
    return unsupported(r, type);
}

static int read_decoder(struct reader *r, json_t *o, const char *type)
{
    if (!strcmp(type, "Replace"))
        return read_replace(r, o);
    if (!strcmp(type, "Strip"))
        return read_strip(r, o);
    if (!strcmp(type, "Metaspace"))
        return read_metaspace_decoder(r, o);
    if (!strcmp(type, "ByteFallback"))
        return add_step(r, TOK_BYTES) ? 0 : -ENOTSUP;
    if (!strcmp(type, "ByteLevel"))
        return add_step(r, TOK_BYTE_LEVEL) ? 0 : -ENOTSUP;
    if (!strcmp(type, "Fuse"))
        return add_step(r, TOK_FUSE) ? 0 : -ENOTSUP;
    return unsupported(r, type);
}

/* `inner` is the key that holds the members of a Sequence. */
static int read_component(struct reader *r, json_t *o, const char *inner, int depth)
{
    json_t *v, *list;
    size_t i;
    int e = 0;

    if (!o || json_is_null(o))
        return 0;
    if (strcmp(tok_type(o), "Sequence"))
        return r->read(r, o, tok_type(o));
    list = json_object_get(o, inner);
    if (!json_is_array(list) || depth == DEPTH)
        return tr_error(-EINVAL, "%s: %s: a Sequence without \"%s\" or too deep", r->where, r->what,
                        inner);
    json_array_foreach(list, i, v) {
        e = read_component(r, v, inner, depth + 1);
        if (e < 0)
            break;
    }
    return e;
}

int tok_load_steps(struct tr_tokenizer *t, const char *where, json_t *root)
{
    struct reader norm = {where, "normalizer", &t->norm, read_normalizer};
    struct reader decode = {where, "decoder", &t->decode, read_decoder};
    json_t *decoder = json_object_get(root, "decoder");
    int e = read_component(&norm, json_object_get(root, "normalizer"), "normalizers", 0);

    t->has_decoder = decoder && !json_is_null(decoder);
    if (e == 0)
        e = tok_pre_load(&t->pre, where, json_object_get(root, "pre_tokenizer"));
    return e < 0 ? e : read_component(&decode, decoder, "decoders", 0);
}
