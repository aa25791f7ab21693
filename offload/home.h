/* SPDX-License-Identifier: Apache-2.0
 *
 * The host tier: a span with a home stays in pinned host memory of exactly its size between its
 * visits to the device. Its first load fills the home from the disk, verified; later ones copy from
 * it. A write-back copies into the home and writes to disk from there. Where every step is durable
 * the home is a cache of the store that saves reads, never writes; elsewhere a write-back ends in
 * the home, and what was changed since the last commit reaches the disk when the next one asks for
 * it (offload/flush.c), once however many steps have changed it.
 *
 * The slot is free again when its bytes are safe in the home, while their write to disk goes on; so
 * the write belongs to the home and not to the slot. What keeps the order: the span is loaded again
 * from the home, never from the disk, and its next change waits in its slot until the write of the
 * one before is finished.
 *
 * Homes live as long as the engine. They belong to the I/O thread (but see engine.h on abandon).
 */
#ifndef TR_OFFLOAD_HOME_H
#define TR_OFFLOAD_HOME_H

#include "offload/offload.h"

struct tr_home {
    char *base; /* NULL until it is first used */
    int filled; /* it holds the newest bytes of its span from now on */
    int writing;
    int dirty; /* they are newer than the disk's, and no write of them is under way */
};

struct tr_homes {
    struct tr_device *device;
    const struct tr_layout *layout;
    unsigned char *planned; /* (spans): has a home; NULL: no span has one */
    struct tr_home *home;   /* (spans) */
    uint32_t n;             /* homes planned */
};

int tr_homes_open(struct tr_homes *h, struct tr_device *device, const struct tr_layout *layout,
                  const unsigned char *in_host);
/* The memory goes; with tr_homes_free, the rest. */
void tr_homes_close(struct tr_homes *h);
void tr_homes_free(struct tr_homes *h);

struct tr_home *tr_home_of(const struct tr_homes *h, uint32_t span); /* NULL: it has none */
int tr_home_is_dirty(const struct tr_homes *h, uint32_t span);
/* Makes its memory where there is none yet: so opening is instant. */
int tr_home_need(struct tr_homes *h, uint32_t span);
uint64_t tr_homes_bytes(const struct tr_homes *h); /* of all that are planned */

#endif
