/* SPDX-License-Identifier: Apache-2.0
 *
 * The little YAML that option files need: one flat mapping of plain keys to plain values. Anything
 * else (nesting, aliases, tags, a second document, a key given twice) is an error that names the
 * file and the line (invariant 9).
 */
#ifndef TR_SRC_OPTIONS_OPTION_YAML_H
#define TR_SRC_OPTIONS_OPTION_YAML_H

#include <stddef.h>
#include <stdio.h>

/* One pair, in the file's order. An error it returns stops the reading; its message gets the place
 * put before it. */
typedef int tr_yaml_fn(void *arg, const char *key, const char *value);

struct tr_yaml_text {
    const char *data;
    size_t bytes;
    const char *where; /* for messages */
};
int tr_yaml_parse(const struct tr_yaml_text *text, tr_yaml_fn *fn, void *arg);
int tr_yaml_read(const char *path, tr_yaml_fn *fn, void *arg);

/* A double-quoted scalar that tr_yaml_read gives back unchanged. */
void tr_yaml_print_quoted(FILE *f, const char *text);

#endif
