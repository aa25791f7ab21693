/* SPDX-License-Identifier: Apache-2.0
 *
 * UTF-8, from whoever it comes. Pure functions.
 */
#ifndef TR_BASE_UTF8_H
#define TR_BASE_UTF8_H

#include <stddef.h>
#include <stdint.h>

/* Decodes the code point at p[0..n), n > 0. Returns its bytes, or minus the bytes of the longest
 * beginning of a valid sequence (at least 1), which stands for one U+FFFD. */
int tr_utf8_decode(const char *p, size_t n, uint32_t *cp);
/* Bytes of the longest valid beginning. */
size_t tr_utf8_valid(const char *p, size_t n);

#endif
