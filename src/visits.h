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
 * The table slices go up in the forward pass and down in the backward pass, so that those at the
 * turn stay. The final norm is changed last of the head's visits, and of a tied model with the
 * table, at the very end: what is recomputed there needs the old weights (invariant 5).
 *
 * Last of a visit's spans come the block inputs that it makes or reads: span layout.n_spans + l is
 * boundary l (src/plan.h), made by block l - 1 (the first by all embed visits together), read by
 * block l both ways, the last one by the head wherever it makes logits.
 */
#ifndef TR_SRC_VISITS_H
#define TR_SRC_VISITS_H

#include "offload/offload.h"
#include "src/model.h"

enum tr_work {
    TR_WORK_EMBED, /* rows of the batch's tokens from slice `index` */
    TR_WORK_BLOCK, /* forward of block `index` */
    TR_WORK_HEAD,  /* softmax statistics of slice `index` */
    TR_WORK_HEAD_GRAD,
    TR_WORK_BLOCK_GRAD,
    TR_WORK_EMBED_GRAD,
    TR_WORK_UPDATE /* applies what the backward visit of this place has parked */
};

enum tr_pass { TR_PASS_FORWARD, TR_PASS_NORM, TR_PASS_UPDATE };

struct tr_unit_visit {
    enum tr_work work, place; /* place: the same, or of an update the backward visit */
    enum tr_pass pass;
    int32_t index;   /* layer or slice */
    int first, last; /* of its run of visits of the same work */
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
    int norm_pass; /* the global norm is measured before the update */
    int parked;    /* gradients stay from the norm pass: the update pass only applies them */
};

int tr_visits_make(struct tr_visits *v, const struct tr_visits_params *p);
void tr_visits_free(struct tr_visits *v);

#endif
