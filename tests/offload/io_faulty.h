/* SPDX-License-Identifier: Apache-2.0
 *
 * The faulty twin of the I/O table: around a real one it shortens, interrupts, delays, reorders and
 * fails requests, and writes down what reached the disk in which order, so that a crash at any
 * point can be played afterwards. It can also lie, as a defect in the engine above it would: the
 * mutants by which the tests show that they catch such defects.
 */
#ifndef TESTS_OFFLOAD_IO_FAULTY_H
#define TESTS_OFFLOAD_IO_FAULTY_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdatomic.h>

#include "offload/io.h"

enum mutant {
    MUTANT_NONE,
    MUTANT_NO_DATA_SYNC,   /* the data is not synced before the commit record */
    MUTANT_NO_PART_SYNC,   /* that of the further folders is not */
    MUTANT_ONE_GENERATION, /* the generation that the commit names is overwritten */
    MUTANT_EARLY_WRITE,   /* a write is called finished before it is: nobody waits before reading */
    MUTANT_EARLY_SYNC,    /* a commit is called durable before it is */
    MUTANT_NO_RECORD_SYNC /* the commit record is never synced: as when killed before */
};

/* As `fail`, beside a negative errno: a transfer of no bytes, as at the end of a file; a part of
 * the bytes; a part, and -ENOSPC for the rest, as io_uring reports a full disk; an end after all
 * others that are under way; and what no kernel does: nothing is moved and success reported, as if
 * an engine did not look at its results; and the end of the table itself, which from then on tells
 * of no request any more. */
enum { FAULTY_ZERO = 1, FAULTY_SHORT, FAULTY_FULL, FAULTY_LATE, FAULTY_SWALLOWED, FAULTY_BROKEN };
#define FAULTY_ANY_FILE UINT32_MAX /* as fail_file; TR_IO_OPS as fail_op: any */

enum log_kind { LOG_SUBMIT, LOG_DONE };

struct log_event {
    enum log_kind kind;
    enum tr_io_op op; /* writes and syncs only, none of scratch: a crash leaves nothing of it */
    uint32_t file;    /* of all folders' */
    uint32_t id;      /* the same of submit and done */
    uint64_t offset;
    size_t bytes;
    char *data; /* of a write's submit */
};

struct io_log {
    pthread_mutex_t lock;
    struct log_event *events;
    size_t n, room;
    uint32_t next_id;
};

struct faulty {
    uint64_t seed;
    uint32_t short_percent, again_percent, delay_percent;
    int fail; /* negative errno (or FAULTY_...) for one request of this op and file, the
                 fail_after-th */
    enum tr_io_op fail_op;
    uint32_t fail_file;
    uint32_t fail_after;
    int fail_always; /* every one of them */
    enum mutant mutant;
    uint32_t patience;       /* of the early mutants: requests until they do what they said */
    struct io_log *log;      /* or NULL */
    _Atomic int hold_syncs;  /* while set, no sync is told to be done */
    _Atomic int hold_writes; /* while set, no write of data is told to be done */

    _Atomic uint64_t *clock; /* of a test: each byte that moves takes so long; or NULL */
    _Atomic uint32_t ns_per_kib;

    uint32_t seen;           /* requests that matched so far */
    enum tr_io_op failed_op; /* of the one that failed */
    uint32_t full_file;      /* FAULTY_FULL: where the rest is refused */
    uint64_t full_at;
    int full;
    uint64_t shortened, interrupted, delayed; /* what was done, for a test that counts */
    uint32_t reads, writes;                   /* under way now */
    _Atomic uint32_t all_writes;              /* of data, since it began */
    _Atomic int together;                     /* 1 once both were */
};

/* For tr_io_hook.wrap; arg is a struct faulty, which outlives the io. */
int faulty_wrap(void *arg, struct tr_io **io);

void log_open(struct io_log *log);
void log_close(struct io_log *log);

#endif
