/* SPDX-License-Identifier: Apache-2.0
 *
 * Going back one commit, where bytes that the newest one names have been damaged on the disk. The
 * commit before it names the other generation of what was changed since; between two steps that one
 * is still whole, while a step writes it is not. So all of it is read before anything is decided.
 *
 * The newest record is then overwritten with zeros. A crash in the middle of that leaves it whole
 * (nothing has happened) or torn (and opening passes over it): there is no state in between.
 */
#include <stdio.h>
#include <string.h>

#include "offload/offload.h"
#include "offload/store_private.h"
#include "src/base/err.h"
#include "src/base/mem.h"

#define GLANCE_BYTES (1u << 20) /* of a piece at most */

static int read_before(struct tr_store *s, struct tr_commit *c)
{
    uint64_t newest = s->durable.sequence;
    int r = newest > 1 && s->shape.generations == 2 ? 0 : -ENODATA;

    if (r == 0)
        r = tr_store_read_record(s, TR_FILE_COMMIT0 + (enum tr_file)tr_commit_slot(newest - 1), c);
    if (r == 0 && (c->sequence != newest - 1 || c->flags & TR_COMMIT_OPEN))
        r = -ENODATA;
    if (r == -ENODATA || r == -EBADMSG)
        r = tr_error(-ENODATA, "%s: there is no commit before the newest one", s->folder);
    return r;
}

/* Every piece as s->next names it. */
int tr_store_check_all(struct tr_store *s)
{
    size_t room = tr_layout_piece_room(&s->layout);
    void *buf = tr_alloc_pages(TR_MEM_IO, room);
    int r = buf ? 0 : -ENOMEM;

    for (uint32_t i = 0; i < s->layout.n_pieces && r == 0; i++)
        r = tr_store_read_piece(s, i, buf);
    tr_free_pages(TR_MEM_IO, buf, room);
    return r;
}

static int erase_newest(struct tr_store *s)
{
    memset(s->record, 0, s->record_bytes);
    return tr_store_put_record(s,
                               TR_FILE_COMMIT0 + (enum tr_file)tr_commit_slot(s->durable.sequence));
}

/* Leaves the commit before the newest one in s->next, if it is whole. */
static int enter_before(struct tr_store *s)
{
    int r = read_before(s, &s->next);

    if (r == 0)
        r = tr_store_check_all(s);
    if (r < 0)
        tr_commit_copy(&s->next, &s->durable, &s->shape);
    return r;
}

/* The payload of s->next; its bytes. */
static int take_payload(const struct tr_store *s, void *payload, size_t room)
{
    size_t bytes = s->next.payload_bytes;

    memcpy(payload, s->next.payload, bytes < room ? bytes : room);
    return (int)bytes;
}

int tr_store_before(struct tr_store *s, void *payload, size_t room)
{
    int r = enter_before(s);

    if (r < 0)
        return r;
    r = take_payload(s, payload, room);
    tr_commit_copy(&s->next, &s->durable, &s->shape);
    return r;
}

/* TR_NONE: it has none so small. */
static uint32_t smallest_piece(const struct tr_store *s, uint32_t span)
{
    const struct tr_span *in = &s->layout.spans[span];
    uint64_t bytes = GLANCE_BYTES + 1;
    uint32_t found = TR_NONE;

    for (uint32_t i = in->first_piece; i < in->first_piece + in->n_pieces; i++)
        if (s->layout.pieces[i].bytes < bytes) {
            bytes = s->layout.pieces[i].bytes;
            found = i;
        }
    return found;
}

/* At s->next, against what is durable. */
static int glance(struct tr_store *s, struct tr_glance *g)
{
    void *buf = tr_alloc_pages(TR_MEM_IO, GLANCE_BYTES);

    if (!buf)
        return -ENOMEM;
    for (uint32_t i = 0; i < s->layout.n_spans; i++) {
        uint32_t piece =
            s->next.generation[i] != s->durable.generation[i] ? smallest_piece(s, i) : TR_NONE;
        const struct tr_segment *in = &s->layout.segments[s->layout.spans[i].segment];

        if (piece == TR_NONE)
            continue;
        g->looked++;
        if (tr_store_read_piece(s, piece, buf) == 0)
            continue;
        if (!g->lost++)
            snprintf(g->first, sizeof(g->first), "%s (%s)", in->record, in->kind);
    }
    tr_free_pages(TR_MEM_IO, buf, GLANCE_BYTES);
    return 0;
}

int tr_store_glance_before(struct tr_store *s, void *payload, size_t room, struct tr_glance *g)
{
    int r = read_before(s, &s->next);

    *g = (struct tr_glance){0};
    if (r == 0)
        r = glance(s, g);
    if (r == 0)
        r = take_payload(s, payload, room);
    tr_commit_copy(&s->next, &s->durable, &s->shape);
    return r;
}

int tr_store_fall_back(struct tr_store *s)
{
    int r = s->mode == TR_STORE_WRITE && !s->failed
                ? 0
                : tr_error(-EROFS, "%s: not open for writing", s->folder);

    if (r == 0)
        r = enter_before(s);
    if (r < 0)
        return r;
    r = erase_newest(s);
    if (r == 0)
        tr_commit_copy(&s->durable, &s->next, &s->shape);
    else
        tr_commit_copy(&s->next, &s->durable, &s->shape);
    return r;
}
