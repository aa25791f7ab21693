/* SPDX-License-Identifier: Apache-2.0 */
#include "src/base/json.h"

#include <stdlib.h>
#include <string.h>

#include "src/base/err.h"
#include "src/base/file.h"
#include "src/base/mem.h"

static int parse(const char *text, size_t bytes, const char *where, size_t flags, json_t **out)
{
    json_error_t e;

    *out = json_loadb(text, bytes, JSON_REJECT_DUPLICATES | flags, &e);
    if (!*out && !e.text[0]) /* of which jansson says nothing */
        return tr_error(-ENOMEM, "%s: out of memory", where);
    if (!*out)
        return tr_error(-EINVAL, "%s: line %d, column %d: not valid JSON: %s", where, e.line,
                        e.column, e.text);
    return 0;
}

int tr_json_parse(const char *text, size_t bytes, const char *where, json_t **out)
{
    return parse(text, bytes, where, 0, out);
}

int tr_json_parse_nul(const char *text, size_t bytes, const char *where, json_t **out)
{
    return parse(text, bytes, where, JSON_ALLOW_NUL, out);
}

static int has_nul(const json_t *v)
{
    const char *key;
    const json_t *one;
    size_t i;
    int has = json_is_string(v) && strlen(json_string_value(v)) != json_string_length(v);

    json_array_foreach(v, i, one)
        has |= has_nul(one);
    json_object_foreach((json_t *)v, key, one)
        has |= has_nul(one);
    return has;
}

int tr_json_refuse_nul(const json_t *v, const char *where)
{
    return has_nul(v) ? tr_error(-EINVAL, "%s: a text with a NUL character (\\u0000)", where) : 0;
}

int tr_json_says(const json_t *v)
{
    return v && !json_is_null(v) && !json_is_false(v) &&
           !(json_is_number(v) && json_number_value(v) == 0) &&
           !(json_is_object(v) && !json_object_size(v)) &&
           !(json_is_array(v) && !json_array_size(v));
}

static json_t *drop(json_t *v)
{
    json_decref(v);
    return NULL;
}

void tr_json_add(json_t **object, const char *key, json_t *value)
{
    if (json_object_set_new(*object, key, value) < 0)
        *object = drop(*object);
}

void tr_json_append(json_t **list, json_t *value)
{
    if (json_array_append_new(*list, value) < 0)
        *list = drop(*list);
}

json_t *tr_json_copy(const json_t *v)
{
    json_t *copy = json_copy((json_t *)v);
    int whole = json_object_size(copy) == json_object_size(v) &&
                json_array_size(copy) == json_array_size(v);

    return whole ? copy : drop(copy);
}

int tr_json_read(const char *path, size_t limit, json_t **out)
{
    char *text;
    size_t bytes;
    int r = tr_file_read(path, limit, &text, &bytes);

    if (r < 0)
        return r;
    r = tr_json_parse(text, bytes, path, out);
    tr_free(TR_MEM_TEXT, text);
    return r;
}

char *tr_json_text(const json_t *value, size_t flags)
{
    size_t n = json_dumpb(value, NULL, 0, flags);
    char *text = n ? malloc(n + 1) : NULL;

    if (text && json_dumpb(value, text, n, flags) == n) {
        text[n] = 0;
        return text;
    }
    free(text);
    return NULL;
}

static int write_value(const char *path, const json_t *value, size_t flags, size_t limit)
{
    char *text = tr_json_text(value, flags);
    size_t n;
    int r;

    if (!text)
        return tr_error(-ENOMEM, "%s: cannot format JSON", path);
    n = strlen(text);
    text[n] = '\n'; /* takes the place of the NUL: the file ends in a newline */
    if (n + 1 > limit)
        r = tr_error(-EFBIG, "%s: %zu bytes, at most %zu are read again", path, n + 1, limit);
    else
        r = tr_file_write(path, text, n + 1);
    free(text);
    return r;
}

int tr_json_write(const char *path, const json_t *value)
{
    return write_value(path, value, JSON_INDENT(2), SIZE_MAX);
}

int tr_json_write_line(const char *path, const json_t *value, size_t limit)
{
    return write_value(path, value, 0, limit);
}
