/* SPDX-License-Identifier: Apache-2.0
 *
 * One walk over spans and pieces checks everything that the rest of offload relies on: ascending,
 * disjoint, aligned, inside. Reading accepts only what writing produces.
 */
#include "offload/layout.h"

#include <stdio.h>
#include <string.h>

#include "src/base/err.h"
#include "src/base/json.h"
#include "src/base/mem.h"

/* Bounds on what a file may ask for: far above any model, far below what would exhaust memory. */
#define MAX_SPANS (1u << 20)
#define MAX_POOLS 64u
#define MAX_BYTES (1ull << 56)

void tr_layout_free(struct tr_layout *l)
{
    for (uint32_t i = 0; l->segments && i < l->n_segments; i++) {
        tr_free(TR_MEM_MISC, l->segments[i].record);
        tr_free(TR_MEM_MISC, l->segments[i].kind);
    }
    for (uint32_t i = 0; l->pieces && i < l->n_pieces; i++)
        tr_free(TR_MEM_MISC, l->pieces[i].name);
    tr_free(TR_MEM_MISC, l->segments);
    tr_free(TR_MEM_MISC, l->spans);
    tr_free(TR_MEM_MISC, l->pieces);
    memset(l, 0, sizeof(*l));
}

uint64_t tr_layout_piece_room(const struct tr_layout *l)
{
    uint64_t most = 0;

    for (uint32_t i = 0; i < l->n_pieces; i++)
        most = l->pieces[i].bytes > most ? l->pieces[i].bytes : most;
    return tr_round_up(most, TR_STORE_ALIGN);
}

uint64_t tr_layout_bytes(const struct tr_layout *l)
{
    const struct tr_span *last = l->n_spans ? &l->spans[l->n_spans - 1] : NULL;

    return last ? last->offset + last->bytes : 0;
}

static int aligned(uint64_t n)
{
    return n % TR_STORE_ALIGN == 0;
}

static int check_piece(const struct tr_layout *l, const struct tr_span *s, uint32_t i)
{
    const struct tr_piece *p = &l->pieces[i], *prev = i > s->first_piece ? p - 1 : NULL;
    int same = prev && !strcmp(prev->name, p->name);
    uint64_t end, ignored;

    if (!p->name[0] || !p->bytes || p->bytes > TR_PIECE_BYTES || !aligned(p->offset))
        return -EINVAL;
    if (__builtin_add_overflow(p->offset, tr_round_up(p->bytes, TR_STORE_ALIGN), &end) ||
        end > s->bytes || __builtin_add_overflow(p->tensor_offset, p->bytes, &ignored))
        return -EINVAL;
    if (prev && p->offset < prev->offset + prev->bytes)
        return -EINVAL;
    if (same && (p->offset != prev->offset + prev->bytes ||
                 p->tensor_offset != prev->tensor_offset + prev->bytes))
        return -EINVAL;
    return 0;
}

static int check_span(const struct tr_layout *l, uint32_t i, const char *where)
{
    const struct tr_span *s = &l->spans[i], *prev = i ? s - 1 : NULL;
    uint64_t from = prev ? prev->offset + prev->bytes : 0;
    uint32_t first = prev ? prev->first_piece + prev->n_pieces : 0;

    if (s->segment >= l->n_segments || (prev && s->segment < prev->segment) || s->pool >= MAX_POOLS)
        return tr_error(-EINVAL, "%s: span %u: segment %u or pool %u out of range", where, i,
                        s->segment, s->pool);
    if (!aligned(s->offset) || !aligned(s->bytes) || !s->bytes || s->offset < from ||
        s->offset > MAX_BYTES || s->bytes > MAX_BYTES)
        return tr_error(-EINVAL,
                        "%s: span %u: offset %llu, %llu bytes: overlapping, misaligned or "
                        "out of range",
                        where, i, (unsigned long long)s->offset, (unsigned long long)s->bytes);
    if (s->first_piece != first || !s->n_pieces || s->n_pieces > l->n_pieces - first)
        return tr_error(-EINVAL, "%s: span %u: pieces %u + %u of %u", where, i, s->first_piece,
                        s->n_pieces, l->n_pieces);
    for (uint32_t p = first; p < first + s->n_pieces; p++)
        if (check_piece(l, s, p) < 0)
            return tr_error(-EINVAL,
                            "%s: span %u: piece %u (%s): %llu bytes at %llu: overlapping, "
                            "misaligned or out of range",
                            where, i, p - first, l->pieces[p].name,
                            (unsigned long long)l->pieces[p].bytes,
                            (unsigned long long)l->pieces[p].offset);
    return 0;
}

int tr_layout_check(const struct tr_layout *l, const char *where)
{
    const struct tr_span *last;

    if (!l->n_spans || l->n_segments > MAX_SPANS || l->n_spans > MAX_SPANS ||
        l->n_pieces > TR_LAYOUT_PIECES)
        return tr_error(-EINVAL, "%s: %u segments, %u spans, %u pieces: out of range", where,
                        l->n_segments, l->n_spans, l->n_pieces);
    for (uint32_t i = 0; i < l->n_segments; i++)
        if (!l->segments[i].record[0] || !l->segments[i].kind[0])
            return tr_error(-EINVAL, "%s: segment %u has no name", where, i);
    for (uint32_t i = 0; i < l->n_spans; i++) {
        int r = check_span(l, i, where);

        if (r < 0)
            return r;
    }
    last = &l->spans[l->n_spans - 1];
    if (last->first_piece + last->n_pieces != l->n_pieces)
        return tr_error(-EINVAL, "%s: %u pieces belong to no span", where,
                        l->n_pieces - last->first_piece - last->n_pieces);
    return 0;
}

static int alloc_layout(struct tr_layout *l, uint32_t segments, uint32_t spans, uint32_t pieces)
{
    memset(l, 0, sizeof(*l));
    l->segments = tr_alloc_array(TR_MEM_MISC, segments, sizeof(*l->segments));
    l->spans = tr_alloc_array(TR_MEM_MISC, spans, sizeof(*l->spans));
    l->pieces = tr_alloc_array(TR_MEM_MISC, pieces, sizeof(*l->pieces));
    if (!l->segments || !l->spans || !l->pieces) {
        tr_layout_free(l);
        return -ENOMEM;
    }
    l->n_segments = segments;
    l->n_spans = spans;
    l->n_pieces = pieces;
    return 0;
}

int tr_layout_copy(struct tr_layout *to, const struct tr_layout *from)
{
    int r = alloc_layout(to, from->n_segments, from->n_spans, from->n_pieces);
    int whole = 1;

    if (r < 0)
        return r;
    memcpy(to->spans, from->spans, from->n_spans * sizeof(*to->spans));
    for (uint32_t i = 0; i < from->n_segments; i++) {
        to->segments[i].record = tr_strdup(TR_MEM_MISC, from->segments[i].record);
        to->segments[i].kind = tr_strdup(TR_MEM_MISC, from->segments[i].kind);
        whole &= to->segments[i].record && to->segments[i].kind;
    }
    for (uint32_t i = 0; i < from->n_pieces; i++) {
        to->pieces[i] = from->pieces[i];
        to->pieces[i].name = tr_strdup(TR_MEM_MISC, from->pieces[i].name);
        whole &= to->pieces[i].name != NULL;
    }
    if (whole)
        return 0;
    tr_layout_free(to);
    return -ENOMEM;
}

static json_t *pieces_json(const struct tr_layout *l, const struct tr_span *s)
{
    json_t *list = json_array();

    for (uint32_t i = s->first_piece; i < s->first_piece + s->n_pieces; i++) {
        const struct tr_piece *p = &l->pieces[i];

        tr_json_append(&list, json_pack("{s:s, s:I, s:I, s:I}", "tensor", p->name, "from",
                                        (json_int_t)p->tensor_offset, "offset",
                                        (json_int_t)p->offset, "bytes", (json_int_t)p->bytes));
    }
    return list;
}

int tr_layout_to_json(const struct tr_layout *l, json_t **object)
{
    json_t *segments = json_array(), *spans = json_array();

    for (uint32_t i = 0; i < l->n_segments; i++)
        tr_json_append(&segments, json_pack("{s:s, s:s}", "record", l->segments[i].record, "kind",
                                            l->segments[i].kind));
    for (uint32_t i = 0; i < l->n_spans; i++) {
        const struct tr_span *s = &l->spans[i];

        tr_json_append(&spans,
                       json_pack("{s:i, s:i, s:I, s:I, s:o}", "segment", (int)s->segment, "pool",
                                 (int)s->pool, "offset", (json_int_t)s->offset, "bytes",
                                 (json_int_t)s->bytes, "pieces", pieces_json(l, s)));
    }
    tr_json_add(object, "segments", segments);
    tr_json_add(object, "spans", spans);
    return *object ? 0
                   : tr_error(-EINVAL, "a name in the layout is not valid UTF-8, or out of memory");
}

/* A missing member or a wrong type leaves *ok at 0, so that one test at the end is enough. */
static uint64_t member_u64(const json_t *o, const char *key, uint64_t max, int *ok)
{
    const json_t *v = json_object_get(o, key);

    if (!json_is_integer(v) || json_integer_value(v) < 0 || (uint64_t)json_integer_value(v) > max) {
        *ok = 0;
        return 0;
    }
    return (uint64_t)json_integer_value(v);
}

static char *member_text(const json_t *o, const char *key, int *ok)
{
    const json_t *v = json_object_get(o, key);
    size_t n = json_is_string(v) ? json_string_length(v) : 0;
    char *s;

    if (!n || n > 1024 || strlen(json_string_value(v)) != n) {
        *ok = 0;
        return NULL;
    }
    s = tr_strdup(TR_MEM_MISC, json_string_value(v));
    *ok &= s != NULL;
    return s;
}

static uint64_t count_pieces(const json_t *spans)
{
    uint64_t n = 0;

    for (size_t i = 0; i < json_array_size(spans); i++)
        n += json_array_size(json_object_get(json_array_get(spans, i), "pieces"));
    return n;
}

static int read_span(struct tr_layout *l, uint32_t i, const json_t *o)
{
    const json_t *pieces = json_object_get(o, "pieces");
    struct tr_span *s = &l->spans[i];
    int ok = 1;

    s->segment = (uint32_t)member_u64(o, "segment", UINT32_MAX, &ok);
    s->pool = (uint32_t)member_u64(o, "pool", MAX_POOLS, &ok);
    s->offset = member_u64(o, "offset", MAX_BYTES, &ok);
    s->bytes = member_u64(o, "bytes", MAX_BYTES, &ok);
    s->first_piece = i ? s[-1].first_piece + s[-1].n_pieces : 0;
    s->n_pieces = (uint32_t)json_array_size(pieces);
    for (uint32_t k = 0; k < s->n_pieces; k++) {
        const json_t *v = json_array_get(pieces, k);
        struct tr_piece *p = &l->pieces[s->first_piece + k];

        p->name = member_text(v, "tensor", &ok);
        p->tensor_offset = member_u64(v, "from", MAX_BYTES, &ok);
        p->offset = member_u64(v, "offset", MAX_BYTES, &ok);
        p->bytes = member_u64(v, "bytes", TR_PIECE_BYTES, &ok);
    }
    return ok;
}

static int read_layout(struct tr_layout *l, const json_t *segments, const json_t *spans,
                       const char *where)
{
    for (uint32_t i = 0; i < l->n_segments; i++) {
        const json_t *v = json_array_get(segments, i);
        int ok = 1;

        l->segments[i].record = member_text(v, "record", &ok);
        l->segments[i].kind = member_text(v, "kind", &ok);
        if (!ok)
            return tr_error(-EINVAL, "%s: segments[%u]: needs \"record\" and \"kind\"", where, i);
    }
    for (uint32_t i = 0; i < l->n_spans; i++)
        if (!read_span(l, i, json_array_get(spans, i)))
            return tr_error(-EINVAL, "%s: spans[%u]: a member is missing or out of range", where,
                            i);
    return tr_layout_check(l, where);
}

int tr_layout_from_json(struct tr_layout *out, const json_t *object, const char *where)
{
    const json_t *segments = json_object_get(object, "segments");
    const json_t *spans = json_object_get(object, "spans");
    uint64_t pieces = count_pieces(spans);
    int r;

    memset(out, 0, sizeof(*out));
    if (!json_is_array(segments) || !json_is_array(spans) || !json_array_size(spans) ||
        json_array_size(segments) > MAX_SPANS || json_array_size(spans) > MAX_SPANS ||
        pieces > TR_LAYOUT_PIECES)
        return tr_error(-EINVAL, "%s: \"segments\" or \"spans\" missing, empty or too long", where);
    r = alloc_layout(out, (uint32_t)json_array_size(segments), (uint32_t)json_array_size(spans),
                     (uint32_t)pieces);
    if (r < 0)
        return r;
    r = read_layout(out, segments, spans, where);
    if (r < 0)
        tr_layout_free(out);
    return r;
}

uint32_t tr_layout_span_of(const struct tr_layout *l, uint32_t piece)
{
    uint32_t low = 0, high = l->n_spans;

    while (high - low > 1) {
        uint32_t middle = low + (high - low) / 2;

        if (l->spans[middle].first_piece <= piece)
            low = middle;
        else
            high = middle;
    }
    return low;
}

void tr_layout_describe(const struct tr_layout *l, uint32_t piece, char *text, size_t room)
{
    const struct tr_piece *p = &l->pieces[piece];
    const struct tr_segment *s = &l->segments[l->spans[tr_layout_span_of(l, piece)].segment];

    snprintf(text, room, "record %s, %s, tensor %s (bytes %llu to %llu)", s->record, s->kind,
             p->name, (unsigned long long)p->tensor_offset,
             (unsigned long long)(p->tensor_offset + p->bytes));
}
