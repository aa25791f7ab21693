/* SPDX-License-Identifier: Apache-2.0
 *
 * The `model` of tokenizer.json: vocabulary and merges, checked entry by entry (invariant 9). An id
 * out of range or given twice, a merge of unknown pieces, a model of another kind: an error naming
 * it. Memory is bounded by TOK_ID_LIMIT and by the size of the file.
 */
#include "src/text/tokenizer_parts.h"

#include <stdio.h>
#include <string.h>

#include "src/base/err.h"
#include "src/base/mem.h"
#include "src/text/tokenizer_utf8.h"

int32_t tok_piece_id(const struct tr_tokenizer *t, const char *text, size_t bytes)
{
    return (int32_t)bpe_names_find(&t->names, text, bytes);
}

static const char *piece_name(const void *owner, uint32_t value, size_t *bytes)
{
    const struct tr_tokenizer *t = owner;

    *bytes = strlen(t->piece[value]);
    return t->piece[value];
}

/* "-3", "1.5", "null" ... for messages. */
static int bad_id(const char *where, const char *piece, json_t *v)
{
    if (json_is_integer(v))
        return tr_error(-EINVAL, "%s: the id of \"%.64s\", %lld, is not between 0 and %d", where,
                        piece, (long long)json_integer_value(v), TOK_ID_LIMIT - 1);
    return tr_error(-EINVAL, "%s: the id of \"%.64s\" is not a number", where, piece);
}

static int check_id(const char *where, const char *piece, json_t *v)
{
    if (!json_is_integer(v) || json_integer_value(v) < 0 || json_integer_value(v) >= TOK_ID_LIMIT)
        return bad_id(where, piece, v);
    return 0;
}

/* The largest id decides the size of the tables, added tokens included. */
/* Done before anything is allocated by id. The tables take as much as the largest id says, which is
 * why TOK_ID_LIMIT is not far above the largest vocabularies there are. */
static int measure(struct tr_tokenizer *t, const char *where, json_t *vocab, json_t *added)
{
    const char *key;
    json_t *v;
    size_t i;
    json_int_t most = -1;
    int r;

    json_object_foreach(vocab, key, v)
    {
        r = check_id(where, key, v);
        if (r < 0)
            return r;
        most = json_integer_value(v) > most ? json_integer_value(v) : most;
    }
    json_array_foreach(added, i, v)
    {
        json_t *id = json_object_get(v, "id");
        const char *text = json_string_value(json_object_get(v, "content"));

        r = check_id(where, text ? text : "added token", id);
        if (r < 0)
            return r;
        most = json_integer_value(id) > most ? json_integer_value(id) : most;
    }
    t->vocab = (int32_t)(most + 1);
    t->piece = tr_alloc_array(TR_MEM_TEXT, (size_t)t->vocab, sizeof(*t->piece));
    t->flags = tr_alloc(TR_MEM_TEXT, (size_t)t->vocab);
    return t->piece && t->flags ? 0 : -ENOMEM;
}

/* One-character pieces are what a text is first made of; they are found by code point, not by hash.
 */
static int add_char(struct tr_tokenizer *t, const char *text, size_t bytes, int32_t id)
{
    uint32_t cp;

    if (!bytes || (size_t)tr_utf8_decode(text, bytes, &cp) != bytes)
        return 0;
    if (!t->page[cp / TOK_PAGE])
        t->page[cp / TOK_PAGE] = tr_alloc_array(TR_MEM_TEXT, TOK_PAGE, sizeof(int32_t));
    if (!t->page[cp / TOK_PAGE])
        return -ENOMEM;
    t->page[cp / TOK_PAGE][cp % TOK_PAGE] = id + 1;
    return 0;
}

/* Two pieces of one id would decode to one of them; two ids of one piece cannot be (JSON keys). */
static int load_vocab(struct tr_tokenizer *t, const char *where, json_t *vocab)
{
    const char *key;
    json_t *v;
    int r = bpe_map_reserve(&t->names.map, json_object_size(vocab));

    t->names.name = piece_name;
    t->names.owner = t;
    json_object_foreach(vocab, key, v)
    {
        int32_t id = (int32_t)json_integer_value(v);

        if (r == 0 && t->piece[id])
            r = tr_error(-EINVAL, "%s: \"%.64s\" and \"%.64s\" have the same id %d", where,
                         t->piece[id], key, id);
        if (r < 0)
            return r;
        t->piece[id] = tr_strdup(TR_MEM_TEXT, key);
        r = t->piece[id] ? bpe_names_add(&t->names, key, strlen(key), (uint32_t)id) : -ENOMEM;
        if (r == 0)
            r = add_char(t, key, strlen(key), id);
    }
    return r;
}

/* Finds the two halves of merge i: "a b" or ["a", "b"]. */
static int read_merge(json_t *v, const char *half[2], size_t bytes[2])
{
    const char *s = json_string_value(v), *gap;

    if (json_is_array(v) && json_array_size(v) == 2) {
        for (int k = 0; k < 2; k++) {
            half[k] = json_string_value(json_array_get(v, (size_t)k));
            bytes[k] = json_string_length(json_array_get(v, (size_t)k));
        }
        return half[0] && half[1] ? 0 : -EINVAL;
    }
    gap = s ? strchr(s, ' ') : NULL;
    if (!gap || strchr(gap + 1, ' '))
        return -EINVAL;
    half[0] = s;
    bytes[0] = (size_t)(gap - s);
    half[1] = gap + 1;
    bytes[1] = strlen(gap + 1);
    return 0;
}

/* A symbol that is not one character (a byte, unk) may stand beside anything. */
static int is_odd_symbol(const struct tr_tokenizer *t, int32_t id)
{
    const char *s = t->piece[id];

    return id == t->unk || (strlen(s) == 6 && !strncmp(s, "<0x", 3));
}

/* A merge can join two first symbols only where one ends its left half and the other begins its
 * right half. Halves are made of characters, unless an odd symbol takes part: then nothing is
 * known. */
static int add_join(struct tr_tokenizer *t, int32_t left, int32_t right)
{
    const char *a = t->piece[left], *b = t->piece[right];
    size_t at = tr_utf8_back(a, strlen(a));
    uint32_t last, first;
    int32_t last_id, first_id;

    if (is_odd_symbol(t, left) || is_odd_symbol(t, right))
        t->bpe.whole = 1;
    tr_utf8_decode(a + at, strlen(a) - at, &last);
    tr_utf8_decode(b, strlen(b), &first);
    last_id = tok_char_id(t, last);
    first_id = tok_char_id(t, first);
    return last_id < 0 || first_id < 0 ? 0 : bpe_add_join(&t->bpe, last_id, first_id);
}

static int add_merge(struct tr_tokenizer *t, const char *half[2], const size_t bytes[2])
{
    struct tok_buf whole = {0};
    int32_t left = tok_piece_id(t, half[0], bytes[0]), right = tok_piece_id(t, half[1], bytes[1]),
            id;
    int r;

    if (left < 0 || right < 0 || !bytes[0] || !bytes[1])
        return -EINVAL;
    r = tok_buf_add(&whole, half[0], bytes[0]);
    if (r == 0)
        r = tok_buf_add(&whole, half[1], bytes[1]);
    if (r == 0) {
        id = tok_piece_id(t, whole.v, whole.n);
        r = id < 0 ? -EINVAL : bpe_add(&t->bpe, left, right, id);
    }
    tok_buf_free(&whole);
    return r < 0 ? r : add_join(t, left, right);
}

/* The rank of a merge is its place among those that count: "#version" lines do not. */
static int load_merges(struct tr_tokenizer *t, const char *where, json_t *merges)
{
    json_t *v;
    size_t i;
    int r = bpe_init(&t->bpe, json_array_size(merges));

    json_array_foreach(merges, i, v)
    {
        const char *half[2], *line = json_string_value(v);
        size_t bytes[2];

        if (r < 0)
            break;
        if (line && !strncmp(line, "#version", 8))
            continue;
        if (read_merge(v, half, bytes) < 0)
            return tr_error(-EINVAL, "%s: merge %zu is not a pair of pieces", where, i);
        r = add_merge(t, half, bytes);
        if (r == -EINVAL)
            tr_error(
                r, "%s: merge %zu (\"%.*s\" \"%.*s\") names a piece that is not in the vocabulary",
                where, i, (int)(bytes[0] < 64 ? bytes[0] : 64), half[0],
                (int)(bytes[1] < 64 ? bytes[1] : 64), half[1]);
    }
    return r;
}

/* Fields of other BPE variants must be absent, null or empty. */
/* Each of these would give other ids without a word: a tokenizer that is nearly right is worse than
 * none, as the model was trained on the exact one. */
static int refuse_variants(const char *where, json_t *model)
{
    static const char *const keys[] = {"continuing_subword_prefix", "end_of_word_suffix"};
    json_t *dropout = json_object_get(model, "dropout");

    for (size_t i = 0; i < 2; i++) {
        json_t *v = json_object_get(model, keys[i]);

        if (v && !json_is_null(v) && json_string_length(v) > 0)
            return tr_error(-ENOTSUP, "%s: BPE with \"%s\" is not supported", where, keys[i]);
    }
    if (dropout && !json_is_null(dropout) && json_number_value(dropout) != 0)
        return tr_error(-ENOTSUP, "%s: BPE with \"dropout\" is not supported", where);
    return 0;
}

/* A byte piece that the vocabulary lacks is -1; a text that needs it falls back to unk. */
static int load_flags(struct tr_tokenizer *t, const char *where, json_t *model)
{
    int r = tok_get_flag(model, "fuse_unk", 0, where, &t->fuse_unk);

    if (r == 0)
        r = tok_get_flag(model, "byte_fallback", 0, where, &t->byte_fallback);
    if (r == 0)
        r = tok_get_flag(model, "ignore_merges", 0, where, &t->ignore_merges);
    for (int i = 0; r == 0 && i < 256; i++) {
        char name[8];

        snprintf(name, sizeof(name), "<0x%02X>", i);
        t->byte_id[i] = t->byte_fallback ? tok_piece_id(t, name, 6) : -1;
    }
    return r;
}

static int load_unk(struct tr_tokenizer *t, const char *where, json_t *model)
{
    json_t *v = json_object_get(model, "unk_token");

    t->unk = -1;
    if (!v || json_is_null(v))
        return 0;
    if (json_is_string(v))
        t->unk = tok_piece_id(t, json_string_value(v), json_string_length(v));
    if (t->unk < 0)
        return tr_error(-EINVAL, "%s: \"unk_token\" is not in the vocabulary", where);
    return 0;
}

int tok_load_model(struct tr_tokenizer *t, const char *where, json_t *root)
{
    json_t *model = json_object_get(root, "model"), *vocab, *merges;
    const char *type = tok_type(model);
    int r;

    if (!json_is_object(model))
        return tr_error(-EINVAL, "%s: \"model\" is missing", where);
    if (*type && strcmp(type, "BPE"))
        return tr_error(-ENOTSUP, "%s: the model is \"%.64s\", only BPE is supported", where, type);
    vocab = json_object_get(model, "vocab");
    merges = json_object_get(model, "merges");
    if (!json_is_object(vocab) || !json_object_size(vocab) || !json_is_array(merges))
        return tr_error(
            -EINVAL, "%s: the model needs \"vocab\" (an object) and \"merges\" (an array)", where);
    r = refuse_variants(where, model);
    if (r == 0)
        r = measure(t, where, vocab, json_object_get(root, "added_tokens"));
    if (r == 0)
        r = load_vocab(t, where, vocab);
    if (r == 0)
        r = load_flags(t, where, model);
    if (r == 0)
        r = load_unk(t, where, model);
    return r < 0 ? r : load_merges(t, where, merges);
}
