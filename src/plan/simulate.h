/* SPDX-License-Identifier: Apache-2.0
 *
 * The offload engine on a virtual clock: the visits of a step and the very schedule that
 * offload/schedule.c makes of them, played against rates instead of a drive and a device. Slots go
 * through the same states (offload/slots.h), write-backs wait for the same commits, spans with a
 * home in host memory pass the drive by as in offload/staged.c. Pure: no thread, no clock, no I/O;
 * the same input gives the same result to the last bit.
 *
 * What moves is cut into parts that pass through servers, one at a time each and in order:
 *
 *   a load        drive ─▶ checksums ─▶ copy in          (from a home: copy in alone)
 *   a write-back  copy out ─▶ drive ─▶ checksums         (where the host sees the device's memory:
 *                                                         no copies; into a home, not every step
 *                                                         being durable: copy out alone)
 *   a visit       compute, when its spans are there
 *   an update     the cpu first, where it runs there, and the caller waits for it
 *
 * Where the store has several drives, each is a server of its own, with both ways in turn; a part
 * that lies on several of them goes on when the last has done its share. Who is given what is the
 * engine's way, too: drives that reach the slots take from the span what is theirs, each at its own
 * pace, while chunks of host memory are filled in the order of the span.
 *
 * Steps are played from empty slots. The second or third one moves the bytes of all that follow,
 * but may be shorter than those: what is written a little slower than it is computed waits in homes
 * and slots, more of it at every step, until the steps themselves wait for it. So seconds are of
 * the first step that takes as long as the one before, and as long as each server needs for all
 * that a step gives it; bytes never depend on how many steps that takes.
 *
 * What a commit alone writes (not every step being durable) is counted, and played where a step is
 * to be followed by one: then what homes and slots have kept is written while the next step runs.
 */
#ifndef TR_SRC_PLAN_SIMULATE_H
#define TR_SRC_PLAN_SIMULATE_H

#include "offload/offload.h"
#include "offload/stripes.h"
#include "src/plan/drives.h"

enum tr_server {
    TR_SERVE_COMPUTE,
    TR_SERVE_DRIVE,
    TR_SERVE_HASH,
    TR_SERVE_IN,
    TR_SERVE_OUT,
    TR_SERVE_CPU,
    TR_SERVERS
};

/* Bytes per second; 0: takes no time. */
struct tr_sim_rates {
    struct tr_drive_rates drive[TR_STORE_FOLDERS];
    uint32_t n_drives; /* 0: one */
    double hash, in, out, both;
    double drag; /* seconds of compute lost per byte that is hashed */
};

#define TR_SIM_STEPS  12 /* at most */
#define TR_SIM_CYCLE  4  /* steps that are never alike: the mean of so many */
#define TR_SIM_PASSES 3  /* forward, norm, update: enum tr_pass */

struct tr_sim_params {
    const struct tr_visit *visits;
    uint32_t n;
    const double *seconds; /* (n) compute of each visit */
    const double *beside;  /* (n) of the cpu before the visit is queued; NULL: nothing runs there */
    const uint32_t *after; /* (n) how many visits of the step must have passed before that */
    const unsigned char *pass; /* (n) enum tr_pass; before the first of a changing pass the caller
                                * waits for all compute */
    const struct tr_span *spans;
    uint32_t n_spans, n_scratch;              /* the last so many of them are scratch */
    const struct tr_stripes *stripes;         /* of the store; NULL: one folder */
    const struct tr_stripes *scratch_stripes; /* NULL: what spills is in the first folder */
    const unsigned char *drive_of; /* (folders) of rates.drive; NULL: folder 0 is drive 0, ... */
    const struct tr_slot_pool *pools;
    uint32_t n_pools;
    const unsigned char *in_host; /* (spans) or NULL */
    int staged;                   /* the drive cannot reach the slots */
    uint64_t staging_bytes;
    uint32_t prefetch; /* loads ahead at most; 0: as slots allow */
    int serial;
    enum tr_durability durability; /* checkpoint: between its commits, but for this one: */
    uint32_t commit_after;         /* after so many steps, fewer than are played; 0: none */
    struct tr_sim_rates rates;
    uint32_t steps; /* to be played, at most TR_SIM_STEPS; 0: 2 */
    uint32_t most;  /* seconds: played on for, until steps are alike; 0: the last step's as it is */
};

/* One drive's part of a result. */
struct tr_sim_drive {
    double busy, waited; /* waited: compute did so, for drives, while this one was at work */
    uint64_t read_bytes, written_bytes, kept_bytes, first_read_bytes, total_read_bytes;
    uint64_t written[TR_SIM_STEPS];
};

/* Of the last of `steps`. Seconds are from one step's end of compute to the next one's, and with
 * `most` of the last one played; bytes are of its loads and of its changes, whenever they move. */
struct tr_sim_result {
    double seconds, pass[TR_SIM_PASSES], commit; /* commit: waited for, at the step's end */
    double step_seconds[TR_SIM_STEPS];           /* of every step played */
    double busy[TR_SERVERS];                     /* [DRIVE]: any of them */
    double idle[TR_SERVERS]; /* of compute, by what it waited for; [COMPUTE]: commits, latency */
    uint64_t read_bytes, written_bytes, host_bytes, loads;
    uint64_t copied_bytes;  /* to and from the device, of spans */
    uint64_t spilled_bytes; /* scratch saved, wherever; what of it went to disk is written, too */
    uint64_t kept_bytes;    /* changed, and left in homes and slots until there is a commit */
    uint64_t written[TR_SIM_STEPS], kept[TR_SIM_STEPS]; /* the same of every step */
    uint64_t first_read_bytes, first_host_bytes;        /* of the first step, from empty slots */
    uint64_t total_read_bytes, total_written_bytes;     /* of all `steps` */
    uint32_t n_drives;
    struct tr_sim_drive drive[TR_STORE_FOLDERS];
};

/* -ENOSPC where a visit does not fit the slots (as tr_schedule_make); -EDEADLK where the engine
 * would stand still. */
int tr_simulate(const struct tr_sim_params *p, struct tr_sim_result *out);

#endif
