/* SPDX-License-Identifier: Apache-2.0
 *
 * An expression as Oniguruma reads it, rewritten as PCRE2 reads it.
 */
#ifndef TR_SRC_TEXT_REGEX_TRANSLATE_H
#define TR_SRC_TEXT_REGEX_TRANSLATE_H

#include "src/text/buf.h"

/* Appends the translation; -ENOTSUP with a message that shows the part not supported. */
int tr_regex_translate(const char *pattern, size_t bytes, struct tok_buf *out);

#endif
