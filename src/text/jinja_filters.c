/* SPDX-License-Identifier: Apache-2.0
 *
 * What stands behind "|": one row a filter.
 */
#include "src/text/jinja_parts.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "src/base/err.h"
#include "src/base/number.h"

typedef struct jinja_value filter_fn(struct jinja_eval *e, struct jinja_value v,
                                     const struct jinja_arguments *a);

static struct jinja_value as_text(struct jinja_eval *e, struct jinja_value v)
{
    struct tok_buf b = {0};

    if (v.kind == VALUE_JSON && json_is_string(v.json))
        return v;
    jinja_write(e, &b, v);
    return jinja_take(e, &b);
}

static struct jinja_value string(struct jinja_eval *e, struct jinja_value v,
                                 const struct jinja_arguments *a)
{
    (void)a;
    return as_text(e, v);
}

static struct jinja_value trim(struct jinja_eval *e, struct jinja_value v,
                               const struct jinja_arguments *a)
{
    v = as_text(e, v);
    return e->r < 0 ? v : jinja_strip(e, v.json, SIDE_BOTH, jinja_argument(a, 0, "chars"));
}

static struct jinja_value recased(struct jinja_eval *e, struct jinja_value v, enum jinja_case to)
{
    v = as_text(e, v);
    return e->r < 0 ? v : jinja_recase(e, v.json, to);
}

static struct jinja_value upper(struct jinja_eval *e, struct jinja_value v,
                                const struct jinja_arguments *a)
{
    (void)a;
    return recased(e, v, CASE_UPPER);
}

static struct jinja_value lower(struct jinja_eval *e, struct jinja_value v,
                                const struct jinja_arguments *a)
{
    (void)a;
    return recased(e, v, CASE_LOWER);
}

static struct jinja_value title(struct jinja_eval *e, struct jinja_value v,
                                const struct jinja_arguments *a)
{
    (void)a;
    return recased(e, v, CASE_WORDS);
}

static struct jinja_value capitalize(struct jinja_eval *e, struct jinja_value v,
                                     const struct jinja_arguments *a)
{
    (void)a;
    return recased(e, v, CASE_CAPITAL);
}

static struct jinja_value length(struct jinja_eval *e, struct jinja_value v,
                                 const struct jinja_arguments *a)
{
    (void)a;
    if (v.kind == VALUE_UNDEFINED)
        return jinja_int(e, 0);
    if (v.kind == VALUE_JSON && json_is_string(v.json)) {
        size_t n = json_string_length(v.json);

        return jinja_look(e, n) < 0
                   ? v
                   : jinja_int(e, (int64_t)jinja_points(json_string_value(v.json), n));
    }
    if (v.kind == VALUE_JSON && json_is_object(v.json))
        return jinja_int(e, (int64_t)json_object_size(v.json));
    if (v.kind == VALUE_JSON && json_is_array(v.json))
        return jinja_int(e, (int64_t)json_array_size(v.json));
    return jinja_fail(e, -EINVAL, "length of a value that has none");
}

static struct jinja_value otherwise(struct jinja_eval *e, struct jinja_value v,
                                    const struct jinja_arguments *a)
{
    struct jinja_value other = jinja_argument(a, 0, "default_value");
    int falsy = jinja_true(jinja_argument(a, 1, "boolean"));

    if (v.kind != VALUE_UNDEFINED && !(falsy && !jinja_true(v)))
        return v;
    return a->n ? other : jinja_text(e, "", 0);
}

static struct jinja_value first(struct jinja_eval *e, struct jinja_value v,
                                const struct jinja_arguments *a)
{
    (void)a;
    return jinja_json(json_array_get(jinja_items(e, v), 0));
}

static struct jinja_value last(struct jinja_eval *e, struct jinja_value v,
                               const struct jinja_arguments *a)
{
    json_t *items = jinja_items(e, v);

    (void)a;
    return jinja_json(json_array_size(items) ? json_array_get(items, json_array_size(items) - 1)
                                             : NULL);
}

static struct jinja_value list(struct jinja_eval *e, struct jinja_value v,
                               const struct jinja_arguments *a)
{
    json_t *items = jinja_items(e, v), *item;
    struct jinja_value copy;
    size_t i;

    (void)a;
    if (!jinja_is_tuple(e, items))
        return jinja_json(items);
    copy = jinja_keep(e, json_array());
    json_array_foreach(items, i, item)
        jinja_append(e, copy.json, jinja_json(item));
    return copy;
}

static struct jinja_value reverse(struct jinja_eval *e, struct jinja_value v,
                                  const struct jinja_arguments *a)
{
    struct jinja_value part[3] = {{0}, {0}, jinja_int(e, -1)};

    (void)a;
    return jinja_slice(e, v, part);
}

static struct jinja_value whole(struct jinja_eval *e, double x, struct jinja_value other)
{
    if (x != x)
        return other;
    return x > -9e18 && x < 9e18 ? jinja_int(e, (int64_t)x)
                                 : jinja_fail(e, -ERANGE, "a whole number out of bounds");
}

/* As int() reads a text, and where it does not, float(); else the default. Both pass over white
 * space at the sides. */
static struct jinja_value int_of_text(struct jinja_eval *e, json_t *s, struct jinja_value other)
{
    struct jinja_value v = jinja_strip(e, s, SIDE_BOTH, (struct jinja_value){0});
    const char *text = json_string_value(v.json);
    size_t n = json_string_length(v.json), sign;
    char *end;
    long long i;
    double x;

    if (e->r < 0 || !n || jinja_look(e, n) < 0 || strspn(text, "+-.0123456789eE_") != n)
        return other;
    if (strchr(text, '_'))
        return jinja_fail(e, -ENOTSUP, "int of a number with _ in it is not supported");
    sign = *text == '-' || *text == '+';
    errno = 0;
    i = strtoll(text, &end, 10);
    if (n > sign && strspn(text + sign, "0123456789") == n - sign)
        return errno ? jinja_fail(e, -ERANGE, "a whole number out of bounds") : jinja_int(e, i);
    x = tr_number_read(text, &end);
    return end != text && !*end && x > -HUGE_VAL && x < HUGE_VAL ? whole(e, x, other) : other;
}

static struct jinja_value to_int(struct jinja_eval *e, struct jinja_value v,
                                 const struct jinja_arguments *a)
{
    struct jinja_value other = jinja_argument(a, 0, "default");

    if (jinja_argument(a, 1, "base").kind != VALUE_UNDEFINED)
        return jinja_fail(e, -ENOTSUP, "int with a base is not supported");
    if (other.kind == VALUE_UNDEFINED)
        other = jinja_int(e, 0);
    if (v.kind != VALUE_JSON)
        return other;
    if (json_is_integer(v.json))
        return v;
    if (json_is_boolean(v.json))
        return jinja_int(e, json_is_true(v.json));
    if (json_is_real(v.json))
        return whole(e, json_real_value(v.json), other);
    return json_is_string(v.json) ? int_of_text(e, v.json, other) : other;
}

static struct jinja_value pairs(struct jinja_eval *e, struct jinja_value v,
                                const struct jinja_arguments *a)
{
    struct jinja_arguments none = {.n = 0};

    (void)a;
    if (v.kind == VALUE_UNDEFINED)
        return jinja_keep(e, json_array());
    return jinja_method(e, v, "items", &none);
}

static int by_key(const void *a, const void *b)
{
    return strcasecmp(json_string_value(json_array_get(*(json_t *const *)a, 0)),
                      json_string_value(json_array_get(*(json_t *const *)b, 0)));
}

static struct jinja_value dictsort(struct jinja_eval *e, struct jinja_value v,
                                   const struct jinja_arguments *a)
{
    json_t *items = pairs(e, v, a).json;
    size_t n = json_array_size(items);
    json_t **order = calloc(n + 1, sizeof(json_t *));
    struct jinja_value out = jinja_keep(e, json_array());

    if (a->n)
        jinja_fail(e, -ENOTSUP, "dictsort with arguments is not supported");
    for (size_t i = 0; order && i < n; i++)
        order[i] = json_array_get(items, i);
    if (order)
        qsort(order, n, sizeof(*order), by_key);
    for (size_t i = 0; order && i < n; i++)
        jinja_append(e, out.json, jinja_json(order[i]));
    free(order);
    return out;
}

static struct jinja_value replace(struct jinja_eval *e, struct jinja_value v,
                                  const struct jinja_arguments *a)
{
    v = as_text(e, v);
    return e->r < 0 ? v : jinja_method(e, v, "replace", a);
}

/* "a.b.0": item by item, of which those made of digits are places. */
static struct jinja_value walk(struct jinja_eval *e, struct jinja_value v, struct jinja_value name)
{
    const char *at, *dot;

    if (name.kind != VALUE_JSON || !json_is_string(name.json))
        return jinja_item(e, v, name);
    for (at = json_string_value(name.json); at && e->r == 0; at = dot ? dot + 1 : NULL) {
        size_t n = (size_t)((dot = strchr(at, '.')) ? dot - at : (long)strlen(at));
        int place = n && n < 10 && strspn(at, "0123456789") >= n;

        v = jinja_item(e, v, place ? jinja_int(e, atoi(at)) : jinja_text(e, at, n));
    }
    return v;
}

static struct jinja_value join(struct jinja_eval *e, struct jinja_value v,
                               const struct jinja_arguments *a)
{
    struct jinja_value between = jinja_argument(a, 0, "d");
    struct jinja_value name = jinja_argument(a, 1, "attribute");
    json_t *items = jinja_items(e, v), *item;
    struct tok_buf b = {0};
    size_t i;

    json_array_foreach(items, i, item) {
        struct jinja_value one = jinja_json(item);

        if (i)
            jinja_write(e, &b, between);
        jinja_write(e, &b, name.kind == VALUE_UNDEFINED ? one : walk(e, one, name));
    }
    return jinja_take(e, &b);
}

static struct jinja_value to_json(struct jinja_eval *e, struct jinja_value v,
                                  const struct jinja_arguments *a)
{
    struct jinja_value indent = jinja_argument(a, 1, "indent");
    struct jinja_value separators = jinja_argument(a, 2, "separators");
    struct jinja_json_form f = {.indent = -1, .comma = ", ", .colon = ": "};
    const char *comma, *colon;
    struct tok_buf b = {0};

    if (v.kind != VALUE_JSON)
        return jinja_fail(e, -EINVAL, "tojson of %.64s, which is no data",
                          v.name ? v.name : "a value");
    f.ascii = jinja_true(jinja_argument(a, 0, "ensure_ascii"));
    f.sorted = jinja_true(jinja_argument(a, 3, "sort_keys"));
    if (indent.kind == VALUE_JSON && json_is_integer(indent.json)) {
        f.indent = (int)json_integer_value(indent.json);
        f.comma = ",";
    }
    if (f.indent < -1 || f.indent > 16)
        return jinja_fail(e, -EINVAL, "tojson: an indent of 0 to 16 is supported");
    if (separators.kind == VALUE_JSON && !json_is_null(separators.json)) {
        comma = json_string_value(json_array_get(separators.json, 0));
        colon = json_string_value(json_array_get(separators.json, 1));
        if (!comma || !colon)
            return jinja_fail(e, -EINVAL, "tojson: separators are two texts");
        f.comma = comma;
        f.colon = colon;
    }
    jinja_write_json(e, &b, v.json, &f, 0);
    return jinja_take(e, &b);
}

/* The arguments from place `from` on. */
static struct jinja_arguments rest(const struct jinja_arguments *a, int from)
{
    struct jinja_arguments r = {.n = 0};

    for (int i = from; i < a->n; i++) {
        r.v[r.n] = a->v[i];
        r.name[r.n++] = a->name[i];
    }
    return r;
}

/* select, reject (attribute 0), selectattr, rejectattr (1): by a test, or by being true. */
static struct jinja_value chosen(struct jinja_eval *e, struct jinja_value v,
                                 const struct jinja_arguments *a, int attribute, int keep)
{
    struct jinja_value out = jinja_keep(e, json_array());
    struct jinja_value name = jinja_argument(a, 0, NULL), test = jinja_argument(a, attribute, NULL);
    struct jinja_arguments more = rest(a, attribute + 1);
    json_t *items = jinja_items(e, v), *item;
    size_t i;

    if (attribute && (name.kind != VALUE_JSON || !json_is_string(name.json)))
        return jinja_fail(e, -EINVAL, "selectattr needs an attribute's name");
    if (test.kind != VALUE_UNDEFINED && (test.kind != VALUE_JSON || !json_is_string(test.json)))
        return jinja_fail(e, -EINVAL, "a test's name is expected");
    json_array_foreach(items, i, item) {
        struct jinja_value one = jinja_json(item), of = one;

        if (attribute)
            of = walk(e, one, name);
        if ((test.kind == VALUE_JSON ? jinja_test(e, json_string_value(test.json), of, &more)
                                     : jinja_true(of)) == keep)
            jinja_append(e, out.json, one);
    }
    return out;
}

static struct jinja_value select_items(struct jinja_eval *e, struct jinja_value v,
                                       const struct jinja_arguments *a)
{
    return chosen(e, v, a, 0, 1);
}

static struct jinja_value reject(struct jinja_eval *e, struct jinja_value v,
                                 const struct jinja_arguments *a)
{
    return chosen(e, v, a, 0, 0);
}

static struct jinja_value selectattr(struct jinja_eval *e, struct jinja_value v,
                                     const struct jinja_arguments *a)
{
    return chosen(e, v, a, 1, 1);
}

static struct jinja_value rejectattr(struct jinja_eval *e, struct jinja_value v,
                                     const struct jinja_arguments *a)
{
    return chosen(e, v, a, 1, 0);
}

static struct jinja_value map(struct jinja_eval *e, struct jinja_value v,
                              const struct jinja_arguments *a)
{
    struct jinja_value out = jinja_keep(e, json_array());
    struct jinja_value name = jinja_argument(a, 0, "attribute");
    struct jinja_arguments more = rest(a, 1);
    int attribute = a->n && a->name[0];
    json_t *items = jinja_items(e, v), *item;
    size_t i;

    if (name.kind != VALUE_JSON || !json_is_string(name.json))
        return jinja_fail(e, -EINVAL, "map needs an attribute's or a filter's name");
    json_array_foreach(items, i, item) {
        struct jinja_value one = jinja_json(item);

        jinja_append(e, out.json,
                     attribute ? walk(e, one, name)
                               : jinja_filter(e, json_string_value(name.json), one, &more));
    }
    return out;
}

/* Lines behind the first (first: it too) are moved to the right, but for empty ones (blank: these
 * too). */
static struct jinja_value indent(struct jinja_eval *e, struct jinja_value v,
                                 const struct jinja_arguments *a)
{
    struct jinja_value width = jinja_argument(a, 0, "width");
    int64_t n = width.kind == VALUE_JSON && json_is_integer(width.json)
                    ? json_integer_value(width.json)
                    : 4;
    int blank = jinja_true(jinja_argument(a, 2, "blank")), moved;
    struct tok_buf b = {0};
    const char *s, *end;

    if (width.kind == VALUE_JSON && !json_is_integer(width.json))
        return jinja_fail(e, -ENOTSUP, "indent by something that is no whole number");
    v = as_text(e, v);
    if (e->r < 0)
        return v;
    s = json_string_value(v.json);
    end = s + json_string_length(v.json);
    for (moved = jinja_true(jinja_argument(a, 1, "first")); e->r == 0; s++) {
        for (int64_t i = 0; moved && i < n && e->r == 0; i++)
            jinja_add(e, &b, " ", 1);
        if (s == end)
            break;
        s += *s == '\r' && s + 1 < end && s[1] == '\n';
        moved = *s == '\n' || *s == '\r';
        jinja_add(e, &b, moved ? "\n" : s, 1);
        moved = moved && (blank || (s + 1 < end && s[1] != '\n' && s[1] != '\r'));
    }
    return jinja_take(e, &b);
}

static struct jinja_value safe(struct jinja_eval *e, struct jinja_value v,
                               const struct jinja_arguments *a)
{
    (void)e;
    (void)a;
    return v;
}

struct jinja_value jinja_filter(struct jinja_eval *e, const char *name, struct jinja_value v,
                                const struct jinja_arguments *a)
{
    static const struct {
        const char *name;
        filter_fn *fn;
    } filters[] = {
        {"trim", trim},
        {"tojson", to_json},
        {"length", length},
        {"count", length},
        {"upper", upper},
        {"lower", lower},
        {"title", title},
        {"capitalize", capitalize},
        {"default", otherwise},
        {"d", otherwise},
        {"first", first},
        {"last", last},
        {"list", list},
        {"reverse", reverse},
        {"string", string},
        {"int", to_int},
        {"items", pairs},
        {"dictsort", dictsort},
        {"replace", replace},
        {"join", join},
        {"select", select_items},
        {"reject", reject},
        {"selectattr", selectattr},
        {"rejectattr", rejectattr},
        {"map", map},
        {"indent", indent},
        {"safe", safe},
    };

    for (size_t i = 0; i < sizeof(filters) / sizeof(filters[0]); i++)
        if (!strcmp(filters[i].name, name))
            return e->r < 0 ? (struct jinja_value){0} : filters[i].fn(e, v, a);
    return jinja_fail(e, -ENOTSUP, "the filter \"%.64s\" is not supported", name);
}
