/* SPDX-License-Identifier: Apache-2.0
 *
 * Adam-mini's blocks stand in a table by role, not by what a name happens to contain. They are
 * those of its version 1.1: a head for queries and keys (with grouped queries and with a head_dim
 * of its own, too), a row for tables, the attention's output and the MLP, an element for biases, a
 * whole tensor for norms. Values are one block, as its authors advise for runs of less than 10,000
 * to 20,000 steps, which is what fine-tuning is.
 */
#include "src/state.h"

#include <errno.h>
#include <string.h>

#include "src/model.h"

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
    [TR_STATE_NONE] = "none",         [TR_STATE_ADAMW] = "adamw",
    [TR_STATE_MOMENTUM] = "momentum", [TR_STATE_ADAM_MINI] = "adam-mini",
    [TR_STATE_ADALOMO] = "adalomo",
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
    parts[0] = (struct tr_state_part){"m of ", kind == TR_STATE_NONE ? 0 : n * 4};
    parts[1] = (struct tr_state_part){"v of ", kind == TR_STATE_ADAMW ? n * 4 : 0};
    if (kind == TR_STATE_ADAM_MINI)
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
