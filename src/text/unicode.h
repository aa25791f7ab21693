/* SPDX-License-Identifier: Apache-2.0
 *
 * What the reference says about a code point where the libraries say something else or nothing.
 * Pure functions over constant tables.
 */
#ifndef TR_SRC_TEXT_UNICODE_H
#define TR_SRC_TEXT_UNICODE_H

#include <stddef.h>
#include <stdint.h>

/* The ranges of a category ("L", "Lu", "N" ...) that the expression library lacks, one a call: *at
 * starts at 0. Returns 0 at the end. */
int tr_unicode_added(const char *category, size_t *at, uint32_t *first, uint32_t *last);
/* 1 for letters, marks and decimal digits among the additions. */
int tr_unicode_is_added_word(uint32_t cp);
int tr_unicode_is_number(uint32_t cp);
int tr_unicode_is_punctuation(uint32_t cp);
/* 1 where a normal form must leave it alone and stop at it. */
int tr_unicode_is_opaque(uint32_t cp);
/* unicode_case.c: the small letter, or itself, as one or two code points: how many. */
int tr_unicode_lower(uint32_t cp, uint32_t out[2]);
/* 1 for what combines with the character before it. */
int tr_unicode_is_mark(uint32_t cp);

#endif
