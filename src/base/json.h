/* SPDX-License-Identifier: Apache-2.0
 *
 * Strict JSON over jansson: duplicate keys, trailing text, invalid UTF-8 and over-long integers are
 * errors that name the file and the line (invariant 9). Values are jansson's own (json_t).
 */
#ifndef TR_BASE_JSON_H
#define TR_BASE_JSON_H

#include <jansson.h>
#include <stddef.h>

/* `where` names the text in messages (a path, or path:line). New reference in *out. */
int tr_json_parse(const char *text, size_t bytes, const char *where, json_t **out);
/* The same, but a string may hold a NUL (\u0000): for who asks every string its length. */
int tr_json_parse_nul(const char *text, size_t bytes, const char *where, json_t **out);
/* -EINVAL where a string of the value, or in it, holds one: for who takes them for C's. */
int tr_json_refuse_nul(const json_t *v, const char *where);
/* Says something: is there, and neither null, false, 0 nor empty (of a text alone: "" does). */
int tr_json_says(const json_t *v);
/* What is built is whole, or NULL: a value that is NULL, or has no room, takes all it should have
 * been added to with it, and so does NULL itself. Both take the value over. */
void tr_json_add(json_t **object, const char *key, json_t *value);
void tr_json_append(json_t **list, json_t *value);
/* As json_copy, NULL without memory: of that, jansson's own leaves things out and goes on. */
json_t *tr_json_copy(const json_t *v);
/* As json_dumps, NULL without memory: of that, jansson's own leaves keys out and goes on. */
char *tr_json_text(const json_t *value, size_t flags);
int tr_json_read(const char *path, size_t limit, json_t **out);
/* Durable, atomic, indented, keys in insertion order. */
int tr_json_write(const char *path, const json_t *value);
/* The same on one line, for programs: what is longer than its reader's limit is refused, -EFBIG. */
int tr_json_write_line(const char *path, const json_t *value, size_t limit);

#endif
