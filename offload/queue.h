/* SPDX-License-Identifier: Apache-2.0
 *
 * The queue cuts transfers (a span, a commit record) into requests of 1 MiB, keeps a bounded number
 * of them under way, and finishes what the kernel cut short. Where reads and writes both wait it
 * takes them in turn, one to one: left to themselves, the two together fall to a fraction of what
 * the drive gives when they alternate.
 *
 * Where the store has several folders, a transfer is one range of addresses in a generation and
 * its requests go where the stripes say. Each folder has its own bounded number under way and its
 * own turn of reads and writes, and takes what is its own from every transfer that waits, so that
 * a slow drive does not hold up a fast one.
 *
 * Belongs to one thread, the one that owns the tr_io below it.
 */
#ifndef TR_OFFLOAD_QUEUE_H
#define TR_OFFLOAD_QUEUE_H

#include "offload/io.h"
#include "offload/stripes.h"

#define TR_IO_CHUNK (1u << 20)
#define TR_IO_DEPTH 32u

/* The caller's until it is added, the queue's until done is called (from tr_queue_turn). */
struct tr_transfer {
    enum tr_io_op op;
    enum tr_file file;
    char *buf;
    uint64_t offset, bytes; /* multiples of 4096; of no meaning to a sync */
    uint16_t *arrived;      /* scratch for each of tr_queue_chunks(bytes), or NULL */
    void (*done)(struct tr_transfer *t);
    void *owner;

    int error;             /* negative errno of the first request that failed */
    uint64_t error_offset; /* in `file`, as an offset that the layout knows */
    uint32_t error_file;   /* of io_params.files, and the place in it */
    uint64_t error_at;
    uint64_t prefix;    /* all bytes before this one are there (only with `arrived`) */
    uint64_t submitted; /* bytes; of a sync: files */
    uint64_t offered[TR_STORE_FOLDERS]; /* of each folder: all before this one is submitted */
    uint32_t under_way;
    struct tr_transfer *next;
};

struct tr_queue;

static inline uint64_t tr_queue_chunks(uint64_t bytes)
{
    return (bytes + TR_IO_CHUNK - 1) / TR_IO_CHUNK;
}

/* Takes the io over: it is closed with the queue. stripes, NULL for one folder: outlives it. */
int tr_queue_open(struct tr_queue **out, struct tr_io *io, uint32_t depth,
                  const struct tr_stripes *stripes);
/* The stripes of scratch files, NULL: the first folder has all; before the first transfer of them.
 */
void tr_queue_stripe_scratch(struct tr_queue *q, const struct tr_stripes *stripes);
void tr_queue_close(struct tr_queue *q); /* NULL is allowed */

void tr_queue_add(struct tr_queue *q, struct tr_transfer *t);
/* Submits what fits, reaps what is finished (waiting for it if asked), calls done. Negative errno
 * where the I/O engine itself broke down. */
int tr_queue_turn(struct tr_queue *q, int wait);
uint32_t tr_queue_under_way(const struct tr_queue *q); /* requests */

/* A drive that has become slow (offload/watch.h): 1 and which of them, once for each. */
struct tr_slow {
    uint32_t folder;
    const char *what;  /* "reading", "writing", "reading and writing" */
    double usual, now; /* bytes per second */
};
int tr_queue_slow(struct tr_queue *q, struct tr_slow *slow);
/* For tests: time in ns from elsewhere. */
void tr_queue_set_clock(struct tr_queue *q, uint64_t (*clock)(void));

/* Adds one transfer and turns the queue until it is done; returns its error. */
int tr_queue_run(struct tr_queue *q, struct tr_transfer *t);

#endif
