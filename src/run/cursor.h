/* SPDX-License-Identifier: Apache-2.0
 *
 * Where a run stands: the payload of every commit. Little-endian, fixed size, versioned; the
 * store's checksum covers it. Together with the records this is all that a resume needs (invariant
 * 2).
 */
#ifndef TR_SRC_RUN_CURSOR_H
#define TR_SRC_RUN_CURSOR_H

#include <stddef.h>
#include <stdint.h>

#include "offload/store.h"

#define TR_CURSOR_BYTES 120

/* The last step's update, where the commit has it in parts: the parameters from before it and the
 * gradients (src/train/pending.c). Its optimizer step is the cursor's t. */
struct tr_pending {
    uint32_t is; /* 0: there is none, the rest means nothing */
    float coefficient, unscale;
    float adapter_coefficient; /* where the model is trained beside adapters: theirs */
    double lr, adapter_lr;
};

struct tr_cursor {
    uint64_t step;       /* steps done */
    uint64_t t;          /* optimizer steps done (skipped ones do not count) */
    uint64_t epoch;      /* of the next batch */
    uint64_t epoch_step; /* of the next batch in its epoch */
    uint64_t tokens;     /* trained on so far */
    uint64_t skipped;    /* steps without an update */
    double loss_scale;
    uint64_t clean; /* steps since the last overflow, or since the loss scale was raised */
    uint64_t reserved;
    struct tr_pending pending;
};

void tr_cursor_pack(const struct tr_cursor *c, unsigned char out[TR_CURSOR_BYTES]);
/* Of this version and those before: the first knew of nothing pending, the second of nothing of
 * adapters. -EINVAL: not a cursor, or of a newer version. */
int tr_cursor_parse(const unsigned char *in, size_t bytes, struct tr_cursor *c);
/* That of the commit which the store stands at. */
int tr_cursor_read(const struct tr_store *store, struct tr_cursor *c);

#endif
