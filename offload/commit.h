/* SPDX-License-Identifier: Apache-2.0
 *
 * A commit record as bytes: what a store stands at. Pure: no file is touched here, so that every
 * truncation and every flipped byte can be tried in a test and by a fuzzer.
 *
 * The size is fixed by the layout (a multiple of 4096), all numbers are little endian:
 *
 *      0  "tailrace"                 56  UUID of the store, 36 characters
 *      8  version u32                96  payload, TR_PAYLOAD_BYTES
 *     12  flags u32                4192  generation of every span, u8
 *     16  sequence u64                   zeros up to a multiple of 8
 *     24  spans u32                      XXH3-64 of every piece, u64
 *     28  pieces u32                     zeros
 *     32  payload bytes u32      size-8  XXH3-64 of all before it
 *     36  generations u32, then zeros
 */
#ifndef TR_OFFLOAD_COMMIT_H
#define TR_OFFLOAD_COMMIT_H

#include <stddef.h>
#include <stdint.h>

#include "offload/store.h"

/* The bytes on disk are being changed in place: not a state to resume. */
#define TR_COMMIT_OPEN 1u
#define TR_UUID_CHARS  36

struct tr_commit {
    uint64_t sequence; /* 0: none yet */
    uint32_t flags;
    uint32_t payload_bytes;
    unsigned char payload[TR_PAYLOAD_BYTES];
    uint8_t *generation; /* (spans) */
    uint64_t *hash;      /* (pieces) */
};

/* What a record of one store must agree with. */
struct tr_commit_shape {
    char uuid[TR_UUID_CHARS + 1];
    uint32_t n_spans, n_pieces;
    uint32_t generations;
};

int tr_commit_alloc(struct tr_commit *c, const struct tr_commit_shape *shape);
void tr_commit_free(struct tr_commit *c);
void tr_commit_copy(struct tr_commit *to, const struct tr_commit *from,
                    const struct tr_commit_shape *shape);

size_t tr_commit_bytes(const struct tr_commit_shape *shape);
void tr_commit_pack(const struct tr_commit_shape *shape, const struct tr_commit *c, void *buf);
/* -ENODATA: all zeros, never written; -EBADMSG: torn or damaged; whole, but -ENOTSUP: of a newer
 * version, -EINVAL: of another store or layout. `where` names the file in messages. c is touched on
 * success only. */
int tr_commit_parse(const struct tr_commit_shape *shape, const void *buf, size_t bytes,
                    const char *where, struct tr_commit *c);

/* A record whose checksum does not hold was whole once: with one bit of it turned round it does. No
 * torn write looks so. 0: not so, or too long to be tried. The bytes are as before. */
int tr_commit_was_whole(void *buf, size_t bytes);

/* The same, told by the bytes that are the same in every record of a store: a write that is torn
 * leaves of each sector what was there, what was to be there, or nothing of either, so a sector
 * that is right in most of them and wrong in some was damaged later. `newest` is the store's newest
 * whole commit: this record's number is the one after it or the one before. 0: not so, which damage
 * that looks like a torn write, or lies in the checksums alone, is neither. */
int tr_commit_is_damaged(const struct tr_commit_shape *shape, const void *buf, size_t bytes,
                         const struct tr_commit *newest);

/* The slot that holds this commit: records are written in turn, so the other one is the older. */
static inline int tr_commit_slot(uint64_t sequence)
{
    return (int)(sequence & 1);
}

#endif
