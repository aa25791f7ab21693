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

#define FAULTY_ZERO 1 /* as `fail`: a transfer of no bytes, as at the end of a file */

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
    int fail; /* negative errno (or FAULTY_ZERO) for one request of this op and file, the
                 fail_after-th */
    enum tr_io_op fail_op;
    uint32_t fail_file;
    uint32_t fail_after;
    enum mutant mutant;
    uint32_t patience;       /* of the early mutants: requests until they do what they said */
    struct io_log *log;      /* or NULL */
    _Atomic int hold_syncs;  /* while set, no sync is told to be done */
    _Atomic int hold_writes; /* while set, no write of data is told to be done */

    uint32_t seen;                            /* requests that matched so far */
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
