/* SPDX-License-Identifier: Apache-2.0
 *
 * What an optimizer keeps of a tensor between steps: a pure function of the kind of state and the
 * tensor. Up to two parts, all zeros before the first step, in f32 (or, of elements, in bf16, or in
 * blocks of bytes, src/base/code8.h):
 *
 *   momentum    m: a value for each element
 *   AdamW       m, v: a value for each element
 *   Adam-mini   m: a value for each element; v: one for each block of elements (the mean of g^2)
 *   AdaLomo     r: a value for each row of a matrix; c: one for each column, or element of a vector
 *
 * The parts of a tensor lie behind one another in the state span of its unit; those of a table lie
 * slice by slice, like its rows; what is of the whole table lies in its first slice.
 */
#ifndef TR_SRC_MODEL_STATE_H
#define TR_SRC_MODEL_STATE_H

#include <stdint.h>

#include "src/base/dtype.h"

enum tr_state_kind {
    TR_STATE_NONE,
    TR_STATE_ADAMW,
    TR_STATE_MOMENTUM,
    TR_STATE_ADAM_MINI,
    TR_STATE_ADALOMO,
    TR_STATE_ADAMW_BF16, /* as before, with bf16 for what is of each element */
    TR_STATE_MOMENTUM_BF16,
    TR_STATE_ADAM_MINI_BF16,
    TR_STATE_ADAMW_8BIT, /* and with bytes */
    TR_STATE_MOMENTUM_8BIT,
    TR_STATE_ADAM_MINI_8BIT,
    TR_STATE_KINDS
};

struct tr_tensor;
struct tr_model_config;

struct tr_state_part {
    const char *name; /* "m of ": the tensor's name follows */
    uint64_t bytes;   /* 0: there is no such part */
};

/* The two parts of rows [row0, row0 + rows) of a tensor. */
struct tr_state_rows {
    int64_t row0, rows;
};
void tr_state_parts(enum tr_state_kind kind, const struct tr_model_config *c,
                    const struct tr_tensor *t, struct tr_state_rows rows,
                    struct tr_state_part parts[2]);

/* Of what is kept for each element. */
enum tr_dtype tr_state_dtype(enum tr_state_kind kind);
/* The kind that is like this one of f32, with another type for that; itself where it keeps none. */
enum tr_state_kind tr_state_as(enum tr_state_kind kind, enum tr_dtype dtype);

/* How many consecutive elements of a tensor share one v in Adam-mini. */
int64_t tr_state_block(const struct tr_model_config *c, const struct tr_tensor *t);

/* As run folders spell it; parse returns -EINVAL for what is no name. */
const char *tr_state_name(enum tr_state_kind kind);
int tr_state_parse(const char *name, enum tr_state_kind *kind);

/* What stands behind the parts of a tensor in the same span (src/model/master.h): bytes of an
 * element. */
uint64_t tr_master_size(enum tr_master kind);
const char *tr_master_name(enum tr_master kind);
int tr_master_parse(const char *name, enum tr_master *kind);

#endif
