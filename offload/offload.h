/* SPDX-License-Identifier: Apache-2.0
 *
 * The offload engine: keeps the spans that the next visits need on their way from the store into
 * slots, and the changed ones on their way back, while the device computes. It knows visits, spans
 * and slots; it does not know what is computed.
 *
 * One step is an ordered list of visits; each visit names the spans it reads and which of them it
 * changes. From the whole list (and the next step's) one pure function makes the schedule: which
 * span goes into which slot and when (offload/schedule.h, exact: what is needed last is dropped
 * first). The engine then plays it. The call order of a step with three blocks, from the trainer:
 *
 *   begin(visits, next)           the first loads start
 *   acquire(0) .. release(0)      forward of block 0: release follows the queueing of its compute
 *   acquire(1) .. release(1)      and does not wait for it
 *   acquire(2) .. release(2)
 *   acquire(3) .. release(3)      backward + update of block 2: changed, so its write-back starts
 *   acquire(4) .. release(4)      when the compute stream has passed the release
 *   acquire(5) .. release(5)
 *   begin(...)                    the next step's loads start
 *   commit(payload)               in the background: writes done, synced, commit record, synced;
 *                                 the next step's loads and forward visits overlap it, its
 *                                 write-backs wait until it is durable (invariant 3)
 *
 * Threads: one caller; one I/O thread (io_uring or the threads engine) which also does the
 * checksums and queues copies; the device's own threads call back when the compute of a visit, or a
 * copy, is done.
 */
#ifndef TR_OFFLOAD_OFFLOAD_H
#define TR_OFFLOAD_OFFLOAD_H

#include "offload/io.h"
#include "offload/stripes.h"
#include "src/base/device.h"

#define TR_VISIT_SPANS 24
#define TR_NONE        UINT32_MAX /* no span, no slot */

struct tr_visit {
    uint32_t n_spans;
    uint32_t span[TR_VISIT_SPANS];
    uint32_t changed; /* bit i: span[i] is changed by this visit */
    uint32_t fresh;   /* bit i: span[i] is made here: what it held before is of no use, not read */
};

/* Slots of one size, in device memory unless said otherwise. Where the host can see them, disk I/O
 * goes straight into them; elsewhere through staging chunks (offload/staging.h). */
struct tr_slot_pool {
    char *base;          /* 4096-aligned */
    uint64_t slot_bytes; /* multiple of 4096 */
    uint32_t n_slots;
    /* 1 + the pool whose slots this pool's spans go to, which has its own; 0: to this pool's. Spans
     * of several sizes that are needed one by one share slots of the largest size so. */
    uint32_t shares;
    int host; /* base is in host memory, whatever the device: for what never goes to it */
    /* What the last visit of the pool used is not loaded over as long as there is another slot: its
     * write-back and the next load go on side by side, for a few loads more. */
    int spare;
};

struct tr_offload_params {
    struct tr_store *store; /* opened for writing, or for reading when no visit changes anything */
    struct tr_device *device;
    const struct tr_slot_pool *pools; /* [n_pools], copied; a span's pool indexes it */
    uint32_t n_pools;
    enum tr_io_kind io;
    enum tr_durability durability;
    uint32_t prefetch; /* loads in flight or ready ahead of the visit at most; 0: as slots allow */
    int serial;        /* for measurement: no overlap, every load and write-back waits */
    /* Pinned host memory that bytes pass through on their way to and from a device whose memory the
     * host cannot see; 0: TR_STAGING_BYTES. Taken only where a span goes that way. */
    uint64_t staging_bytes;
    /* (spans, then scratch), copied; NULL: none. Spans with 1 have a home in pinned host memory:
     * only their first load reads the disk. With TR_DURABLE_STEP it saves reads, never writes; else
     * what is changed is written when a commit asks for it. Scratch with a home has no part in the
     * disk. */
    const unsigned char *in_host;
    const struct tr_scratch *scratch; /* [n_scratch], copied */
    uint32_t n_scratch;
    /* Which folder has what of it (tr_stripes_make_scratch); outlives the engine. NULL: the first
     * has all. */
    const struct tr_stripes *scratch_stripes;
};

#define TR_STAGING_BYTES (64ull << 20)

struct tr_table_sizes {
    const struct tr_layout *layout;
    const struct tr_slot_pool *pools; /* n_slots, slot_bytes */
    uint32_t n_pools, n_scratch;
    uint64_t scratch_pieces; /* of all together */
    uint32_t visits;         /* of a step */
    int staged;              /* the host does not see the device's memory */
};

/* Host memory that an engine takes for its tables, at most; and a store of this layout. */
uint64_t tr_offload_table_bytes(const struct tr_table_sizes *t);
uint64_t tr_store_table_bytes(const struct tr_layout *l);

struct tr_offload;

struct tr_offload_stats { /* since open */
    uint64_t read_bytes, written_bytes, loads, writes, commits;
    uint64_t read_by[TR_STORE_FOLDERS], written_by[TR_STORE_FOLDERS]; /* of the bytes: by folder */
    uint64_t host_loads;      /* of the loads: those served from the host tier */
    uint64_t saves, restores; /* of scratch; in none of the counts before but the bytes */
    uint64_t spilled_bytes;   /* by those saves, to host memory or disk */
    uint64_t copied_in_bytes, copied_out_bytes;
    uint64_t wait_load_ns;   /* acquire waited for a load, the device having nothing to do */
    uint64_t wait_commit_ns; /* somebody waited for a commit */
};

int tr_offload_open(struct tr_offload **out, const struct tr_offload_params *p);
/* Waits for what is under way, a commit included, and forgets the slots; commits nothing itself.
 * Returns the engine's error where there was one: then it waits for the disk and, once, for the
 * streams of the device, but not for callbacks of a device that has lost them. NULL is allowed. */
int tr_offload_close(struct tr_offload *o);

/* Starts a step. Both arrays are copied; next (what follows this step, may be empty) only informs
 * what is worth keeping. -ENOSPC where a pool has fewer slots than one visit needs at once, or
 * scratch would have to be saved that has no place. */
int tr_offload_begin(struct tr_offload *o, const struct tr_visit *visits, uint32_t n,
                     const struct tr_visit *next, uint32_t n_next);
/* Waits until the spans of visit i are in device memory; at[k] is where span k lies. Visits are
 * acquired and released in order, one at a time. Errors of any earlier I/O come out here. */
int tr_offload_acquire(struct tr_offload *o, uint32_t visit, void *at[TR_VISIT_SPANS]);
/* All compute of the visit has been queued on TR_STREAM_COMPUTE. */
int tr_offload_release(struct tr_offload *o, uint32_t visit);
/* Waits until every write-back so far has been handed over and finished (not synced). */
int tr_offload_drain(struct tr_offload *o);

/* Starts a commit of all released visits with this payload (copied). An earlier commit still under
 * way is waited for. That the visits' compute went well is for the caller to know: it has synced
 * the device. TR_DURABLE_NONE: only allowed as the clean end of a run. */
int tr_offload_commit(struct tr_offload *o, const void *payload, size_t bytes);
/* Waits until the last commit started is durable. */
int tr_offload_commit_wait(struct tr_offload *o);
/* 1: no commit is under way, the last one started is durable; 0: under way; negative: an error,
 * never durable. */
int tr_offload_committed(struct tr_offload *o);
/* Gives up all that has been changed since the last commit, which is waited for: spans have the
 * bytes that it names again. What the last begin announced is given up, too. The caller has synced
 * the device. -EINVAL with one generation: its changes are in place. */
int tr_offload_abandon(struct tr_offload *o);

/* For measurement, of the direct way: no checksums from now on. It spoils the store. */
void tr_offload_uncheck(struct tr_offload *o);
void tr_offload_stats(struct tr_offload *o, struct tr_offload_stats *stats);
/* 1 and a line about a drive that has become slow: once for each. */
int tr_offload_remark(struct tr_offload *o, char *text, size_t room);
/* Pinned host memory: the staging chunks, and every home in full, used already or not. */
uint64_t tr_offload_host_bytes(const struct tr_offload *o);
const char *tr_offload_io_name(const struct tr_offload *o); /* "io_uring, O_DIRECT, registered" */

#endif
