/* SPDX-License-Identifier: Apache-2.0 */
#include "src/text/buf.h"

#include <string.h>

#include "src/base/err.h"
#include "src/base/mem.h"

int tok_buf_add(struct tok_buf *b, const char *text, size_t bytes)
{
    if (b->room - b->n < bytes + 1) {
        size_t room = (b->n + bytes + 1) * 3 / 2 + 64;
        char *v = tr_realloc(TR_MEM_TEXT, b->v, room);

        if (!v)
            return -ENOMEM;
        b->v = v;
        b->room = room;
    }
    if (bytes)
        memcpy(b->v + b->n, text, bytes);
    b->n += bytes;
    b->v[b->n] = 0;
    return 0;
}

void tok_buf_free(struct tok_buf *b)
{
    tr_free(TR_MEM_TEXT, b->v);
    memset(b, 0, sizeof(*b));
}
