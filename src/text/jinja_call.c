/* SPDX-License-Identifier: Apache-2.0
 *
 * Attributes, items and calls. An attribute is a key of the data, never a property of an object:
 * there is nothing behind a value that a template could reach.
 */
#include "src/text/jinja_parts.h"

#include <string.h>

#include "src/base/err.h"

#define RANGE_MOST 100000

void jinja_read_arguments(struct jinja_eval *e, const struct jinja_node *list,
                          struct jinja_arguments *a)
{
    a->n = 0;
    for (; list && e->r == 0; list = list->next) {
        int named = list->kind == NODE_KWARG;

        if (a->n == JINJA_ARGUMENTS) {
            jinja_fail(e, -E2BIG, "more than %d arguments", JINJA_ARGUMENTS);
            return;
        }
        a->name[a->n] = named ? list->text : NULL;
        a->v[a->n] = jinja_eval_node(e, named ? list->a : list);
        a->n++;
    }
}

static struct jinja_value loop_attribute(struct jinja_eval *e, const struct jinja_loop *l,
                                         const char *name)
{
    size_t n = json_array_size(l->items), at = l->at;

    if (!strcmp(name, "first"))
        return jinja_bool(at == 0);
    if (!strcmp(name, "last"))
        return jinja_bool(at + 1 == n);
    if (!strcmp(name, "index"))
        return jinja_int(e, (int64_t)at + 1);
    if (!strcmp(name, "index0"))
        return jinja_int(e, (int64_t)at);
    if (!strcmp(name, "revindex"))
        return jinja_int(e, (int64_t)(n - at));
    if (!strcmp(name, "revindex0"))
        return jinja_int(e, (int64_t)(n - at) - 1);
    if (!strcmp(name, "length"))
        return jinja_int(e, (int64_t)n);
    if (!strcmp(name, "previtem"))
        return jinja_json(at ? json_array_get(l->items, at - 1) : NULL);
    if (!strcmp(name, "nextitem"))
        return jinja_json(json_array_get(l->items, at + 1));
    return jinja_fail(e, -ENOTSUP, "loop.%.64s is not supported", name);
}

struct jinja_value jinja_attribute(struct jinja_eval *e, struct jinja_value v, const char *name)
{
    struct jinja_value found = {0};

    if (e->r < 0)
        return found;
    if (v.kind == VALUE_UNDEFINED)
        return jinja_fail(e, -EINVAL, "%.64s is undefined, and has no .%.64s",
                          v.name ? v.name : "a value", name);
    if (v.kind == VALUE_LOOP)
        return loop_attribute(e, v.loop, name);
    if (v.json && json_is_object(v.json))
        found = jinja_json(json_object_get(v.json, name));
    found.name = name;
    return found;
}

static size_t place_in(int64_t at, size_t n)
{
    return at < 0 ? (at >= -(int64_t)n ? (size_t)(at + (int64_t)n) : n) : (size_t)at;
}

static struct jinja_value point_at(struct jinja_eval *e, json_t *s, int64_t at)
{
    const char *v = json_string_value(s);
    size_t n = json_string_length(s), points, k, from;

    if (jinja_look(e, n) < 0)
        return (struct jinja_value){0};
    points = jinja_points(v, n);
    k = place_in(at, points);
    if (k >= points)
        return (struct jinja_value){0};
    from = jinja_offset(v, n, k);
    return jinja_text(e, v + from, jinja_offset(v + from, n - from, 1));
}

struct jinja_value jinja_item(struct jinja_eval *e, struct jinja_value v, struct jinja_value key)
{
    if (key.kind == VALUE_JSON && json_is_string(key.json) &&
        jinja_look(e, json_string_length(key.json)) == 0)
        return jinja_attribute(e, v, json_string_value(key.json));
    if (v.kind == VALUE_UNDEFINED)
        return jinja_fail(e, -EINVAL, "%.64s is undefined, and has no items",
                          v.name ? v.name : "a value");
    if (v.kind != VALUE_JSON || key.kind != VALUE_JSON || !json_is_integer(key.json))
        return (struct jinja_value){0};
    if (json_is_string(v.json))
        return point_at(e, v.json, json_integer_value(key.json));
    if (!json_is_array(v.json))
        return (struct jinja_value){0};
    return jinja_json(
        json_array_get(v.json, place_in(json_integer_value(key.json), json_array_size(v.json))));
}

static struct jinja_value raise(struct jinja_eval *e, const struct jinja_arguments *a)
{
    struct jinja_value v = jinja_argument(a, 0, "message");

    return jinja_fail(e, -EINVAL, "the template refuses the conversation: %.300s",
                      v.kind == VALUE_JSON && json_is_string(v.json) ? json_string_value(v.json)
                                                                     : "(no reason)");
}

/* The day that templates see is always the same (a Friday, which known templates fall back to): a
 * run's tokens must not depend on the day that it is continued on. */
static const struct {
    char letter;
    const char *text;
} day[] = {{'d', "26"},     {'b', "Jul"}, {'B', "July"}, {'m', "07"}, {'Y', "2024"}, {'y', "24"},
           {'A', "Friday"}, {'a', "Fri"}, {'H', "00"},   {'M', "00"}, {'S', "00"},   {'%', "%"}};

static struct jinja_value now(struct jinja_eval *e, const struct jinja_arguments *a)
{
    struct jinja_value v = jinja_argument(a, 0, "format");
    struct tok_buf b = {0};

    if (v.kind != VALUE_JSON || !json_is_string(v.json))
        return jinja_fail(e, -EINVAL, "strftime_now without a format");
    for (const char *s = json_string_value(v.json); *s && e->r == 0; s++) {
        const char *text = NULL;

        for (size_t i = 0; *s == '%' && i < sizeof(day) / sizeof(day[0]); i++)
            text = day[i].letter == s[1] ? day[i].text : text;
        if (*s != '%')
            jinja_add(e, &b, s, 1);
        else if (text)
            jinja_add(e, &b, text, strlen(text));
        else
            jinja_fail(e, -ENOTSUP, "strftime_now: \"%.2s\" is not supported", s);
        s += *s == '%' && s[1];
    }
    return jinja_take(e, &b);
}

static struct jinja_value range(struct jinja_eval *e, const struct jinja_arguments *a)
{
    struct jinja_value list = jinja_keep(e, json_array());
    int64_t v[3] = {0, 0, 1}, at;
    int past = 0;

    for (int i = 0; i < a->n && i < 3; i++) {
        if (a->v[i].kind != VALUE_JSON || !json_is_integer(a->v[i].json))
            return jinja_fail(e, -EINVAL, "range of something that is no whole number");
        v[i] = json_integer_value(a->v[i].json);
    }
    if (a->n == 1) {
        v[1] = v[0];
        v[0] = 0;
    }
    if (v[2] == 0 || v[2] > INT32_MAX || v[2] < INT32_MIN)
        return jinja_fail(e, -EINVAL, "range by such a step");
    for (at = v[0]; !past && (v[2] > 0 ? at < v[1] : at > v[1]) && e->r == 0;) {
        if (json_array_size(list.json) >= RANGE_MOST)
            return jinja_fail(e, -E2BIG, "a range of more than %d", RANGE_MOST);
        jinja_append(e, list.json, jinja_int(e, at));
        past = __builtin_add_overflow(at, v[2], &at);
    }
    return list;
}

static struct jinja_value make_dict(struct jinja_eval *e, const struct jinja_arguments *a)
{
    struct jinja_value dict = jinja_keep(e, json_object()), held = jinja_keep(e, json_array());

    for (int i = 0; i < a->n && e->r == 0; i++) {
        jinja_append(e, held.json, a->v[i]);
        if (e->r == 0 && !a->name[i])
            jinja_fail(e, -ENOTSUP, "namespace and dict take named values only");
        if (e->r == 0 && json_object_set(dict.json, a->name[i], a->v[i].json) < 0)
            e->r = -ENOMEM;
    }
    return dict;
}

static struct jinja_value call_function(struct jinja_eval *e, const char *name,
                                        const struct jinja_arguments *a)
{
    struct jinja_value v;

    if (!strcmp(name, "raise_exception"))
        return raise(e, a);
    if (!strcmp(name, "strftime_now"))
        return now(e, a);
    if (!strcmp(name, "range"))
        return range(e, a);
    v = make_dict(e, a);
    if (!strcmp(name, "namespace"))
        v.kind = VALUE_NAMESPACE;
    return v;
}

struct jinja_value jinja_call(struct jinja_eval *e, const struct jinja_node *n)
{
    struct jinja_arguments a;
    struct jinja_value v;
    int method = n->a->kind == NODE_ATTR;

    v = jinja_eval_node(e, method ? n->a->a : n->a);
    jinja_read_arguments(e, n->b, &a);
    e->line = n->line;
    if (e->r < 0)
        return (struct jinja_value){0};
    if (method)
        return jinja_method(e, v, n->a->text, &a);
    if (v.kind == VALUE_MACRO)
        return jinja_call_macro(e, v.macro, &a);
    if (v.kind == VALUE_FUNCTION)
        return call_function(e, v.name, &a);
    return jinja_fail(e, -EINVAL, "%.64s is no function", v.name ? v.name : "a value");
}
