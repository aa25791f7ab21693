/* SPDX-License-Identifier: Apache-2.0
 *
 * The step as a list: which units are visited in which order, what is done there, which spans it
 * needs and which it changes. Pure; the offload engine makes the loads and write-backs from it.
 *
 *   embed 0..  block 0 .. L-1  head 0..n      forward: loss
 *   head' n..0  block' L-1 .. 0  embed' n..0  norm pass, when a global norm is asked for: clean
 *   head' n..0  block' L-1 .. 0  embed' n..0  backward + update: changed (where the plan has room
 * for all gradients: the update alone)
 *
 * A block is one visit of all its parts, or, where the device is too small for two blocks at once,
 * a visit for each part: forward kv q o up gate down; backward the same without down, forward
 * once more (unless the block's activations are kept), and then down gate up o q kv. The parts'
 * gradients and updates come in this order in both cases.
 *
 * Where tensors are frozen (src/model/freeze.h) nothing is gone through that lies beneath the
 * lowest one that trains, and a span without any that trains is not changed. A tied table that is
 * frozen has no gradient to wait for: its final norm is then changed like that of any other head.
 *
 * AdaLomo's update of a table needs sums over all of it: its run of backward visits comes twice, a
 * sweep that sums (and changes the state) and a sweep that applies (and changes the table).
 *
 * With deferred clipping the backward pass only measures the gradients and parks them in the store
 * (src/train/pending.c). Each unit of the next step's forward pass is then preceded by an update of
 * it, whose spans it finds in their slots, and the steps' end is a list of these updates alone:
 *
 *   (update, embed) 0..  (update, block) 0 .. L-1  (update, head) 0..n   forward
 *   head' n..0  block' L-1 .. 0  embed' n..0                             norm pass: parked
 *
 * There the final norm has an update of its own before the head, since all visits of that need it;
 * the sums of AdaLomo's tables are made by a run of update visits before. An untied embedding does
 * not wait: when the norm pass has come to it the norm is known, and what its gradient is made of
 * is there still; so behind that pass it is made again and applied (embed' n..0, changed).
 *
 * Clipped group by group the backward pass is one of both kinds in turn: a norm pass over the
 * group's units, which leaves their gradients, and the updates of these units.
 *
 * Where updates run apart from the device (src/train/apart.h), a backward visit that would update
 * leaves its gradients instead, and the update is a visit of its own, one visit later: so the
 * device has work in the meantime.
 *
 *   head' n  head' n-1  (update, head) n  head' n-2  (update, head) n-1 ..  backward + update
 *
 * Adapters never leave the device: the visit that makes their gradients updates them.
 *
 * The table slices go up in the forward pass and down in the backward pass, so that those at the
 * turn stay. The final norm is changed last of the head's visits, and of a tied model with the
 * table, at the very end: what is recomputed there needs the old weights (invariant 5).
 *
 * Last of a visit's spans come the block inputs that it makes or reads: span layout.n_spans + l is
 * boundary l (src/plan/plan.h), made by block l - 1 (the first by all embed visits together), read
 * by block l both ways, the last one by the head wherever it makes logits. Behind them comes the
 * frame of a block that keeps its activations, made by its forward visits, read by the others.
 */
#ifndef TR_SRC_PLAN_VISITS_H
#define TR_SRC_PLAN_VISITS_H

#include "offload/offload.h"
#include "src/model/model.h"

enum tr_work {
    TR_WORK_EMBED, /* rows of the batch's tokens from slice `index` */
    TR_WORK_BLOCK, /* forward of block `index`: in the forward pass, or again in a backward pass */
    TR_WORK_HEAD,  /* softmax statistics of slice `index` */
    TR_WORK_HEAD_GRAD,
    TR_WORK_BLOCK_GRAD,
    TR_WORK_EMBED_GRAD,
    TR_WORK_UPDATE, /* applies what the backward visit of this place has parked */
    TR_WORK_NORM    /* the final norm alone: only ever the place of an update */
};

enum tr_pass { TR_PASS_FORWARD, TR_PASS_NORM, TR_PASS_UPDATE };

/* TR_SWEEP_ALL: sums and applies at once, as what is visited whole can be. */
enum tr_sweep { TR_SWEEP_ALL, TR_SWEEP_SUM, TR_SWEEP_APPLY };

struct tr_unit_visit {
    enum tr_work work, place; /* place: the same, or of an update the backward visit */
    enum tr_pass pass;
    enum tr_sweep sweep;
    int32_t index;         /* layer or slice */
    enum tr_part from, to; /* of a block: the parts at hand, `to` included */
    enum tr_part lowest;   /* backward: the last part whose stage is gone through */
    int first, last;       /* of a table's run of visits of the same work */
    int leaves;            /* its gradients, to an update that is a visit of its own */
    int left;              /* this update: what another visit has left, and no adapters */
};

struct tr_visits {
    struct tr_visit *spans;      /* for the engine */
    struct tr_unit_visit *units; /* for the trainer; same length */
    uint32_t n;
    uint32_t forward; /* how many of them are the forward pass */
};

struct tr_visits_params {
    const struct tr_model *model;
    int train;     /* 0: forward only */
    int settle;    /* nothing but the updates that a step has left to the next */
    int norm_pass; /* the global norm is measured before the update */
    int32_t group; /* so many units, as a backward pass has them, are clipped together; or 0 */
    int parked;    /* on the device: gradients stay from the norm pass: the update pass only applies
                      them */
    int by_parts;  /* a visit for each part of a block */
    int apart;     /* updates are visits of their own */
    int32_t keep;  /* the last blocks that keep their activations for the backward pass */
};

/* The span of the frame of block `layer`, one of the last `keep`. */
static inline uint32_t tr_frame_span(const struct tr_model *m, int32_t keep, int32_t layer)
{
    int32_t layers = m->config.layers;

    return m->layout.n_spans + (uint32_t)(layers + 1 + layer - (layers - keep));
}

/* Parameters are changed here. */
static inline int tr_unit_updates(const struct tr_unit_visit *u)
{
    return u->work == TR_WORK_UPDATE || (u->pass == TR_PASS_UPDATE && !u->leaves);
}

/* Of a table's visits: the one with which the final norm is finished. It comes with the table that
 * is updated last; but before a forward pass it has a visit of its own. */
int tr_ends_final_norm(const struct tr_model *m, const struct tr_unit_visit *u);

int tr_visits_make(struct tr_visits *v, const struct tr_visits_params *p);
void tr_visits_free(struct tr_visits *v);

#endif
