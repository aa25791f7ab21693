/* SPDX-License-Identifier: Apache-2.0
 *
 * Updates apart from the device: on the cpu, next to the optimizer state, which then never goes to
 * the device. A visit that leaves its gradients has them copied into pinned memory behind its
 * compute; the update, a visit of its own a little later (src/plan/visits.h), fetches the weights
 * from their slots, waits until all of it has arrived, runs the cpu device's ops and puts the
 * weights back into their slots. The caller waits for that, the device does not: it has the next
 * visit.
 *
 *   compute   gradients a | gradients b          | weights a in | gradients c     | weights b in
 *   out                   | gradients a, weights a              | gradients b, weights b
 *   cpu                                  | update a |                        | update b |
 *
 * There are two of each buffer. What keeps the order: copies out wait for the compute before them,
 * compute that would overwrite gradients waits for their copies, the cpu waits for the last copy of
 * a visit, and weights are not fetched into a buffer before they have been put back from it.
 * The ops are those of src/train/update.c and have the same bits on every device.
 *
 * Threads: the caller's, and the device's own, which report copies.
 */
#ifndef TR_SRC_TRAIN_APART_H
#define TR_SRC_TRAIN_APART_H

#include "src/train/pass.h"

struct tr_apart;

struct tr_apart_params {
    struct tr_device *device; /* of the run */
    struct tr_device *cpu;    /* what updates; its arena is not used */
    const struct tr_plan *plan;
    char *memory; /* plan->host_bytes */
};

int tr_apart_open(struct tr_apart **out, const struct tr_apart_params *p);
/* Waits for its copies. NULL is allowed. */
void tr_apart_close(struct tr_apart *a);

/* A step begins: what the one before may have left is forgotten. */
void tr_apart_restart(struct tr_apart *a);
/* Before any visit that makes gradients or updates. */
int tr_apart_begin(struct tr_apart *a, const struct tr_unit_visit *u);
/* A finished gradient is left to its update. */
int tr_apart_leave(struct tr_apart *a, const struct pass_grad *g);
/* An op of an update, as it would run on the device; its turn comes at the end of the visit. */
int tr_apart_update(struct tr_apart *a, const struct pass_grad *g, const struct tr_op *op);
/* After such a visit. */
int tr_apart_end(struct tr_apart *a, const struct tr_unit_visit *u);

#endif
