/* SPDX-License-Identifier: Apache-2.0 */
#include "src/visits.h"

#include <string.h>

#include "src/base/err.h"
#include "src/base/mem.h"
#include "src/freeze.h"

static void add_span(struct tr_visit *v, uint32_t span, int changed)
{
    if (changed)
        v->changed |= 1u << v->n_spans;
    v->span[v->n_spans++] = span;
}

enum boundary { READ, MADE, ADDED_TO };

static void add_boundary(struct tr_visit *v, const struct tr_model *m, int32_t layer,
                         enum boundary how)
{
    if (how == MADE)
        v->fresh |= 1u << v->n_spans;
    add_span(v, m->layout.n_spans + (uint32_t)layer, how != READ);
}

static struct tr_visit *add(struct tr_visits *v, struct tr_unit_visit unit)
{
    unit.place = unit.work;
    v->units[v->n] = unit;
    return &v->spans[v->n++];
}

/* The parts of a block that the unit names, and where they are updated their state behind them. */
static void add_block(struct tr_visits *v, const struct tr_model *m, struct tr_unit_visit unit)
{
    const struct tr_block *block = &m->blocks[unit.index];
    int changed = unit.work == TR_WORK_BLOCK_GRAD && unit.pass == TR_PASS_UPDATE;
    struct tr_visit *s = add(v, unit);

    for (int part = unit.from; part <= (int)unit.to; part++)
        add_span(s, block->params_span[part],
                 changed && tr_trains_part(m, unit.index, (enum tr_part)part));
    for (int part = unit.from; changed && m->has_state && part <= (int)unit.to; part++)
        if (block->state_span[part] != TR_NONE)
            add_span(s, block->state_span[part], 1);
    if (unit.from == TR_PART_KV || (unit.work == TR_WORK_BLOCK && unit.from == TR_PART_O))
        add_boundary(s, m, unit.index, READ);
    if (unit.work == TR_WORK_BLOCK && unit.to == TR_PART_DOWN)
        add_boundary(s, m, unit.index + 1, MADE);
}

static void add_parts_forward(struct tr_visits *v, const struct tr_model *m,
                              struct tr_unit_visit unit, int end)
{
    unit.work = TR_WORK_BLOCK;
    for (int part = 0; part < end; part++) {
        unit.from = unit.to = (enum tr_part)part;
        add_block(v, m, unit);
    }
}

/* What the last part would make again is the next block's input, which is there. */
static void add_parts_backward(struct tr_visits *v, const struct tr_model *m,
                               struct tr_unit_visit unit, int kept)
{
    enum tr_part lowest = unit.lowest;

    if (!kept)
        add_parts_forward(v, m, unit, TR_PART_DOWN);
    unit.work = TR_WORK_BLOCK_GRAD;
    for (int part = TR_PARTS - 1; part >= (int)lowest; part--) {
        unit.from = unit.to = unit.lowest = (enum tr_part)part;
        add_block(v, m, unit);
    }
}

static void add_blocks(struct tr_visits *v, const struct tr_visits_params *p)
{
    for (int32_t l = 0; l < p->model->config.layers; l++) {
        struct tr_unit_visit unit = {.work = TR_WORK_BLOCK, .index = l, .to = TR_PART_DOWN};

        if (p->by_parts)
            add_parts_forward(v, p->model, unit, TR_PARTS);
        else
            add_block(v, p->model, unit);
    }
}

/* Down to the lowest that trains. Of that block, where it is visited whole and its activations are
 * kept, only the parts from the lowest on. */
static void add_blocks_grad(struct tr_visits *v, const struct tr_visits_params *p,
                            enum tr_pass pass)
{
    struct tr_lowest low = tr_lowest(p->model);
    int32_t layers = p->model->config.layers;

    for (int32_t l = layers - 1; l >= 0 && l >= low.layer; l--) {
        int kept = l >= layers - p->keep;
        struct tr_unit_visit unit = {
            .work = TR_WORK_BLOCK_GRAD, .pass = pass, .index = l, .to = TR_PART_DOWN};

        unit.lowest = l == low.layer ? low.part : TR_PART_KV;
        if (p->by_parts) {
            add_parts_backward(v, p->model, unit, kept);
            continue;
        }
        unit.from = kept ? unit.lowest : TR_PART_KV;
        add_block(v, p->model, unit);
    }
}

static void add_final_norm(struct tr_visit *s, const struct tr_model *m, int changed)
{
    changed = changed && tr_trains(m, m->final_norm);
    add_span(s, m->final_norm_span, changed);
    if (changed && m->has_state)
        add_span(s, m->final_norm_state_span, 1);
}

static void add_embed(struct tr_visits *v, const struct tr_model *m)
{
    for (int32_t i = 0; i < m->embed.n_slices; i++) {
        struct tr_visit *s = add(v, (struct tr_unit_visit){.work = TR_WORK_EMBED,
                                                           .index = i,
                                                           .first = i == 0,
                                                           .last = i == m->embed.n_slices - 1});

        add_span(s, m->embed.slices[i].params_span, 0);
        add_boundary(s, m, 0, i ? ADDED_TO : MADE);
    }
}

static void add_head(struct tr_visits *v, const struct tr_model *m)
{
    const struct tr_table *t = tr_model_head(m);

    for (int32_t i = 0; i < t->n_slices; i++) {
        struct tr_visit *s = add(v, (struct tr_unit_visit){.work = TR_WORK_HEAD,
                                                           .index = i,
                                                           .first = i == 0,
                                                           .last = i == t->n_slices - 1});

        add_span(s, t->slices[i].params_span, 0);
        add_span(s, m->final_norm_span, 0);
        add_boundary(s, m, m->config.layers, READ);
    }
}

static int updates_table(const struct tr_model *m, const struct tr_unit_visit *unit)
{
    int embed = unit->work == TR_WORK_EMBED_GRAD;

    return unit->pass == TR_PASS_UPDATE && tr_trains(m, embed ? m->embed.tensor : m->head.tensor);
}

/* The head's backward visits (work HEAD_GRAD) or the embedding's: the table, and the final norm
 * where something of the head is recomputed. `owns`: this run updates the table; `ends`: and the
 * norm. */
static void add_table_sweep(struct tr_visits *v, const struct tr_model *m,
                            const struct tr_unit_visit *unit)
{
    int tied = tr_trains_tied(m), head = unit->work == TR_WORK_HEAD_GRAD;
    const struct tr_table *t = head ? tr_model_head(m) : &m->embed;
    int owns = updates_table(m, unit);
    int ends = unit->pass == TR_PASS_UPDATE && head != tied && unit->sweep != TR_SWEEP_SUM;

    for (int32_t i = t->n_slices - 1; i >= 0; i--) {
        struct tr_visit *s = add(v, *unit);

        v->units[v->n - 1].index = i;
        v->units[v->n - 1].first = i == t->n_slices - 1;
        v->units[v->n - 1].last = i == 0;
        if (owns || head || tied) /* the norm pass of an untied embedding needs only gradients */
            add_span(s, t->slices[i].params_span, owns && unit->sweep != TR_SWEEP_SUM);
        if (owns && m->has_state)
            add_span(s, t->slices[i].state_span, unit->sweep != TR_SWEEP_APPLY);
        if (head || tied)
            add_final_norm(s, m, ends && i == 0);
        if (head || tied)
            add_boundary(s, m, m->config.layers, READ);
    }
}

static void add_table_grad(struct tr_visits *v, const struct tr_model *m, enum tr_work work,
                           enum tr_pass pass)
{
    struct tr_unit_visit unit = {.work = work, .pass = pass};

    if (updates_table(m, &unit) && m->state == TR_STATE_ADALOMO) {
        unit.sweep = TR_SWEEP_SUM;
        add_table_sweep(v, m, &unit);
        unit.sweep = TR_SWEEP_APPLY;
    }
    add_table_sweep(v, m, &unit);
}

static void add_backward(struct tr_visits *v, const struct tr_visits_params *p, enum tr_pass pass)
{
    add_table_grad(v, p->model, TR_WORK_HEAD_GRAD, pass);
    add_blocks_grad(v, p, pass);
    if (tr_trains(p->model, p->model->embed.tensor))
        add_table_grad(v, p->model, TR_WORK_EMBED_GRAD, pass);
}

static void forget_boundary(struct tr_visit *v, const struct tr_model *m)
{
    while (v->n_spans && v->span[v->n_spans - 1] >= m->layout.n_spans)
        v->n_spans--;
}

/* The update pass without its backward: the visits from `first` on that change something. The head
 * is not made again for a tied table either, whose gradient waits as a whole. */
static void only_update(struct tr_visits *v, const struct tr_model *m, uint32_t first)
{
    uint32_t n = first;

    for (uint32_t i = 0; i < first; i++)
        if (v->units[i].work == TR_WORK_EMBED_GRAD)
            forget_boundary(&v->spans[i], m);
    for (uint32_t i = first; i < v->n; i++) {
        if (!v->spans[i].changed)
            continue;
        v->spans[n] = v->spans[i];
        forget_boundary(&v->spans[n], m);
        v->units[n] = v->units[i];
        v->units[n++].work = TR_WORK_UPDATE;
    }
    v->n = n;
}

int tr_visits_make(struct tr_visits *v, const struct tr_visits_params *p)
{
    const struct tr_model *m = p->model;
    size_t blocks = (size_t)m->config.layers * (p->by_parts ? 2 * TR_PARTS : 1);
    size_t most = 4 * (blocks + m->embed.n_slices + tr_model_head(m)->n_slices);
    uint32_t update;

    memset(v, 0, sizeof(*v));
    v->spans = tr_alloc_array(TR_MEM_MISC, most, sizeof(*v->spans));
    v->units = tr_alloc_array(TR_MEM_MISC, most, sizeof(*v->units));
    if (!v->spans || !v->units) {
        tr_visits_free(v);
        return -ENOMEM;
    }
    add_embed(v, m);
    add_blocks(v, p);
    add_head(v, m);
    v->forward = v->n;
    if (p->train && p->norm_pass)
        add_backward(v, p, TR_PASS_NORM);
    update = v->n;
    if (p->train)
        add_backward(v, p, TR_PASS_UPDATE);
    if (p->parked)
        only_update(v, m, update);
    return 0;
}

void tr_visits_free(struct tr_visits *v)
{
    tr_free(TR_MEM_MISC, v->spans);
    tr_free(TR_MEM_MISC, v->units);
    memset(v, 0, sizeof(*v));
}
