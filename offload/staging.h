/* SPDX-License-Identifier: Apache-2.0
 *
 * Chunks: the parts in which a span passes through pinned host memory, where disk I/O cannot reach
 * the device. A chunk is on loan to one move at a time:
 *
 *     a load        taken ─▶ disk read ─▶ hashed ─▶ copy to the device ─▶ given back
 *     a write-back  taken ─▶ copy from the device ─▶ disk write, hashed ─▶ given back
 *
 * Each arrow waits for nothing but the step before it and, to be hashed, for the chunks of the same
 * move that were taken earlier. No move holds a chunk while it waits for another one, so a single
 * chunk is enough for a span of any size, and nothing can wait in a circle. The oldest move is
 * served first, reads and writes in turn.
 *
 * Parts of a home (offload/home.h) go the same way; their chunks have no memory of their own.
 */
#ifndef TR_OFFLOAD_STAGING_H
#define TR_OFFLOAD_STAGING_H

#include "offload/queue.h"

/* At the 10 to 25 GB/s of PCIe the copy of so much takes 0.2 to 0.4 ms, far longer than to queue it
 * and to hear of its end; and 16 of them are few enough to keep pinned. */
#define TR_CHUNK_BYTES (4u << 20)

/* Parts of homes under way: as many as TR_STAGING_BYTES makes chunks. They cost no memory, and so
 * each is as large as several chunks: the pauses between copies weigh less. */
#define TR_HOME_PARTS       16u
#define TR_HOME_PART_CHUNKS 4u

struct tr_move;

struct tr_chunk {
    struct tr_transfer transfer; /* first: what the queue hands back */
    struct tr_offload *o;
    struct tr_move *move;
    char *memory;            /* its own; NULL for parts of homes */
    char *buf;               /* where its bytes are: its own memory, or in the home */
    uint64_t offset, bytes;  /* in the span */
    int transferred, hashed; /* the disk's part, the checksum's */
    int copied;              /* the device's part */
    struct tr_chunk *next;   /* of its move, in order; or free */
    struct tr_chunk *next_copied;
};

struct tr_chunk_pool {
    struct tr_device *device;
    char *memory; /* of all, NULL for parts of homes */
    uint64_t bytes, chunk_bytes;
    struct tr_chunk *chunks, *free;
    uint32_t n;
    enum tr_io_op last; /* read or write, whichever move was served last */
};

/* Memory of less than 16 chunks is cut into smaller ones, for it takes several to read, copy and
 * write at the same time. */
uint64_t tr_chunk_bytes(uint64_t staging_bytes);

/* bytes 0: chunks without memory, as parts of homes. */
int tr_chunks_open(struct tr_chunk_pool *p, struct tr_device *device, uint64_t bytes,
                   uint64_t chunk_bytes);
/* The memory goes; the chunks stay until tr_chunks_free, for callbacks may come late. */
void tr_chunks_close(struct tr_chunk_pool *p);
void tr_chunks_free(struct tr_chunk_pool *p);

struct tr_chunk *tr_chunk_take(struct tr_chunk_pool *p, enum tr_io_op op); /* NULL: none free */
void tr_chunk_give(struct tr_chunk_pool *p, struct tr_chunk *c);

#endif
