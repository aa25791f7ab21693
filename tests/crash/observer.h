/* SPDX-License-Identifier: Apache-2.0
 *
 * What the observer (observer.c, preloaded into the program) and a test say to each other in a
 * mapped file: the test how a life is to end and where the units of the model lie on disk, the
 * observer what the program is doing, and in a log what it has written. The program itself knows
 * nothing of it.
 */
#ifndef TESTS_CRASH_OBSERVER_H
#define TESTS_CRASH_OBSERVER_H

#include <stdatomic.h>
#include <stdint.h>

#define OBSERVED_UNITS 32

/* As the disk sees it: what the newest read, write or sync belongs to. A phase lasts until the
 * next one begins, so the compute between two reads of the forward pass is forward, too. */
enum phase {
    PHASE_OPEN, /* options, data, plan; the store is opened; also the end of the process */
    PHASE_IMPORT,
    PHASE_FORWARD,
    PHASE_NORM, /* the first of two backward passes, where the gradient's norm is asked for */
    PHASE_BACKWARD,
    PHASE_FLUSH, /* from the first sync of a commit until its record is durable */
    PHASE_EXPORT,
    PHASES
};

/* Defects of the program on purpose, invisible as long as nobody kills it. */
enum defect {
    DEFECT_NONE,
    DEFECT_ONE_GENERATION, /* the generation that the commit names is overwritten */
    DEFECT_EARLY_RECORD,   /* the commit record is written before the data */
    DEFECT_NO_SYNC,        /* the data is never synced: seen by those only who cut the power */
    DEFECT_NO_NAMES        /* nor are the names in a folder */
};

/* The log of a run (TR_OBSERVED_LOG), for a test that cuts the power: each write and sync of the
 * store when it was asked for, and when it was done, in order. A write's bytes follow it where it
 * was asked for. */
struct logged {
    uint32_t done, sync, file, id; /* file: of LOGGED_NAMES */
    uint64_t offset, bytes;
};
/* In the run; the last two only where the store has a second folder. */
#define LOGGED_FILES 6
#define LOGGED_NAMES                                                                               \
    {                                                                                              \
        "store/gen0", "store/gen1", "store/commit0", "store/commit1", "second/gen0", "second/gen1" \
    }

/* And in a second log, LOG.folders, a line each: "made FOLDER", "synced FOLDER" or FILE,
 * "committed". */

struct observed {
    uint32_t n_units; /* bytes of a generation file up to each unit's end */
    uint64_t unit_end[OBSERVED_UNITS];
    int clips;          /* there is a norm pass */
    uint32_t die_in;    /* a phase; PHASES: in none */
    uint32_t die_after; /* events of this phase that are let through */
    int die_late;       /* when the event has been carried out, not before */
    uint32_t defect;

    _Atomic uint32_t phase, all_events, events[PHASES], entered[PHASES];
    _Atomic uint32_t begun, durable; /* commit records written, and synced */
};

#endif
