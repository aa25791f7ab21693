/* SPDX-License-Identifier: Apache-2.0
 *
 * The `model` of tokenizer.json: vocabulary and merges, checked entry by entry (invariant 9). An id
 * out of range or given twice, a merge of unknown pieces, a model of another kind: an error naming
 * it. Memory is bounded by TOK_ID_LIMIT and by the size of the file.
 */
#include "src/text/tokenizer_parts.h"

#include <string.h>

#include "src/base/err.h"
#include "src/base/mem.h"
#include "src/text/tokenizer_utf8.h"

static int measure(const char *where, json_t *vocab, json_int_t *pieces)
{
    const char *key;
    json_t *v;

    *pieces = 0;
    json_object_foreach(vocab, key, v) {
        int r = tok_check_id(where, key, v);

        if (r < 0)
            return r;
        *pieces = json_integer_value(v) >= *pieces ? json_integer_value(v) + 1 : *pieces;
    }
    return 0;
}

/* Two pieces of one id would decode to one of them; two ids of one piece cannot be (JSON keys). */
static int load_vocab(struct tr_tokenizer *t, const char *where, json_t *vocab, json_t *added)
{
    const char *key;
    json_int_t pieces;
    json_t *v;
    int r = measure(where, vocab, &pieces);

    if (r == 0)
        r = tok_open_vocab(t, where, pieces, added);
    if (r < 0)
        return r;
    json_object_foreach(vocab, key, v) {
        int32_t id = (int32_t)json_integer_value(v);

        if (t->piece[id])
            return tr_error(-EINVAL, "%s: \"%.64s\" and \"%.64s\" have the same id %d", where,
                            t->piece[id], key, id);
        r = tok_add_piece(t, key, strlen(key), id);
        if (r < 0)
            return r;
    }
    return 0;
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

    json_array_foreach(merges, i, v) {
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

static int load_unk(struct tr_tokenizer *t, const char *where, json_t *model)
{
    json_t *v = json_object_get(model, "unk_token");

    if (!v || json_is_null(v))
        return 0;
    if (json_is_string(v))
        t->unk = tok_piece_id(t, json_string_value(v), json_string_length(v));
    if (t->unk < 0)
        return tr_error(-EINVAL, "%s: \"unk_token\" is not in the vocabulary", where);
    return 0;
}

static int load_bpe(struct tr_tokenizer *t, const char *where, json_t *model, json_t *added)
{
    json_t *vocab = json_object_get(model, "vocab"), *merges = json_object_get(model, "merges");
    int r;

    if (!json_is_object(vocab) || !json_object_size(vocab) || !json_is_array(merges))
        return tr_error(
            -EINVAL, "%s: the model needs \"vocab\" (an object) and \"merges\" (an array)", where);
    r = refuse_variants(where, model);
    if (r == 0)
        r = load_vocab(t, where, vocab, added);
    if (r == 0)
        r = tok_load_flags(t, where, model);
    if (r == 0)
        r = load_unk(t, where, model);
    return r < 0 ? r : load_merges(t, where, merges);
}

/* Old files do not say the type. */
int tok_load_model(struct tr_tokenizer *t, const char *where, json_t *root)
{
    json_t *model = json_object_get(root, "model"), *added = json_object_get(root, "added_tokens");
    const char *type = tok_type(model);

    if (!json_is_object(model))
        return tr_error(-EINVAL, "%s: \"model\" is missing", where);
    if (!strcmp(type, "Unigram") || (!*type && json_is_array(json_object_get(model, "vocab"))))
        return tok_load_unigram(t, where, model, added);
    if (*type && strcmp(type, "BPE"))
        return tr_error(-ENOTSUP, "%s: the model is \"%.64s\", only BPE and Unigram are supported",
                        where, type);
    return load_bpe(t, where, model, added);
}
