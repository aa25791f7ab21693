/* SPDX-License-Identifier: Apache-2.0
 *
 * Statements run. A loop's body is a scope of its own each time round, so is a macro's; `if` is
 * none. A macro sees the variables of the template's outermost scope and its own.
 *
 * While the outermost text is written, each round of a loop over the messages leaves a span: the
 * bytes that it wrote for its message. Blocks and macros write elsewhere first, and leave none.
 */
#include "src/text/jinja_parts.h"

#include <stdlib.h>
#include <string.h>

#include "src/base/err.h"
#include "src/base/mem.h"

int jinja_assign(struct jinja_eval *e, const char *name, struct jinja_value v)
{
    size_t i = e->n_variables;

    if (e->r < 0)
        return e->r;
    while (i > 0 && e->variable[i - 1].depth == e->scope &&
           strcmp(e->variable[i - 1].name, name) != 0)
        i--;
    jinja_walk(e, e->n_variables - i);
    if (i > 0 && e->variable[i - 1].depth == e->scope) {
        e->variable[i - 1].value = v;
        return 0;
    }
    if (e->n_variables == e->variables_room) {
        size_t room = e->variables_room ? e->variables_room * 2 : 32;
        struct jinja_variable *grown = tr_realloc(TR_MEM_TEXT, e->variable, room * sizeof(*grown));

        if (!grown)
            return e->r = -ENOMEM;
        e->variable = grown;
        e->variables_room = room;
    }
    e->variable[e->n_variables++] = (struct jinja_variable){name, v, e->scope};
    return 0;
}

static void assign_target(struct jinja_eval *e, const struct jinja_node *target,
                          struct jinja_value v)
{
    const struct jinja_node *n = target->a;
    json_t *items;
    size_t i = 0;

    if (target->kind == NODE_NAME) {
        jinja_assign(e, target->text, v);
        return;
    }
    items = v.kind == VALUE_JSON ? jinja_items(e, v) : NULL;
    for (; n && items && i < json_array_size(items); n = n->next)
        jinja_assign(e, n->text, jinja_json(json_array_get(items, i++)));
    if (n || i != json_array_size(items))
        jinja_fail(e, -EINVAL, "a list is taken apart into another number of names");
}

/* The names of a namespace are its own; a value put there is held by a list first, which checks
 * it. */
static void assign_attribute(struct jinja_eval *e, const struct jinja_node *target,
                             struct jinja_value v)
{
    struct jinja_value of = jinja_eval_node(e, target->a);

    if (of.kind != VALUE_NAMESPACE) {
        jinja_fail(e, -EINVAL, "%.64s is no namespace", target->a->text);
        return;
    }
    jinja_append(e, jinja_keep(e, json_array()).json, v);
    if (e->r == 0 && json_object_set(of.json, target->text, v.json) < 0)
        e->r = -ENOMEM;
}

/* What the statements write, as a value. */
static struct jinja_value captured(struct jinja_eval *e, const struct jinja_node *body)
{
    struct tok_buf b = {0}, *outer = e->out;

    e->out = &b;
    jinja_run(e, body);
    e->out = outer;
    return jinja_take(e, &b);
}

static void run_set(struct jinja_eval *e, const struct jinja_node *n)
{
    struct jinja_value v = n->c ? captured(e, n->c) : jinja_eval_node(e, n->b);

    e->line = n->line;
    if (e->r < 0)
        return;
    if (n->a->kind == NODE_ATTR)
        assign_attribute(e, n->a, v);
    else
        assign_target(e, n->a, v);
}

static void add_span(struct jinja_eval *e, size_t from, int message)
{
    struct jinja_output *o = e->output;

    if (e->r < 0 || e->out != &o->text || o->text.n == from)
        return;
    if (o->n_spans == o->spans_room) {
        size_t room = o->spans_room ? o->spans_room * 2 : 16;
        struct jinja_span *v = tr_realloc(TR_MEM_TEXT, o->spans, room * sizeof(*v));

        if (!v) {
            e->r = -ENOMEM;
            return;
        }
        o->spans = v;
        o->spans_room = room;
    }
    o->spans[o->n_spans++] = (struct jinja_span){from, o->text.n, message};
}

static int by_identity(const void *a, const void *b)
{
    const struct jinja_message *x = a, *y = b;

    if (x->json != y->json)
        return (uintptr_t)x->json < (uintptr_t)y->json ? -1 : 1;
    return (x->index > y->index) - (x->index < y->index);
}

static void index_messages(struct jinja_eval *e)
{
    size_t n = json_array_size(e->in->messages);

    e->message = tr_alloc_array(TR_MEM_TEXT, n, sizeof(*e->message));
    if (!e->message) {
        e->r = -ENOMEM;
        return;
    }
    for (size_t i = 0; i < n; i++)
        e->message[i] = (struct jinja_message){json_array_get(e->in->messages, i), (int)i};
    qsort(e->message, n, sizeof(*e->message), by_identity);
    e->n_messages = n;
}

/* The first place of an item among the messages; -1 where it is none. */
static int message_of(struct jinja_eval *e, const json_t *item)
{
    size_t from = 0, to;

    if (!json_is_object(item) || !json_array_size(e->in->messages))
        return -1;
    if (!e->message)
        index_messages(e);
    for (to = e->n_messages; from < to;) {
        size_t middle = from + (to - from) / 2;

        if ((uintptr_t)e->message[middle].json < (uintptr_t)item)
            from = middle + 1;
        else
            to = middle;
    }
    return from < e->n_messages && e->message[from].json == item ? e->message[from].index : -1;
}

static void leave_scope(struct jinja_eval *e, size_t variables)
{
    e->scope--;
    e->n_variables = variables;
}

/* The items that pass the loop's condition; loop.index and its like count those. */
static json_t *chosen_items(struct jinja_eval *e, const struct jinja_node *n, json_t *items)
{
    json_t *list = jinja_keep(e, json_array()).json;
    size_t variables = e->n_variables;

    e->scope++;
    for (size_t i = 0; i < json_array_size(items) && e->r == 0; i++) {
        struct jinja_value v = jinja_json(json_array_get(items, i));

        assign_target(e, n->a, v);
        if (jinja_true(jinja_eval_node(e, n->d)))
            jinja_append(e, list, v);
    }
    leave_scope(e, variables);
    return list;
}

static void run_round(struct jinja_eval *e, const struct jinja_node *n, struct jinja_loop *loop)
{
    size_t variables = e->n_variables, from = e->out->n;
    json_t *item = json_array_get(loop->items, loop->at);
    int message = message_of(e, item);

    e->scope++;
    jinja_assign(e, "loop", (struct jinja_value){.kind = VALUE_LOOP, .loop = loop});
    assign_target(e, n->a, jinja_json(item));
    jinja_run(e, n->c);
    leave_scope(e, variables);
    if (message >= 0)
        add_span(e, from, message);
}

static void run_for(struct jinja_eval *e, const struct jinja_node *n)
{
    struct jinja_loop loop = {.items = jinja_items(e, jinja_eval_node(e, n->b))};

    if (e->r == 0 && n->d)
        loop.items = chosen_items(e, n, loop.items);
    if (e->r < 0)
        return;
    for (; loop.at < json_array_size(loop.items) && e->r == 0; loop.at++) {
        run_round(e, n, &loop);
        if (e->leave == NODE_BREAK) {
            e->leave = 0;
            return;
        }
        e->leave = 0;
    }
    if (!json_array_size(loop.items) && n->e)
        jinja_run(e, n->e);
}

/* An argument by place, by name, or its default; a name that is no parameter is an error. */
static void bind_parameters(struct jinja_eval *e, const struct jinja_node *macro,
                            const struct jinja_arguments *a)
{
    int place = 0, used = 0;

    for (const struct jinja_node *p = macro->a; p; p = p->next, place++) {
        struct jinja_value v = jinja_argument(a, place, p->text);
        int given = 0, at = 0;

        for (int i = 0; i < a->n; i++) {
            given += a->name[i] ? !strcmp(a->name[i], p->text) : at == place;
            at += !a->name[i];
        }
        if (!given && p->a)
            v = jinja_eval_node(e, p->a);
        used += given;
        jinja_assign(e, p->text, v);
    }
    if (used != a->n)
        jinja_fail(e, -EINVAL, "macro %.64s is called with arguments that it does not have",
                   macro->text);
}

struct jinja_value jinja_call_macro(struct jinja_eval *e, const struct jinja_node *macro,
                                    const struct jinja_arguments *a)
{
    size_t hidden = e->hidden, variables = e->n_variables, global = e->n_global;
    struct jinja_value v = {0};
    size_t top = 0;

    while (top < variables && e->variable[top].depth == 0)
        top++;
    e->n_global = top;
    e->hidden = variables;
    e->scope++;
    bind_parameters(e, macro, a);
    if (e->r == 0)
        v = captured(e, macro->b);
    leave_scope(e, variables);
    e->hidden = hidden;
    e->n_global = global;
    return v;
}

static void run_generation(struct jinja_eval *e, const struct jinja_node *n)
{
    size_t from = e->out->n;

    if (e->out != &e->output->text)
        jinja_fail(e, -ENOTSUP, "a generation block inside of a macro or a set block");
    jinja_run(e, n->a);
    add_span(e, from, -1);
}

static void run_one(struct jinja_eval *e, const struct jinja_node *n)
{
    switch (n->kind) {
    case NODE_DATA:
        jinja_add(e, e->out, n->text ? n->text : "", n->bytes);
        break;
    case NODE_PRINT:
        jinja_write(e, e->out, jinja_eval_node(e, n->a));
        break;
    case NODE_IF:
        jinja_run(e, jinja_true(jinja_eval_node(e, n->a)) ? n->b : n->c);
        break;
    case NODE_FOR:
        run_for(e, n);
        break;
    case NODE_SET:
        run_set(e, n);
        break;
    case NODE_MACRO:
        jinja_assign(e, n->text, (struct jinja_value){.kind = VALUE_MACRO, .macro = n});
        break;
    case NODE_GENERATION:
        run_generation(e, n);
        break;
    default:
        e->leave = (int)n->kind;
    }
}

void jinja_run(struct jinja_eval *e, const struct jinja_node *n)
{
    for (; n && e->r == 0 && !e->leave; n = n->next) {
        e->line = n->line;
        if (jinja_spend(e, 0) == 0)
            run_one(e, n);
    }
}
