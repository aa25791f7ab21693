/* SPDX-License-Identifier: Apache-2.0
 *
 * Which folder holds which part of a generation. A store with several folders has one file of each
 * generation in each of them; the pieces are dealt out so that every run of them, and so every
 * load, keeps all drives busy for about the same time. What the layout calls an offset stays one
 * address in a generation; only the requests of the queue know where it lies.
 *
 * The assignment is made once, by a pure function of sizes, speeds and room, and stands in
 * store.json as runs of (folder, bytes); within a folder's file the runs lie back to back. Scratch
 * that spills is dealt out likewise, for as long as an engine is open.
 */
#ifndef TR_OFFLOAD_STRIPES_H
#define TR_OFFLOAD_STRIPES_H

#include <jansson.h>

#include "src/base/folders.h"
#include "offload/store.h"

/* Scratch: bytes that live within a step, numbered after the spans of the store. Made by a visit
 * that marks them fresh, and saved only where the schedule must drop them before their last use: to
 * a home in host memory, or to files without a name in the store's folders. No commit names them.
 */
struct tr_scratch {
    uint32_t pool;
    uint64_t bytes; /* a multiple of 4096 */
    int spills;     /* has a place in those files, behind those that spill before it */
};

struct tr_stripe {
    uint64_t from;   /* in the generation */
    uint64_t offset; /* in the folder's file */
    uint32_t folder;
};

/* n == 0: one folder, and every offset is its own. */
struct tr_stripes {
    uint32_t n_folders;
    uint32_t n;
    struct tr_stripe *stripe; /* ascending, the first from 0 */
    uint64_t bytes;           /* of a generation */
    uint64_t folder_bytes[TR_STORE_FOLDERS];
};

struct tr_drive {
    double speed; /* bytes per second, or any other measure of its share; of all together above 0 */
    uint64_t room; /* for one generation */
};

/* folder[i] for parts of these sizes, in order. A drive gets its share by speed as far as it has
 * room, and the others take the rest. -ENOSPC, without a message: together they have too little. */
int tr_stripes_assign(const uint64_t *bytes, uint32_t n, const struct tr_drive *drives,
                      uint32_t n_drives, unsigned char *folder);

/* The same for the pieces of a layout; each keeps what lies between it and the next one. */
int tr_stripes_make(struct tr_stripes *s, const struct tr_layout *l, const struct tr_drive *drives,
                    uint32_t n_drives);
/* The same for scratch: the spans that spill lie one behind the other, and each is cut every
 * TR_PIECE_BYTES. */
int tr_stripes_make_scratch(struct tr_stripes *s, const struct tr_scratch *scratch, uint32_t n,
                            const struct tr_drive *drives, uint32_t n_drives);
void tr_stripes_free(struct tr_stripes *s);

/* Adds "stripes" to the object; reads and checks them against the layout. */
int tr_stripes_to_json(const struct tr_stripes *s, json_t **object);
int tr_stripes_from_json(struct tr_stripes *s, const json_t *object, const struct tr_layout *l,
                         const char *where);

/* Where a byte of the generation lies, and the end of the stripe that it is in. */
struct tr_stripe_place {
    uint32_t folder;
    uint64_t offset, end;
};
struct tr_stripe_place tr_stripes_find(const struct tr_stripes *s, uint64_t at);
/* The first byte at or after `at`, before `end`, that lies in this folder; `end` if none does. */
uint64_t tr_stripes_next(const struct tr_stripes *s, uint32_t folder, uint64_t at, uint64_t end);

#endif
