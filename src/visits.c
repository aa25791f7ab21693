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
        add_boundary(s, m, l, READ);
        if (pass == TR_PASS_FORWARD)
            add_boundary(s, m, l + 1, MADE);
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

/* The head's backward visits (work HEAD_GRAD) or the embedding's: the table, and the final norm
 * where something of the head is recomputed. `owns`: this run updates the table; `ends`: and the
 * norm. */
static void add_table_grad(struct tr_visits *v, const struct tr_model *m, enum tr_work work,
                           enum tr_pass pass)
{
    int tied = m->head.tensor < 0, head = work == TR_WORK_HEAD_GRAD;
    const struct tr_table *t = head ? tr_model_head(m) : &m->embed;
    int owns = pass == TR_PASS_UPDATE && (!head || !tied);
    int ends = pass == TR_PASS_UPDATE && head != tied;

    for (int32_t i = t->n_slices - 1; i >= 0; i--) {
        struct tr_visit *s = add(v, (struct tr_unit_visit){.work = work,
                                                           .pass = pass,
                                                           .index = i,
                                                           .first = i == t->n_slices - 1,
                                                           .last = i == 0});

        if (owns || head || tied) /* the norm pass of an untied embedding needs only gradients */
            add_span(s, t->slices[i].params_span, owns);
        if (owns && m->has_state)
            add_span(s, t->slices[i].state_span, 1);
        if (head || tied)
            add_final_norm(s, m, ends && i == 0);
        if (head || tied)
            add_boundary(s, m, m->config.layers, READ);
    }
}

static void add_backward(struct tr_visits *v, const struct tr_model *m, enum tr_pass pass)
{
    add_table_grad(v, m, TR_WORK_HEAD_GRAD, pass);
    add_blocks(v, m, pass);
    add_table_grad(v, m, TR_WORK_EMBED_GRAD, pass);
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
    size_t most = 3 * ((size_t)m->config.layers + m->embed.n_slices + tr_model_head(m)->n_slices);
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
        only_update(v, m, update);
    return 0;
}

void tr_visits_free(struct tr_visits *v)
{
    tr_free(TR_MEM_MISC, v->spans);
    tr_free(TR_MEM_MISC, v->units);
    memset(v, 0, sizeof(*v));
}
