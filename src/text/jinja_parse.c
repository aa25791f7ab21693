/* SPDX-License-Identifier: Apache-2.0
 *
 * Statements: blocks of a template become lists of nodes. Expressions are jinja_expr.c's. Depth is
 * bounded here, so that the evaluator's recursion over the tree is bounded as well.
 */
#include "src/text/jinja_parse.h"

#include <string.h>

#include "src/base/err.h"
#include "src/base/mem.h"

int jinja_is(const struct jinja_parser *p, enum jinja_token_kind kind, const char *text)
{
    const struct jinja_token *t = &p->j->token[p->at];

    return t->kind == kind && (!text || !strcmp(t->text, text));
}

int jinja_accept(struct jinja_parser *p, enum jinja_token_kind kind, const char *text)
{
    int is = p->r == 0 && jinja_is(p, kind, text);

    p->at += (size_t)is;
    return is;
}

struct jinja_node *jinja_parse_fail(struct jinja_parser *p, const char *what)
{
    const struct jinja_token *t = &p->j->token[p->at];
    static const char *const kinds[] = {
        [TOKEN_END] = "the end",    [TOKEN_DATA] = "text",     [TOKEN_PRINT_OPEN] = "{{",
        [TOKEN_PRINT_CLOSE] = "}}", [TOKEN_BLOCK_OPEN] = "{%", [TOKEN_BLOCK_CLOSE] = "%}"};
    const char *found = t->kind < TOKEN_NAME ? kinds[t->kind] : t->text;

    if (p->r == 0)
        p->r = tr_error(-EINVAL, "%s:%d: %s at \"%.40s\"", p->j->where, t->line, what, found);
    return NULL;
}

void jinja_expect(struct jinja_parser *p, enum jinja_token_kind kind, const char *text,
                  const char *what)
{
    if (p->r == 0 && !jinja_accept(p, kind, text))
        jinja_parse_fail(p, what);
}

struct jinja_node *jinja_node(struct jinja_parser *p, enum jinja_kind kind)
{
    struct jinja_node *n = p->r == 0 ? jinja_alloc(p->j, sizeof(*n)) : NULL;

    if (!n) {
        p->r = p->r < 0 ? p->r : -ENOMEM;
        return NULL;
    }
    n->kind = kind;
    n->line = p->j->token[p->at].line;
    return n;
}

struct jinja_node *jinja_name_node(struct jinja_parser *p, enum jinja_kind kind, const char *what)
{
    struct jinja_node *n = jinja_node(p, kind);
    const struct jinja_token *t = &p->j->token[p->at];

    if (!n)
        return NULL;
    if (!jinja_accept(p, TOKEN_NAME, NULL))
        return jinja_parse_fail(p, what);
    n->text = t->text;
    n->bytes = t->bytes;
    return n;
}

int jinja_enter(struct jinja_parser *p)
{
    if (p->r == 0 && ++p->depth > JINJA_PARSE_DEPTH)
        jinja_parse_fail(p, "nested too deeply");
    return p->r;
}

static void close_block(struct jinja_parser *p)
{
    jinja_expect(p, TOKEN_BLOCK_CLOSE, NULL, "the block's end is expected");
}

/* Statements up to a block that begins with one of the two words; the word is not taken. */
static struct jinja_node *parse_until(struct jinja_parser *p, const char *const *words);

static int at_word(const struct jinja_parser *p, const char *const *words)
{
    const struct jinja_token *t = &p->j->token[p->at];

    if (t->kind != TOKEN_BLOCK_OPEN || t[1].kind != TOKEN_NAME)
        return 0;
    for (; words && *words; words++)
        if (!strcmp(t[1].text, *words))
            return 1;
    return 0;
}

static void end_block(struct jinja_parser *p, const char *word)
{
    jinja_expect(p, TOKEN_BLOCK_OPEN, NULL, "an end tag is missing");
    jinja_expect(p, TOKEN_NAME, word, "another end tag is expected");
    close_block(p);
}

static struct jinja_node *parse_body(struct jinja_parser *p, const char *end)
{
    const char *const words[] = {end, NULL};
    struct jinja_node *body;

    close_block(p);
    body = parse_until(p, words);
    end_block(p, end);
    return body;
}

static struct jinja_node *parse_if(struct jinja_parser *p)
{
    static const char *const words[] = {"elif", "else", "endif", NULL};
    struct jinja_node *n = jinja_node(p, NODE_IF);

    if (!n || jinja_enter(p) < 0)
        return NULL;
    n->a = jinja_parse_expression(p);
    close_block(p);
    n->b = parse_until(p, words);
    jinja_expect(p, TOKEN_BLOCK_OPEN, NULL, "endif is missing");
    if (jinja_accept(p, TOKEN_NAME, "elif"))
        n->c = parse_if(p);
    else if (jinja_accept(p, TOKEN_NAME, "else"))
        n->c = parse_body(p, "endif");
    else {
        jinja_expect(p, TOKEN_NAME, "endif", "endif is expected");
        close_block(p);
    }
    p->depth--;
    return n;
}

/* One name, or several that a list is taken apart into. */
static struct jinja_node *parse_target(struct jinja_parser *p)
{
    struct jinja_node *first = jinja_name_node(p, NODE_NAME, "a name is expected"), *n, *list;

    if (!first || !jinja_is(p, TOKEN_OP, ","))
        return first;
    list = jinja_node(p, NODE_LIST);
    if (!list)
        return NULL;
    list->a = n = first;
    while (n && jinja_accept(p, TOKEN_OP, ","))
        n = n->next = jinja_name_node(p, NODE_NAME, "a name is expected");
    return list;
}

static struct jinja_node *parse_for(struct jinja_parser *p)
{
    static const char *const words[] = {"else", "endfor", NULL};
    struct jinja_node *n = jinja_node(p, NODE_FOR);

    if (!n || jinja_enter(p) < 0)
        return NULL;
    n->a = parse_target(p);
    jinja_expect(p, TOKEN_NAME, "in", "\"in\" is expected");
    n->b = jinja_parse_or(p);
    if (jinja_accept(p, TOKEN_NAME, "if"))
        n->d = jinja_parse_expression(p);
    close_block(p);
    p->loops++;
    n->c = parse_until(p, words);
    p->loops--;
    if (p->r == 0 && !strcmp(p->j->token[p->at + 1].text, "else")) {
        p->at += 2;
        n->e = parse_body(p, "endfor");
    } else {
        end_block(p, "endfor");
    }
    p->depth--;
    return n;
}

static struct jinja_node *parse_set(struct jinja_parser *p)
{
    struct jinja_node *n = jinja_node(p, NODE_SET), *attr;

    if (!n)
        return NULL;
    n->a = parse_target(p);
    if (n->a && n->a->kind == NODE_NAME && jinja_accept(p, TOKEN_OP, ".")) {
        attr = jinja_name_node(p, NODE_ATTR, "an attribute is expected");
        if (!attr)
            return NULL;
        attr->a = n->a;
        n->a = attr;
    }
    if (jinja_accept(p, TOKEN_OP, "=")) {
        n->b = jinja_parse_tuple(p);
        close_block(p);
    } else {
        n->c = parse_body(p, "endset");
        if (p->r == 0 && !n->c) /* an empty block is an empty text, not a missing value */
            n->c = jinja_node(p, NODE_DATA);
    }
    return n;
}

static struct jinja_node *parse_macro(struct jinja_parser *p)
{
    struct jinja_node *n = jinja_name_node(p, NODE_MACRO, "the macro's name is expected"), **to;
    int loops = p->loops;

    if (!n || jinja_enter(p) < 0)
        return NULL;
    to = &n->a;
    jinja_expect(p, TOKEN_OP, "(", "\"(\" is expected");
    while (p->r == 0 && !jinja_is(p, TOKEN_OP, ")")) {
        *to = jinja_name_node(p, NODE_KWARG, "a parameter is expected");
        if (*to && jinja_accept(p, TOKEN_OP, "="))
            (*to)->a = jinja_parse_expression(p);
        if (*to)
            to = &(*to)->next;
        if (!jinja_accept(p, TOKEN_OP, ","))
            break;
    }
    jinja_expect(p, TOKEN_OP, ")", "\")\" is expected");
    p->loops = 0;
    n->b = parse_body(p, "endmacro");
    p->loops = loops;
    p->depth--;
    return n;
}

static struct jinja_node *parse_generation(struct jinja_parser *p)
{
    struct jinja_node *n = jinja_node(p, NODE_GENERATION);

    if (!n || jinja_enter(p) < 0)
        return NULL;
    if (p->generation++)
        return jinja_parse_fail(p, "a generation block inside of another");
    n->a = parse_body(p, "endgeneration");
    p->generation--;
    p->depth--;
    return n;
}

static struct jinja_node *parse_leave(struct jinja_parser *p, enum jinja_kind kind)
{
    if (!p->loops)
        return jinja_parse_fail(p, "break and continue stand in a loop only");
    close_block(p);
    return jinja_node(p, kind);
}

static struct jinja_node *parse_block(struct jinja_parser *p)
{
    if (jinja_accept(p, TOKEN_NAME, "if"))
        return parse_if(p);
    if (jinja_accept(p, TOKEN_NAME, "for"))
        return parse_for(p);
    if (jinja_accept(p, TOKEN_NAME, "set"))
        return parse_set(p);
    if (jinja_accept(p, TOKEN_NAME, "macro"))
        return parse_macro(p);
    if (jinja_accept(p, TOKEN_NAME, "generation"))
        return parse_generation(p);
    if (jinja_accept(p, TOKEN_NAME, "break"))
        return parse_leave(p, NODE_BREAK);
    if (jinja_accept(p, TOKEN_NAME, "continue"))
        return parse_leave(p, NODE_CONTINUE);
    return jinja_parse_fail(p, "a tag that is not supported");
}

static struct jinja_node *parse_data(struct jinja_parser *p)
{
    struct jinja_node *n = jinja_node(p, NODE_DATA);
    const struct jinja_token *t = &p->j->token[p->at++];

    if (n) {
        n->text = t->text;
        n->bytes = t->bytes;
    }
    return n;
}

static struct jinja_node *parse_print(struct jinja_parser *p)
{
    struct jinja_node *n = jinja_node(p, NODE_PRINT);

    if (n)
        n->a = jinja_parse_tuple(p);
    jinja_expect(p, TOKEN_PRINT_CLOSE, NULL, "\"}}\" is expected");
    return n;
}

static struct jinja_node *parse_until(struct jinja_parser *p, const char *const *words)
{
    struct jinja_node *first = NULL, **to = &first;

    while (p->r == 0 && !jinja_is(p, TOKEN_END, NULL) && !at_word(p, words)) {
        if (jinja_is(p, TOKEN_DATA, NULL))
            *to = parse_data(p);
        else if (jinja_accept(p, TOKEN_PRINT_OPEN, NULL))
            *to = parse_print(p);
        else if (jinja_accept(p, TOKEN_BLOCK_OPEN, NULL))
            *to = parse_block(p);
        else
            *to = jinja_parse_fail(p, "text or a tag is expected");
        if (*to)
            to = &(*to)->next;
    }
    if (p->r == 0 && words && jinja_is(p, TOKEN_END, NULL))
        jinja_parse_fail(p, "a block is not ended");
    return first;
}

int jinja_parse(struct jinja *j)
{
    struct jinja_parser p = {.j = j};

    j->body = parse_until(&p, NULL);
    return p.r;
}
