/* SPDX-License-Identifier: Apache-2.0
 *
 * Methods of texts and mappings: only those that change nothing.
 */
#include "src/text/jinja_parts.h"

#include <string.h>

#include "src/base/err.h"

static json_t *text_argument(struct jinja_eval *e, const struct jinja_arguments *a, int place,
                             const char *of)
{
    struct jinja_value v = jinja_argument(a, place, NULL);

    if (v.kind == VALUE_JSON && json_is_string(v.json))
        return v.json;
    jinja_fail(e, -EINVAL, "%.64s needs a text", of);
    return NULL;
}

static int64_t count_argument(const struct jinja_arguments *a, int place, const char *name)
{
    struct jinja_value v = jinja_argument(a, place, name);

    return v.kind == VALUE_JSON && json_is_integer(v.json) ? json_integer_value(v.json) : -1;
}

/* The bytes of a text that a search with a start and an end looks at. */
struct part {
    const char *v;
    size_t n;
    size_t before; /* code points in front of it */
    int none;      /* the start lies behind the end: not even an empty text is found */
};

/* A place as slices count it, from the end where it is below 0; `otherwise` where it is left out.
 */
static int64_t place_of(struct jinja_eval *e, struct jinja_value v, int64_t points,
                        int64_t otherwise)
{
    int64_t at;

    if (v.kind == VALUE_UNDEFINED || (v.kind == VALUE_JSON && json_is_null(v.json)))
        return otherwise;
    if (v.kind != VALUE_JSON || !json_is_integer(v.json))
        return jinja_fail(e, -EINVAL, "a place in a text is a whole number"), 0;
    at = json_integer_value(v.json);
    return at >= 0 ? at : at < -points ? 0 : at + points;
}

/* Arguments 1 and 2 of a search are where it starts and ends. */
static struct part part_of(struct jinja_eval *e, json_t *s, const struct jinja_arguments *a)
{
    struct part p = {json_string_value(s), json_string_length(s), 0, 0};
    int64_t points, from, to;
    size_t skip;

    if (a->n < 2 || jinja_look(e, p.n) < 0)
        return p;
    points = (int64_t)jinja_points(p.v, p.n);
    from = place_of(e, jinja_argument(a, 1, NULL), points, 0);
    to = place_of(e, jinja_argument(a, 2, NULL), points, points);
    to = to < points ? to : points;
    p.none = from > to;
    p.before = p.none ? 0 : (size_t)from;
    skip = jinja_offset(p.v, p.n, p.before);
    p.n = p.none ? 0 : jinja_offset(p.v + skip, p.n - skip, (size_t)(to - from));
    p.v += skip;
    return p;
}

static int stands_at(struct jinja_eval *e, const struct part *p, json_t *what, int end)
{
    size_t k = json_string_length(what);

    return !p->none && k <= p->n && jinja_look(e, k) == 0 &&
           !memcmp(p->v + (end ? p->n - k : 0), json_string_value(what), k);
}

/* Of one text, or of any in a list. */
static struct jinja_value starts(struct jinja_eval *e, json_t *s, const struct jinja_arguments *a,
                                 int end)
{
    struct jinja_value v = jinja_argument(a, 0, NULL);
    struct part p = part_of(e, s, a);
    json_t *item;
    size_t i;
    int is = 0;

    if (v.kind == VALUE_JSON && json_is_array(v.json)) {
        json_array_foreach(v.json, i, item)
            is |= json_is_string(item) && stands_at(e, &p, item, end);
        return jinja_bool(is);
    }
    item = text_argument(e, a, 0, end ? "endswith" : "startswith");
    return item ? jinja_bool(stands_at(e, &p, item, end)) : v;
}

static struct jinja_value find(struct jinja_eval *e, json_t *s, const struct jinja_arguments *a)
{
    json_t *what = text_argument(e, a, 0, "find");
    struct part p = part_of(e, s, a);
    const char *at = NULL;

    if (what && !p.none && jinja_look(e, p.n) == 0)
        at = memmem(p.v, p.n, json_string_value(what), json_string_length(what));
    return jinja_int(e, at ? (int64_t)(p.before + jinja_points(p.v, (size_t)(at - p.v))) : -1);
}

static struct jinja_value count(struct jinja_eval *e, json_t *s, const struct jinja_arguments *a)
{
    json_t *what = text_argument(e, a, 0, "count");
    struct part p = part_of(e, s, a);
    const char *v = p.v, *end = v + p.n;
    int64_t n = 0;

    if (!what || !json_string_length(what))
        return jinja_fail(e, -EINVAL, "count needs a text");
    if (jinja_look(e, p.n) < 0)
        return (struct jinja_value){0};
    while ((v = memmem(v, (size_t)(end - v), json_string_value(what), json_string_length(what)))) {
        v += json_string_length(what);
        n++;
    }
    return jinja_int(e, n);
}

static struct jinja_value join(struct jinja_eval *e, json_t *s, const struct jinja_arguments *a)
{
    json_t *items = jinja_items(e, jinja_argument(a, 0, NULL)), *item;
    struct tok_buf b = {0};
    size_t i;

    json_array_foreach(items, i, item) {
        if (i)
            jinja_write(e, &b, jinja_json(s));
        if (!json_is_string(item))
            jinja_fail(e, -EINVAL, "join of a value that is no text");
        jinja_write(e, &b, jinja_json(item));
    }
    return jinja_take(e, &b);
}

static struct jinja_value cut(struct jinja_eval *e, json_t *s, const struct jinja_arguments *a,
                              int end)
{
    json_t *what = text_argument(e, a, 0, end ? "removesuffix" : "removeprefix");
    struct part all = {json_string_value(s), json_string_length(s), 0, 0};
    size_t k = what && stands_at(e, &all, what, end) ? json_string_length(what) : 0;

    return jinja_text(e, json_string_value(s) + (end ? 0 : k), json_string_length(s) - k);
}

static struct jinja_value lines(struct jinja_eval *e, json_t *s)
{
    struct jinja_value list = jinja_keep(e, json_array());
    const char *v = json_string_value(s), *end = v + json_string_length(s);

    while (v < end && e->r == 0) {
        size_t n = 0;

        while (v + n < end && v[n] != '\n' && v[n] != '\r')
            n++;
        jinja_append(e, list.json, jinja_text(e, v, n));
        v += n;
        v += v + 1 < end && *v == '\r' && v[1] == '\n' ? 2 : v < end;
    }
    return list;
}

static struct jinja_value is_digits(struct jinja_eval *e, json_t *s)
{
    size_t n = json_string_length(s);

    return jinja_bool(n && jinja_look(e, n) == 0 &&
                      strspn(json_string_value(s), "0123456789") == n);
}

static struct jinja_value text_method(struct jinja_eval *e, json_t *s, const char *name,
                                      const struct jinja_arguments *a)
{
    json_t *from, *to;

    if (!strcmp(name, "strip"))
        return jinja_strip(e, s, SIDE_BOTH, jinja_argument(a, 0, NULL));
    if (!strcmp(name, "lstrip"))
        return jinja_strip(e, s, SIDE_LEFT, jinja_argument(a, 0, NULL));
    if (!strcmp(name, "rstrip"))
        return jinja_strip(e, s, SIDE_RIGHT, jinja_argument(a, 0, NULL));
    if (!strcmp(name, "split"))
        return jinja_split(e, s, jinja_argument(a, 0, "sep"), count_argument(a, 1, "maxsplit"));
    if (!strcmp(name, "startswith") || !strcmp(name, "endswith"))
        return starts(e, s, a, *name == 'e');
    if (!strcmp(name, "replace")) {
        from = text_argument(e, a, 0, name);
        to = text_argument(e, a, 1, name);
        return from && to ? jinja_replace(e, s, from, to, count_argument(a, 2, "count"))
                          : (struct jinja_value){0};
    }
    if (!strcmp(name, "upper"))
        return jinja_recase(e, s, CASE_UPPER);
    if (!strcmp(name, "lower"))
        return jinja_recase(e, s, CASE_LOWER);
    if (!strcmp(name, "title"))
        return jinja_recase(e, s, CASE_TITLE);
    if (!strcmp(name, "capitalize"))
        return jinja_recase(e, s, CASE_CAPITAL);
    if (!strcmp(name, "find"))
        return find(e, s, a);
    if (!strcmp(name, "count"))
        return count(e, s, a);
    if (!strcmp(name, "join"))
        return join(e, s, a);
    if (!strcmp(name, "removeprefix") || !strcmp(name, "removesuffix"))
        return cut(e, s, a, name[6] == 's');
    if (!strcmp(name, "splitlines"))
        return a->n ? jinja_fail(e, -ENOTSUP, "splitlines with arguments is not supported")
                    : lines(e, s);
    if (!strcmp(name, "isdigit"))
        return is_digits(e, s);
    return jinja_fail(e, -ENOTSUP, "a text's .%.64s() is not supported", name);
}

/* kind: 'i' pairs, 'k' keys, 'v' values. */
static struct jinja_value listed(struct jinja_eval *e, json_t *dict, char kind)
{
    struct jinja_value list = jinja_keep(e, json_array());
    const char *key;
    json_t *item;

    json_object_foreach(dict, key, item) {
        struct jinja_value name = jinja_text(e, key, strlen(key)), two;

        if (kind == 'i') {
            two = jinja_tuple(e, jinja_keep(e, json_array()));
            jinja_append(e, two.json, name);
            jinja_append(e, two.json, jinja_json(item));
        } else {
            two = kind == 'k' ? name : jinja_json(item);
        }
        jinja_append(e, list.json, two);
    }
    return list;
}

static struct jinja_value get(struct jinja_eval *e, json_t *dict, const struct jinja_arguments *a)
{
    struct jinja_value key = jinja_argument(a, 0, NULL), otherwise = jinja_argument(a, 1, NULL);
    json_t *found = key.kind == VALUE_JSON && json_is_string(key.json) &&
                            jinja_look(e, json_string_length(key.json)) == 0
                        ? json_object_get(dict, json_string_value(key.json))
                        : NULL;

    if (found)
        return jinja_json(found);
    return otherwise.kind == VALUE_UNDEFINED && a->n < 2 ? jinja_json(json_null()) : otherwise;
}

struct jinja_value jinja_method(struct jinja_eval *e, struct jinja_value v, const char *name,
                                const struct jinja_arguments *a)
{
    static const char *const lists[] = {"items", "keys", "values"};

    if (v.kind == VALUE_UNDEFINED)
        return jinja_fail(e, -EINVAL, "%.64s is undefined, and has no .%.64s()",
                          v.name ? v.name : "a value", name);
    if (v.kind == VALUE_JSON && json_is_string(v.json))
        return text_method(e, v.json, name, a);
    if (v.kind == VALUE_JSON && json_is_object(v.json)) {
        for (size_t i = 0; i < sizeof(lists) / sizeof(lists[0]); i++)
            if (!strcmp(name, lists[i]))
                return listed(e, v.json, *name);
        if (!strcmp(name, "get"))
            return get(e, v.json, a);
    }
    return jinja_fail(e, -ENOTSUP, ".%.64s() is not supported", name);
}
