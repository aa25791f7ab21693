/* SPDX-License-Identifier: Apache-2.0
 *
 * Plays training steps on the offload engine with a stand-in for the arithmetic: each visit hashes
 * the spans it reads and transforms, byte by byte, those it changes. The same is done to a plain
 * copy in memory, so that every read and the final store can be compared. With scratch the forward
 * visits make a scratch span each and read the one before, the backward ones read it again.
 */
#ifndef TESTS_OFFLOAD_PLAYER_H
#define TESTS_OFFLOAD_PLAYER_H

#include "offload/offload.h"
#include "tests/offload/harness.h"
#include "tests/offload/io_faulty.h"

#define MAX_VISITS 64
#define MAX_POOLS  3

/* The ways of the bytes between disk and device. */
struct way {
    const char *name;
    int opaque;
    uint64_t staging_bytes;
    uint64_t in_host; /* bit i: span i has a home in host memory; scratch comes last */
};

enum { WAY_DIRECT, WAY_STAGED, WAY_STAGED_HOMES, WAY_HOMES, WAYS };
extern const struct way ways[WAYS];

struct player_params {
    struct shape shape;
    uint32_t slots[MAX_POOLS]; /* 0: as many as there are spans; scratch has the last pool */
    uint32_t scratch;          /* spans */
    int paired; /* of two pools: spans by twos, parameters and the state of their optimizer, which
                   only the last backward pass reads, and changes */
    int shared; /* spans of pool 1 go to the slots of pool 0; slots: equally many of both */
    enum tr_io_kind io;
    enum tr_durability durability;
    uint32_t prefetch;
    int serial;
    uint32_t folders; /* of the store; 0: one */
    uint64_t seed;
    uint32_t max_delay_us;
    struct way way;
    enum device_mutant mutant;
    enum device_fault fault;
    uint32_t fault_after;
    struct faulty *faulty; /* around all I/O of the engine and the store, or NULL */
};

struct player {
    struct player_params p;
    char *folder, *folders;    /* the first; all of them, as a store takes them */
    struct tr_layout layout;   /* the store's */
    struct tr_layout all;      /* the same, then scratch */
    struct tr_stripes stripes; /* of scratch, in several folders */
    int spilling;
    struct tr_store *store;
    struct tr_device *device;
    struct tr_offload *o;
    char **model; /* (spans, scratch too): what they should hold */
    uint64_t rng;
    uint64_t step;
    uint64_t mismatches; /* visits that saw other bytes than the model has */
};

/* Opens, runs steps of all kinds, commits as the durability asks, and compares: an error, -EILSEQ
 * where there were other bytes than the model's. stats may be NULL. */
int player_play(const struct player_params *params, int steps, struct tr_offload_stats *stats);
/* Has a run of a mutant shown it, by a checksum or by other bytes? Another error is no sign. */
int player_tells(int r);

void player_open(struct player *p, const struct player_params *params);
/* One step: begin, all visits. kind 0: forward and backward; 1: with a norm pass; 2: at random. */
int player_step(struct player *p, int kind, int next_kind);
/* One visit of a step that has begun. */
int player_visit(struct player *p, const struct tr_visit *v, uint32_t visit);
int player_commit(struct player *p); /* the payload is the step's number */
/* Closes the engine and the store; opens the store again and compares all of it with the model. */
int player_reopen(struct player *p);
/* -EILSEQ where the store holds anything else. */
int player_compare_store(struct player *p, char **model);
void player_close(struct player *p);

int player_open_engine(struct player *p);
char **model_copy(const struct tr_layout *l, char **model);
void model_free(const struct tr_layout *l, char **model);

#endif
