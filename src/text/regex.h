/* SPDX-License-Identifier: Apache-2.0
 *
 * The expressions of tokenizer.json, written for Oniguruma, run by PCRE2 with the same matches.
 *
 * An expression is translated before it is compiled: \s, \p{L} and the like are written out with
 * the code points that the reference counts, and whatever the two engines read differently is
 * refused by name. A compiled expression is read-only and may be shared by threads; a
 * tr_regex_find may not.
 */
#ifndef TR_SRC_TEXT_REGEX_H
#define TR_SRC_TEXT_REGEX_H

#include <stddef.h>

struct tr_regex;

/* On failure the message says what is not supported and where it stands in the expression. */
int tr_regex_open(struct tr_regex **out, const char *pattern, size_t bytes);
void tr_regex_close(struct tr_regex *r); /* NULL is allowed */

/* Work space of a search, usable with any expression. All zero is empty. */
struct tr_regex_find {
    void *match;
};
/* The first match at or behind `at` in valid UTF-8: 1 with its place, 0 where there is none. */
int tr_regex_next(const struct tr_regex *r, struct tr_regex_find *f, const char *text, size_t n,
                  size_t at, size_t place[2]);
void tr_regex_find_free(struct tr_regex_find *f);

#endif
