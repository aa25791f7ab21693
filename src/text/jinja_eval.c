/* SPDX-License-Identifier: Apache-2.0
 *
 * Expressions evaluated, and the limits: every node costs a step, and so do every few bytes that
 * are looked at; every byte made is counted, and nesting has a bound, so that no template takes
 * more than a moment or its share of memory.
 */
#include "src/text/jinja_parts.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "src/base/err.h"
#include "src/base/mem.h"

#define STEPS_MOST   4000000u
#define BYTES_MOST   ((uint64_t)128 << 20)
#define BYTES_A_STEP 64 /* of a text that is searched, compared or measured */
#define NAMES_A_STEP 16 /* of variables, where one is looked for */
#define DEPTH_MOST   400

struct jinja_value jinja_fail(struct jinja_eval *e, int code, const char *fmt, ...)
{
    char text[512];
    va_list ap;

    if (e->r < 0)
        return (struct jinja_value){0};
    va_start(ap, fmt);
    vsnprintf(text, sizeof(text), fmt, ap);
    va_end(ap);
    e->r = tr_error(code, "%s:%d: %s", e->j->where, e->line, text);
    return (struct jinja_value){0};
}

int jinja_spend(struct jinja_eval *e, size_t bytes)
{
    if (e->r < 0)
        return e->r;
    e->steps++;
    e->bytes += bytes;
    if (e->steps > STEPS_MOST)
        jinja_fail(e, -ELOOP, "the template takes more than %u steps", STEPS_MOST);
    else if (e->bytes > BYTES_MOST)
        jinja_fail(e, -EFBIG, "the template makes more than %llu bytes",
                   (unsigned long long)BYTES_MOST);
    return e->r;
}

int jinja_look(struct jinja_eval *e, size_t bytes)
{
    e->steps += bytes / BYTES_A_STEP;
    return jinja_spend(e, 0);
}

void jinja_walk(struct jinja_eval *e, size_t names)
{
    e->steps += names / NAMES_A_STEP;
}

struct jinja_value jinja_keep(struct jinja_eval *e, json_t *json)
{
    json_t **v = e->pool;

    if (json && e->n_pool == e->pool_room) {
        size_t room = e->pool_room ? e->pool_room * 2 : 64;

        v = tr_realloc(TR_MEM_TEXT, e->pool, room * sizeof(*v));
        e->pool = v ? v : e->pool;
        e->pool_room = v ? room : e->pool_room;
    }
    if (!json || e->n_pool == e->pool_room) {
        json_decref(json);
        e->r = e->r < 0 ? e->r : tr_error(-ENOMEM, "out of memory");
        return (struct jinja_value){0};
    }
    e->pool[e->n_pool++] = json;
    jinja_spend(e, 32);
    return jinja_json(json);
}

struct jinja_value jinja_text(struct jinja_eval *e, const char *text, size_t bytes)
{
    if (jinja_spend(e, bytes) < 0)
        return (struct jinja_value){0};
    return jinja_keep(e, json_stringn(text, bytes));
}

static struct jinja_value name_value(struct jinja_eval *e, const char *name)
{
    static const char *const functions[] = {"raise_exception", "strftime_now", "namespace", "range",
                                            "dict"};
    size_t i = e->n_variables;
    json_t *v;

    while (i > 0 &&
           ((i > e->n_global && i <= e->hidden) || strcmp(e->variable[i - 1].name, name) != 0))
        i--;
    jinja_walk(e, e->n_variables - i);
    if (i > 0)
        return e->variable[i - 1].value;
    v = json_object_get(e->in->variables, name);
    if (v)
        return jinja_json(v);
    for (i = 0; i < sizeof(functions) / sizeof(functions[0]); i++)
        if (!strcmp(functions[i], name))
            return (struct jinja_value){.kind = VALUE_FUNCTION, .name = functions[i]};
    return (struct jinja_value){.name = name};
}

static struct jinja_value list_value(struct jinja_eval *e, const struct jinja_node *n)
{
    struct jinja_value list = jinja_keep(e, json_array());

    for (const struct jinja_node *i = n->a; i && e->r == 0; i = i->next)
        jinja_append(e, list.json, jinja_eval_node(e, i));
    return list;
}

/* The list that holds the value checks its depth. */
static struct jinja_value dict_value(struct jinja_eval *e, const struct jinja_node *n)
{
    struct jinja_value dict = jinja_keep(e, json_object()), held = jinja_keep(e, json_array());

    for (const struct jinja_node *i = n->a; i && e->r == 0; i = i->next->next) {
        struct jinja_value key = jinja_eval_node(e, i), v = jinja_eval_node(e, i->next);

        if (e->r == 0 && (key.kind != VALUE_JSON || !json_is_string(key.json)))
            jinja_fail(e, -EINVAL, "a mapping's key is no text");
        jinja_append(e, held.json, v);
        if (e->r == 0 && json_object_set(dict.json, json_string_value(key.json), v.json) < 0)
            e->r = -ENOMEM;
    }
    return dict;
}

static struct jinja_value negated(struct jinja_eval *e, struct jinja_value v)
{
    if (v.kind == VALUE_JSON && json_is_integer(v.json) && json_integer_value(v.json) != INT64_MIN)
        return jinja_int(e, -json_integer_value(v.json));
    if (v.kind == VALUE_JSON && json_is_real(v.json))
        return jinja_keep(e, json_real(-json_real_value(v.json)));
    return jinja_fail(e, -EINVAL, "\"-\" before a value that is no number");
}

static struct jinja_value slice_value(struct jinja_eval *e, const struct jinja_node *n)
{
    const struct jinja_node *node[3] = {n->b, n->c, n->d};
    struct jinja_value v = jinja_eval_node(e, n->a), part[3] = {{0}};

    for (int i = 0; i < 3; i++)
        if (node[i])
            part[i] = jinja_eval_node(e, node[i]);
    e->line = n->line;
    return e->r < 0 ? v : jinja_slice(e, v, part);
}

static struct jinja_value applied(struct jinja_eval *e, const struct jinja_node *n)
{
    struct jinja_value v = jinja_eval_node(e, n->a);
    struct jinja_arguments a;

    jinja_read_arguments(e, n->b, &a);
    e->line = n->line;
    if (e->r < 0)
        return (struct jinja_value){0};
    return n->kind == NODE_FILTER ? jinja_filter(e, n->text, v, &a)
                                  : jinja_bool(jinja_test(e, n->text, v, &a));
}

static struct jinja_value two_sided(struct jinja_eval *e, const struct jinja_node *n)
{
    struct jinja_value a = jinja_eval_node(e, n->a), b = {0};

    if (e->r < 0)
        return b;
    if (n->kind == NODE_AND || n->kind == NODE_OR)
        return jinja_true(a) == (n->kind == NODE_AND) ? jinja_eval_node(e, n->b) : a;
    b = jinja_eval_node(e, n->b);
    e->line = n->line;
    if (e->r < 0)
        return b;
    if (n->kind == NODE_ITEM)
        return jinja_item(e, a, b);
    return n->kind == NODE_MATH ? jinja_math(e, n->text, a, b)
                                : jinja_bool(jinja_compare(e, n->text, a, b));
}

static struct jinja_value eval_kind(struct jinja_eval *e, const struct jinja_node *n)
{
    switch (n->kind) {
    case NODE_LITERAL:
        return jinja_json(n->literal);
    case NODE_NAME:
        return name_value(e, n->text);
    case NODE_TUPLE:
        return jinja_tuple(e, list_value(e, n));
    case NODE_LIST:
        return list_value(e, n);
    case NODE_DICT:
        return dict_value(e, n);
    case NODE_ATTR:
        return jinja_attribute(e, jinja_eval_node(e, n->a), n->text);
    case NODE_SLICE:
        return slice_value(e, n);
    case NODE_CALL:
        return jinja_call(e, n);
    case NODE_FILTER:
    case NODE_TEST:
        return applied(e, n);
    case NODE_NOT:
        return jinja_bool(!jinja_true(jinja_eval_node(e, n->a)));
    case NODE_NEGATE:
        return negated(e, jinja_eval_node(e, n->a));
    case NODE_COND:
        if (jinja_true(jinja_eval_node(e, n->b)))
            return jinja_eval_node(e, n->a);
        return n->c ? jinja_eval_node(e, n->c) : (struct jinja_value){0};
    default:
        return two_sided(e, n);
    }
}

struct jinja_value jinja_eval_node(struct jinja_eval *e, const struct jinja_node *n)
{
    struct jinja_value v = {0};

    if (jinja_spend(e, 0) < 0)
        return v;
    e->line = n->line;
    if (++e->depth > DEPTH_MOST)
        jinja_fail(e, -ELOOP, "calls nested too deeply");
    else
        v = eval_kind(e, n);
    e->depth--;
    return e->r < 0 ? (struct jinja_value){0} : v;
}

int jinja_render(const struct jinja *j, const struct jinja_input *in, struct jinja_output *out)
{
    struct jinja_eval e = {.j = j, .in = in, .output = out, .out = &out->text};

    jinja_run(&e, j->body);
    bpe_map_free(&e.tuples);
    for (size_t i = 0; i < e.n_pool; i++)
        json_decref(e.pool[i]);
    tr_free(TR_MEM_TEXT, e.pool);
    tr_free(TR_MEM_TEXT, e.variable);
    tr_free(TR_MEM_TEXT, e.message);
    return e.r;
}
