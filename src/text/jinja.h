/* SPDX-License-Identifier: Apache-2.0
 *
 * Chat templates: a bounded interpreter of the part of Jinja that chat templates are written in.
 * The syntax, whitespace rules (trim_blocks, lstrip_blocks) and results are those of the reference;
 * what is not supported is refused by name, with the template's line. A template sees the variables
 * it is given and nothing else; steps, depth, and bytes made or looked at are limited.
 *
 *     set (also as a block, also ns.x), if, for (if, else, break, continue), macro, generation
 *     filters, tests, string and mapping methods: the tables in jinja_filters.c, jinja_tests.c,
 *     jinja_methods.c; functions: namespace, dict, range, raise_exception, strftime_now
 */
#ifndef TR_SRC_TEXT_JINJA_H
#define TR_SRC_TEXT_JINJA_H

#include <jansson.h>
#include <stddef.h>

#include "src/text/buf.h"

#define JINJA_SOURCE_MOST ((size_t)1 << 20) /* bytes of a template */

struct jinja;

/* `where` names the template in messages; it is copied. */
int jinja_open(struct jinja **out, const char *text, size_t bytes, const char *where);
void jinja_close(struct jinja *j); /* NULL is allowed */
/* 1 where the template has a {% generation %} block, or uses a variable of that name. */
int jinja_has_generation(const struct jinja *j);
int jinja_uses(const struct jinja *j, const char *name);

/* Bytes from..to of the output. message: whose loop body wrote them; -1 for {% generation %}. */
struct jinja_span {
    size_t from, to;
    int message;
};

struct jinja_output {
    struct tok_buf text;
    struct jinja_span *spans; /* TR_MEM_TEXT, in the order of their ends */
    size_t n_spans, spans_room;
};

struct jinja_input {
    json_t *variables; /* an object */
    /* Its elements, compared by identity, are what spans are reported for; may be NULL. */
    json_t *messages;
};

int jinja_render(const struct jinja *j, const struct jinja_input *in, struct jinja_output *out);
void jinja_output_free(struct jinja_output *out);

#endif
