/* SPDX-License-Identifier: Apache-2.0
 *
 * Operators of two values. Whole numbers have 64 bits, and leaving them is an error; true and false
 * count as 1 and 0, as in the reference's language.
 */
#include "src/text/jinja_parts.h"

#include <math.h>
#include <string.h>

#include "src/base/err.h"

/* 1 whole, 2 real, 0 no number. */
static int number(struct jinja_value v, int64_t *i, double *x)
{
    if (v.kind != VALUE_JSON)
        return 0;
    if (json_is_real(v.json)) {
        *x = json_real_value(v.json);
        return 2;
    }
    if (!json_is_integer(v.json) && !json_is_boolean(v.json))
        return 0;
    *i = json_is_integer(v.json) ? json_integer_value(v.json) : json_is_true(v.json);
    *x = (double)*i;
    return 1;
}

static struct jinja_value joined(struct jinja_eval *e, struct jinja_value a, struct jinja_value b)
{
    struct tok_buf text = {0};

    jinja_write(e, &text, a);
    jinja_write(e, &text, b);
    return jinja_take(e, &text);
}

static struct jinja_value added_lists(struct jinja_eval *e, json_t *a, json_t *b)
{
    struct jinja_value list = jinja_keep(e, json_array());
    json_t *item;
    size_t i;

    json_array_foreach(a, i, item)
        jinja_append(e, list.json, jinja_json(item));
    json_array_foreach(b, i, item)
        jinja_append(e, list.json, jinja_json(item));
    return list;
}

static struct jinja_value whole(struct jinja_eval *e, char op, int64_t a, int64_t b)
{
    int64_t r = 0;
    int over = 0;

    if (op == '+')
        over = __builtin_add_overflow(a, b, &r);
    else if (op == '-')
        over = __builtin_sub_overflow(a, b, &r);
    else if (op == '*')
        over = __builtin_mul_overflow(a, b, &r);
    else if (b == 0 || (a == INT64_MIN && b == -1))
        over = 1;
    else if (op == '%')
        r = a % b + (a % b && (a % b < 0) != (b < 0) ? b : 0);
    else
        r = a / b - (a % b && (a < 0) != (b < 0));
    return over ? jinja_fail(e, -ERANGE, "a whole number out of bounds") : jinja_int(e, r);
}

static struct jinja_value real(struct jinja_eval *e, const char *op, double a, double b)
{
    double r = *op == '+' ? a + b : *op == '-' ? a - b : *op == '*' ? a * b : a / b;

    if (*op == '%')
        r = a - b * floor(a / b);
    else if (!strcmp(op, "//"))
        r = floor(r);
    return isfinite(r) ? jinja_keep(e, json_real(r))
                       : jinja_fail(e, -ERANGE, "a number out of bounds");
}

struct jinja_value jinja_math(struct jinja_eval *e, const char *op, struct jinja_value a,
                              struct jinja_value b)
{
    int64_t i = 0, k = 0;
    double x = 0, y = 0;
    int is_a = number(a, &i, &x), is_b = number(b, &k, &y);

    if (*op == '~')
        return joined(e, a, b);
    if (*op == '+' && a.kind == VALUE_JSON && b.kind == VALUE_JSON) {
        if (json_is_string(a.json) && json_is_string(b.json))
            return joined(e, a, b);
        if (json_is_array(a.json) && json_is_array(b.json)) {
            struct jinja_value list = added_lists(e, a.json, b.json);

            return jinja_is_tuple(e, a.json) ? jinja_tuple(e, list) : list;
        }
    }
    if (!is_a || !is_b)
        return jinja_fail(e, -EINVAL, "\"%s\" between values that it does not fit%s%.64s", op,
                          a.kind && b.kind ? "" : "; undefined: ",
                          a.kind && b.kind             ? ""
                          : (a.kind ? b.name : a.name) ? (a.kind ? b.name : a.name)
                                                       : "a value");
    if (is_a == 1 && is_b == 1 && strcmp(op, "/") != 0)
        return whole(e, *op, i, k);
    return real(e, op, x, y);
}

static int equal_json(struct jinja_eval *e, json_t *a, json_t *b, int depth)
{
    int64_t i = 0, k = 0;
    double x = 0, y = 0;
    const char *key;
    json_t *item;
    size_t n;

    if (number(jinja_json(a), &i, &x) && number(jinja_json(b), &k, &y))
        return json_is_real(a) || json_is_real(b) ? x == y : i == k;
    if (json_typeof(a) != json_typeof(b) || depth > 200 || jinja_look(e, json_string_length(a)) < 0)
        return 0;
    if (json_is_string(a))
        return json_string_length(a) == json_string_length(b) &&
               !memcmp(json_string_value(a), json_string_value(b), json_string_length(a));
    if (json_is_array(a)) {
        if (json_array_size(a) != json_array_size(b))
            return 0;
        json_array_foreach(a, n, item)
            if (!equal_json(e, item, json_array_get(b, n), depth + 1))
                return 0;
    } else if (json_is_object(a)) {
        if (json_object_size(a) != json_object_size(b))
            return 0;
        json_object_foreach(a, key, item)
            if (!json_object_get(b, key) ||
                !equal_json(e, item, json_object_get(b, key), depth + 1))
                return 0;
    }
    return 1;
}

static int equal(struct jinja_eval *e, struct jinja_value a, struct jinja_value b)
{
    if (a.kind == VALUE_JSON && b.kind == VALUE_JSON)
        return equal_json(e, a.json, b.json, 0);
    return a.kind == b.kind && a.json == b.json && a.macro == b.macro && a.loop == b.loop;
}

static int within(struct jinja_eval *e, struct jinja_value a, struct jinja_value b)
{
    json_t *item;
    size_t i;

    if (b.kind == VALUE_UNDEFINED)
        return 0;
    if (b.kind == VALUE_JSON && json_is_array(b.json)) {
        json_array_foreach(b.json, i, item)
            if (equal(e, a, jinja_json(item)))
                return 1;
        return 0;
    }
    if (a.kind == VALUE_JSON && json_is_string(a.json) && b.kind == VALUE_JSON) {
        if (jinja_look(e, json_string_length(a.json) + json_string_length(b.json)) < 0)
            return 0;
        if (json_is_string(b.json))
            return memmem(json_string_value(b.json), json_string_length(b.json),
                          json_string_value(a.json), json_string_length(a.json)) != NULL;
        if (json_is_object(b.json))
            return json_object_get(b.json, json_string_value(a.json)) != NULL;
    }
    if (b.kind != VALUE_JSON || !json_is_object(b.json))
        jinja_fail(e, -EINVAL, "\"in\" a value that holds none");
    return 0;
}

static int compare_texts(const json_t *a, const json_t *b)
{
    size_t n = json_string_length(a), m = json_string_length(b);
    int by_bytes = memcmp(json_string_value(a), json_string_value(b), n < m ? n : m);

    return by_bytes ? by_bytes : (n > m) - (n < m);
}

/* Below 0, 0, above 0; texts by bytes, which for UTF-8 is by code points. */
static int order(struct jinja_eval *e, struct jinja_value a, struct jinja_value b)
{
    int64_t i = 0, k = 0;
    double x = 0, y = 0;

    if (number(a, &i, &x) && number(b, &k, &y)) {
        int by_value = (x > y) - (x < y);

        return by_value ? by_value : (i > k) - (i < k);
    }
    if (a.kind == VALUE_JSON && b.kind == VALUE_JSON && json_is_string(a.json) &&
        json_is_string(b.json) && jinja_look(e, json_string_length(a.json)) == 0)
        return compare_texts(a.json, b.json);
    jinja_fail(e, -EINVAL, "values of different kinds are not ordered");
    return 0;
}

int jinja_compare(struct jinja_eval *e, const char *op, struct jinja_value a, struct jinja_value b)
{
    if (!strcmp(op, "=="))
        return equal(e, a, b);
    if (!strcmp(op, "!="))
        return !equal(e, a, b);
    if (!strcmp(op, "in"))
        return within(e, a, b);
    if (!strcmp(op, "not in"))
        return !within(e, a, b);
    if (*op == '<')
        return op[1] ? order(e, a, b) <= 0 : order(e, a, b) < 0;
    return op[1] ? order(e, a, b) >= 0 : order(e, a, b) > 0;
}

/* A slice's end, brought into the bounds that the language says for steps up and down. */
static int64_t bound(int64_t at, int64_t n, int64_t step)
{
    if (at < 0)
        at = at < -n ? (step < 0 ? -1 : 0) : at + n;
    else if (at >= n)
        at = step < 0 ? n - 1 : n;
    return at;
}

static struct jinja_value sliced_list(struct jinja_eval *e, json_t *of, int64_t from, int64_t to,
                                      int64_t step)
{
    struct jinja_value list = jinja_keep(e, json_array());

    for (; (step > 0 ? from < to : from > to) && e->r == 0; from += step)
        jinja_append(e, list.json, jinja_json(json_array_get(of, (size_t)from)));
    return list;
}

static struct jinja_value joined_items(struct jinja_eval *e, json_t *items)
{
    struct tok_buf b = {0};
    json_t *item;
    size_t i;

    json_array_foreach(items, i, item)
        jinja_write(e, &b, jinja_json(item));
    return jinja_take(e, &b);
}

struct jinja_value jinja_slice(struct jinja_eval *e, struct jinja_value v,
                               const struct jinja_value part[3])
{
    int is_text = v.kind == VALUE_JSON && json_is_string(v.json);
    int64_t p[3] = {0, 0, 1}, n;
    int given[3];
    json_t *items;

    for (int i = 0; i < 3; i++) {
        given[i] = part[i].kind == VALUE_JSON && !json_is_null(part[i].json);
        if (given[i] && !json_is_integer(part[i].json))
            return jinja_fail(e, -EINVAL, "a slice by something that is no whole number");
        p[i] = given[i] ? json_integer_value(part[i].json) : p[i];
    }
    if (!is_text && (v.kind != VALUE_JSON || !json_is_array(v.json)))
        return jinja_fail(e, -EINVAL, "a slice of a value that is neither text nor list");
    items = jinja_items(e, v);
    n = (int64_t)json_array_size(items);
    if (p[2] == 0 || p[2] > INT32_MAX || p[2] < INT32_MIN)
        return jinja_fail(e, -EINVAL, "a slice by such a step");
    p[0] = given[0] ? bound(p[0], n, p[2]) : p[2] < 0 ? n - 1 : 0;
    p[1] = given[1] ? bound(p[1], n, p[2]) : p[2] < 0 ? -1 : n;
    v = sliced_list(e, items, p[0], p[1], p[2]);
    if (jinja_is_tuple(e, items))
        return jinja_tuple(e, v);
    return is_text ? joined_items(e, v.json) : v;
}
