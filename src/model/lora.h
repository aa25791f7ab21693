/* SPDX-License-Identifier: Apache-2.0
 *
 * Low-rank adapters: beside a matrix W of a block stand A (rank, in) and B (out, rank), and its
 * product becomes x W^T + alpha / rank * drop(x) A^T B^T. They are f32 whatever the model is, have
 * records of their own in the store, and stay on the device. What they are called and how they
 * begin is what PEFT does, so that its folders can be read and written (src/checkpoint/peft.h): A
 * uniform in +-1 / sqrt(in), B zero. A value of A follows from (seed, name, element) alone.
 */
#ifndef TR_SRC_MODEL_LORA_H
#define TR_SRC_MODEL_LORA_H

#include <stddef.h>

#include "src/base/dtype.h"
#include "src/model/state.h"

enum tr_lora_target {
    TR_LORA_Q,
    TR_LORA_K,
    TR_LORA_V,
    TR_LORA_O,
    TR_LORA_GATE,
    TR_LORA_UP,
    TR_LORA_DOWN,
    TR_LORA_TARGETS
};

/* Roles (enum tr_role) of an adapter's two matrices. */
#define TR_LORA_A(target) (TR_ROLE_LORA + 2 * (target))
#define TR_LORA_B(target) (TR_ROLE_LORA + 2 * (target) + 1)

#define TR_LORA_MAX_RANK 1024

struct tr_lora {
    int32_t rank;     /* 0: there are no adapters */
    unsigned targets; /* a bit for each enum tr_lora_target */
    double alpha, dropout;
    int trains_base;          /* the model's own parameters are updated as well */
    enum tr_state_kind state; /* of the adapters */
};

/* The model itself stays as it is: LoRA as most know it. */
static inline int tr_lora_freezes(const struct tr_lora *l)
{
    return l->rank && !l->trains_base;
}

static inline float tr_lora_scale(const struct tr_lora *l)
{
    return (float)(l->alpha / l->rank);
}

/* The target that a matrix of a block is, by its role (enum tr_role); -1: none. */
int tr_lora_target_of(int role);
/* "q_proj" ... as PEFT names its target modules. */
const char *tr_lora_target_name(enum tr_lora_target t);
/* The other way round, in the order of the enum. */
#define TR_LORA_TEXT 80
void tr_lora_targets_text(unsigned targets, char text[TR_LORA_TEXT]);
/* A list of names, separated by commas, or "all-linear". -EINVAL, by name. */
int tr_lora_parse_targets(const char *list, unsigned *targets);

struct tr_tensor;
/* Elements [from, from + n) of an adapter as it begins. */
void tr_lora_fill(uint64_t seed, const struct tr_tensor *t, uint64_t from, size_t n, float *buf);

#endif
