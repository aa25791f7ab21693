/* SPDX-License-Identifier: Apache-2.0
 *
 * Where the weight gradients of a plan lie, and how many there are at once (invariant 4): those of
 * one tensor, of a block or one of its parts, of a group of units of the backward pass, or all.
 */
#include "src/plan/plan_parts.h"

#include "src/model/freeze.h"

static uint64_t block_floats(const struct tr_plan *p, int role)
{
    int32_t t = p->in.model->blocks[0].tensor[role];

    return t < 0 ? 0
                 : (uint64_t)p->in.model->tensors[t].rows * (uint64_t)p->in.model->tensors[t].cols;
}

/* Floats of a gradient; of roles that no block trains there is none. */
static uint64_t grad_floats(const struct tr_plan *p, int role)
{
    int32_t t = p->in.model->blocks[0].tensor[role];

    if (t >= 0 && p->in.fused && p->in.model->tensors[t].dims == 2)
        return 0;
    return tr_trains_role(p->in.model, (enum tr_role)role) ? block_floats(p, role) : 0;
}

/* Of a block's tensors: do the gradients of these two live at the same time? */
static int live_together(const struct tr_plan *p, int a, int b)
{
    if (!p->several && !p->in.apart)
        return a == b;
    return !p->by_parts || tr_model_part((enum tr_role)a) == tr_model_part((enum tr_role)b);
}

/* Floats of the gradients that lie before that of `role`; of TR_ROLES roles: all that live with
 * `with`. */
static uint64_t grads_before(const struct tr_plan *p, int role, int with)
{
    uint64_t sum = 0;

    for (int r = 0; r < role; r++)
        if (live_together(p, r, with))
            sum += tr_grad_room(grad_floats(p, r));
    return sum;
}

uint64_t plan_block_grad_floats(const struct tr_plan *p)
{
    uint64_t most = 0;

    for (int r = 0; r < TR_ROLES; r++)
        if (grad_floats(p, r))
            most = plan_max(most, grads_before(p, TR_ROLES, r));
    return most;
}

/* The unit of a backward pass (the head, the blocks downwards, the embedding) that has a tensor. */
static int32_t unit_of(const struct tr_model *m, const struct tr_tensor *t)
{
    if (t->layer >= 0)
        return m->config.layers - t->layer;
    return t->role == TR_ROLE_EMBED ? m->config.layers + 1 : 0;
}

/* Floats of a group's gradients that lie before that of a tensor; of n_tensors: all. */
static uint64_t group_before(const struct tr_plan *p, int32_t group, int32_t tensor)
{
    const struct tr_model *m = p->in.model;
    uint64_t sum = 0;

    for (int32_t i = 0; i < tensor; i++)
        if (tr_trains(m, i) && unit_of(m, &m->tensors[i]) / p->in.group == group)
            sum += (uint64_t)m->tensors[i].rows * (uint64_t)m->tensors[i].cols;
    return sum;
}

static uint64_t group_floats(const struct tr_plan *p)
{
    int32_t groups = (p->in.model->config.layers + 1) / p->in.group + 1;
    uint64_t most = 0;

    for (int32_t g = 0; g < groups; g++)
        most = plan_max(most, group_before(p, g, p->in.model->n_tensors));
    return most;
}

/* The place of a tensor's gradient among those of its group. */
static uint64_t in_group(const struct tr_plan *p, const struct tr_tensor *t)
{
    const struct tr_model *m = p->in.model;

    return group_before(p, unit_of(m, t) / p->in.group, (int32_t)(t - m->tensors));
}

uint64_t plan_grad_floats(const struct tr_plan *p, uint64_t slice_rows)
{
    const struct tr_model *m = p->in.model;
    uint64_t rows = p->held ? (uint64_t)m->config.vocab : slice_rows;

    if (p->parked)
        return m->n_trained;
    if (p->in.group)
        return group_floats(p);
    if (m->parked == TR_PARKED_F32) /* the others are made in the slots where they are kept */
        return tr_embeds_at_once(m) ? slice_rows * (uint64_t)m->config.hidden : 0;
    return plan_max(plan_block_grad_floats(p), rows * (uint64_t)m->config.hidden);
}

uint64_t tr_plan_grad(const struct tr_plan *plan, const struct tr_block *block, enum tr_role role)
{
    const struct tr_tensor *t = &plan->in.model->tensors[block->tensor[role]];

    if (plan->parked)
        return t->first_trained * 4;
    if (plan->in.group)
        return in_group(plan, t) * 4;
    return grads_before(plan, role, role) * 4;
}

uint64_t tr_plan_table_grad(const struct tr_plan *plan, const struct tr_tensor *table, int64_t row0)
{
    uint64_t row = (uint64_t)(row0 * table->cols);

    if (plan->parked)
        return (table->first_trained + row) * 4;
    if (plan->in.group)
        return (in_group(plan, table) + row) * 4;
    return plan->held ? row * 4 : 0;
}
