/* SPDX-License-Identifier: Apache-2.0
 *
 * Adam-mini's blocks stand in a table by role, not by what a name happens to contain. They are
 * those of its version 1.1: a head for queries and keys (with grouped queries and with a head_dim
 * of its own, too), a row for tables, the attention's output and the MLP, an element for biases, a
 * whole tensor for norms. Values are one block, as its authors advise for runs of less than 10,000
 * to 20,000 steps, which is what fine-tuning is.
 */
#include "src/model/state.h"

#include <errno.h>
#include <string.h>

#include "src/base/code8.h"
#include "src/model/model.h"

enum block { ELEMENT, ROW, HEAD, WHOLE };

static const enum block blocks[TR_ROLES] = {
    [TR_ROLE_EMBED] = ROW,
    [TR_ROLE_NORM1] = WHOLE,
    [TR_ROLE_Q] = HEAD,
    [TR_ROLE_Q_BIAS] = ELEMENT,
    [TR_ROLE_Q_NORM] = WHOLE,
    [TR_ROLE_K] = HEAD,
    [TR_ROLE_K_BIAS] = ELEMENT,
    [TR_ROLE_K_NORM] = WHOLE,
    [TR_ROLE_V] = WHOLE,
    [TR_ROLE_V_BIAS] = ELEMENT,
    [TR_ROLE_O] = ROW,
    [TR_ROLE_O_BIAS] = ELEMENT,
    [TR_ROLE_NORM2] = WHOLE,
    [TR_ROLE_GATE] = ROW,
    [TR_ROLE_UP] = ROW,
    [TR_ROLE_DOWN] = ROW,
    [TR_ROLE_FINAL_NORM] = WHOLE,
    [TR_ROLE_HEAD] = ROW,
};

static const char *const names[TR_STATE_KINDS] = {
    [TR_STATE_NONE] = "none",
    [TR_STATE_ADAMW] = "adamw",
    [TR_STATE_MOMENTUM] = "momentum",
    [TR_STATE_ADAM_MINI] = "adam-mini",
    [TR_STATE_ADALOMO] = "adalomo",
    [TR_STATE_ADAMW_BF16] = "adamw bf16",
    [TR_STATE_MOMENTUM_BF16] = "momentum bf16",
    [TR_STATE_ADAM_MINI_BF16] = "adam-mini bf16",
    [TR_STATE_ADAMW_8BIT] = "adamw 8bit",
    [TR_STATE_MOMENTUM_8BIT] = "momentum 8bit",
    [TR_STATE_ADAM_MINI_8BIT] = "adam-mini 8bit",
};

int64_t tr_state_block(const struct tr_model_config *c, const struct tr_tensor *t)
{
    switch (blocks[t->role]) {
    case ROW:
        return t->cols;
    case HEAD:
        return c->head_dim * t->cols;
    case WHOLE:
        return t->rows * t->cols;
    case ELEMENT:
        break;
    }
    return 1;
}

enum tr_dtype tr_state_dtype(enum tr_state_kind kind)
{
    return kind >= TR_STATE_ADAMW_8BIT ? TR_8BIT : kind >= TR_STATE_ADAMW_BF16 ? TR_BF16 : TR_F32;
}

enum tr_state_kind tr_state_as(enum tr_state_kind kind, enum tr_dtype dtype)
{
    int first = dtype == TR_8BIT   ? TR_STATE_ADAMW_8BIT
                : dtype == TR_BF16 ? TR_STATE_ADAMW_BF16
                                   : TR_STATE_ADAMW;

    if (kind == TR_STATE_NONE || kind == TR_STATE_ADALOMO)
        return kind;
    return (enum tr_state_kind)(first + (kind - TR_STATE_ADAMW));
}

/* The same of f32: what optimizer it is. */
static enum tr_state_kind plain(enum tr_state_kind kind)
{
    int first = kind >= TR_STATE_ADAMW_8BIT   ? TR_STATE_ADAMW_8BIT
                : kind >= TR_STATE_ADAMW_BF16 ? TR_STATE_ADAMW_BF16
                                              : TR_STATE_ADAMW;

    return (enum tr_state_kind)(kind - first + TR_STATE_ADAMW);
}

/* Bytes of a value of each of n elements, where the optimizer has such; second: of the second. */
static uint64_t element_bytes(enum tr_state_kind kind, int second, uint64_t n)
{
    int has =
        second ? plain(kind) == TR_STATE_ADAMW : kind != TR_STATE_NONE && kind != TR_STATE_ADALOMO;

    return has ? tr_state_bytes(tr_state_dtype(kind), n) : 0;
}

void tr_state_parts(enum tr_state_kind kind, const struct tr_model_config *c,
                    const struct tr_tensor *t, struct tr_state_rows rows,
                    struct tr_state_part parts[2])
{
    uint64_t n = (uint64_t)rows.rows * (uint64_t)t->cols;

    if (kind == TR_STATE_ADALOMO) {
        parts[0] = (struct tr_state_part){"r of ", t->dims == 2 ? (uint64_t)rows.rows * 4 : 0};
        parts[1] = (struct tr_state_part){"c of ", rows.row0 == 0 ? (uint64_t)t->cols * 4 : 0};
        return;
    }
    parts[0] = (struct tr_state_part){"m of ", element_bytes(kind, 0, n)};
    parts[1] = (struct tr_state_part){"v of ", element_bytes(kind, 1, n)};
    if (plain(kind) == TR_STATE_ADAM_MINI)
        parts[1].bytes = n / (uint64_t)tr_state_block(c, t) * 4;
}

const char *tr_state_name(enum tr_state_kind kind)
{
    return names[kind];
}

int tr_state_parse(const char *name, enum tr_state_kind *kind)
{
    for (int i = 0; name && i < TR_STATE_KINDS; i++)
        if (!strcmp(name, names[i])) {
            *kind = (enum tr_state_kind)i;
            return 0;
        }
    return -EINVAL;
}

static const char *const master_names[TR_MASTER_KINDS] = {
    [TR_MASTER_NONE] = "none", [TR_MASTER_SPLIT] = "split", [TR_MASTER_F32] = "f32"};

uint64_t tr_master_size(enum tr_master kind)
{
    return kind == TR_MASTER_SPLIT ? 2 : kind == TR_MASTER_F32 ? 4 : 0;
}

const char *tr_master_name(enum tr_master kind)
{
    return master_names[kind];
}

int tr_master_parse(const char *name, enum tr_master *kind)
{
    for (int i = 0; name && i < TR_MASTER_KINDS; i++)
        if (!strcmp(name, master_names[i])) {
            *kind = (enum tr_master)i;
            return 0;
        }
    return -EINVAL;
}
