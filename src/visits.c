/* SPDX-License-Identifier: Apache-2.0 */
#include "src/visits.h"

#include <string.h>

#include "src/base/err.h"
#include "src/base/mem.h"

static void add_span(struct tr_visit *v, uint32_t span, int changed)
{
    if (changed)
        v->changed |= 1u << v->n_spans;
    v->span[v->n_spans++] = span;
}

static struct tr_visit *add(struct tr_visits *v, struct tr_unit_visit unit)
{
    unit.place = unit.work;
    v->units[v->n] = unit;
    return &v->spans[v->n++];
}

static void add_blocks(struct tr_visits *v, const struct tr_model *m, enum tr_pass pass)
{
    int32_t layers = m->config.layers;

    for (int32_t i = 0; i < layers; i++) {
        int32_t l = pass == TR_PASS_FORWARD ? i : layers - 1 - i;
        struct tr_visit *s =
            add(v, (struct tr_unit_visit){.work = pass == TR_PASS_FORWARD ? TR_WORK_BLOCK
                                                                          : TR_WORK_BLOCK_GRAD,
                                          .pass = pass,
                                          .index = l,
                                          .first = i == 0,
                                          .last = i == layers - 1});

        add_span(s, m->blocks[l].params_span, pass == TR_PASS_UPDATE);
        if (pass == TR_PASS_UPDATE && m->has_state)
            add_span(s, m->blocks[l].state_span, 1);
    }
}

static void add_final_norm(struct tr_visit *s, const struct tr_model *m, int changed)
{
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
    }
}

/* The head's backward visits (work HEAD_GRAD) or the embedding's: the table, and the final norm
 * where something of the head is recomputed. `owns`: this run updates the table; `ends`: and the
 * norm. */
static void add_table_sweep(struct tr_visits *v, const struct tr_model *m,
                            const struct tr_unit_visit *unit)
{
    int tied = m->head.tensor < 0, head = unit->work == TR_WORK_HEAD_GRAD;
    const struct tr_table *t = head ? tr_model_head(m) : &m->embed;
    int owns = unit->pass == TR_PASS_UPDATE && (!head || !tied);
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
    }
}

static void add_table_grad(struct tr_visits *v, const struct tr_model *m, enum tr_work work,
                           enum tr_pass pass)
{
    int owns = pass == TR_PASS_UPDATE && (work == TR_WORK_EMBED_GRAD || m->head.tensor >= 0);
    struct tr_unit_visit unit = {.work = work, .pass = pass};

    if (owns && m->state == TR_STATE_ADALOMO) {
        unit.sweep = TR_SWEEP_SUM;
        add_table_sweep(v, m, &unit);
        unit.sweep = TR_SWEEP_APPLY;
    }
    add_table_sweep(v, m, &unit);
}

static void add_backward(struct tr_visits *v, const struct tr_model *m, enum tr_pass pass)
{
    add_table_grad(v, m, TR_WORK_HEAD_GRAD, pass);
    add_blocks(v, m, pass);
    add_table_grad(v, m, TR_WORK_EMBED_GRAD, pass);
}

/* The update pass without its backward: the visits from `first` on that change something. */
static void only_update(struct tr_visits *v, uint32_t first)
{
    uint32_t n = first;

    for (uint32_t i = first; i < v->n; i++) {
        if (!v->spans[i].changed)
            continue;
        v->spans[n] = v->spans[i];
        v->units[n] = v->units[i];
        v->units[n++].work = TR_WORK_UPDATE;
    }
    v->n = n;
}

int tr_visits_make(struct tr_visits *v, const struct tr_visits_params *p)
{
    const struct tr_model *m = p->model;
    size_t most = 4 * ((size_t)m->config.layers + m->embed.n_slices + tr_model_head(m)->n_slices);
    uint32_t update;

    memset(v, 0, sizeof(*v));
    v->spans = tr_alloc_array(TR_MEM_MISC, most, sizeof(*v->spans));
    v->units = tr_alloc_array(TR_MEM_MISC, most, sizeof(*v->units));
    if (!v->spans || !v->units) {
        tr_visits_free(v);
        return -ENOMEM;
    }
    add_embed(v, m);
    add_blocks(v, m, TR_PASS_FORWARD);
    add_head(v, m);
    v->forward = v->n;
    if (p->train && p->norm_pass)
        add_backward(v, m, TR_PASS_NORM);
    update = v->n;
    if (p->train)
        add_backward(v, m, TR_PASS_UPDATE);
    if (p->parked)
        only_update(v, update);
    return 0;
}

void tr_visits_free(struct tr_visits *v)
{
    tr_free(TR_MEM_MISC, v->spans);
    tr_free(TR_MEM_MISC, v->units);
    memset(v, 0, sizeof(*v));
}
