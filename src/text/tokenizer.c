/* SPDX-License-Identifier: Apache-2.0
 *
 * A tokenizer's life: read, ask, close. Which names BOS and EOS have stands in
 * tokenizer_config.json, or in special_tokens_map.json of older folders; whether BOS is put before
 * a text, in the post_processor.
 */
#include "src/text/tokenizer_parts.h"

#include <string.h>
#include <unistd.h>

#include "src/base/err.h"
#include "src/base/file.h"
#include "src/base/json.h"
#include "src/base/mem.h"
#include "src/text/sentencepiece.h"

#define FILE_MOST ((size_t)64 << 20)

void tr_tokenizer_close(struct tr_tokenizer *t)
{
    if (!t)
        return;
    for (int32_t i = 0; t->piece && i < t->vocab; i++)
        tr_free(TR_MEM_TEXT, t->piece[i]);
    for (int i = 0; i < TOK_PAGES; i++)
        tr_free(TR_MEM_TEXT, t->page[i]);
    tr_free(TR_MEM_TEXT, t->folder);
    tr_free(TR_MEM_TEXT, t->piece);
    tr_free(TR_MEM_TEXT, t->flags);
    for (size_t i = 0; i < t->n_added; i++)
        tr_free(TR_MEM_TEXT, t->added[i].normal);
    tr_free(TR_MEM_TEXT, t->added);
    bpe_map_free(&t->normal_of);
    bpe_map_free(&t->names.map);
    bpe_free(&t->bpe);
    tok_trie_free(&t->unigram.trie);
    tr_free(TR_MEM_TEXT, t->unigram.score);
    tok_trie_free(&t->raw);
    tok_trie_free(&t->normal);
    tok_steps_free(&t->norm);
    tok_steps_free(&t->decode);
    tok_pre_free(&t->pre);
    tok_cache_close(t->cache);
    tr_free(TR_MEM_TEXT, t);
}

/* "bos_token": "<s>", or {"content": "<s>"}; absent or null leaves *id. */
static int read_name(struct tr_tokenizer *t, const char *where, json_t *config, const char *key,
                     int32_t *id)
{
    json_t *v = json_object_get(config, key);
    int32_t found;

    if (json_is_object(v))
        v = json_object_get(v, "content");
    if (!v || json_is_null(v))
        return 0;
    if (!json_is_string(v))
        return tr_error(-EINVAL, "%s: tokenizer_config: \"%s\" is not a string", where, key);
    found = tok_piece_id(t, json_string_value(v), json_string_length(v));
    if (found < 0)
        return tr_error(-EINVAL,
                        "%s: tokenizer_config: %s \"%.64s\" is not a piece of the tokenizer", where,
                        key, json_string_value(v));
    *id = found;
    return 0;
}

/* Numbers are read as reals: model_max_length is often 1e30, written out. */
static int parse_one(const char *text, size_t bytes, const char *where, const char *name,
                     json_t **out)
{
    json_error_t e;

    *out = NULL;
    if (!text)
        return 0;
    *out = json_loadb(text, bytes,
                      JSON_REJECT_DUPLICATES | JSON_DECODE_INT_AS_REAL | JSON_ALLOW_NUL, &e);
    if (!*out)
        return tr_error(-EINVAL, "%s: %s: line %d: not valid JSON: %s", where, name, e.line,
                        e.text);
    return 0;
}

/* A config that lists its added tokens names all that it has; to an older one the map adds. */
static int add_map(json_t *config, json_t *map)
{
    static const char *const keys[] = {"bos_token", "eos_token"};
    int r = 0;

    for (int i = 0; i < 2 && !json_object_get(config, "added_tokens_decoder"); i++) {
        json_t *v = json_object_get(config, keys[i]), *named = json_object_get(map, keys[i]);

        if ((!v || json_is_null(v)) && named && json_object_set(config, keys[i], named) < 0)
            r = tr_error(-ENOMEM, "out of memory");
    }
    return r;
}

static int parse_config(const struct tr_tokenizer_text *text, json_t **out)
{
    json_t *map = NULL;
    int r = parse_one(text->config, text->config_bytes, text->where, "tokenizer_config", out);

    if (r == 0)
        r = parse_one(text->map, text->map_bytes, text->where, "special_tokens_map", &map);
    if (r == 0 && *out && map)
        r = add_map(*out, map);
    else if (r == 0 && map)
        *out = json_incref(map);
    json_decref(map);
    return r;
}

/* What these classes put before a text they take from the configuration, where a file's own
 * post_processor may know nothing of it. */
static int is_made_anew(const json_t *config)
{
    const char *name = json_string_value(json_object_get(config, "tokenizer_class"));

    return name && (!strcmp(name, "LlamaTokenizerFast") || !strcmp(name, "LlamaTokenizer"));
}

static int load_config(struct tr_tokenizer *t, const char *where, json_t *config)
{
    int32_t bos = t->bos;
    int r = read_name(t, where, config, "bos_token", &t->bos);

    if (r == 0)
        r = read_name(t, where, config, "eos_token", &t->eos);
    if (t->adds_bos)
        t->bos = bos; /* what is really put before a text wins */
    else if (r == 0 && t->bos >= 0 && is_made_anew(config))
        t->adds_bos = json_is_true(json_object_get(config, "add_bos_token"));
    return r;
}

static int parse_root(const struct tr_tokenizer_text *text, json_t *config, json_t **root)
{
    if (text->is_model)
        return tr_sentencepiece_convert(text->json, text->json_bytes, config, text->where, root);
    return tr_json_parse(text->json, text->json_bytes, text->where, root);
}

/* The order matters: added tokens need the vocabulary, tries and cuts need the normalizer. */
static int load(struct tr_tokenizer *t, const struct tr_tokenizer_text *text, json_t *config)
{
    json_t *root;
    int r = parse_root(text, config, &root);

    if (r < 0)
        return r;
    r = tok_load_model(t, text->where, root);
    if (r == 0)
        r = tok_load_added(t, text->where, root);
    if (r == 0)
        r = tok_load_steps(t, text->where, root);
    if (r == 0)
        r = tok_load_template(t, text->where, root);
    json_decref(root);
    if (r < 0)
        return r;
    r = t->pre.n ? tok_cache_open(&t->cache) : 0;
    if (r == 0)
        r = tok_build_tries(t);
    if (r == 0)
        r = tok_build_cuts(t);
    if (r < 0)
        return tr_error_prefix(r, "%s", text->where);
    return load_config(t, text->where, config);
}

int tr_tokenizer_parse(struct tr_tokenizer **out, const struct tr_tokenizer_text *text)
{
    struct tr_tokenizer *t = tr_alloc(TR_MEM_TEXT, sizeof(*t));
    json_t *config;
    int r;

    if (!t)
        return -ENOMEM;
    t->bos = t->eos = t->unk = -1;
    r = parse_config(text, &config);
    if (r == 0)
        r = load(t, text, config);
    json_decref(config);
    if (r < 0) {
        tr_tokenizer_close(t);
        return r;
    }
    *out = t;
    return 0;
}

/* Reads FOLDER/name where it exists; *text stays NULL where it does not. */
static int read_optional(const char *folder, const char *name, char **text, size_t *bytes)
{
    char *path = tr_path(folder, name);
    int r = 0;

    if (!path)
        return -ENOMEM;
    if (access(path, F_OK) == 0)
        r = tr_file_read(path, FILE_MOST, text, bytes);
    tr_free(TR_MEM_MISC, path);
    return r;
}

int tr_tokenizer_is_in(const char *folder)
{
    return tr_folder_has(folder, "tokenizer.json") || tr_folder_has(folder, "tokenizer.model");
}

int tr_tokenizer_open(struct tr_tokenizer **out, const char *folder)
{
    char *path = tr_path(folder, "tokenizer.json"), *model = tr_path(folder, "tokenizer.model");
    char *json = NULL, *config = NULL, *map = NULL;
    struct tr_tokenizer_text text = {.where = path};
    int r;

    if (!path || !model) {
        tr_free(TR_MEM_MISC, path);
        tr_free(TR_MEM_MISC, model);
        return -ENOMEM;
    }
    if (access(path, F_OK) != 0 && access(model, F_OK) == 0) {
        text.is_model = 1;
        text.where = model;
    }
    r = tr_file_read(text.where, FILE_MOST, &json, &text.json_bytes);
    if (r == 0)
        r = read_optional(folder, "tokenizer_config.json", &config, &text.config_bytes);
    if (r == 0)
        r = read_optional(folder, "special_tokens_map.json", &map, &text.map_bytes);
    text.json = json;
    text.config = config;
    text.map = map;
    if (r == 0)
        r = tr_tokenizer_parse(out, &text);
    if (r == 0 && !((*out)->folder = tr_strdup(TR_MEM_TEXT, folder))) {
        tr_tokenizer_close(*out);
        *out = NULL;
        r = -ENOMEM;
    }
    tr_free(TR_MEM_TEXT, json);
    tr_free(TR_MEM_TEXT, config);
    tr_free(TR_MEM_TEXT, map);
    tr_free(TR_MEM_MISC, path);
    tr_free(TR_MEM_MISC, model);
    return r;
}

const char *tr_tokenizer_folder(const struct tr_tokenizer *t)
{
    return t->folder;
}

int32_t tr_tokenizer_vocab(const struct tr_tokenizer *t)
{
    return t->vocab;
}

int32_t tr_tokenizer_bos(const struct tr_tokenizer *t)
{
    return t->bos;
}

int32_t tr_tokenizer_eos(const struct tr_tokenizer *t)
{
    return t->eos;
}

int tr_tokenizer_adds_bos(const struct tr_tokenizer *t)
{
    return t->adds_bos;
}

int tr_tokenizer_is_special(const struct tr_tokenizer *t, int32_t id)
{
    return id >= 0 && id < t->vocab && t->flags[id] & TOK_SPECIAL;
}

const char *tr_tokenizer_piece(const struct tr_tokenizer *t, int32_t id)
{
    return id >= 0 && id < t->vocab ? t->piece[id] : NULL;
}

void tr_ids_free(struct tr_ids *ids)
{
    tr_free(TR_MEM_TEXT, ids->v);
    *ids = (struct tr_ids){0};
}

int tr_ids_push(struct tr_ids *ids, int32_t id)
{
    if (ids->n == ids->room) {
        size_t room = ids->room ? ids->room + ids->room / 2 : 64;
        int32_t *v = tr_realloc(TR_MEM_TEXT, ids->v, room * sizeof(*v));

        if (!v)
            return -ENOMEM;
        ids->v = v;
        ids->room = room;
    }
    ids->v[ids->n++] = id;
    return 0;
}
