/* SPDX-License-Identifier: Apache-2.0 */
#include "offload/staging.h"

#include <string.h>

#include "src/base/device.h"
#include "src/base/err.h"
#include "src/base/mem.h"

uint64_t tr_chunk_bytes(uint64_t staging_bytes)
{
    uint64_t sixteenth = staging_bytes / 16 / TR_STORE_ALIGN * TR_STORE_ALIGN;

    if (sixteenth > TR_CHUNK_BYTES)
        return TR_CHUNK_BYTES;
    return sixteenth ? sixteenth : TR_STORE_ALIGN;
}

static int alloc_memory(struct tr_chunk_pool *p, uint64_t bytes)
{
    p->memory = p->device->ops->host_alloc(p->device, bytes);
    if (!p->memory)
        return tr_error_prefix(-ENOMEM, "%llu bytes of staging memory", (unsigned long long)bytes);
    p->bytes = bytes;
    if ((uintptr_t)p->memory % TR_STORE_ALIGN)
        return tr_error(-EINVAL, "the device's host memory is not aligned to %u bytes",
                        TR_STORE_ALIGN);
    return 0;
}

int tr_chunks_open(struct tr_chunk_pool *p, struct tr_device *device, uint64_t bytes,
                   uint64_t chunk_bytes)
{
    p->device = device;
    p->chunk_bytes = chunk_bytes;
    p->n = bytes ? (uint32_t)(bytes / chunk_bytes) : TR_HOME_PARTS;
    if (!p->n)
        return tr_error(-EINVAL, "%llu bytes of staging memory are too few: at least %u",
                        (unsigned long long)bytes, TR_STORE_ALIGN);
    p->chunks = tr_alloc_array(TR_MEM_MISC, p->n, sizeof(*p->chunks));
    if (!p->chunks)
        return -ENOMEM;
    if (bytes) {
        int r = alloc_memory(p, p->n * chunk_bytes);

        if (r < 0)
            return r;
    }
    for (uint32_t i = p->n; i-- > 0;) {
        if (bytes)
            p->chunks[i].memory = p->memory + i * chunk_bytes;
        tr_chunk_give(p, &p->chunks[i]);
    }
    return 0;
}

void tr_chunks_close(struct tr_chunk_pool *p)
{
    if (p->memory)
        p->device->ops->host_free(p->device, p->memory, p->bytes);
    p->memory = NULL;
}

void tr_chunks_free(struct tr_chunk_pool *p)
{
    tr_free(TR_MEM_MISC, p->chunks);
    p->chunks = p->free = NULL;
}

struct tr_chunk *tr_chunk_take(struct tr_chunk_pool *p, enum tr_io_op op)
{
    struct tr_chunk *c = p->free;

    if (!c)
        return NULL;
    p->free = c->next;
    p->last = op;
    c->next = NULL;
    c->transferred = c->hashed = c->copied = 0;
    return c;
}

void tr_chunk_give(struct tr_chunk_pool *p, struct tr_chunk *c)
{
    c->move = NULL;
    c->next = p->free;
    p->free = c;
}
