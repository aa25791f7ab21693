/* SPDX-License-Identifier: Apache-2.0
 *
 * The head and the tables. The loss runs over vocabulary slices, so that logits are never whole in
 * memory: the forward pass gathers softmax statistics slice by slice, the backward pass makes each
 * slice's logits again (same code, same bits) and turns them into gradients. Work goes grain by
 * grain, so its bits do not depend on micro-batches.
 *
 * Tied embeddings: the head's gradient is not parked; the embedding's visit, last of all, makes the
 * slice's logits once more from the final hidden state, which is still there, and adds the rows of
 * the embedding's own gradient: one gradient, one update, and only one slice of it in memory.
 */
#include "src/train/pass.h"

#include "src/model/freeze.h"

/* The spans of a visit of a table: what it has of these. */
struct table_spans {
    char *table, *state, *parked, *norm, *norm_state, *norm_parked;
};

struct slice_work {
    struct tr_pass_state *p;
    int together; /* the logits of all grains lie behind one another */
    const struct tr_pass_visit *v;
    const struct tr_tensor *tensor;
    const struct tr_slice *slice;
    struct table_spans at;
};

/* The table is updated with the embedding, once, and the final norm then: a tied one that trains.
 */
static int is_tied(const struct tr_pass_state *p)
{
    return tr_trains_tied(p->model);
}

static struct slice_work slice_work(struct tr_pass_state *p, const struct tr_pass_visit *v)
{
    const struct tr_model *m = p->model;
    int embed = v->unit.place == TR_WORK_EMBED_GRAD;
    const struct tr_table *t = embed ? &m->embed : tr_model_head(m);
    const struct tr_slice *s = &t->slices[v->unit.index];

    return (struct slice_work){.p = p,
                               .v = v,
                               .tensor = &m->tensors[t->tensor],
                               .slice = s,
                               .at = {.table = pass_find(v, s->params_span),
                                      .state = pass_find(v, s->state_span),
                                      .parked = pass_find(v, s->parked_span),
                                      .norm = pass_find(v, m->final_norm_span),
                                      .norm_state = pass_find(v, m->final_norm_state_span),
                                      .norm_parked = pass_find(v, m->final_norm_parked_span)}};
}

static int32_t grain_token(const struct slice_work *w, int32_t g)
{
    return w->p->batch->grain_start[g];
}

static int final_norm(const struct slice_work *w, int32_t g)
{
    struct tr_pass_state *p = w->p;
    const struct tr_model_config *c = &p->model->config;

    return pass_op(
        p,
        &(struct tr_op){.kind = TR_OP_RMSNORM,
                        .rmsnorm = {.x = pass_boundary(p, c->layers, grain_token(w, g)),
                                    .x_dtype = p->model->dtype,
                                    .w = w->at.norm,
                                    .w_dtype = p->model->tensors[p->model->final_norm].dtype,
                                    .y = pass_at(p, &p->plan->head_x),
                                    .y_dtype = pass_compute(p),
                                    .rstd = pass_rows(p, &p->plan->head_rstd, grain_token(w, g), 1),
                                    .rows = p->grain[g].start[1],
                                    .cols = c->hidden,
                                    .eps = c->rms_eps,
                                    .rows_per_token = 1}});
}

static float *logits_at(const struct slice_work *w, int32_t first_token)
{
    int64_t at = w->together ? first_token * w->slice->rows : 0;

    return (float *)pass_at(w->p, &w->p->plan->logits) + at;
}

/* The same in the compute dtype; together they are f32, and in the logits' place. */
static void *dlogits_at(const struct slice_work *w, int32_t first_token)
{
    return w->together ? logits_at(w, first_token) : pass_at(w->p, &w->p->plan->dlogits);
}

static struct tr_op_matmul slice_matmul(const struct slice_work *w, int32_t g)
{
    struct tr_pass_state *p = w->p;

    return (struct tr_op_matmul){.w = w->at.table,
                                 .w_dtype = w->tensor->dtype,
                                 .in_dtype = pass_compute(p),
                                 .x = pass_at(p, &p->plan->head_x),
                                 .y = logits_at(w, grain_token(w, g)),
                                 .dy = dlogits_at(w, grain_token(w, g)),
                                 .n = p->grain[g].start[1],
                                 .m = w->slice->rows,
                                 .k = p->model->config.hidden,
                                 .grains = p->grain[g]};
}

/* head_x and logits of one grain and slice. */
static int make_logits(const struct slice_work *w, int32_t g)
{
    int r = final_norm(w, g);

    if (r < 0)
        return r;
    return pass_op(w->p, &(struct tr_op){.kind = TR_OP_MATMUL, .matmul = slice_matmul(w, g)});
}

static struct tr_op_xent xent(const struct slice_work *w, int32_t first_token, int64_t n)
{
    struct tr_pass_state *p = w->p;
    const struct tr_plan *plan = p->plan;

    return (struct tr_op_xent){
        .logits = logits_at(w, first_token),
        .dlogits = dlogits_at(w, first_token),
        .dtype = pass_compute(p),
        .n = n,
        .row0 = w->slice->row0,
        .rows = w->slice->rows,
        .first = w->v->unit.index == 0,
        .targets = (const int32_t *)pass_at(p, &plan->targets) + first_token,
        .max = pass_rows(p, &plan->max, first_token, 1),
        .sum = pass_rows(p, &plan->sum, first_token, 1),
        .target_logit = pass_rows(p, &plan->target_logit, first_token, 1),
        .lse = pass_rows(p, &plan->lse, first_token, 1),
        .nll = pass_rows(p, &plan->nll, first_token, 1),
        .scale = pass_rows(p, &plan->scale, first_token, 1),
    };
}

/* logits of one grain become d loss / d logits. */
static int make_dlogits(const struct slice_work *w, int32_t g)
{
    int r = make_logits(w, g);

    if (r < 0)
        return r;
    return pass_op(w->p,
                   &(struct tr_op){.kind = TR_OP_XENT_GRAD,
                                   .xent = xent(w, grain_token(w, g), w->p->grain[g].start[1])});
}

int pass_head(struct tr_pass_state *p, const struct tr_pass_visit *v)
{
    struct slice_work w = slice_work(p, v);
    int r;

    for (int32_t g = 0; g < p->batch->n_grains; g++) {
        if ((r = make_logits(&w, g)) < 0)
            return r;
        r = pass_op(p, &(struct tr_op){.kind = TR_OP_XENT,
                                       .xent = xent(&w, grain_token(&w, g), p->grain[g].start[1])});
        if (r < 0)
            return r;
    }
    if (!v->unit.last)
        return 0;
    return pass_op(
        p, &(struct tr_op){.kind = TR_OP_XENT_LOSS, .xent = xent(&w, 0, p->batch->n_tokens)});
}

static float *slice_grad(const struct slice_work *w)
{
    const struct tr_plan *plan = w->p->plan;

    if (w->p->model->parked == TR_PARKED_F32 && w->at.parked) /* made where it is kept */
        return (float *)w->at.parked;
    return (float *)((char *)pass_at(w->p, &plan->grad) +
                     tr_plan_table_grad(plan, w->tensor, w->slice->row0));
}

static int table_dw(const struct slice_work *w, int32_t g)
{
    struct tr_op_matmul op = slice_matmul(w, g);

    op.dw = slice_grad(w);
    op.add = g > 0;
    return pass_op(w->p, &(struct tr_op){.kind = TR_OP_MATMUL_DW, .matmul = op});
}

/* Fused: rows of the slice at once, few enough that the logits of all tokens have room. What the
 * grains need of them is made before the first one changes them; dx: also their part of the
 * gradient of the head's input, which the first rows of all write and the others add to. */
static int fused_rows(const struct slice_work *w, int dx, int first)
{
    struct tr_pass_state *p = w->p;
    int r = 0;

    for (int32_t g = 0; g < p->batch->n_grains && r == 0; g++) {
        struct tr_op_matmul op = slice_matmul(w, g);

        op.dx = pass_rows(p, &p->plan->dx, grain_token(w, g), op.k);
        op.add = !first;
        r = make_dlogits(w, g);
        if (r == 0 && dx)
            r = pass_op(p, &(struct tr_op){.kind = TR_OP_MATMUL_DX, .matmul = op});
    }
    for (int32_t g = 0; g < p->batch->n_grains && r == 0; g++) {
        struct tr_op_matmul op = slice_matmul(w, g);

        op.dw = (float *)w->at.table;
        op.fused = 1;
        op.lr = (float)p->update.lr;
        if ((r = final_norm(w, g)) == 0)
            r = pass_op(p, &(struct tr_op){.kind = TR_OP_MATMUL_DW, .matmul = op});
    }
    return r;
}

static int fused_slice(const struct slice_work *all, int dx)
{
    struct slice_work w = *all;
    struct tr_slice part = *all->slice;
    int64_t end = part.row0 + part.rows, row = w.p->model->config.hidden * (int64_t)sizeof(float);
    int r = 0;

    w.slice = &part;
    w.together = 1;
    for (; part.row0 < end && r == 0; part.row0 += part.rows) {
        part.rows = end - part.row0 < TR_FUSED_ROWS ? end - part.row0 : TR_FUSED_ROWS;
        w.at.table = all->at.table + (part.row0 - all->slice->row0) * row;
        r = fused_rows(&w, dx, all->v->unit.first && part.row0 == all->slice->row0);
    }
    return r;
}

static int finish_slice(const struct slice_work *w)
{
    struct tr_pass_state *p = w->p;
    uint64_t cols = (uint64_t)p->model->config.hidden;

    return pass_finish(
        p, &w->v->unit,
        &(struct pass_grad){.tensor = (int32_t)(w->tensor - p->model->tensors),
                            .sweep = w->v->unit.sweep,
                            .goes_on = !w->v->unit.first,
                            .goes_further = !w->v->unit.last,
                            .grad = p->plan->in.fused ? NULL : slice_grad(w),
                            .parked = w->at.parked,
                            .weight = w->at.table,
                            .m = (float *)w->at.state,
                            .v = w->at.state ? (float *)(w->at.state + w->slice->v_offset) : NULL,
                            .master = w->at.state ? w->at.state + w->slice->master_offset : NULL,
                            .first = (uint64_t)w->slice->row0 * cols,
                            .n = (uint64_t)w->slice->rows * cols});
}

static int finish_final_norm(const struct slice_work *w)
{
    struct tr_pass_state *p = w->p;
    const struct tr_tensor *t = &p->model->tensors[p->model->final_norm];
    char *state = w->at.norm_state;

    return pass_finish(p, &w->v->unit,
                       &(struct pass_grad){.tensor = p->model->final_norm,
                                           .grad = pass_at(p, &p->plan->norm_grad),
                                           .parked = w->at.norm_parked,
                                           .weight = w->at.norm,
                                           .m = state ? (float *)(state + t->m_offset) : NULL,
                                           .v = state ? (float *)(state + t->v_offset) : NULL,
                                           .master = state ? state + t->master_offset : NULL,
                                           .n = (uint64_t)p->model->config.hidden});
}

int pass_round_boundary(const struct tr_pass_state *p, float *dx, int64_t n)
{
    if (p->model->dtype != TR_F16)
        return 0;
    return pass_op(
        p, &(struct tr_op){.kind = TR_OP_ROUND, .round = {.x = dx, .n = n, .dtype = TR_F16}});
}

/* The gradient of the head's normed input, summed over all slices, becomes that of its input. */
static int final_norm_grad(const struct slice_work *w)
{
    struct tr_pass_state *p = w->p;
    const struct tr_model_config *c = &p->model->config;
    float *dx = pass_at(p, &p->plan->dx);
    int r = pass_op(
        p, &(struct tr_op){.kind = TR_OP_RMSNORM_GRAD,
                           .rmsnorm = {.x = pass_boundary(p, c->layers, 0),
                                       .x_dtype = p->model->dtype,
                                       .w = w->at.norm,
                                       .w_dtype = p->model->tensors[p->model->final_norm].dtype,
                                       .rstd = pass_at(p, &p->plan->head_rstd),
                                       .rows = p->batch->n_tokens,
                                       .cols = c->hidden,
                                       .eps = c->rms_eps,
                                       .dy = dx,
                                       .dx = dx,
                                       .dw = tr_trains(p->model, p->model->final_norm)
                                                 ? pass_at(p, &p->plan->norm_grad)
                                                 : NULL,
                                       .grains = {p->batch->n_grains, p->batch->grain_start},
                                       .rows_per_token = 1}});

    if (r < 0)
        return r;
    return pass_round_boundary(p, dx, (int64_t)p->batch->n_tokens * c->hidden);
}

/* A tied table's gradient has a place to wait in where all gradients are parked: then the head's
 * part is made here, and the embedding's visit only adds its rows. The order of sums is the same.
 */
static int dw_with_head(const struct tr_pass_state *p)
{
    return is_tied(p) ? p->plan->parked : tr_trains(p->model, p->model->head.tensor);
}

/* The second sweep over the head: the slice's gradient again, unless it has been kept, applied. */
static int apply_head(const struct slice_work *w)
{
    struct tr_pass_state *p = w->p;
    int r = 0;

    for (int32_t g = 0; g < p->batch->n_grains && !p->plan->held && r == 0; g++)
        if ((r = make_dlogits(w, g)) == 0)
            r = table_dw(w, g);
    if (r < 0 || (r = finish_slice(w)) < 0 || !w->v->unit.last)
        return r;
    return finish_final_norm(w);
}

/* Softmax gradients of the slice, and what becomes of them; of a tied table the rest comes with the
 * embedding. */
static int slice_grads(const struct slice_work *w, int needs_dx)
{
    struct tr_pass_state *p = w->p;
    int r = 0;

    for (int32_t g = 0; g < p->batch->n_grains && r == 0; g++) {
        struct tr_op_matmul dx = slice_matmul(w, g);

        dx.dx = pass_rows(p, &p->plan->dx, grain_token(w, g), dx.k);
        dx.add = !w->v->unit.first;
        r = make_dlogits(w, g);
        if (r == 0 && needs_dx)
            r = pass_op(p, &(struct tr_op){.kind = TR_OP_MATMUL_DX, .matmul = dx});
        if (r == 0 && dw_with_head(p))
            r = table_dw(w, g);
    }
    return r;
}

int pass_head_grad(struct tr_pass_state *p, const struct tr_pass_visit *v)
{
    struct slice_work w = slice_work(p, v);
    int tied = is_tied(p), needs_dx = tr_needs_head_dx(p->model), r;

    if (v->unit.sweep == TR_SWEEP_APPLY)
        return apply_head(&w);
    r = p->plan->in.fused && dw_with_head(p) ? fused_slice(&w, needs_dx)
                                             : slice_grads(&w, needs_dx);
    if (r < 0 || (!tied && (r = finish_slice(&w)) < 0))
        return r;
    if (!v->unit.last || !needs_dx)
        return 0;
    if ((r = final_norm_grad(&w)) < 0 || tied || v->unit.sweep == TR_SWEEP_SUM)
        return r;
    return finish_final_norm(&w);
}

/* The head's part of a tied table's gradient (or zeros), to which the embedding's rows are added.
 */
static int start_embed_grad(const struct slice_work *w)
{
    struct tr_pass_state *p = w->p;
    int r = 0;

    if (p->plan->in.fused)
        return is_tied(p) ? fused_slice(w, 0) : 0;
    if (!is_tied(p))
        return p->device->ops->fill(p->device, TR_STREAM_COMPUTE, slice_grad(w), 0,
                                    (size_t)w->slice->rows * p->model->config.hidden * 4);
    if (p->plan->parked) /* is there already */
        return 0;
    for (int32_t g = 0; g < p->batch->n_grains && r == 0; g++)
        if ((r = make_dlogits(w, g)) == 0)
            r = table_dw(w, g);
    return r;
}

static int make_embed_grad(const struct slice_work *w)
{
    struct tr_pass_state *p = w->p;
    int r = start_embed_grad(w), fused = p->plan->in.fused;

    if (r < 0)
        return r;
    return pass_op(p,
                   &(struct tr_op){.kind = TR_OP_EMBED_GRAD,
                                   .embed = {.row0 = w->slice->row0,
                                             .rows = w->slice->rows,
                                             .cols = p->model->config.hidden,
                                             .n = p->batch->n_tokens,
                                             .ids = pass_at(p, &p->plan->ids),
                                             .dy = pass_at(p, &p->plan->dx),
                                             .grad = fused ? (float *)w->at.table : slice_grad(w),
                                             .fused = fused,
                                             .lr = (float)p->update.lr}});
}

int pass_embed_grad(struct tr_pass_state *p, const struct tr_pass_visit *v)
{
    struct slice_work w = slice_work(p, v);
    int kept = v->unit.sweep == TR_SWEEP_APPLY && p->plan->held;
    int r = kept ? 0 : make_embed_grad(&w);

    if (r < 0 || (r = finish_slice(&w)) < 0 || !tr_ends_final_norm(p->model, &v->unit))
        return r;
    return finish_final_norm(&w);
}

/* Gradients of a table's slice that wait, and of the final norm where its run of visits ends. */
int pass_table_update(struct tr_pass_state *p, const struct tr_pass_visit *v)
{
    struct slice_work w = slice_work(p, v);
    int r = finish_slice(&w);

    return r < 0 || !tr_ends_final_norm(p->model, &v->unit) ? r : finish_final_norm(&w);
}

/* Of the final norm alone: parked for the next step. */
int pass_norm_update(struct tr_pass_state *p, const struct tr_pass_visit *v)
{
    const struct tr_model *m = p->model;
    struct slice_work w = {.p = p,
                           .v = v,
                           .at = {.norm = pass_span(v, m->final_norm_span),
                                  .norm_state = pass_find(v, m->final_norm_state_span),
                                  .norm_parked = pass_span(v, m->final_norm_parked_span)}};

    return finish_final_norm(&w);
}
