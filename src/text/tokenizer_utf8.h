/* SPDX-License-Identifier: Apache-2.0
 *
 * UTF-8 and the two predicates over code points that tokenizers need. Pure functions.
 */
#ifndef TR_TEXT_TOKENIZER_UTF8_H
#define TR_TEXT_TOKENIZER_UTF8_H

#include <stddef.h>
#include <stdint.h>

#include "src/base/utf8.h"

/* Writes 1 to 4 bytes; returns how many. */
int tr_utf8_encode(uint32_t cp, char out[4]);
/* Start of the code point that ends before p + at; the text must be valid. */
size_t tr_utf8_back(const char *p, size_t at);

int tr_unicode_is_space(uint32_t cp); /* White_Space, \s of the reference */
int tr_unicode_is_word(uint32_t cp);  /* \w: letters, marks, digits, connectors, joiners */

#endif
