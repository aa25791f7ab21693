/* SPDX-License-Identifier: Apache-2.0
 *
 * A small strict reader of the one protobuf message there is: pieces with scores and kinds, and
 * what trainer and normalizer say. Unknown fields are stepped over, as protobuf wants it; a field
 * that does not end where its message does is an error.
 *
 * Merges are not in the file. Sentencepiece joins the neighbours whose join has the highest score;
 * every way to cut a piece into two others is therefore a merge, in the order of scores. Unigram
 * needs the scores alone; there a piece that the user asked for takes part with the score that
 * sentencepiece gives it, so that it is met inside a text as there.
 */
#include "src/text/sentencepiece.h"

#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "src/base/err.h"
#include "src/base/json.h"
#include "src/base/mem.h"
#include "src/text/tokenizer_parts.h"

#define SPACE "\xE2\x96\x81"

/* Real models have two or three merges a piece. A piece of n characters could have n - 1, each of
 * which takes some hundred bytes while the model is read. */
#define MERGES_OF_PIECE 16
#define MERGES_FREE     4096 /* of a small model */
#define MERGES_MOST     (1 << 21)

enum { KIND_NORMAL = 1, KIND_UNKNOWN, KIND_CONTROL, KIND_USER, KIND_UNUSED, KIND_BYTE };

struct field {
    uint32_t number, wire;
    uint64_t value;
    const unsigned char *v; /* of a string or message: value bytes */
};

struct reader {
    const unsigned char *p, *end;
};

struct merge {
    float score;
    uint32_t whole, left, right; /* ids */
};

struct spm {
    const char *where;
    json_t *vocab, *added;
    float *score; /* (room) of each piece, by id; NAN: the user's; -INFINITY: in no text */
    size_t n, room;
    struct merge *merge;
    size_t n_merges, merge_room;
    json_t *merges; /* of a BPE */
    uint64_t model, bos, unk;
    int dummy_prefix, trims, escapes, suffix, bytes, users;
    struct field charsmap;
};

static int read_varint(struct reader *r, uint64_t *out)
{
    *out = 0;
    for (int shift = 0; shift < 64 && r->p < r->end; shift += 7) {
        unsigned char b = *r->p++;

        *out |= (uint64_t)(b & 0x7F) << shift;
        if (!(b & 0x80))
            return 0;
    }
    return -EINVAL;
}

/* 1 with the next field, 0 at the end. */
static int read_field(struct reader *r, struct field *f)
{
    static const uint64_t fixed[] = {[1] = 8, [5] = 4};
    uint64_t tag;

    if (r->p == r->end)
        return 0;
    if (read_varint(r, &tag) < 0 || tag >> 3 == 0 || tag >> 3 > 0x1FFFFFFF)
        return -EINVAL;
    f->number = (uint32_t)(tag >> 3);
    f->wire = tag & 7;
    if (f->wire != 1 && f->wire != 5)
        if (f->wire > 2 || read_varint(r, &f->value) < 0)
            return -EINVAL;
    if (f->wire == 0)
        return 1;
    if (f->wire != 2)
        f->value = fixed[f->wire];
    if (f->value > (uint64_t)(r->end - r->p))
        return -EINVAL;
    f->v = r->p;
    r->p += f->value;
    return 1;
}

static int grow(void *array, size_t *room, size_t size)
{
    size_t more = *room ? *room * 2 : 1024;
    void **p = array, *q = tr_realloc(TR_MEM_TEXT, *p, more * size);

    if (!q)
        return -ENOMEM;
    *p = q;
    *room = more;
    return 0;
}

static int broken(const struct spm *s)
{
    return tr_error(-EINVAL, "%s: not a sentencepiece model (piece %zu)", s->where, s->n);
}

static int add_token(struct spm *s, const char *text, size_t id, int special)
{
    tr_json_append(&s->added, json_pack("{s:I,s:s,s:b,s:b}", "id", (json_int_t)id, "content", text,
                                        "special", special, "normalized", 0));
    return s->added ? 0 : tr_error(-ENOMEM, "%s: out of memory", s->where);
}

/* A piece that a text can hold becomes part of the vocabulary under its place in the file. */
static int add_piece(struct spm *s, const char *text, size_t bytes, float score, uint64_t kind)
{
    char name[TOK_STRING_MOST + 1];

    if (!bytes || bytes > TOK_STRING_MOST || memchr(text, 0, bytes) || s->n == TOK_ID_LIMIT)
        return broken(s);
    memcpy(name, text, bytes);
    name[bytes] = 0;
    if (json_object_get(s->vocab, name))
        return tr_error(-EINVAL, "%s: the piece \"%.64s\" stands there twice", s->where, name);
    if (json_object_set_new(s->vocab, name, json_integer((json_int_t)s->n)) < 0)
        return broken(s);
    if (s->n == s->room && grow(&s->score, &s->room, sizeof(*s->score)) < 0)
        return -ENOMEM;
    s->bytes |= kind == KIND_BYTE;
    if (kind == KIND_UNKNOWN)
        s->unk = s->n;
    s->users |= kind == KIND_USER;
    s->score[s->n++] = kind == KIND_NORMAL ? score : kind == KIND_USER ? NAN : -INFINITY;
    if (kind == KIND_NORMAL || kind == KIND_BYTE || kind == KIND_UNUSED)
        return 0;
    return add_token(s, name, s->n - 1, kind != KIND_USER);
}

static int read_piece(struct spm *s, const struct field *in)
{
    struct reader r = {in->v, in->v + in->value};
    struct field f, text = {0};
    uint64_t kind = KIND_NORMAL;
    float score = 0;
    int e;

    while ((e = read_field(&r, &f)) > 0) {
        if (f.number == 1 && f.wire == 2)
            text = f;
        else if (f.number == 2 && f.wire == 5)
            memcpy(&score, f.v, sizeof(score));
        else if (f.number == 3 && f.wire == 0)
            kind = f.value;
    }
    if (e < 0 || !text.v || isnan(score)) /* which stands for "of the user" here */
        return broken(s);
    return add_piece(s, (const char *)text.v, text.value, score, kind);
}

static int read_trainer(struct spm *s, const struct field *in)
{
    struct reader r = {in->v, in->v + in->value};
    struct field f;
    int e;

    while ((e = read_field(&r, &f)) > 0) {
        if (f.wire)
            continue;
        if (f.number == 3)
            s->model = f.value;
        else if (f.number == 24)
            s->suffix = f.value != 0;
        else if (f.number == 41)
            s->bos = f.value;
    }
    return e < 0 ? broken(s) : 0;
}

static int read_normalizer(struct spm *s, const struct field *in)
{
    struct reader r = {in->v, in->v + in->value};
    struct field f;
    int e;

    while ((e = read_field(&r, &f)) > 0) {
        if (f.number == 2 && f.wire == 2)
            s->charsmap = f;
        else if (f.number == 3 && f.wire == 0)
            s->dummy_prefix = f.value != 0;
        else if (f.number == 4 && f.wire == 0)
            s->trims = f.value != 0;
        else if (f.number == 5 && f.wire == 0)
            s->escapes = f.value != 0;
    }
    return e < 0 ? broken(s) : 0;
}

static int read_model(struct spm *s, const char *model, size_t bytes)
{
    struct reader r = {(const unsigned char *)model, (const unsigned char *)model + bytes};
    struct field f;
    int e;

    while ((e = read_field(&r, &f)) > 0) {
        if (f.wire != 2)
            continue;
        e = f.number == 1   ? read_piece(s, &f)
            : f.number == 2 ? read_trainer(s, &f)
            : f.number == 3 ? read_normalizer(s, &f)
                            : 0;
        if (e < 0)
            return e;
    }
    return e < 0 || !s->n ? broken(s) : 0;
}

/* Each would give other ids without a word. Added tokens of a BPE cut the text before its spaces
 * are trimmed, sentencepiece's after. */
static int refuse(const struct spm *s)
{
    static const char *const kinds[] = {"unknown", "Unigram", "BPE", "Word", "Char"};

    if (s->model != 1 && s->model != 2)
        return tr_error(
            -ENOTSUP, "%s: a sentencepiece model of kind %s is not supported, only BPE and Unigram",
            s->where, kinds[s->model < 5 ? s->model : 0]);
    if (!s->escapes || s->suffix)
        return tr_error(-ENOTSUP, "%s: sentencepiece with %s is not supported", s->where,
                        s->suffix ? "treat_whitespace_as_suffix" : "escape_whitespaces off");
    if (s->model == 1 && s->unk >= s->n)
        return tr_error(-EINVAL, "%s: a sentencepiece Unigram without an unknown piece", s->where);
    if (s->model == 2 && s->trims && s->users)
        return tr_error(-ENOTSUP,
                        "%s: a sentencepiece BPE with remove_extra_whitespaces and user-defined "
                        "pieces is not supported",
                        s->where);
    return 0;
}

static int add_merge(struct spm *s, const struct merge *m)
{
    if (s->n_merges == MERGES_MOST || s->n_merges == MERGES_OF_PIECE * s->n + MERGES_FREE)
        return tr_error(-E2BIG, "%s: %zu pieces with more than %zu ways to join them is too many",
                        s->where, s->n, s->n_merges);
    if (s->n_merges == s->merge_room && grow(&s->merge, &s->merge_room, sizeof(*s->merge)) < 0)
        return -ENOMEM;
    s->merge[s->n_merges++] = *m;
    return 0;
}

/* All cuts of one piece. */
static int cut_piece(struct spm *s, const char *piece, uint32_t id)
{
    size_t n = strlen(piece);
    char left[TOK_STRING_MOST + 1];
    int r = 0;

    memcpy(left, piece, n + 1);
    for (size_t i = 1; i < n && r == 0; i++) {
        json_t *a, *b = json_object_get(s->vocab, piece + i);

        if (!b || ((unsigned char)piece[i] & 0xC0) == 0x80)
            continue;
        left[i] = 0;
        a = json_object_get(s->vocab, left);
        left[i] = piece[i];
        if (a)
            r = add_merge(s, &(struct merge){s->score[id], id, (uint32_t)json_integer_value(a),
                                             (uint32_t)json_integer_value(b)});
    }
    return r;
}

/* The cuts of one piece stand together, the one with the lowest left id first. */
static int by_score(const void *a, const void *b)
{
    const struct merge *x = a, *y = b;

    if (x->score != y->score)
        return x->score > y->score ? -1 : 1;
    if (x->whole != y->whole)
        return x->whole < y->whole ? -1 : 1;
    return x->left < y->left ? -1 : x->left > y->left;
}

/* Both names of every merge; a name is made once. */
static json_t *name_merges(const struct spm *s)
{
    json_t *list = json_array(), *names = json_array(), *id;
    const char *piece;

    json_object_foreach(s->vocab, piece, id) /* in the order of ids */
        tr_json_append(&names, json_string(piece));
    for (size_t i = 0; i < s->n_merges; i++)
        tr_json_append(&list, json_pack("[O,O]", json_array_get(names, s->merge[i].left),
                                        json_array_get(names, s->merge[i].right)));
    json_decref(names);
    return list;
}

static int make_merges(struct spm *s)
{
    const char *piece;
    json_t *id;
    int r = 0;

    json_object_foreach(s->vocab, piece, id) {
        uint32_t i = (uint32_t)json_integer_value(id);

        if (r == 0 && s->score[i] > -INFINITY)
            r = cut_piece(s, piece, i);
    }
    if (r < 0)
        return r;
    if (s->n_merges)
        qsort(s->merge, s->n_merges, sizeof(*s->merge), by_score);
    s->merges = name_merges(s);
    return s->merges ? 0 : tr_error(-ENOMEM, "%s: out of memory", s->where);
}

/* "added_tokens_decoder": {"32000": {"content": ...}}; what the model has is there already. */
static int add_config(struct spm *s, json_t *config)
{
    const char *key;
    json_t *v;

    json_object_foreach(json_object_get(config, "added_tokens_decoder"), key, v) {
        char *end;
        long id = strtol(key, &end, 10);
        json_t *token;

        if (*end || id < 0 || id >= TOK_ID_LIMIT || !json_is_object(v))
            return tr_error(-EINVAL,
                            "%s: tokenizer_config: \"added_tokens_decoder\" has a bad \"%.32s\"",
                            s->where, key);
        if ((size_t)id < s->n)
            continue;
        token = tr_json_copy(v);
        tr_json_add(&token, "id", json_integer(id));
        tr_json_append(&s->added, token);
    }
    return s->added ? 0 : tr_error(-ENOMEM, "%s: out of memory", s->where);
}

static json_t *replace(const char *kind, const char *a, const char *b)
{
    return json_pack("{s:s,s:{s:s},s:s}", "type", "Replace", "pattern", kind, a, "content", b);
}

static json_t *charsmap(const struct spm *s)
{
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    const unsigned char *p = s->charsmap.v;
    size_t n = s->charsmap.value;
    struct tok_buf text = {0};
    json_t *out;
    int r = tok_buf_add(&text, "", 0);

    for (size_t i = 0; r == 0 && i < n; i += 3) {
        uint32_t bits =
            (uint32_t)p[i] << 16 | (i + 1 < n ? p[i + 1] << 8 : 0) | (i + 2 < n ? p[i + 2] : 0);

        for (size_t k = 0; r == 0 && k < 4 && i + k <= n; k++)
            r = tok_buf_add(&text, &digits[bits >> (18 - 6 * k) & 63], 1);
    }
    out = r < 0 ? NULL
                : json_pack("{s:s,s:s,s:b}", "type", "Precompiled", "precompiled_charsmap", text.v,
                            "longest", 1);
    tok_buf_free(&text);
    return out;
}

static json_t *strip(const char *side, const char *what)
{
    return json_pack("{s:s,s:b,s:s}", "type", "Strip", side, 1, "content", what);
}

/* At the end a "▁" of the text itself goes too. */
static json_t *normalizer(const struct spm *s)
{
    json_t *list = json_array();

    if (s->charsmap.value)
        tr_json_append(&list, charsmap(s));
    if (s->trims) {
        tr_json_append(&list, replace("Regex", " {2,}", " "));
        tr_json_append(&list, strip("strip_left", " "));
    }
    if (s->dummy_prefix)
        tr_json_append(&list, json_pack("{s:s,s:s}", "type", "Prepend", "prepend", SPACE));
    tr_json_append(&list, replace("String", " ", SPACE));
    if (s->trims)
        tr_json_append(&list, strip("strip_right", SPACE));
    return json_pack("{s:s,s:o}", "type", "Sequence", "normalizers", list);
}

/* Where no piece reaches over a space, words can be cut there: the same ids, but found word by
 * word.
 */
static json_t *pre_tokenizer(const struct spm *s)
{
    const char *piece;
    json_t *id;

    json_object_foreach(s->vocab, piece, id) {
        float score = s->score[json_integer_value(id)];

        if (score != -INFINITY && strstr(piece + 1, SPACE))
            return json_null();
    }
    return s->model == 2 ? json_null()
                         : json_pack("{s:s,s:s,s:s}", "type", "Metaspace", "replacement", SPACE,
                                     "prepend_scheme", "never");
}

static json_t *decoder(const struct spm *s)
{
    json_t *steps = json_pack("[o,{s:s},{s:s}]", replace("String", SPACE, " "), "type",
                              "ByteFallback", "type", "Fuse");

    if (s->dummy_prefix || s->trims)
        tr_json_append(&steps, json_pack("{s:s,s:s,s:i,s:i}", "type", "Strip", "content", " ",
                                         "start", s->trims ? 1 << 20 : 1, "stop", 0));
    return json_pack("{s:s,s:o}", "type", "Sequence", "decoders", steps);
}

/* BOS stands before a text unless the configuration says otherwise. */
static json_t *template(const struct spm *s, json_t *config)
{
    if (json_is_false(json_object_get(config, "add_bos_token")) || s->bos >= s->n)
        return json_null();
    return json_pack("{s:s,s:[{s:{s:s}},{s:{s:s}}],s:{s:{s:[I]}}}", "type", "TemplateProcessing",
                     "single", "SpecialToken", "id", "bos", "Sequence", "id", "A", "special_tokens",
                     "bos", "ids", (json_int_t)s->bos);
}

static const char *unk_name(const struct spm *s)
{
    const char *piece;
    json_t *id;

    json_object_foreach(s->vocab, piece, id) {
        if ((uint64_t)json_integer_value(id) == s->unk)
            return piece;
    }
    return NULL;
}

static json_t *bpe(struct spm *s)
{
    return json_pack("{s:s,s:s?,s:b,s:b,s:O,s:O}", "type", "BPE", "unk_token", unk_name(s),
                     "fuse_unk", 1, "byte_fallback", s->bytes, "vocab", s->vocab, "merges",
                     s->merges);
}

static float highest_score(const struct spm *s)
{
    float most = -INFINITY;

    for (size_t i = 0; i < s->n; i++)
        most = fmaxf(most, s->score[i]);
    return most;
}

/* Pieces of the user are no added tokens here; their score is sentencepiece's, by which they are
 * chosen nearly always. */
static json_t *unigram(struct spm *s)
{
    json_t *vocab = json_array(), *id;
    float most = highest_score(s);
    const char *piece;

    json_object_foreach(s->vocab, piece, id) {
        double score = s->score[json_integer_value(id)];

        if (isnan(score))
            score = (double)((float)strlen(piece) * most) - 0.1;
        tr_json_append(&vocab, isfinite(score) ? json_pack("[s,f]", piece, score)
                                               : json_pack("[s,n]", piece));
    }
    for (size_t i = json_array_size(s->added); i-- > 0;)
        if (json_is_false(json_object_get(json_array_get(s->added, i), "special")))
            json_array_remove(s->added, i);
    return json_pack("{s:s,s:o,s:b,s:o}", "type", "Unigram", "unk_id",
                     json_integer((json_int_t)s->unk), "byte_fallback", s->bytes, "vocab", vocab);
}

static int convert(struct spm *s, json_t *config, json_t **out)
{
    json_t *model = s->model == 2 ? bpe(s) : unigram(s);
    int r = model ? add_config(s, config) : tr_error(-ENOMEM, "%s: out of memory", s->where);

    if (r < 0) {
        json_decref(model);
        return r;
    }
    *out = json_pack("{s:O,s:o,s:o,s:o,s:o,s:o}", "added_tokens", s->added, "normalizer",
                     normalizer(s), "pre_tokenizer", pre_tokenizer(s), "decoder", decoder(s),
                     "post_processor", template(s, config), "model", model);
    return *out ? 0 : tr_error(-ENOMEM, "%s: out of memory", s->where);
}

int tr_sentencepiece_convert(const char *model, size_t bytes, json_t *config, const char *where,
                             json_t **out)
{
    struct spm s = {.where = where,
                    .vocab = json_object(),
                    .added = json_array(),
                    .model = 1,
                    .bos = 1,
                    .unk = UINT64_MAX,
                    .dummy_prefix = 1,
                    .trims = 1,
                    .escapes = 1};
    int r = s.vocab && s.added ? read_model(&s, model, bytes) : -ENOMEM;

    if (r == 0)
        r = refuse(&s);
    if (r == 0 && s.model == 2)
        r = make_merges(&s);
    if (r == 0)
        r = convert(&s, config, out);
    json_decref(s.vocab);
    json_decref(s.added);
    json_decref(s.merges);
    tr_free(TR_MEM_TEXT, s.score);
    tr_free(TR_MEM_TEXT, s.merge);
    return r;
}
