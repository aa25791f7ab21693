/* SPDX-License-Identifier: Apache-2.0
 *
 * A growing string, always with a NUL behind it once something was added. All zero is empty.
 */
#ifndef TR_SRC_TEXT_BUF_H
#define TR_SRC_TEXT_BUF_H

#include <stddef.h>

struct tok_buf {
    char *v; /* TR_MEM_TEXT */
    size_t n, room;
};

int tok_buf_add(struct tok_buf *b, const char *text, size_t bytes);
void tok_buf_free(struct tok_buf *b);

#endif
