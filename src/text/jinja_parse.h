/* SPDX-License-Identifier: Apache-2.0
 *
 * The parser's place in the tokens, for jinja_parse.c and jinja_expr.c. The first error is kept in
 * r; from then on nodes are NULL.
 */
#ifndef TR_SRC_TEXT_JINJA_PARSE_H
#define TR_SRC_TEXT_JINJA_PARSE_H

#include "src/text/jinja_parts.h"

#define JINJA_PARSE_DEPTH 100

struct jinja_parser {
    struct jinja *j;
    size_t at;
    int depth, loops, generation;
    int r;
};

int jinja_is(const struct jinja_parser *p, enum jinja_token_kind kind, const char *text);
/* Takes the token where it is that one. */
int jinja_accept(struct jinja_parser *p, enum jinja_token_kind kind, const char *text);
void jinja_expect(struct jinja_parser *p, enum jinja_token_kind kind, const char *text,
                  const char *what);
struct jinja_node *jinja_parse_fail(struct jinja_parser *p, const char *what);
struct jinja_node *jinja_node(struct jinja_parser *p, enum jinja_kind kind);
/* A node with the name that stands here. */
struct jinja_node *jinja_name_node(struct jinja_parser *p, enum jinja_kind kind, const char *what);
/* One level deeper; whoever enters says depth-- when done. */
int jinja_enter(struct jinja_parser *p);

struct jinja_node *jinja_parse_expression(struct jinja_parser *p);
struct jinja_node *jinja_parse_or(struct jinja_parser *p); /* without "x if y else z" */
struct jinja_node *jinja_parse_tuple(struct jinja_parser *p);

#endif
