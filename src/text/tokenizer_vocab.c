/* SPDX-License-Identifier: Apache-2.0
 *
 * The vocabulary that every kind of model has: tables by id, pieces found by name, one-character
 * pieces found by code point, and the pieces that stand for bytes.
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

int tok_check_id(const char *where, const char *piece, json_t *v)
{
    if (!json_is_integer(v) || json_integer_value(v) < 0 || json_integer_value(v) >= TOK_ID_LIMIT)
        return bad_id(where, piece, v);
    return 0;
}

/* The largest id decides the size of the tables. Done before anything is allocated by id, which is
 * why TOK_ID_LIMIT is not far above the largest vocabularies there are. */
int tok_open_vocab(struct tr_tokenizer *t, const char *where, json_int_t pieces, json_t *added)
{
    json_int_t most = pieces - 1;
    json_t *v;
    size_t i;

    json_array_foreach(added, i, v) {
        json_t *id = json_object_get(v, "id");
        const char *text = json_string_value(json_object_get(v, "content"));
        int r = tok_check_id(where, text ? text : "added token", id);

        if (r < 0)
            return r;
        most = json_integer_value(id) > most ? json_integer_value(id) : most;
    }
    t->vocab = (int32_t)(most + 1);
    t->piece = tr_alloc_array(TR_MEM_TEXT, (size_t)t->vocab, sizeof(*t->piece));
    t->flags = tr_alloc(TR_MEM_TEXT, (size_t)t->vocab);
    t->names.name = piece_name;
    t->names.owner = t;
    return t->piece && t->flags ? bpe_map_reserve(&t->names.map, (size_t)pieces) : -ENOMEM;
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

int tok_add_piece(struct tr_tokenizer *t, const char *text, size_t bytes, int32_t id)
{
    int r;

    t->piece[id] = tr_strdup(TR_MEM_TEXT, text);
    r = t->piece[id] ? bpe_names_add(&t->names, text, bytes, (uint32_t)id) : -ENOMEM;
    return r < 0 ? r : add_char(t, text, bytes, id);
}

/* A byte piece that the vocabulary lacks is -1; a text that needs it falls back to unk. */
int tok_load_flags(struct tr_tokenizer *t, const char *where, json_t *model)
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
