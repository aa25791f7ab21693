/* SPDX-License-Identifier: Apache-2.0
 *
 * Values as the reference's language sees them: what is true, how they are written (str, repr and
 * the JSON of tojson), what a loop goes through.
 */
#include "src/text/jinja_parts.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "src/base/err.h"
#include "src/base/json.h"
#include "src/base/number.h"

#define VALUE_DEPTH 64 /* lists in lists that a template may make, or write */

struct jinja_value jinja_json(json_t *json)
{
    return (struct jinja_value){.kind = json ? VALUE_JSON : VALUE_UNDEFINED, .json = json};
}

struct jinja_value jinja_bool(int truth)
{
    return jinja_json(truth ? json_true() : json_false());
}

struct jinja_value jinja_int(struct jinja_eval *e, int64_t i)
{
    return jinja_keep(e, json_integer(i));
}

int jinja_true(struct jinja_value v)
{
    if (v.kind != VALUE_JSON)
        return v.kind != VALUE_UNDEFINED;
    switch (json_typeof(v.json)) {
    case JSON_OBJECT:
        return json_object_size(v.json) > 0;
    case JSON_ARRAY:
        return json_array_size(v.json) > 0;
    case JSON_STRING:
        return json_string_length(v.json) > 0;
    case JSON_INTEGER:
        return json_integer_value(v.json) != 0;
    case JSON_REAL:
        return json_real_value(v.json) != 0;
    default:
        return json_is_true(v.json);
    }
}

void jinja_add(struct jinja_eval *e, struct tok_buf *b, const char *text, size_t bytes)
{
    if (jinja_spend(e, bytes) == 0 && tok_buf_add(b, text, bytes) < 0)
        e->r = -ENOMEM;
}

static void add_text(struct jinja_eval *e, struct tok_buf *b, const char *text)
{
    jinja_add(e, b, text, strlen(text));
}

struct jinja_value jinja_take(struct jinja_eval *e, struct tok_buf *b)
{
    struct jinja_value v =
        e->r < 0 ? (struct jinja_value){0} : jinja_keep(e, json_stringn(b->v ? b->v : "", b->n));

    tok_buf_free(b);
    return v;
}

/* The fewest digits that name the number, as repr has them. */
static void write_real(struct jinja_eval *e, struct tok_buf *b, double x)
{
    char text[40], digits[40];
    int precision = 1, exponent;

    do
        tr_number_print(digits, sizeof(digits), "%.*e", precision - 1, x);
    while (tr_number_read(digits, NULL) != x && ++precision <= 17);
    exponent = atoi(strchr(digits, 'e') + 1);
    if (exponent < -4 || exponent >= 16) {
        char *p = strchr(digits, 'e');

        snprintf(text, sizeof(text), "%.*se%c%02d", (int)(p - digits), digits,
                 exponent < 0 ? '-' : '+', abs(exponent));
    } else {
        int behind = precision - 1 - exponent;

        tr_number_print(text, sizeof(text), "%.*f", behind < 1 ? 1 : behind, x);
    }
    add_text(e, b, text);
}

static void write_number(struct jinja_eval *e, struct tok_buf *b, json_t *v)
{
    char text[24];

    if (json_is_real(v)) {
        write_real(e, b, json_real_value(v));
        return;
    }
    snprintf(text, sizeof(text), "%lld", (long long)json_integer_value(v));
    add_text(e, b, text);
}

/* A text in quotes: double ones only where it has single ones and no double ones. */
static void write_quoted(struct jinja_eval *e, struct tok_buf *b, const char *s, size_t n)
{
    char quote = memchr(s, '\'', n) && !memchr(s, '"', n) ? '"' : '\'';

    jinja_add(e, b, &quote, 1);
    for (size_t i = 0; i < n && e->r == 0; i++) {
        unsigned char c = (unsigned char)s[i];
        char text[8] = {(char)c};

        if (c == '\n' || c == '\r' || c == '\t')
            snprintf(text, sizeof(text), "\\%c", c == '\n' ? 'n' : c == '\r' ? 'r' : 't');
        else if (c == '\\' || c == quote)
            snprintf(text, sizeof(text), "\\%c", c);
        else if (c < ' ' || c == 0x7f)
            snprintf(text, sizeof(text), "\\x%02x", c);
        add_text(e, b, text);
    }
    jinja_add(e, b, &quote, 1);
}

static void write_json_text(struct jinja_eval *e, struct tok_buf *b, const char *s, size_t n,
                            const struct jinja_json_form *f)
{
    json_t *v;
    char *text;

    if (f->repr) {
        write_quoted(e, b, s, n);
        return;
    }
    v = json_stringn(s, n);
    text = v ? tr_json_text(v, JSON_ENCODE_ANY | (f->ascii ? JSON_ENSURE_ASCII : 0)) : NULL;
    json_decref(v);
    if (!text) {
        e->r = e->r < 0 ? e->r : -ENOMEM;
        return;
    }
    for (char *p = text; *p; p++) /* hexadecimal digits are lower case there */
        if (*p == '\\' && p[1] == 'u')
            for (int i = 2; i < 6; i++)
                p[i] = p[i] >= 'A' && p[i] <= 'F' ? (char)(p[i] + 32) : p[i];
        else if (*p == '\\')
            p++;
    add_text(e, b, text);
    free(text);
}

static void new_line(struct jinja_eval *e, struct tok_buf *b, const struct jinja_json_form *f,
                     int depth)
{
    if (f->indent < 0)
        return;
    add_text(e, b, "\n");
    for (int i = 0; i < depth * f->indent && e->r == 0; i++)
        add_text(e, b, " ");
}

static int by_name(const void *a, const void *b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

static void write_json_dict(struct jinja_eval *e, struct tok_buf *b, json_t *v,
                            const struct jinja_json_form *f, int depth)
{
    size_t n = json_object_size(v), i = 0;
    const char **keys = calloc(n + 1, sizeof(*keys)), *key;
    json_t *item;

    if (!keys) {
        e->r = -ENOMEM;
        return;
    }
    json_object_foreach(v, key, item)
        keys[i++] = key;
    if (f->sorted)
        qsort(keys, n, sizeof(*keys), by_name);
    add_text(e, b, "{");
    for (i = 0; i < n && e->r == 0; i++) {
        if (i)
            add_text(e, b, f->comma);
        new_line(e, b, f, depth + 1);
        write_json_text(e, b, keys[i], strlen(keys[i]), f);
        add_text(e, b, f->colon);
        jinja_write_json(e, b, json_object_get(v, keys[i]), f, depth + 1);
    }
    if (n)
        new_line(e, b, f, depth);
    add_text(e, b, "}");
    free(keys);
}

struct jinja_value jinja_tuple(struct jinja_eval *e, struct jinja_value list)
{
    if (e->r == 0 && bpe_map_put(&e->tuples, (uintptr_t)list.json, 1) < 0)
        e->r = -ENOMEM;
    return list;
}

int jinja_is_tuple(const struct jinja_eval *e, const json_t *v)
{
    return bpe_map_find(&e->tuples, (uintptr_t)v) != NULL;
}

/* A tuple of one has a comma behind it. */
static void write_json_list(struct jinja_eval *e, struct tok_buf *b, json_t *v,
                            const struct jinja_json_form *f, int depth)
{
    int tuple = f->repr && jinja_is_tuple(e, v);
    size_t i;
    json_t *item;

    add_text(e, b, tuple ? "(" : "[");
    json_array_foreach(v, i, item) {
        if (i)
            add_text(e, b, f->comma);
        new_line(e, b, f, depth + 1);
        jinja_write_json(e, b, item, f, depth + 1);
    }
    if (i)
        new_line(e, b, f, depth);
    add_text(e, b, !tuple ? "]" : i == 1 ? ",)" : ")");
}

void jinja_write_json(struct jinja_eval *e, struct tok_buf *b, json_t *v,
                      const struct jinja_json_form *f, int depth)
{
    static const char *const constants[2][3] = {{"true", "false", "null"},
                                                {"True", "False", "None"}};

    if (depth > VALUE_DEPTH) {
        jinja_fail(e, -ELOOP, "a value nested more than %d deep", VALUE_DEPTH);
    } else if (e->r < 0) {
        return;
    } else if (json_is_object(v)) {
        write_json_dict(e, b, v, f, depth);
    } else if (json_is_array(v)) {
        write_json_list(e, b, v, f, depth);
    } else if (json_is_string(v)) {
        write_json_text(e, b, json_string_value(v), json_string_length(v), f);
    } else if (json_is_number(v)) {
        write_number(e, b, v);
    } else {
        add_text(e, b, constants[f->repr][json_is_true(v) ? 0 : json_is_false(v) ? 1 : 2]);
    }
}

void jinja_write(struct jinja_eval *e, struct tok_buf *b, struct jinja_value v)
{
    static const struct jinja_json_form repr = {
        .indent = -1, .repr = 1, .comma = ", ", .colon = ": "};

    if (v.kind == VALUE_UNDEFINED || e->r < 0)
        return;
    if (v.kind != VALUE_JSON)
        jinja_fail(e, -EINVAL, "a namespace, macro or function cannot be written");
    else if (json_is_string(v.json))
        jinja_add(e, b, json_string_value(v.json), json_string_length(v.json));
    else
        jinja_write_json(e, b, v.json, &repr, 0);
}

/* 1 where a value is nested so deep that no more may be put around it. */
static int too_deep(struct jinja_eval *e, json_t *v, int depth)
{
    const char *key;
    json_t *item;
    size_t i;

    if (depth > VALUE_DEPTH || jinja_spend(e, 0) < 0)
        return 1;
    if (json_is_array(v))
        json_array_foreach(v, i, item)
            if (too_deep(e, item, depth + 1))
                return 1;
    if (json_is_object(v))
        json_object_foreach(v, key, item)
            if (too_deep(e, item, depth + 1))
                return 1;
    return 0;
}

void jinja_append(struct jinja_eval *e, json_t *list, struct jinja_value v)
{
    if (e->r < 0)
        return;
    if (v.kind == VALUE_UNDEFINED)
        jinja_fail(e, -EINVAL, "%.64s is undefined, and cannot be put into a list",
                   v.name ? v.name : "a value");
    else if (v.kind != VALUE_JSON)
        jinja_fail(e, -EINVAL, "a namespace, macro or function cannot be put into a list");
    else if (too_deep(e, v.json, 1))
        jinja_fail(e, -ELOOP, "a value nested more than %d deep", VALUE_DEPTH);
    else if (jinja_spend(e, 16) == 0 && json_array_append(list, v.json) < 0)
        e->r = -ENOMEM;
}

static void append_points(struct jinja_eval *e, json_t *list, json_t *s)
{
    const char *v = json_string_value(s);
    size_t n = json_string_length(s);

    for (size_t at = 0; at < n && e->r == 0;) {
        size_t k = jinja_offset(v + at, n - at, 1);

        jinja_append(e, list, jinja_text(e, v + at, k));
        at += k;
    }
}

json_t *jinja_items(struct jinja_eval *e, struct jinja_value v)
{
    json_t *list;
    const char *key;
    json_t *item;

    if (v.kind == VALUE_JSON && json_is_array(v.json))
        return v.json;
    list = jinja_keep(e, json_array()).json;
    if (!list || v.kind == VALUE_UNDEFINED)
        return list;
    if (v.kind == VALUE_JSON && json_is_object(v.json)) {
        json_object_foreach(v.json, key, item)
            jinja_append(e, list, jinja_text(e, key, strlen(key)));
    } else if (v.kind == VALUE_JSON && json_is_string(v.json)) {
        append_points(e, list, v.json);
    } else {
        jinja_fail(e, -EINVAL, "a value that is no list is gone through");
    }
    return e->r < 0 ? NULL : list;
}

struct jinja_value jinja_argument(const struct jinja_arguments *a, int place, const char *name)
{
    int at = 0;

    for (int i = 0; i < a->n; i++) {
        if (a->name[i] ? name && !strcmp(a->name[i], name) : at == place)
            return a->v[i];
        at += !a->name[i];
    }
    return (struct jinja_value){0};
}
