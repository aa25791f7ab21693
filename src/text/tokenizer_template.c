/* SPDX-License-Identifier: Apache-2.0
 *
 * The post_processor: which token stands before a text and which behind it. Only what is
 * said about a single sequence matters; at most one token on either side is supported.
 */
#include "src/text/tokenizer_parts.h"

#include <string.h>

#include "src/base/err.h"

static int token_id(struct tr_tokenizer *t, const char *where, json_t *item, json_t *tokens)
{
    const char *name = json_string_value(json_object_get(item, "id"));
    json_t *ids = json_object_get(name ? json_object_get(tokens, name) : NULL, "ids");
    json_t *id = json_array_get(ids, 0);

    if (!name || json_array_size(ids) != 1 || !json_is_integer(id))
        return tr_error(-EINVAL,
                        "%s: post_processor: \"%.64s\" needs exactly one id in special_tokens",
                        where, name ? name : "a SpecialToken");
    if (json_integer_value(id) < 0 || json_integer_value(id) >= t->vocab ||
        !t->piece[json_integer_value(id)])
        return tr_error(-EINVAL,
                        "%s: post_processor: the id of \"%.64s\", %lld, is not in the vocabulary",
                        where, name, (long long)json_integer_value(id));
    return (int)json_integer_value(id);
}

static int load_single(struct tr_tokenizer *t, const char *where, json_t *o)
{
    json_t *single = json_object_get(o, "single"), *v;
    size_t i;
    int seen = 0;

    json_array_foreach(single, i, v) {
        json_t *special = json_object_get(v, "SpecialToken");
        int id;

        if (!special) {
            if (seen++ || !json_object_get(v, "Sequence"))
                return tr_error(-ENOTSUP, "%s: post_processor: item %zu is not supported", where,
                                i);
            continue;
        }
        id = token_id(t, where, special, json_object_get(o, "special_tokens"));
        if (id < 0)
            return id;
        if (seen ? t->adds_eos : t->adds_bos)
            return tr_error(-ENOTSUP,
                            "%s: post_processor: two tokens on one side of a text are not "
                            "supported",
                            where);
        *(seen ? &t->eos : &t->bos) = id;
        *(seen ? &t->adds_eos : &t->adds_bos) = 1;
    }
    return seen ? 0 : tr_error(-EINVAL, "%s: post_processor: the template has no sequence", where);
}

/* "cls": ["<s>", 0] stands before a text, "sep": ["</s>", 2] behind it. */
static int load_pair(struct tr_tokenizer *t, const char *where, json_t *o, const char *key,
                     int32_t *out)
{
    json_t *id = json_array_get(json_object_get(o, key), 1);

    if (!json_is_integer(id) || json_integer_value(id) < 0 || json_integer_value(id) >= t->vocab ||
        !t->piece[json_integer_value(id)])
        return tr_error(-EINVAL, "%s: post_processor: \"%s\" is not a piece and its id", where,
                        key);
    *out = (int32_t)json_integer_value(id);
    return 0;
}

static int load_roberta(struct tr_tokenizer *t, const char *where, json_t *o)
{
    int r = load_pair(t, where, o, "cls", &t->bos);

    if (r == 0)
        r = load_pair(t, where, o, "sep", &t->eos);
    t->adds_bos = t->adds_eos = r == 0;
    return r;
}

/* ByteLevel changes offsets and no ids. */
static int load_one(struct tr_tokenizer *t, const char *where, json_t *o)
{
    const char *type = tok_type(o);

    if (!strcmp(type, "ByteLevel"))
        return 0;
    if (strcmp(type, "TemplateProcessing") != 0 && strcmp(type, "RobertaProcessing") != 0)
        return tr_error(-ENOTSUP, "%s: post_processor: \"%.64s\" is not supported", where, type);
    if (t->adds_bos || t->adds_eos)
        return tr_error(-ENOTSUP, "%s: post_processor: more than one template is not supported",
                        where);
    return *type == 'T' ? load_single(t, where, o) : load_roberta(t, where, o);
}

int tok_load_template(struct tr_tokenizer *t, const char *where, json_t *root)
{
    json_t *o = json_object_get(root, "post_processor"), *v;
    size_t i;

    if (!o || json_is_null(o))
        return 0;
    if (strcmp(tok_type(o), "Sequence"))
        return load_one(t, where, o);
    json_array_foreach(json_object_get(o, "processors"), i, v) {
        int r = load_one(t, where, v);

        if (r < 0)
            return r;
    }
    return 0;
}
