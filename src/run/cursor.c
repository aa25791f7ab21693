/* SPDX-License-Identifier: Apache-2.0 */
#include "src/run/cursor.h"

#include <string.h>

#include "src/base/err.h"

#define MAGIC   0x52435254u /* "TRCR" */
#define VERSION 3u

#define HEAD_BYTES   16
#define FIRST_BYTES  88  /* of version 1: as far as `loss_scale`, and 16 that meant nothing */
#define SECOND_BYTES 112 /* of version 2: as far as `lr` */

/* magic, version, then the fields in order: little-endian is the only order of the machines we run
 * on (x86-64, aarch64), so fields are copied as they are. */
void tr_cursor_pack(const struct tr_cursor *c, unsigned char out[TR_CURSOR_BYTES])
{
    uint32_t head[4] = {MAGIC, VERSION, sizeof(*c), 0};

    memcpy(out, head, sizeof(head));
    memcpy(out + sizeof(head), c, sizeof(*c));
}

static uint32_t version_of(size_t bytes)
{
    return bytes == FIRST_BYTES ? 1 : bytes == SECOND_BYTES ? 2 : VERSION;
}

int tr_cursor_parse(const unsigned char *in, size_t bytes, struct tr_cursor *c)
{
    uint32_t head[4];

    _Static_assert(HEAD_BYTES + sizeof(*c) == TR_CURSOR_BYTES, "the size is part of the format");
    if (bytes != TR_CURSOR_BYTES && bytes != SECOND_BYTES && bytes != FIRST_BYTES)
        return tr_error(-EINVAL, "the commit's payload has %zu bytes, not %d", bytes,
                        TR_CURSOR_BYTES);
    memcpy(head, in, sizeof(head));
    if (head[0] != MAGIC || head[2] != bytes - HEAD_BYTES)
        return tr_error(-EINVAL, "the commit's payload is not a training cursor");
    if (head[1] != version_of(bytes))
        return tr_error(-EINVAL, "the commit's payload has version %u, this program reads %u",
                        head[1], VERSION);
    memset(c, 0, sizeof(*c));
    memcpy(c, in + HEAD_BYTES, bytes - HEAD_BYTES);
    if (head[1] == 1)
        memset(&c->clean, 0, sizeof(*c) - offsetof(struct tr_cursor, clean));
    return 0;
}

int tr_cursor_read(const struct tr_store *store, struct tr_cursor *c)
{
    unsigned char payload[TR_PAYLOAD_BYTES];
    size_t bytes;

    tr_store_payload(store, payload, sizeof(payload), &bytes);
    return tr_cursor_parse(payload, bytes, c);
}
