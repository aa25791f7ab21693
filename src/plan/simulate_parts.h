/* SPDX-License-Identifier: Apache-2.0
 *
 * Between the two halves of the simulator: simulate.c decides (visits, loads, write-backs,
 * commits), simulate_move.c moves (parts through servers).
 */
#ifndef TR_SRC_PLAN_SIMULATE_PARTS_H
#define TR_SRC_PLAN_SIMULATE_PARTS_H

#include "offload/schedule.h"
#include "offload/slots.h"
#include "src/plan/simulate.h"

enum sim_way { SIM_READ, SIM_WRITE, SIM_WAYS };
/* What parts are made of. Where the drive reaches the slots each folder has some of its own: those
 * of folder k are SIM_DIRECT + k. */
enum sim_pool { SIM_STAGING, SIM_HOMES, SIM_DIRECT, SIM_POOLS = SIM_DIRECT + TR_STORE_FOLDERS };

/* A part's turn at a server. */
struct sim_turn {
    struct sim_part *part;
    uint64_t bytes;
    struct sim_turn *next;
};

struct sim_part {
    struct sim_move *move;
    enum sim_pool pool;
    uint64_t at, bytes; /* in its span */
    int stage;
    uint32_t under_way; /* turns of this stage: at drives there may be several */
    struct sim_turn turn[TR_STORE_FOLDERS]; /* by drive; other servers: the first */
    struct sim_part *next;
};

struct sim_move {
    enum sim_way way;
    enum sim_pool pool;
    uint32_t slot, span, step; /* step: of the load, or of the change */
    int home, slot_free, scratch;
    int diskless;           /* ends in its home, or comes from it */
    unsigned char stage[4]; /* servers in order; ends with TR_SERVERS */
    uint64_t given, out, done;
    uint64_t offered[TR_STORE_FOLDERS]; /* direct: up to here the folder's share is given */
    struct sim_move *next;
};

struct sim_line {
    struct sim_turn *first, *last;
};

struct sim_server {
    struct sim_line line[SIM_WAYS]; /* a drive takes them in turn; the others have one line */
    struct sim_turn *now;
    int busy;
    double until;
    enum sim_way last;
};

struct sim_ticket { /* a visit on its way through compute */
    uint32_t n, slot[TR_VISIT_SPANS], changed, saved, step;
};

struct sim_ring { /* slots that wait to be written, oldest first */
    uint32_t *slot, first, n;
};

struct sim_work {                /* bytes */
    uint64_t server[TR_SERVERS]; /* but the drives: */
    uint64_t drive[TR_STORE_FOLDERS][SIM_WAYS];
};

enum sim_flush { SIM_IDLE, SIM_WRITES, SIM_SYNC };

struct sim {
    const struct tr_sim_params *p;
    struct tr_slots slots;
    struct tr_schedule schedule;
    uint32_t *next_load;  /* (slots): the first load into it that has not begun; TR_NONE: none */
    uint32_t *following;  /* (loads): the next one into the same slot */
    uint32_t *due, n_due; /* slots that have one, in no order */
    uint32_t wanted;

    double now, flush_until, begun; /* begun: when the step at hand began */
    uint32_t step, at;              /* the caller's; at == n: it is at the step's end */
    int updated;                    /* the cpu has done its part of the visit at hand */
    uint32_t schedule_step;
    uint64_t released, passed, base;
    struct sim_ticket *tickets;   /* (2 n) by visit number */
    struct sim_ring dirty, saves; /* of the store; scratch */
    uint32_t *changed_in;         /* (slots): the step of its change */
    uint32_t saving;              /* scratch to be saved, not yet written */
    uint32_t pending[2];          /* changes not yet written, by epoch & 1 */
    enum sim_flush flush;
    uint32_t flush_step;
    int kicked, ended;
    int stands; /* the caller cannot go on before the next kick */
    int offers; /* a move has come or a part is free: parts may be handed out */

    struct sim_server server[TR_SERVERS]; /* but the drives: */
    struct sim_server drive[TR_STORE_FOLDERS];
    uint32_t n_drives, n_folders;
    uint64_t *on;           /* (spans, drives) bytes of each span on each drive */
    struct sim_move *moves; /* (2 slots + spans): reads, writes, writes from homes */
    struct sim_move *list[SIM_WAYS], *last[SIM_WAYS]; /* under way, oldest first */
    /* No move before this one has bytes left for parts of the pool; NULL: none has. */
    struct sim_move *wanting[SIM_WAYS][SIM_POOLS];
    unsigned char *filled, *writing, *kept; /* (spans) of homes; kept: newer than the disk */
    struct sim_part *parts, *free[SIM_POOLS];
    uint64_t part_bytes[SIM_POOLS];
    enum sim_way gave[SIM_POOLS];
    struct sim_work work[TR_SIM_STEPS + 1]; /* of each step's moves; the last is only begun */
    uint32_t counted;                       /* steps that the result's seconds are the sum of */
    struct tr_sim_result *out;
};

static inline int sim_has_home(const struct sim *s, uint32_t span)
{
    return s->p->in_host && s->p->in_host[span];
}

static inline int sim_is_scratch(const struct sim *s, uint32_t span)
{
    return span >= s->slots.first_scratch;
}

static inline uint32_t sim_drive_of(const struct sim *s, uint32_t folder)
{
    return s->p->drive_of ? s->p->drive_of[folder] : folder;
}

/* When the server is done, if it is before t. */
static inline double sim_earlier(const struct sim_server *v, double t)
{
    return v->busy && v->until < t ? v->until : t;
}

/* Bytes of the span on this drive. */
static inline uint64_t sim_on(const struct sim *s, uint32_t span, uint32_t drive)
{
    return s->on[(size_t)span * s->n_drives + drive];
}

static inline int sim_drives_busy(const struct sim *s)
{
    int busy = 0;

    for (uint32_t d = 0; d < s->n_drives; d++)
        busy |= s->drive[d].busy;
    return busy;
}

/* Of a step's changes: a commit takes in all of its epoch's. */
static inline uint32_t sim_epoch(const struct sim *s, uint32_t step)
{
    if (s->p->durability == TR_DURABLE_STEP)
        return step;
    return s->p->commit_after && step >= s->p->commit_after;
}

int sim_moves_open(struct sim *s);
void sim_moves_close(struct sim *s);
void sim_move_start(struct sim *s, enum sim_way way, uint32_t slot, uint32_t step);
/* Homes that are newer than the disk are written, for the commit under way; how many. */
uint32_t sim_homes_start(struct sim *s);
/* Parts are handed out and served where something is free. 1: there was something to do. */
int sim_moves_advance(struct sim *s);
/* Seconds until the first server is done, from the beginning of all; INFINITY: none is busy. */
double sim_moves_next(const struct sim *s);
/* What has been served until now leaves its server. */
void sim_moves_done(struct sim *s);

#endif
