/* SPDX-License-Identifier: Apache-2.0
 *
 * What of a model stays as it is. A list of shell patterns, separated by commas, names tensors as
 * the checkpoint does. A frozen tensor has no gradient, no optimizer state and no part in the norm;
 * a span that holds nothing else is never written back. The backward pass ends at the lowest tensor
 * that trains: beneath it no gradient is needed, so nothing is loaded or computed again.
 *
 * "Lowest" is first in the order of the forward pass: embedding, blocks and their parts (where an
 * adapter trains, too), final norm and head. A tied table trains in both of its places or in none.
 */
#ifndef TR_SRC_MODEL_FREEZE_H
#define TR_SRC_MODEL_FREEZE_H

#include "src/model/model.h"

/* Does one of the patterns (NULL: there are none) match the name? */
int tr_freeze_matches(const char *patterns, const char *name);
/* -EINVAL, by name: a pattern that matches no tensor, or all of them together match every one. */
int tr_freeze_check(const struct tr_model *m, const char *patterns);

static inline int tr_trains(const struct tr_model *m, int32_t tensor)
{
    return tensor >= 0 && !m->tensors[tensor].frozen;
}

/* Any of the model's own tensors of a block's part. */
int tr_trains_part(const struct tr_model *m, int32_t layer, enum tr_part part);
/* A block's tensor of this role, in any block. */
int tr_trains_role(const struct tr_model *m, enum tr_role role);
/* The embedding or the head. */
int tr_trains_table(const struct tr_model *m);
/* The table's gradient, and with it the end of the final norm's use, comes with the embedding. */
int tr_trains_tied(const struct tr_model *m);

/* An untied embedding has the last gradient of a step, made of what is still there when the norm is
 * known: where the others wait in the store it is made once more then, and applied at once. So it
 * never takes more room than a slice, of which only the rows in the batch are not zero. */
static inline int tr_embeds_at_once(const struct tr_model *m)
{
    return m->parked && tr_trains(m, m->embed.tensor) && !tr_trains_tied(m);
}

struct tr_lowest {
    int32_t layer;     /* -1: the embedding trains; layers: no block does */
    enum tr_part part; /* of that block */
};
struct tr_lowest tr_lowest(const struct tr_model *m);
/* Is the gradient at the head's input of any use? */
int tr_needs_head_dx(const struct tr_model *m);

#endif
