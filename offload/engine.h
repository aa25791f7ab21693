/* SPDX-License-Identifier: Apache-2.0
 *
 * The offload engine from inside. Its parts, each a file:
 *
 *   offload.c     the calls of offload.h, on the caller's thread
 *   open.c        the first and the last of them
 *   engine.c      the I/O thread, errors
 *   prefetch.c    which load of the schedule begins next
 *   writeback.c   which changed slot is written next, and which must wait for a commit
 *   flush.c       the commit in the background
 *   abandon.c     a step that is not to be committed
 *   moves.c       one slot's transfer with the checksums of its pieces
 *   staged.c      the same through host memory, for what disk I/O cannot reach
 *   staging.c     the chunks of host memory for that
 *   home.c        the host tier: spans that stay in host memory
 *   tables.c      what all of this takes in host memory
 *   scratch.c     spans of the step alone, and where they are saved
 *
 * Threads. The caller, the I/O thread, and the device's own threads, which report that the compute
 * of a visit, or a copy, has passed. `lock` guards what stands below it in the struct; it is never
 * held during I/O, a checksum or a call of the device. The queue, the moves and the store (with its
 * `next` commit) belong to the I/O thread alone, from open to close; but tr_offload_abandon, which
 * has waited under the lock until that thread has nothing to do, changes `next` and the homes
 * itself. Whoever changes what the I/O thread decides by calls tr_engine_kick.
 *
 * Epochs. Each commit closes an epoch; a changed slot belongs to the epoch in which it was
 * released. At most two are alive: the one being committed and the current one. Write-backs of the
 * current one wait until the commit under way is durable, for they overwrite what the commit before
 * names (invariant 3). Loads and visits do not wait.
 */
#ifndef TR_OFFLOAD_ENGINE_H
#define TR_OFFLOAD_ENGINE_H

#include <pthread.h>
#include <xxhash.h>

#include "offload/offload.h"
#include "offload/home.h"
#include "offload/schedule.h"
#include "offload/slots.h"
#include "offload/staging.h"
#include "offload/store_private.h"

#define TR_SCRATCH_TEXT 24 /* "scratch 4294967295" */

/* A slot on its way from or to the disk. It is finished when all bytes have been moved and all
 * pieces checked; the two go on side by side. */
struct tr_move {
    struct tr_transfer transfer; /* first: what the queue hands back; staged: what is to be moved */
    struct tr_offload *o;
    uint32_t slot, span;
    uint64_t epoch;  /* of a write */
    uint32_t piece;  /* the next to be checked */
    int transferred; /* the queue is done with it */
    struct tr_move *next;

    /* staged.c */
    struct tr_chunk_pool *pool; /* where its chunks come from; NULL: straight into the slot */
    struct tr_home *home;       /* NULL: none */
    int from_home;              /* a load without the disk; a write without the device */
    int diskless;               /* a write, or scratch, that ends in its home */
    int slot_free;              /* a write that goes on without its slot */
    struct tr_chunk *chunks;    /* on loan, in order */
    uint64_t given;             /* all bytes before this one have gone into chunks */
    uint64_t hashed;            /* all bytes before this one are in the checksums */
    uint64_t copied, done;      /* bytes: through the device's copies; through everything */
    XXH3_state_t *state;        /* of the piece at `hashed` */
};

/* A released visit whose compute has not passed yet. */
struct tr_ticket {
    struct tr_offload *o;
    uint32_t n, slot[TR_VISIT_SPANS], changed, saved;
    uint64_t epoch;
    struct tr_ticket *next;
};

/* Slots that wait to be written, oldest first; room for every slot. */
struct tr_ring {
    uint32_t *slot;
    uint32_t first, n;
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
    int held; /* and a commit waits behind that */
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
    _Atomic int unchecked;
    int lazy; /* not every step is durable: homes are written when a commit is due */
    char io_name[192];
    pthread_t thread;

    /* the I/O thread's */
    struct tr_queue *queue;
    struct tr_slow slow; /* the lock's */
    int is_slow;
    struct tr_move *moves; /* (slots), then of writes from homes (spans), where there are any */
    uint32_t n_moves;
    uint16_t *arrived;
    struct tr_move *reading, *writing; /* under way, oldest first */
    struct tr_chunk_pool staging;      /* memory on the way to and from the device */
    struct tr_chunk_pool parts;        /* of homes on the way; no memory of their own */
    struct tr_homes homes;
    struct tr_layout layout; /* the store's and its names, then the scratch spans */
    char (*scratch_names)[TR_SCRATCH_TEXT];
    uint32_t first_scratch_piece;
    const struct tr_stripes *scratch_stripes; /* NULL: the first folder has all */
    unsigned char *scratch_placed;            /* (scratch): has a place in scratch files */
    uint64_t *scratch_hash;                   /* (scratch pieces) as they were saved */
    int opaque;                               /* disk I/O cannot reach the device's memory */
    int failing;                              /* there is an error: nothing is staged any more */

    pthread_mutex_t lock;
    pthread_cond_t changed;  /* something that a caller may wait for */
    struct tr_io *io;        /* for wake, which any thread may call */
    int kicked, stop, ended; /* stop: the I/O thread is to end; ended: it has */
    int error;               /* the first one; it stays */
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
    struct tr_chunk *copied; /* whose copies have passed, as the device's threads report it */
    uint32_t calls;          /* callbacks asked for that have not come */
    int abandoned;           /* close does not wait for them: they must leave all else alone */
    int closed;              /* the last of them frees the rest */

    struct tr_ring dirty, saves; /* changed spans of the store; scratch */
    uint32_t saving;             /* released scratch to be saved, not yet written */
    uint64_t epoch;
    int unmarked;        /* slots have changed since the last commit was asked for */
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
/* Waits for a change; where none comes for a while, asks the device, which may have lost the
 * callback that it hangs on. Any other thread than the I/O thread; the lock is not held while
 * asking. */
void tr_engine_wait(struct tr_offload *o);
/* The end of every callback: lock held, given back. After it the engine may be gone. */
void tr_engine_called(struct tr_offload *o);
/* Frees what callbacks look at, and with it the engine: when the last one has come. */
void tr_engine_free(struct tr_offload *o);

/* prefetch.c, writeback.c, flush.c: one step forward where there is one; I/O thread, lock held */
void tr_prefetch_advance(struct tr_offload *o);
void tr_writeback_advance(struct tr_offload *o);
void tr_flush_advance(struct tr_offload *o);

/* Does a change of this span of the store wait in its slot until it is wanted? */
int tr_writeback_waits(const struct tr_offload *o, uint32_t span);
/* It is: what the slot holds is to be written, if it is newer than the store. Lock held. */
void tr_writeback_want(struct tr_offload *o, uint32_t slot);
/* Compute of a released visit has passed: the device's thread, lock held. */
void tr_writeback_passed(struct tr_offload *o, const struct tr_ticket *t);
/* May a slot of this epoch be written now, or does it overwrite what a commit still names? */
int tr_flush_gates(const struct tr_offload *o, uint64_t epoch);
void tr_flush_mark(struct tr_offload *o);

/* Checked in one go, then the queue has its turn. */
#define TR_CHECK_BYTES TR_IO_CHUNK

#define TR_HASH_BYTES 640 /* of a checksum's state, which the library makes: 576, and aligned */

/* moves.c; I/O thread. start, under_way: lock held. check: lock not held; 1 where there was
 * something to do. */
int tr_moves_open(struct tr_offload *o);
void tr_moves_close(struct tr_offload *o);
void tr_move_start(struct tr_offload *o, enum tr_io_op op, uint32_t slot);
/* A dirty home to the disk, as a change of this epoch. */
void tr_move_start_home(struct tr_offload *o, uint32_t span, uint64_t epoch);
int tr_moves_check(struct tr_offload *o);
int tr_moves_under_way(const struct tr_offload *o);
/* Lock not held: the move is over, its slot is what it was moved for. */
void tr_move_finish(struct tr_move *m, int error);
/* A piece's checksum is noted where it is written, compared where it is read. */
int tr_move_take_hash(const struct tr_move *m, uint32_t piece, uint64_t hash);
/* The error of a transfer of this span or a part of it, with the piece in the message. */
int tr_move_error(const struct tr_move *m, const struct tr_transfer *t);
uint32_t tr_move_end_piece(const struct tr_move *m);

/* scratch.c. check_saves: can all that the schedule wants saved be saved? */
int tr_scratch_open(struct tr_offload *o, const struct tr_offload_params *p);
void tr_scratch_close(struct tr_offload *o);
int tr_scratch_check_saves(const struct tr_offload *o, const struct tr_visit *visits,
                           const struct tr_schedule *s);
int tr_scratch_check_hash(const struct tr_offload *o, uint32_t span, uint32_t piece, uint64_t hash);

static inline int tr_is_scratch(const struct tr_offload *o, uint32_t span)
{
    return span >= o->slots.first_scratch;
}

/* staged.c; I/O thread. start: lock held. advance, work: lock not held; 1 where there was something
 * to do. advance: chunks are handed out and taken back; work: one move's checksums. A move may be
 * gone afterwards. */
void tr_staged_start(struct tr_move *m, struct tr_home *home);
int tr_staged_advance(struct tr_offload *o);
int tr_staged_work(struct tr_move *m);

#endif
