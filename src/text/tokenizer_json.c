/* SPDX-License-Identifier: Apache-2.0
 *
 * Fields of tokenizer.json with their types checked: a value of a wrong type is an error that names
 * the field, never a default. Knows nothing of tokenizers but their messages.
 */
#include "src/text/tokenizer_parts.h"

#include <string.h>

#include "src/base/err.h"

int tok_get_flag(json_t *o, const char *key, int absent, const char *where, int *out)
{
    json_t *v = json_object_get(o, key);

    if (v && !json_is_null(v) && !json_is_boolean(v))
        return tr_error(-EINVAL, "%s: \"%s\" must be true or false", where, key);
    *out = v && !json_is_null(v) ? json_is_true(v) : absent;
    return 0;
}

int tok_get_text(json_t *o, const char *key, const char *where, const char **text, size_t *bytes)
{
    json_t *v = json_object_get(o, key);

    if (!json_is_string(v))
        return tr_error(-EINVAL, "%s: \"%s\" must be a string", where, key);
    *text = json_string_value(v);
    *bytes = json_string_length(v);
    if (*bytes > TOK_STRING_MOST)
        return tr_error(-EINVAL, "%s: \"%s\" has %zu bytes, at most %d are read", where, key,
                        *bytes, TOK_STRING_MOST);
    return 0;
}

int tok_get_count(json_t *o, const char *key, size_t most, const char *where, size_t *out)
{
    json_t *v = json_object_get(o, key);

    if (!json_is_integer(v) || json_integer_value(v) < 0 || (size_t)json_integer_value(v) > most)
        return tr_error(-EINVAL, "%s: \"%s\" must be a number from 0 to %zu", where, key, most);
    *out = (size_t)json_integer_value(v);
    return 0;
}

const char *tok_type(json_t *o)
{
    const char *s = json_string_value(json_object_get(o, "type"));

    return s ? s : "";
}

/* Old files have the switch, newer ones the scheme, some both. */
int tok_get_prefix(json_t *o, const char *where, const char *what, enum tok_prefix *out)
{
    const char *s = json_string_value(json_object_get(o, "prepend_scheme"));
    int add;
    int e = tok_get_flag(o, "add_prefix_space", 1, where, &add);

    if (e < 0)
        return e;
    if (!s)
        *out = add ? TOK_PREFIX_ALWAYS : TOK_PREFIX_NEVER;
    else if (!strcmp(s, "always"))
        *out = TOK_PREFIX_ALWAYS;
    else if (!strcmp(s, "first"))
        *out = TOK_PREFIX_FIRST;
    else if (!strcmp(s, "never"))
        *out = TOK_PREFIX_NEVER;
    else
        return tr_error(-ENOTSUP, "%s: %s: prepend_scheme \"%.32s\" is not supported", where, what,
                        s);
    return !add && *out != TOK_PREFIX_NEVER
               ? tr_error(-EINVAL, "%s: %s: add_prefix_space contradicts prepend_scheme", where,
                          what)
               : 0;
}
