/* SPDX-License-Identifier: Apache-2.0 */
#include "src/plan/visits.h"

#include <string.h>

#include "src/base/err.h"
#include "src/base/mem.h"
#include "src/model/freeze.h"

/* Gradients wait in the store: the updates come in the next step's forward pass. */
static int defers(const struct tr_visits_params *p)
{
    return p->model->parked != TR_PARKED_NONE && (p->train || p->settle);
}

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
    v->spans[v->n] = (struct tr_visit){0};
    return &v->spans[v->n++];
}

/* A gradient on its way into the store is made afresh; on its way out it is read. */
static void add_parked(struct tr_visit *v, uint32_t span, int made)
{
    if (made)
        v->fresh |= 1u << v->n_spans;
    add_span(v, span, made);
}

/* A visit that applies what another one has left: `place` is that one's work. */
static struct tr_visit *add_update(struct tr_visits *v, struct tr_unit_visit unit)
{
    struct tr_visit *s = add(v, unit);

    v->units[v->n - 1].work = TR_WORK_UPDATE;
    return s;
}

/* Does a visit of these parts have anything to update? */
static int trains_unit(const struct tr_model *m, const struct tr_unit_visit *unit)
{
    int trains = 0;

    for (int part = unit->from; part <= (int)unit->to; part++)
        trains |= tr_trains_part(m, unit->index, (enum tr_part)part) ||
                  m->blocks[unit->index].adapter_span[part] != TR_NONE;
    return trains;
}

/* The parts of a block that the unit names, where they are updated their state behind them, and
 * behind it the places of their gradients, and last their adapters, which have those in them. */
static void add_parts(struct tr_visit *s, const struct tr_model *m,
                      const struct tr_unit_visit *unit, int changed)
{
    const struct tr_block *block = &m->blocks[unit->index];
    int parked = m->parked && (changed || unit->work == TR_WORK_BLOCK_GRAD);

    for (int part = unit->from; part <= (int)unit->to; part++)
        add_span(s, block->params_span[part],
                 changed && tr_trains_part(m, unit->index, (enum tr_part)part));
    for (int part = unit->from; changed && m->has_state && part <= (int)unit->to; part++)
        if (block->state_span[part] != TR_NONE)
            add_span(s, block->state_span[part], 1);
    for (int part = unit->from; parked && part <= (int)unit->to; part++)
        if (block->parked_span[part] != TR_NONE)
            add_parked(s, block->parked_span[part], !changed);
    for (int part = unit->from; part <= (int)unit->to; part++)
        if (block->adapter_span[part] != TR_NONE)
            add_span(s, block->adapter_span[part], changed || parked);
}

/* The activations that a block keeps: made by its forward visits together. */
static void add_frame(struct tr_visit *s, const struct tr_visits_params *p,
                      const struct tr_unit_visit *unit)
{
    int made = unit->work == TR_WORK_BLOCK;

    if (unit->index < p->model->config.layers - p->keep)
        return;
    if (made && unit->from == TR_PART_KV)
        s->fresh |= 1u << s->n_spans;
    add_span(s, tr_frame_span(p->model, p->keep, unit->index), made);
}

static void add_block(struct tr_visits *v, const struct tr_visits_params *p,
                      struct tr_unit_visit unit)
{
    int changed = unit.work == TR_WORK_BLOCK_GRAD && unit.pass == TR_PASS_UPDATE;
    const struct tr_model *m = p->model;
    struct tr_visit *s = add(v, unit);

    add_parts(s, m, &unit, changed);
    if (unit.from == TR_PART_KV || (unit.work == TR_WORK_BLOCK && unit.from == TR_PART_O))
        add_boundary(s, m, unit.index, READ);
    if (unit.work == TR_WORK_BLOCK && unit.to == TR_PART_DOWN)
        add_boundary(s, m, unit.index + 1, MADE);
    add_frame(s, p, &unit);
}

/* What the last step has left to these parts. */
static void add_block_update(struct tr_visits *v, const struct tr_model *m,
                             struct tr_unit_visit unit)
{
    unit.work = TR_WORK_BLOCK_GRAD;
    add_parts(add_update(v, unit), m, &unit, 1);
}

static void add_parts_forward(struct tr_visits *v, const struct tr_visits_params *p,
                              struct tr_unit_visit unit, int end)
{
    int update = defers(p) && unit.pass == TR_PASS_FORWARD;

    unit.work = TR_WORK_BLOCK;
    for (int part = 0; part < end; part++) {
        unit.from = unit.to = (enum tr_part)part;
        if (update && trains_unit(p->model, &unit))
            add_block_update(v, p->model, unit);
        if (!p->settle)
            add_block(v, p, unit);
    }
}

/* What the last part would make again is the next block's input, which is there. */
static void add_parts_backward(struct tr_visits *v, const struct tr_visits_params *p,
                               struct tr_unit_visit unit)
{
    enum tr_part lowest = unit.lowest;

    if (unit.index < p->model->config.layers - p->keep)
        add_parts_forward(v, p, unit, TR_PART_DOWN);
    unit.work = TR_WORK_BLOCK_GRAD;
    for (int part = TR_PARTS - 1; part >= (int)lowest; part--) {
        unit.from = unit.to = unit.lowest = (enum tr_part)part;
        add_block(v, p, unit);
    }
}

static void add_whole_forward(struct tr_visits *v, const struct tr_visits_params *p,
                              struct tr_unit_visit unit)
{
    if (defers(p) && trains_unit(p->model, &unit))
        add_block_update(v, p->model, unit);
    if (!p->settle)
        add_block(v, p, unit);
}

static void add_layer(struct tr_visits *v, const struct tr_visits_params *p, int32_t layer)
{
    struct tr_unit_visit unit = {.work = TR_WORK_BLOCK, .index = layer, .to = TR_PART_DOWN};

    if (p->by_parts)
        add_parts_forward(v, p, unit, TR_PARTS);
    else
        add_whole_forward(v, p, unit);
}

/* Down to the lowest that trains. Of that block, where it is visited whole and its activations are
 * kept, only the parts from the lowest on. */
static void add_layer_grad(struct tr_visits *v, const struct tr_visits_params *p, enum tr_pass pass,
                           int32_t layer)
{
    struct tr_lowest low = tr_lowest(p->model);
    int kept = layer >= p->model->config.layers - p->keep;
    struct tr_unit_visit unit = {
        .work = TR_WORK_BLOCK_GRAD, .pass = pass, .index = layer, .to = TR_PART_DOWN};

    if (layer < low.layer)
        return;
    unit.lowest = layer == low.layer ? low.part : TR_PART_KV;
    unit.from = kept && !p->by_parts ? unit.lowest : TR_PART_KV;
    if (p->by_parts)
        add_parts_backward(v, p, unit);
    else
        add_block(v, p, unit);
}

static void add_final_norm(struct tr_visit *s, const struct tr_model *m, int changed)
{
    changed = changed && tr_trains(m, m->final_norm);
    add_span(s, m->final_norm_span, changed);
    if (changed && m->has_state)
        add_span(s, m->final_norm_state_span, 1);
}

/* What the last step has left to a table's slice: the state is changed by the sweep that sums, the
 * slice, and its master in the state's span, by the one that applies. */
static void add_slice_update(struct tr_visits *v, const struct tr_model *m,
                             struct tr_unit_visit unit)
{
    const struct tr_table *t = unit.work == TR_WORK_EMBED_GRAD ? &m->embed : &m->head;
    const struct tr_slice *slice = &t->slices[unit.index];
    struct tr_visit *s = add_update(v, unit);

    add_span(s, slice->params_span, unit.sweep != TR_SWEEP_SUM);
    if (m->has_state)
        add_span(s, slice->state_span, unit.sweep != TR_SWEEP_APPLY || m->master);
    add_parked(s, slice->parked_span, 0);
}

static void add_norm_update(struct tr_visits *v, const struct tr_model *m)
{
    struct tr_visit *s = add_update(v, (struct tr_unit_visit){.work = TR_WORK_NORM});

    add_final_norm(s, m, 1);
    add_parked(s, m->final_norm_parked_span, 0);
}

static struct tr_unit_visit slice_unit(enum tr_work work, const struct tr_table *t, int32_t i,
                                       int down)
{
    return (struct tr_unit_visit){.work = work,
                                  .index = i,
                                  .first = i == (down ? t->n_slices - 1 : 0),
                                  .last = i == (down ? 0 : t->n_slices - 1)};
}

/* Sums in the order of a backward pass, for they are to have the same bits. */
static void add_slice_sums(struct tr_visits *v, const struct tr_model *m, enum tr_work work)
{
    const struct tr_table *t = work == TR_WORK_EMBED_GRAD ? &m->embed : &m->head;

    for (int32_t i = t->n_slices - 1; i >= 0 && m->state == TR_STATE_ADALOMO; i--) {
        struct tr_unit_visit unit = slice_unit(work, t, i, 1);

        unit.sweep = TR_SWEEP_SUM;
        add_slice_update(v, m, unit);
    }
}

static void add_slice_apply(struct tr_visits *v, const struct tr_model *m,
                            struct tr_unit_visit unit)
{
    unit.sweep = m->state == TR_STATE_ADALOMO ? TR_SWEEP_APPLY : TR_SWEEP_ALL;
    add_slice_update(v, m, unit);
}

static void add_embed(struct tr_visits *v, const struct tr_visits_params *p)
{
    const struct tr_model *m = p->model;
    int update = defers(p) && tr_trains_tied(m);

    if (update)
        add_slice_sums(v, m, TR_WORK_EMBED_GRAD);
    for (int32_t i = 0; i < m->embed.n_slices; i++) {
        struct tr_visit *s;

        if (update)
            add_slice_apply(v, m, slice_unit(TR_WORK_EMBED_GRAD, &m->embed, i, 0));
        if (p->settle)
            continue;
        s = add(v, slice_unit(TR_WORK_EMBED, &m->embed, i, 0));
        add_span(s, m->embed.slices[i].params_span, 0);
        add_boundary(s, m, 0, i ? ADDED_TO : MADE);
    }
}

static void add_head(struct tr_visits *v, const struct tr_visits_params *p)
{
    const struct tr_model *m = p->model;
    const struct tr_table *t = tr_model_head(m);
    int update = defers(p) && tr_trains(m, m->head.tensor);

    if (defers(p) && tr_trains(m, m->final_norm))
        add_norm_update(v, m);
    if (update)
        add_slice_sums(v, m, TR_WORK_HEAD_GRAD);
    for (int32_t i = 0; i < t->n_slices; i++) {
        struct tr_visit *s;

        if (update)
            add_slice_apply(v, m, slice_unit(TR_WORK_HEAD_GRAD, t, i, 0));
        if (p->settle)
            continue;
        s = add(v, slice_unit(TR_WORK_HEAD, t, i, 0));
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

int tr_ends_final_norm(const struct tr_model *m, const struct tr_unit_visit *u)
{
    enum tr_work work = u->work == TR_WORK_UPDATE ? u->place : u->work;
    int tied = tr_trains_tied(m), ahead = u->pass == TR_PASS_FORWARD;

    if (!tr_trains(m, m->final_norm) || (work != TR_WORK_EMBED_GRAD && work != TR_WORK_HEAD_GRAD))
        return 0;
    return !ahead && u->last && u->sweep != TR_SWEEP_SUM && (work == TR_WORK_EMBED_GRAD) == tied;
}

/* The head's backward visits (work HEAD_GRAD) or the embedding's: the table, and the final norm
 * where something of the head is recomputed. `owns`: this run updates the table; `ends`: and the
 * norm. */
static void add_table_sweep(struct tr_visits *v, const struct tr_model *m,
                            const struct tr_unit_visit *unit)
{
    int tied = tr_trains_tied(m), head = unit->work == TR_WORK_HEAD_GRAD;
    const struct tr_table *t = head ? tr_model_head(m) : &m->embed;
    int update = unit->pass == TR_PASS_UPDATE, owns = updates_table(m, unit);
    int parks = (!head || !tied) && t->slices[0].parked_span != TR_NONE;

    for (int32_t i = t->n_slices - 1; i >= 0; i--) {
        struct tr_unit_visit one = slice_unit(unit->work, t, i, 1);
        struct tr_visit *s;
        int ends;

        one.pass = unit->pass;
        one.sweep = unit->sweep;
        ends = tr_ends_final_norm(m, &one);
        s = add(v, one);
        if (owns || head || tied) /* the norm pass of an untied embedding needs only gradients */
            add_span(s, t->slices[i].params_span, owns && unit->sweep != TR_SWEEP_SUM);
        if (owns && m->has_state)
            add_span(s, t->slices[i].state_span, unit->sweep != TR_SWEEP_APPLY || m->master);
        if (parks)
            add_parked(s, t->slices[i].parked_span, 1);
        if (head || tied)
            add_final_norm(s, m, update && ends);
        if (m->parked && ends)
            add_parked(s, m->final_norm_parked_span, 1);
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

/* Units `from` to before `end` of a backward pass: the head, the blocks downwards, the embedding.
 */
static void add_units(struct tr_visits *v, const struct tr_visits_params *p, enum tr_pass pass,
                      const int32_t units[2])
{
    int32_t layers = p->model->config.layers;

    for (int32_t u = units[0]; u < units[1]; u++)
        if (u > 0 && u <= layers)
            add_layer_grad(v, p, pass, layers - u);
        else if (u == 0 || tr_trains(p->model, p->model->embed.tensor))
            add_table_grad(v, p->model, u ? TR_WORK_EMBED_GRAD : TR_WORK_HEAD_GRAD, pass);
}

static void add_backward(struct tr_visits *v, const struct tr_visits_params *p, enum tr_pass pass)
{
    add_units(v, p, pass, (int32_t[]){0, p->model->config.layers + 2});
}

static void forget_scratch(struct tr_visit *v, const struct tr_model *m)
{
    while (v->n_spans && v->span[v->n_spans - 1] >= m->layout.n_spans)
        v->n_spans--;
}

/* The head is not made again for a tied table whose gradient waits as a whole. */
static void forget_head(struct tr_visits *v, const struct tr_model *m)
{
    for (uint32_t i = 0; i < v->n; i++)
        if (v->units[i].work == TR_WORK_EMBED_GRAD)
            forget_scratch(&v->spans[i], m);
}

/* The update pass without its backward: the visits from `first` on that change something. */
static void only_update(struct tr_visits *v, const struct tr_model *m, uint32_t first)
{
    uint32_t n = first;

    for (uint32_t i = first; i < v->n; i++) {
        if (!v->spans[i].changed)
            continue;
        v->spans[n] = v->spans[i];
        forget_scratch(&v->spans[n], m);
        v->units[n] = v->units[i];
        v->units[n++].work = TR_WORK_UPDATE;
    }
    v->n = n;
}

static int is_state(const struct tr_model *m, uint32_t span)
{
    return m->layout.spans[span].pool >= TR_SLOTS_BLOCK_STATE &&
           m->layout.spans[span].pool <= TR_SLOTS_NORM_STATE;
}

static int is_adapter(const struct tr_model *m, uint32_t span)
{
    return span < m->layout.n_spans && m->layout.spans[span].pool == TR_SLOTS_ADAPTER;
}

/* Does the visit change anything but adapters? */
static int changes_model(const struct tr_visit *s, const struct tr_model *m)
{
    int changes = 0;

    for (uint32_t k = 0; k < s->n_spans; k++)
        changes |= s->changed >> k & 1 && !is_adapter(m, s->span[k]);
    return changes;
}

/* What the visit reads to make its gradients: it is then as one of a norm pass, but for adapters.
 */
static void only_gradients(struct tr_visit *s, const struct tr_model *m,
                           const struct tr_unit_visit *unit)
{
    int idle = unit->work == TR_WORK_EMBED_GRAD && !tr_trains_tied(m); /* is its table */
    uint32_t n = 0, changed = 0;

    for (uint32_t k = 0; k < s->n_spans; k++)
        if (s->span[k] >= m->layout.n_spans || (!idle && !is_state(m, s->span[k]))) {
            if (is_adapter(m, s->span[k]))
                changed |= (s->changed >> k & 1) << n;
            s->span[n++] = s->span[k];
        }
    s->n_spans = n;
    s->changed = changed;
}

static void append(struct tr_visits *v, const struct tr_visit *s, const struct tr_unit_visit *unit)
{
    v->spans[v->n] = *s;
    v->units[v->n++] = *unit;
}

/* An update whose gradients have been left. */
static void append_update(struct tr_visits *v, const struct tr_model *m, const struct tr_visit *s,
                          struct tr_unit_visit unit)
{
    struct tr_visit *to;

    unit.work = TR_WORK_UPDATE;
    unit.left = 1;
    append(v, s, &unit);
    to = &v->spans[v->n - 1];
    forget_scratch(to, m);
    while (is_adapter(m, to->span[to->n_spans - 1]))
        to->changed &= (1u << --to->n_spans) - 1;
}

static int updates_here(const struct tr_visit *s, const struct tr_model *m,
                        const struct tr_unit_visit *unit)
{
    return changes_model(s, m) && unit->pass == TR_PASS_UPDATE && unit->work >= TR_WORK_HEAD_GRAD &&
           unit->work <= TR_WORK_EMBED_GRAD;
}

/* Of the visits from `first` on, those that update leave that to visits behind the next one. */
static int set_apart(struct tr_visits *v, const struct tr_model *m, uint32_t first)
{
    uint32_t n = v->n - first, waiting = n;
    struct tr_visit *spans = tr_alloc_array(TR_MEM_MISC, n, sizeof(*spans));
    struct tr_unit_visit *units = tr_alloc_array(TR_MEM_MISC, n, sizeof(*units));

    if (spans && units) {
        memcpy(spans, v->spans + first, n * sizeof(*spans));
        memcpy(units, v->units + first, n * sizeof(*units));
        v->n = first;
        for (uint32_t i = 0; i < n; i++) {
            int leaves = updates_here(&spans[i], m, &units[i]);

            append(v, &spans[i], &units[i]);
            if (leaves) {
                v->units[v->n - 1].leaves = 1;
                only_gradients(&v->spans[v->n - 1], m, &units[i]);
            }
            if (waiting < n)
                append_update(v, m, &spans[waiting], units[waiting]);
            waiting = leaves ? i : n;
        }
        if (waiting < n)
            append_update(v, m, &spans[waiting], units[waiting]);
    }
    tr_free(TR_MEM_MISC, spans);
    tr_free(TR_MEM_MISC, units);
    return spans && units ? 0 : -ENOMEM;
}

static void add_groups(struct tr_visits *v, const struct tr_visits_params *p)
{
    int32_t n = p->model->config.layers + 2;

    for (int32_t u = 0; u < n; u += p->group) {
        int32_t units[2] = {u, u + p->group < n ? u + p->group : n};
        uint32_t first;

        add_units(v, p, TR_PASS_NORM, units);
        first = v->n;
        add_units(v, p, TR_PASS_UPDATE, units);
        only_update(v, p->model, first);
    }
}

static void add_training(struct tr_visits *v, const struct tr_visits_params *p)
{
    uint32_t update;

    if (p->group && !p->parked) {
        add_groups(v, p);
        return;
    }
    if (p->norm_pass || p->model->parked)
        add_backward(v, p, TR_PASS_NORM);
    if (p->parked)
        forget_head(v, p->model);
    update = v->n;
    if (!p->model->parked)
        add_backward(v, p, TR_PASS_UPDATE);
    else if (tr_embeds_at_once(p->model))
        add_table_grad(v, p->model, TR_WORK_EMBED_GRAD, TR_PASS_UPDATE);
    if (p->parked)
        only_update(v, p->model, update);
}

int tr_visits_make(struct tr_visits *v, const struct tr_visits_params *p)
{
    const struct tr_model *m = p->model;
    size_t blocks = (size_t)m->config.layers * (p->by_parts ? 2 * TR_PARTS : 1);
    size_t most = 6 * (blocks + m->embed.n_slices + tr_model_head(m)->n_slices) + 1;
    int r;

    memset(v, 0, sizeof(*v));
    v->spans = tr_alloc_array(TR_MEM_MISC, most, sizeof(*v->spans));
    v->units = tr_alloc_array(TR_MEM_MISC, most, sizeof(*v->units));
    if (!v->spans || !v->units) {
        tr_visits_free(v);
        return -ENOMEM;
    }
    add_embed(v, p);
    for (int32_t l = 0; l < m->config.layers; l++)
        add_layer(v, p, l);
    add_head(v, p);
    v->forward = v->n;
    if (p->train)
        add_training(v, p);
    r = p->train && p->apart ? set_apart(v, m, v->forward) : 0;
    if (r < 0)
        tr_visits_free(v);
    return r;
}

void tr_visits_free(struct tr_visits *v)
{
    tr_free(TR_MEM_MISC, v->spans);
    tr_free(TR_MEM_MISC, v->units);
    memset(v, 0, sizeof(*v));
}
