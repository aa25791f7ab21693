/* SPDX-License-Identifier: Apache-2.0
 *
 * Masters: what keeps an update that is smaller than half a unit of a 16-bit weight. Beside each
 * trained weight stand either the 16 bits that bf16 lacks of an f32 value (split) or that value
 * (f32); a bf16 weight is the same rounding of it both ways, and so is the result of a run. All
 * arithmetic before the update sees the weights alone. A master is part of the state span, so
 * it is read and written where the update is made, and nowhere else.
 */
#ifndef TR_SRC_MODEL_MASTER_H
#define TR_SRC_MODEL_MASTER_H

#include "src/model/model.h"

/* -EINVAL with a message that names a tensor which trains and cannot have one. */
int tr_master_check(const struct tr_model *m, enum tr_master kind);
/* Does this tensor have one? */
int tr_master_has(const struct tr_model *m, const struct tr_tensor *t);

/* The piece of the store that has this byte of the tensor's master. */
uint32_t tr_master_piece(const struct tr_model *m, const struct tr_tensor *t, uint64_t byte);

/* n f32 values become weights of this type, and what stands beside them. -ERANGE, without a
 * message: a finite value became an infinite weight. */
struct tr_master_parts {
    uint16_t *weights; /* NULL: not wanted; the same of: */
    void *master;
};
int tr_master_part(enum tr_master kind, enum tr_dtype type, const struct tr_master_parts *to,
                   const float *x, size_t n);
/* And back. */
void tr_master_whole(enum tr_master kind, float *x, const uint16_t *w, const void *master,
                     size_t n);

#endif
