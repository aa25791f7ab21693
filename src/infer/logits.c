/* SPDX-License-Identifier: Apache-2.0
 *
 * Logits of chosen tokens: the forward visits with another end. The tokens' final hidden states are
 * gathered, normed and multiplied with each slice of the head as it comes by.
 */
#include "src/infer/infer.h"

#include <string.h>

#include "src/base/err.h"

struct logits_work {
    struct tr_run *run;
    int32_t n;
    float *out; /* (n, vocab) */
};

static int gather(const struct logits_work *w)
{
    struct tr_pass_state *p = &w->run->pass;
    const struct tr_model *m = p->model;

    return pass_op(p, &(struct tr_op){.kind = TR_OP_EMBED,
                                      .embed = {.table = pass_boundary(p, m->config.layers, 0),
                                                .dtype = m->dtype,
                                                .rows = p->batch->n_tokens,
                                                .cols = m->config.hidden,
                                                .n = w->n,
                                                .ids = pass_at(p, &p->plan->targets),
                                                .out = pass_at(p, &p->plan->gathered)}});
}

static int norm(const struct logits_work *w, const void *weight)
{
    struct tr_pass_state *p = &w->run->pass;
    const struct tr_model *m = p->model;

    return pass_op(p, &(struct tr_op){.kind = TR_OP_RMSNORM,
                                      .rmsnorm = {.x = pass_at(p, &p->plan->gathered),
                                                  .x_dtype = m->dtype,
                                                  .w = weight,
                                                  .w_dtype = m->tensors[m->final_norm].dtype,
                                                  .y = pass_at(p, &p->plan->head_x),
                                                  .y_dtype = pass_compute(p),
                                                  .rstd = pass_at(p, &p->plan->head_rstd),
                                                  .rows = w->n,
                                                  .cols = m->config.hidden,
                                                  .eps = m->config.rms_eps,
                                                  .rows_per_token = 1}});
}

static int multiply(const struct logits_work *w, const struct tr_slice *s, const void *table)
{
    struct tr_pass_state *p = &w->run->pass;
    const struct tr_model *m = p->model;
    const int32_t all[2] = {0, w->n}; /* lives until the sync below */
    int r =
        pass_op(p, &(struct tr_op){.kind = TR_OP_MATMUL,
                                   .matmul = {.w = table,
                                              .w_dtype = m->tensors[tr_model_head(m)->tensor].dtype,
                                              .in_dtype = pass_compute(p),
                                              .x = pass_at(p, &p->plan->head_x),
                                              .y = pass_at(p, &p->plan->logits),
                                              .n = w->n,
                                              .m = s->rows,
                                              .k = m->config.hidden,
                                              .grains = {1, all}}});
    int e = p->device->ops->sync(p->device, TR_STREAM_COMPUTE);

    return r < 0 ? r : e;
}

/* Copies a slice's columns of all rows into the (n, vocab) table. */
static int take_slice(const struct logits_work *w, const struct tr_slice *s)
{
    struct tr_pass_state *p = &w->run->pass;
    const float *from = pass_at(p, &p->plan->logits);
    int r = 0;

    for (int32_t i = 0; i < w->n && r == 0; i++)
        r = p->device->ops->copy_out(p->device, TR_STREAM_COMPUTE,
                                     w->out + (int64_t)i * p->model->config.vocab + s->row0,
                                     from + i * s->rows, (size_t)s->rows * 4);
    return r < 0 ? r : p->device->ops->sync(p->device, TR_STREAM_COMPUTE);
}

static int head_visit(const struct logits_work *w, const struct tr_pass_visit *v)
{
    const struct tr_slice *s = &tr_model_head(w->run->model)->slices[v->unit.index];
    int r;

    w->run->pass.visit = v;
    if (v->unit.first && (r = gather(w)) < 0)
        return r;
    if ((r = norm(w, pass_span(v, w->run->model->final_norm_span))) < 0 ||
        (r = multiply(w, s, pass_span(v, s->params_span))) < 0)
        return r;
    return take_slice(w, s);
}

static int queue(void *arg, const struct tr_pass_visit *v)
{
    const struct logits_work *w = arg;

    return v->unit.work == TR_WORK_HEAD ? head_visit(w, v) : run_queue(w->run, v);
}

int infer_logits(struct tr_run *run, const struct tr_batch *batch, const int32_t *rows, int32_t n,
                 float *logits)
{
    struct logits_work w = {run, n, logits};
    int r;

    if (n > run->plan.in.logit_rows || batch->n_tokens > run->plan.in.batch_tokens)
        return tr_error(-EINVAL, "logits of %d of %d tokens: planned for %lld of %d", n,
                        batch->n_tokens, (long long)run->plan.in.logit_rows,
                        run->plan.in.batch_tokens);
    if ((r = tr_pass_batch(&run->pass, batch, 1)) < 0)
        return r;
    r = run->device->ops->copy_in(run->device, TR_STREAM_COMPUTE,
                                  pass_at(&run->pass, &run->plan.targets), rows, (size_t)n * 4);
    return r < 0 ? r : run_walk(run, RUN_FORWARD, queue, &w);
}
