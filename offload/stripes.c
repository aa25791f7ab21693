/* SPDX-License-Identifier: Apache-2.0
 *
 * First the shares: every drive gets what its speed earns it, and where that is more than it has
 * room for, it gets its room and the others share what is left. Then the parts, one after the
 * other, each to the drive that is furthest behind its share. So the drives are mixed in the same
 * proportion all over the model, also where a small one is filled to the brim.
 */
#include "offload/stripes.h"

#include <string.h>

#include "src/base/err.h"
#include "src/base/json.h"
#include "src/base/mem.h"

/* A part smaller than a request stays where the one before it is, until as much as a request has
 * come together: alone it would not be worth a seek. In a model that is small altogether, parts
 * are compared with the model. */
#define SMALL_BYTES (1u << 20)
#define SMALL_SHARE 8u

static uint64_t sum_of(const uint64_t *bytes, uint32_t n)
{
    uint64_t sum = 0;

    for (uint32_t i = 0; i < n; i++)
        sum += bytes[i];
    return sum;
}

/* One more drive that cannot take what its speed earns; -1 where all can. */
static int find_full(const struct tr_drive *d, uint32_t n, const double *share, const int *full)
{
    for (uint32_t i = 0; i < n; i++)
        if (!full[i] && share[i] > (double)d[i].room)
            return (int)i;
    return -1;
}

static void share_out(const struct tr_drive *d, uint32_t n, uint64_t bytes, double *share)
{
    int full[TR_STORE_FOLDERS] = {0}, next = 0;
    double left = (double)bytes;

    while (next >= 0) {
        double speed = 0;

        for (uint32_t i = 0; i < n; i++)
            speed += full[i] ? 0 : d[i].speed;
        for (uint32_t i = 0; i < n; i++)
            if (!full[i])
                share[i] = left * d[i].speed / speed;
        next = find_full(d, n, share, full);
        if (next >= 0) {
            full[next] = 1;
            share[next] = (double)d[next].room;
            left -= share[next];
        }
    }
}

/* The drive that would be done with its share soonest, of those that have room; n if none has. */
static uint32_t choose(const struct tr_drive *d, uint32_t n, const double *share,
                       const uint64_t *given, uint64_t bytes)
{
    double least = 0;
    uint32_t best = n;

    for (uint32_t i = 0; i < n; i++) {
        double part = ((double)given[i] + (double)bytes) / (share[i] + 1);

        if (given[i] + bytes > d[i].room || (best < n && part >= least))
            continue;
        best = i;
        least = part;
    }
    return best;
}

int tr_stripes_assign(const uint64_t *bytes, uint32_t n, const struct tr_drive *drives,
                      uint32_t n_drives, unsigned char *folder)
{
    uint64_t given[TR_STORE_FOLDERS] = {0};
    double share[TR_STORE_FOLDERS] = {0};
    uint64_t sum = sum_of(bytes, n), small = sum / SMALL_SHARE / n_drives;
    uint64_t together = 0; /* of the small parts just before this one */
    uint32_t at = n_drives;

    if (small > SMALL_BYTES)
        small = SMALL_BYTES;
    share_out(drives, n_drives, sum, share);
    for (uint32_t i = 0; i < n; i++) {
        int stays = bytes[i] < small && together < small && at < n_drives &&
                    given[at] + bytes[i] <= drives[at].room;

        together = stays ? together + bytes[i] : 0;
        if (!stays)
            at = choose(drives, n_drives, share, given, bytes[i]);
        if (at == n_drives)
            return -ENOSPC;
        given[at] += bytes[i];
        folder[i] = (unsigned char)at;
    }
    return 0;
}

/* ---- a layout's ---- */

/* Where piece i begins in the generation; the first takes what lies before it, too. */
static uint64_t start_of(const struct tr_layout *l, uint32_t span, uint32_t piece)
{
    return piece ? l->spans[span].offset + l->pieces[piece].offset : 0;
}

/* Bytes from each piece to the next one. */
static uint64_t *piece_sizes(const struct tr_layout *l)
{
    uint64_t *bytes = tr_alloc_array(TR_MEM_MISC, l->n_pieces, sizeof(*bytes));
    uint64_t before = 0;

    for (uint32_t s = 0; bytes && s < l->n_spans; s++) {
        const struct tr_span *span = &l->spans[s];

        for (uint32_t p = span->first_piece; p < span->first_piece + span->n_pieces; p++) {
            uint64_t at = start_of(l, s, p);

            if (p)
                bytes[p - 1] = at - before;
            before = at;
        }
    }
    if (bytes)
        bytes[l->n_pieces - 1] = tr_layout_bytes(l) - before;
    return bytes;
}

static void add(struct tr_stripes *s, uint32_t folder, uint64_t bytes)
{
    if (!s->n || s->stripe[s->n - 1].folder != folder)
        s->stripe[s->n++] =
            (struct tr_stripe){.from = s->bytes, .offset = s->folder_bytes[folder], folder};
    s->bytes += bytes;
    s->folder_bytes[folder] += bytes;
}

/* Deals out n parts of these sizes, which are freed. */
static int deal_out(struct tr_stripes *s, uint64_t *bytes, uint32_t n,
                    const struct tr_drive *drives, uint32_t n_drives)
{
    unsigned char *folder = tr_alloc(TR_MEM_MISC, n);
    int r = -ENOMEM;

    memset(s, 0, sizeof(*s));
    s->n_folders = n_drives;
    s->stripe = tr_alloc_array(TR_MEM_MISC, n, sizeof(*s->stripe));
    if (bytes && folder && s->stripe)
        r = tr_stripes_assign(bytes, n, drives, n_drives, folder);
    for (uint32_t i = 0; r == 0 && i < n; i++)
        add(s, folder[i], bytes[i]);
    tr_free(TR_MEM_MISC, bytes);
    tr_free(TR_MEM_MISC, folder);
    return r;
}

int tr_stripes_make(struct tr_stripes *s, const struct tr_layout *l, const struct tr_drive *drives,
                    uint32_t n_drives)
{
    return deal_out(s, piece_sizes(l), l->n_pieces, drives, n_drives);
}

int tr_stripes_make_scratch(struct tr_stripes *s, const struct tr_scratch *scratch, uint32_t n,
                            const struct tr_drive *drives, uint32_t n_drives)
{
    uint32_t parts = 0, at = 0;
    uint64_t *bytes;

    for (uint32_t i = 0; i < n; i++)
        parts += scratch[i].spills ? tr_pieces_of(scratch[i].bytes) : 0;
    bytes = tr_alloc_array(TR_MEM_MISC, parts, sizeof(*bytes));
    for (uint32_t i = 0; bytes && i < n; i++)
        for (uint64_t left = scratch[i].spills ? scratch[i].bytes : 0; left; left -= bytes[at++])
            bytes[at] = left < TR_PIECE_BYTES ? left : TR_PIECE_BYTES;
    return deal_out(s, bytes, parts, drives, n_drives);
}

void tr_stripes_free(struct tr_stripes *s)
{
    tr_free(TR_MEM_MISC, s->stripe);
    memset(s, 0, sizeof(*s));
}

/* ---- in store.json ---- */

static uint64_t end_of(const struct tr_stripes *s, uint32_t i)
{
    return i + 1 < s->n ? s->stripe[i + 1].from : s->bytes;
}

int tr_stripes_to_json(const struct tr_stripes *s, json_t **object)
{
    json_t *list = json_array();

    for (uint32_t i = 0; i < s->n; i++)
        tr_json_append(&list, json_pack("[i, I]", (int)s->stripe[i].folder,
                                        (json_int_t)(end_of(s, i) - s->stripe[i].from)));
    tr_json_add(object, "stripes", list);
    return *object ? 0 : tr_error(-ENOMEM, "out of memory for the stripes of a store");
}

/* Every stripe must begin where a piece does: a piece lies in one file. */
static int begins_pieces(const struct tr_stripes *s, const struct tr_layout *l)
{
    uint32_t next = 0;

    for (uint32_t i = 0; i < l->n_spans; i++) {
        const struct tr_span *span = &l->spans[i];

        for (uint32_t p = span->first_piece; p < span->first_piece + span->n_pieces; p++)
            next += next < s->n && s->stripe[next].from == start_of(l, i, p);
    }
    return next == s->n;
}

static int read_stripes(struct tr_stripes *s, const json_t *list)
{
    uint64_t most = s->bytes;

    s->bytes = 0;
    for (size_t i = 0; i < json_array_size(list); i++) {
        const json_t *pair = json_array_get(list, i), *a = json_array_get(pair, 0);
        const json_t *b = json_array_get(pair, 1);
        json_int_t folder = json_integer_value(a), bytes = json_integer_value(b);

        if (json_array_size(pair) != 2 || !json_is_integer(a) || !json_is_integer(b) ||
            folder < 0 || folder >= (json_int_t)s->n_folders || bytes <= 0 ||
            bytes % TR_STORE_ALIGN || (uint64_t)bytes > most - s->bytes)
            return -EINVAL;
        add(s, (uint32_t)folder, (uint64_t)bytes);
    }
    return s->bytes == most ? 0 : -EINVAL;
}

int tr_stripes_from_json(struct tr_stripes *s, const json_t *object, const struct tr_layout *l,
                         const char *where)
{
    const json_t *list = json_object_get(object, "stripes");

    s->bytes = tr_layout_bytes(l);
    if (!json_array_size(list) || json_array_size(list) > l->n_pieces)
        return tr_error(-EINVAL, "%s: \"stripes\" missing, empty or too long", where);
    s->stripe = tr_alloc_array(TR_MEM_MISC, json_array_size(list), sizeof(*s->stripe));
    if (!s->stripe)
        return -ENOMEM;
    if (read_stripes(s, list) < 0 || !begins_pieces(s, l))
        return tr_error(-EINVAL, "%s: \"stripes\" do not fit the spans and folders", where);
    return 0;
}

/* ---- finding ---- */

static uint32_t index_of(const struct tr_stripes *s, uint64_t at)
{
    uint32_t low = 0, high = s->n;

    while (high - low > 1) {
        uint32_t middle = low + (high - low) / 2;

        if (s->stripe[middle].from <= at)
            low = middle;
        else
            high = middle;
    }
    return low;
}

struct tr_stripe_place tr_stripes_find(const struct tr_stripes *s, uint64_t at)
{
    const struct tr_stripe *stripe;
    uint32_t i;

    if (!s->n)
        return (struct tr_stripe_place){.folder = 0, .offset = at, .end = UINT64_MAX};
    i = index_of(s, at);
    stripe = &s->stripe[i];
    return (struct tr_stripe_place){stripe->folder, stripe->offset + (at - stripe->from),
                                    end_of(s, i)};
}

uint64_t tr_stripes_next(const struct tr_stripes *s, uint32_t folder, uint64_t at, uint64_t end)
{
    if (!s->n || at >= end)
        return at;
    for (uint32_t i = index_of(s, at); i < s->n && s->stripe[i].from < end; i++)
        if (s->stripe[i].folder == folder)
            return s->stripe[i].from > at ? s->stripe[i].from : at;
    return end;
}
