/* SPDX-License-Identifier: Apache-2.0
 *
 * What a store reads from its own folder (invariant 9). Text that begins with '{' is taken as
 * store.json; what passes must be a layout without overlap, in one folder and, where there are
 * stripes, in three, and must survive being written and read again. Other input is laid over a
 * whole commit record: byte 0 says whether the checksum is made good afterwards (or nothing behind
 * it would ever be reached), bytes 1 and 2 where, the rest what.
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

#include "offload/commit.h"
#include "offload/layout.h"
#include "offload/stripes.h"
#include "src/base/json.h"
#include "src/base/mem.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void must(int truth)
{
    if (!truth)
        abort();
}

static void check_disjoint(const struct tr_layout *l)
{
    uint64_t end = 0;

    for (uint32_t i = 0; i < l->n_spans; i++) {
        const struct tr_span *s = &l->spans[i];
        uint64_t inner = 0;

        must(s->offset >= end && s->bytes && s->segment < l->n_segments);
        end = s->offset + s->bytes;
        for (uint32_t k = s->first_piece; k < s->first_piece + s->n_pieces; k++) {
            must(k < l->n_pieces && l->pieces[k].offset >= inner);
            inner = l->pieces[k].offset + l->pieces[k].bytes;
            must(inner <= s->bytes && tr_layout_span_of(l, k) == i);
        }
    }
    must(end == tr_layout_bytes(l));
}

/* No byte of a folder's file is given out twice, and each lies in it. */
static void check_stripes(const json_t *o, const struct tr_layout *l)
{
    struct tr_stripes s = {.n_folders = 3};
    uint64_t end[3] = {0}, at = 0;

    if (tr_stripes_from_json(&s, o, l, "input") == 0) {
        for (uint32_t i = 0; i < s.n; i++, at = tr_stripes_find(&s, at).end) {
            must(s.stripe[i].folder < 3 && s.stripe[i].from == at);
            must(s.stripe[i].offset == end[s.stripe[i].folder]);
            end[s.stripe[i].folder] += tr_stripes_find(&s, at).end - at;
        }
        must(at == tr_layout_bytes(l));
        for (int k = 0; k < 3; k++)
            must(end[k] == s.folder_bytes[k]);
    }
    tr_stripes_free(&s);
}

static void fuzz_layout(const uint8_t *data, size_t size)
{
    struct tr_layout l, again;
    json_t *o, *copy;

    if (tr_json_parse((const char *)data, size, "input", &o) < 0)
        return;
    if (tr_layout_from_json(&l, o, "input") == 0) {
        check_disjoint(&l);
        check_stripes(o, &l);
        copy = json_object();
        must(tr_layout_to_json(&l, &copy) == 0);
        must(tr_layout_from_json(&again, copy, "copy") == 0);
        must(again.n_pieces == l.n_pieces && tr_layout_bytes(&again) == tr_layout_bytes(&l));
        tr_layout_free(&again);
        tr_layout_free(&l);
        json_decref(copy);
    }
    json_decref(o);
}

static void fuzz_record(const uint8_t *data, size_t size)
{
    static const struct tr_commit_shape shape = {.uuid = "01234567-89ab-4cde-8f01-23456789abcd",
                                                 .n_spans = 9,
                                                 .n_pieces = 20,
                                                 .generations = 2};
    size_t bytes = tr_commit_bytes(&shape), at = data[1] | (size_t)data[2] << 8;
    unsigned char *record = malloc(bytes);
    struct tr_commit c;

    must(tr_commit_alloc(&c, &shape) == 0);
    c.sequence = 5;
    tr_commit_pack(&shape, &c, record);
    for (size_t i = 3; i < size && at + i - 3 < bytes; i++)
        record[at + i - 3] = data[i];
    if (data[0] & 1) {
        XXH64_hash_t h = XXH3_64bits(record, bytes - 8);

        memcpy(record + bytes - 8, &h, 8);
    }
    if (tr_commit_parse(&shape, record, bytes, "input", &c) == 0) {
        must(c.sequence && c.payload_bytes <= TR_PAYLOAD_BYTES);
        for (uint32_t i = 0; i < shape.n_spans; i++)
            must(c.generation[i] < shape.generations);
    }
    must(tr_commit_is_damaged(&shape, record, bytes, &c) >= 0); /* whatever the bytes are */
    tr_commit_free(&c);
    free(record);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size && data[0] == '{')
        fuzz_layout(data, size);
    else if (size >= 3)
        fuzz_record(data, size);
    return 0;
}
