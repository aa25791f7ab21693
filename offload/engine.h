/* SPDX-License-Identifier: Apache-2.0
 *
 * The offload engine from inside. Its parts, each a file:
 *
 *   offload.c     the calls of offload.h, on the caller's thread
 *   engine.c      the I/O thread, errors
 *   prefetch.c    which load of the schedule begins next
 *   writeback.c   which changed slot is written next, and which must wait for a commit
 *   flush.c       the commit in the background
 *   moves.c       one slot's transfer with the checksums of its pieces
 *
 * Threads. The caller, the I/O thread, and the device's own threads, which report that the compute
 * of a visit has passed. `lock` guards what stands below it in the struct; it is never held during
 * I/O or a checksum. The queue, the moves and the store (with its `next` commit) belong to the I/O
 * thread alone, from open to close. Whoever changes what the I/O thread decides by calls
 * tr_engine_kick.
 *
 * Epochs. Each commit closes an epoch; a changed slot belongs to the epoch in which it was
 * released. At most two are alive: the one being committed and the current one. Write-backs of the
 * current one wait until the commit under way is durable, for they overwrite what the commit before
 * names (invariant 3). Loads and visits do not wait.
 */
#ifndef TR_OFFLOAD_ENGINE_H
#define TR_OFFLOAD_ENGINE_H

#include <pthread.h>

#include "offload/offload.h"
#include "offload/schedule.h"
#include "offload/slots.h"
#include "offload/store_private.h"

/* A slot on its way from or to the disk. It is finished when all bytes have been moved and all
 * pieces checked; the two go on side by side. */
struct tr_move {
    struct tr_transfer transfer; /* first: what the queue hands back */
    struct tr_offload *o;
    uint32_t slot, span;
    uint32_t piece;  /* the next to be checked */
    int transferred; /* the queue is done with it */
    struct tr_move *next;
};

/* A released visit whose compute has not passed yet. */
struct tr_ticket {
    struct tr_offload *o;
    uint32_t n, slot[TR_VISIT_SPANS], changed;
    uint64_t epoch;
    struct tr_ticket *next;
};

enum tr_flush_state {
    TR_FLUSH_IDLE,
    TR_FLUSH_WRITES, /* the write-backs of its epoch */
    TR_FLUSH_DATA,   /* the sync of the generation files */
    TR_FLUSH_RECORD, /* the write of the commit record */
    TR_FLUSH_SYNC    /* the sync of the commit record */
};

struct tr_flush {
    enum tr_flush_state state;
    int mark; /* no commit: the store is being marked open before it is changed in place */
    uint64_t epoch;
    uint32_t payload_bytes;
    unsigned char payload[TR_PAYLOAD_BYTES];
    struct tr_transfer transfer[2];
    uint32_t under_way;
    enum tr_file file;
};

struct tr_offload {
    struct tr_store *store;
    struct tr_device *device;
    struct tr_slot_pool *pools;
    uint32_t n_pools;
    uint32_t prefetch;
    int serial;
    char io_name[96];
    pthread_t thread;

    /* the I/O thread's */
    struct tr_queue *queue;
    struct tr_move *moves; /* (slots) */
    unsigned char *arrived;
    struct tr_move *reading, *writing; /* under way, oldest first */

    pthread_mutex_t lock;
    pthread_cond_t changed; /* something that a caller may wait for */
    struct tr_io *io;       /* for wake, which any thread may call */
    int kicked, stop;
    int error; /* the first one; it stays */
    char error_text[1024];

    struct tr_slots slots;
    struct tr_schedule schedule;
    struct tr_visit *visits; /* of this step */
    unsigned char *started;  /* (loads) */
    uint32_t first_load;     /* all before it have been started */
    uint32_t at;             /* the visit that is, or comes next to be, acquired */
    int acquired;
    uint32_t wanted;  /* loads of visits below this one are not ahead */
    uint64_t base;    /* visits released before this step */
    uint64_t passed;  /* visits whose compute has passed, since open */
    uint32_t tickets; /* visits released and not passed */
    struct tr_ticket *free_tickets;

    uint32_t *dirty; /* ring of slots that wait to be written, oldest first */
    uint32_t dirty_first, n_dirty;
    uint64_t epoch;
    uint32_t pending[2]; /* released changes not yet written, by epoch & 1 */
    struct tr_flush flush;
    struct tr_offload_stats stats;
};

/* engine.c; the lock is held */
void tr_engine_kick(struct tr_offload *o);
/* Keeps the message of this thread's last tr_error as the engine's, and wakes everybody. */
void tr_engine_fail(struct tr_offload *o, int error);
/* The engine's error, with its message, in this thread; 0 where there is none. */
int tr_engine_error(const struct tr_offload *o);
void *tr_engine_main(void *o);

/* prefetch.c, writeback.c, flush.c: one step forward where there is one; I/O thread, lock held */
void tr_prefetch_advance(struct tr_offload *o);
void tr_writeback_advance(struct tr_offload *o);
void tr_flush_advance(struct tr_offload *o);

/* Compute of a released visit has passed: the device's thread, lock held. */
void tr_writeback_passed(struct tr_offload *o, const struct tr_ticket *t);
/* May a slot of this epoch be written now, or does it overwrite what a commit still names? */
int tr_flush_gates(const struct tr_offload *o, uint64_t epoch);
void tr_flush_mark(struct tr_offload *o);

/* moves.c; I/O thread. start: lock held. check: lock not held; 1 where there was something to do.
 */
int tr_moves_open(struct tr_offload *o);
void tr_moves_close(struct tr_offload *o);
void tr_move_start(struct tr_offload *o, enum tr_io_op op, uint32_t slot);
int tr_moves_check(struct tr_offload *o);

#endif
