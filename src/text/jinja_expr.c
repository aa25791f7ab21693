/* SPDX-License-Identifier: Apache-2.0
 *
 * Expressions, from the loosest to the tightest: x if y else z; or; and; not; comparisons; + -; ~;
 * * / // %; signs; then a name or literal with its attributes, items, calls, filters and tests.
 */
#include "src/text/jinja_parse.h"

#include <stdlib.h>
#include <string.h>

#include "src/base/err.h"
#include "src/base/number.h"

static struct jinja_node *parse_unary(struct jinja_parser *p, int filters);

static struct jinja_node *pair(struct jinja_parser *p, enum jinja_kind kind, const char *text,
                               struct jinja_node *a)
{
    struct jinja_node *n = jinja_node(p, kind);

    if (n) {
        n->text = text;
        n->a = a;
    }
    return n;
}

static struct jinja_node *literal(struct jinja_parser *p, json_t *v)
{
    struct jinja_node *n = jinja_node(p, NODE_LITERAL);

    if (!v || json_array_append_new(p->j->literals, v) < 0)
        p->r = p->r < 0 ? p->r : tr_error(-EINVAL, "%s: a text is not UTF-8", p->j->where);
    else if (n)
        n->literal = v;
    return p->r < 0 ? NULL : n;
}

/* Texts behind one another are one text. */
static struct jinja_node *parse_string(struct jinja_parser *p)
{
    struct tok_buf b = {0};
    struct jinja_node *n = NULL;

    while (p->r == 0 && jinja_is(p, TOKEN_STRING, NULL)) {
        const struct jinja_token *t = &p->j->token[p->at++];

        p->r = tok_buf_add(&b, t->text, t->bytes);
    }
    if (p->r == 0)
        n = literal(p, json_stringn(b.v ? b.v : "", b.n));
    tok_buf_free(&b);
    return n;
}

/* Items up to `close`, which is taken. */
static struct jinja_node *parse_items(struct jinja_parser *p, const char *close)
{
    struct jinja_node *first = NULL, **to = &first;

    while (p->r == 0 && !jinja_is(p, TOKEN_OP, close)) {
        *to = jinja_parse_expression(p);
        if (*to)
            to = &(*to)->next;
        if (!jinja_accept(p, TOKEN_OP, ","))
            break;
    }
    jinja_expect(p, TOKEN_OP, close, "a bracket is not closed");
    return first;
}

static struct jinja_node *parse_dict(struct jinja_parser *p)
{
    struct jinja_node *n = jinja_node(p, NODE_DICT), **to;

    if (!n)
        return NULL;
    to = &n->a;
    while (p->r == 0 && !jinja_is(p, TOKEN_OP, "}")) {
        *to = jinja_parse_expression(p);
        jinja_expect(p, TOKEN_OP, ":", "\":\" is expected");
        if (p->r == 0)
            (*to)->next = jinja_parse_expression(p);
        if (p->r == 0)
            to = &(*to)->next->next;
        if (!jinja_accept(p, TOKEN_OP, ","))
            break;
    }
    jinja_expect(p, TOKEN_OP, "}", "a bracket is not closed");
    return n;
}

static struct jinja_node *parse_bracket(struct jinja_parser *p)
{
    struct jinja_node *n;

    if (jinja_accept(p, TOKEN_OP, "[")) {
        n = pair(p, NODE_LIST, NULL, NULL);
        if (n)
            n->a = parse_items(p, "]");
        return n;
    }
    if (jinja_accept(p, TOKEN_OP, "{"))
        return parse_dict(p);
    if (!jinja_accept(p, TOKEN_OP, "("))
        return jinja_parse_fail(p, "a value is expected");
    if (jinja_accept(p, TOKEN_OP, ")"))
        return jinja_node(p, NODE_TUPLE);
    n = jinja_parse_tuple(p);
    jinja_expect(p, TOKEN_OP, ")", "a bracket is not closed");
    return n;
}

static struct jinja_node *parse_primary(struct jinja_parser *p)
{
    const struct jinja_token *t = &p->j->token[p->at];

    if (p->r < 0)
        return NULL;
    if (t->kind == TOKEN_STRING)
        return parse_string(p);
    if (jinja_accept(p, TOKEN_INT, NULL))
        return literal(p, json_integer(strtoll(t->text, NULL, 10)));
    if (jinja_accept(p, TOKEN_FLOAT, NULL))
        return literal(p, json_real(tr_number_read(t->text, NULL)));
    if (jinja_accept(p, TOKEN_NAME, "true") || jinja_accept(p, TOKEN_NAME, "True"))
        return literal(p, json_true());
    if (jinja_accept(p, TOKEN_NAME, "false") || jinja_accept(p, TOKEN_NAME, "False"))
        return literal(p, json_false());
    if (jinja_accept(p, TOKEN_NAME, "none") || jinja_accept(p, TOKEN_NAME, "None"))
        return literal(p, json_null());
    if (t->kind == TOKEN_NAME)
        return jinja_name_node(p, NODE_NAME, "a name");
    return parse_bracket(p);
}

static struct jinja_node *parse_arguments(struct jinja_parser *p)
{
    struct jinja_node *first = NULL, **to = &first;

    while (p->r == 0 && !jinja_is(p, TOKEN_OP, ")")) {
        const struct jinja_token *t = &p->j->token[p->at];

        if (t->kind == TOKEN_NAME && t[1].kind == TOKEN_OP && !strcmp(t[1].text, "=")) {
            *to = jinja_name_node(p, NODE_KWARG, "a name");
            p->at++;
            if (*to)
                (*to)->a = jinja_parse_expression(p);
        } else {
            /* A node of its own: `next` of a literal may not be shared. */
            *to = jinja_parse_expression(p);
        }
        if (*to)
            to = &(*to)->next;
        if (!jinja_accept(p, TOKEN_OP, ","))
            break;
    }
    jinja_expect(p, TOKEN_OP, ")", "a bracket is not closed");
    return first;
}

static struct jinja_node *slice_part(struct jinja_parser *p)
{
    return jinja_is(p, TOKEN_OP, ":") || jinja_is(p, TOKEN_OP, "]") ? NULL
                                                                    : jinja_parse_expression(p);
}

static struct jinja_node *parse_subscript(struct jinja_parser *p, struct jinja_node *of)
{
    struct jinja_node *n = pair(p, NODE_ITEM, NULL, of);

    if (!n)
        return NULL;
    n->b = slice_part(p);
    if (jinja_accept(p, TOKEN_OP, ":")) {
        n->kind = NODE_SLICE;
        n->c = slice_part(p);
        if (jinja_accept(p, TOKEN_OP, ":"))
            n->d = slice_part(p);
    } else if (p->r == 0 && !n->b) {
        return jinja_parse_fail(p, "an item's place is expected");
    }
    jinja_expect(p, TOKEN_OP, "]", "a bracket is not closed");
    return n;
}

static struct jinja_node *parse_dot(struct jinja_parser *p, struct jinja_node *of)
{
    const struct jinja_token *t = &p->j->token[p->at];
    struct jinja_node *n;

    if (jinja_accept(p, TOKEN_INT, NULL)) { /* x.0 is x[0] */
        n = pair(p, NODE_ITEM, NULL, of);
        if (n)
            n->b = literal(p, json_integer(strtoll(t->text, NULL, 10)));
        return n;
    }
    n = jinja_name_node(p, NODE_ATTR, "an attribute is expected");
    if (n)
        n->a = of;
    return n;
}

/* Calls n; the opening bracket has been read. */
static struct jinja_node *parse_call(struct jinja_parser *p, struct jinja_node *n)
{
    n = pair(p, NODE_CALL, NULL, n);
    if (n)
        n->b = parse_arguments(p);
    return n;
}

static struct jinja_node *parse_postfix(struct jinja_parser *p, struct jinja_node *n)
{
    int entered = 0;

    while (p->r == 0) {
        if (jinja_accept(p, TOKEN_OP, ".")) {
            n = parse_dot(p, n);
        } else if (jinja_accept(p, TOKEN_OP, "[")) {
            n = parse_subscript(p, n);
        } else if (jinja_accept(p, TOKEN_OP, "(")) {
            n = parse_call(p, n);
        } else {
            break;
        }
        entered += jinja_enter(p) == 0; /* a chain is as deep as it is long */
    }
    p->depth -= entered;
    return n;
}

/* A test's only argument may stand without brackets. */
static struct jinja_node *parse_bare_argument(struct jinja_parser *p)
{
    const struct jinja_token *t = &p->j->token[p->at];
    static const char *const words[] = {"else", "or", "and", "if", "is", "in", "not"};

    if (t->kind == TOKEN_NAME)
        for (size_t i = 0; i < sizeof(words) / sizeof(words[0]); i++)
            if (!strcmp(t->text, words[i]))
                return NULL;
    if (t->kind == TOKEN_NAME || t->kind == TOKEN_STRING || t->kind == TOKEN_INT ||
        t->kind == TOKEN_FLOAT || jinja_is(p, TOKEN_OP, "[") || jinja_is(p, TOKEN_OP, "{"))
        return parse_postfix(p, parse_primary(p));
    return NULL;
}

static struct jinja_node *parse_test(struct jinja_parser *p, struct jinja_node *of)
{
    int not = jinja_accept(p, TOKEN_NAME, "not");
    struct jinja_node *n = jinja_name_node(p, NODE_TEST, "a test's name is expected");

    if (!n)
        return NULL;
    n->a = of;
    n->b = jinja_accept(p, TOKEN_OP, "(") ? parse_arguments(p) : parse_bare_argument(p);
    return not ? pair(p, NODE_NOT, NULL, n) : n;
}

static struct jinja_node *parse_filters(struct jinja_parser *p, struct jinja_node *n)
{
    int entered = 0;

    while (p->r == 0) {
        if (jinja_accept(p, TOKEN_OP, "|")) {
            struct jinja_node *f = jinja_name_node(p, NODE_FILTER, "a filter's name is expected");

            if (!f)
                return NULL;
            f->a = n;
            f->b = jinja_accept(p, TOKEN_OP, "(") ? parse_arguments(p) : NULL;
            n = f;
        } else if (jinja_accept(p, TOKEN_NAME, "is")) {
            n = parse_test(p, n);
        } else if (jinja_accept(p, TOKEN_OP, "(")) {
            n = parse_call(p, n);
        } else {
            break;
        }
        entered += jinja_enter(p) == 0;
    }
    p->depth -= entered;
    return n;
}

static struct jinja_node *parse_unary(struct jinja_parser *p, int filters)
{
    struct jinja_node *n;

    if (jinja_enter(p) < 0)
        return NULL;
    if (jinja_accept(p, TOKEN_OP, "-"))
        n = pair(p, NODE_NEGATE, NULL, parse_unary(p, 0));
    else if (jinja_accept(p, TOKEN_OP, "+"))
        n = parse_unary(p, 0);
    else
        n = parse_postfix(p, parse_primary(p));
    if (filters)
        n = parse_filters(p, n);
    p->depth--;
    return n;
}

/* Levels of binary operators; each level's operands are of the next one. */
static const char *const levels[][5] = {{"+", "-"}, {"~"}, {"*", "//", "/", "%"}};

static struct jinja_node *parse_math(struct jinja_parser *p, int level)
{
    struct jinja_node *n = level == 3 ? parse_unary(p, 1) : parse_math(p, level + 1);
    int more = level < 3, entered = 0;

    while (p->r == 0 && more) {
        more = 0;
        for (const char *const *op = levels[level]; *op && !more; op++)
            if (jinja_accept(p, TOKEN_OP, *op)) {
                n = pair(p, NODE_MATH, *op, n);
                if (n)
                    n->b = parse_math(p, level + 1);
                more = 1;
                entered += jinja_enter(p) == 0;
            }
    }
    p->depth -= entered;
    return n;
}

/* The operator that stands here, taken; NULL where there is none. */
static const char *accept_compare(struct jinja_parser *p)
{
    static const char *const ops[] = {"==", "!=", "<=", ">=", "<", ">"};
    const struct jinja_token *t = &p->j->token[p->at];

    for (size_t i = 0; i < sizeof(ops) / sizeof(ops[0]); i++)
        if (jinja_accept(p, TOKEN_OP, ops[i]))
            return ops[i];
    if (jinja_accept(p, TOKEN_NAME, "in"))
        return "in";
    if (t->kind == TOKEN_NAME && !strcmp(t->text, "not") && t[1].kind == TOKEN_NAME &&
        !strcmp(t[1].text, "in")) {
        p->at += 2;
        return "not in";
    }
    return NULL;
}

/* a < b < c is a < b and b < c. */
static struct jinja_node *parse_compare(struct jinja_parser *p)
{
    struct jinja_node *left = parse_math(p, 0), *all = NULL, *one;
    const char *op;
    int entered = 0;

    while (p->r == 0 && (op = accept_compare(p))) {
        one = pair(p, NODE_COMPARE, op, left);
        left = parse_math(p, 0);
        if (!one)
            return NULL;
        one->b = left;
        if (all) {
            all = pair(p, NODE_AND, NULL, all);
            if (all)
                all->b = one;
        } else {
            all = one;
        }
        entered += jinja_enter(p) == 0;
    }
    p->depth -= entered;
    return all ? all : left;
}

static struct jinja_node *parse_not(struct jinja_parser *p)
{
    struct jinja_node *n;

    if (jinja_enter(p) < 0)
        return NULL;
    n = jinja_accept(p, TOKEN_NAME, "not") ? pair(p, NODE_NOT, NULL, parse_not(p))
                                           : parse_compare(p);
    p->depth--;
    return n;
}

static struct jinja_node *parse_chain(struct jinja_parser *p, int either)
{
    struct jinja_node *n = either ? parse_chain(p, 0) : parse_not(p);
    int entered = 0;

    while (jinja_accept(p, TOKEN_NAME, either ? "or" : "and")) {
        n = pair(p, either ? NODE_OR : NODE_AND, NULL, n);
        if (n)
            n->b = either ? parse_chain(p, 0) : parse_not(p);
        entered += jinja_enter(p) == 0;
    }
    p->depth -= entered;
    return n;
}

struct jinja_node *jinja_parse_or(struct jinja_parser *p)
{
    return parse_chain(p, 1);
}

struct jinja_node *jinja_parse_expression(struct jinja_parser *p)
{
    struct jinja_node *n, *cond;
    int entered = 1;

    if (jinja_enter(p) < 0)
        return NULL;
    n = jinja_parse_or(p);
    while (jinja_accept(p, TOKEN_NAME, "if")) {
        cond = pair(p, NODE_COND, NULL, n);
        if (!cond)
            return NULL;
        cond->b = jinja_parse_or(p);
        if (jinja_accept(p, TOKEN_NAME, "else"))
            cond->c = jinja_parse_expression(p);
        n = cond;
        entered += jinja_enter(p) == 0;
    }
    p->depth -= entered;
    return n;
}

struct jinja_node *jinja_parse_tuple(struct jinja_parser *p)
{
    struct jinja_node *n = jinja_parse_expression(p), *list;

    if (!n || !jinja_is(p, TOKEN_OP, ","))
        return n;
    list = pair(p, NODE_TUPLE, NULL, n);
    while (n && list && jinja_accept(p, TOKEN_OP, ",") && !jinja_is(p, TOKEN_OP, ")") &&
           !jinja_is(p, TOKEN_BLOCK_CLOSE, NULL) && !jinja_is(p, TOKEN_PRINT_CLOSE, NULL))
        n = n->next = jinja_parse_expression(p);
    return list;
}
