/* SPDX-License-Identifier: Apache-2.0
 *
 * What stands behind "is". true and false are numbers, texts and mappings are sequences, as in the
 * reference.
 */
#include "src/text/jinja_parts.h"

#include <string.h>

#include "src/base/err.h"

static int is_kind(struct jinja_value v, json_type type)
{
    return v.kind == VALUE_JSON && json_typeof(v.json) == type;
}

static int is_sequence(struct jinja_value v)
{
    return v.kind == VALUE_UNDEFINED || is_kind(v, JSON_ARRAY) || is_kind(v, JSON_OBJECT) ||
           is_kind(v, JSON_STRING);
}

static int is_boolean(struct jinja_value v)
{
    return v.kind == VALUE_JSON && json_is_boolean(v.json);
}

/* 1 and *truth where the name is known. */
static int of_kind(const char *name, struct jinja_value v, int *truth)
{
    const struct {
        const char *name;
        int truth;
    } known[] = {
        {"defined", v.kind != VALUE_UNDEFINED},
        {"undefined", v.kind == VALUE_UNDEFINED},
        {"none", is_kind(v, JSON_NULL)},
        {"string", is_kind(v, JSON_STRING)},
        {"mapping", is_kind(v, JSON_OBJECT)},
        {"integer", is_kind(v, JSON_INTEGER)},
        {"float", is_kind(v, JSON_REAL)},
        {"number", is_kind(v, JSON_INTEGER) || is_kind(v, JSON_REAL) || is_boolean(v)},
        {"boolean", is_boolean(v)},
        {"true", is_kind(v, JSON_TRUE)},
        {"false", is_kind(v, JSON_FALSE)},
        {"iterable", is_sequence(v)},
        {"sequence", is_sequence(v)},
        {"callable", v.kind == VALUE_FUNCTION || v.kind == VALUE_MACRO},
    };

    for (size_t i = 0; i < sizeof(known) / sizeof(known[0]); i++)
        if (!strcmp(name, known[i].name)) {
            *truth = known[i].truth;
            return 1;
        }
    return 0;
}

static const char *comparison(const char *name)
{
    static const char *const known[][2] = {
        {"eq", "=="},         {"equalto", "=="}, {"ne", "!="}, {"lt", "<"},  {"lessthan", "<"},
        {"greaterthan", ">"}, {"gt", ">"},       {"le", "<="}, {"ge", ">="}, {"in", "in"},
    };

    for (size_t i = 0; i < sizeof(known) / sizeof(known[0]); i++)
        if (!strcmp(name, known[i][0]))
            return known[i][1];
    return NULL;
}

static int divides(struct jinja_eval *e, struct jinja_value v, struct jinja_value by)
{
    int whole = is_kind(v, JSON_INTEGER) && is_kind(by, JSON_INTEGER);
    int64_t k = whole ? json_integer_value(by.json) : 0;

    if (!k)
        jinja_fail(e, -EINVAL, "a test that needs whole numbers");
    return k && (k == -1 || json_integer_value(v.json) % k == 0);
}

int jinja_test(struct jinja_eval *e, const char *name, struct jinja_value v,
               const struct jinja_arguments *a)
{
    const char *op = comparison(name);
    int truth = 0;

    if (of_kind(name, v, &truth))
        return truth;
    if (op)
        return jinja_compare(e, op, v, jinja_argument(a, 0, NULL));
    if (!strcmp(name, "divisibleby"))
        return divides(e, v, jinja_argument(a, 0, NULL));
    if (!strcmp(name, "even") || !strcmp(name, "odd"))
        return divides(e, v, jinja_int(e, 2)) == (*name == 'e');
    jinja_fail(e, -ENOTSUP, "the test \"%.64s\" is not supported", name);
    return 0;
}
