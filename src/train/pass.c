/* SPDX-License-Identifier: Apache-2.0 */
#include "src/train/pass.h"

#include <assert.h>
#include <string.h>

#include "src/base/err.h"
#include "src/base/mem.h"
#include "src/train/apart.h"

char *pass_find(const struct tr_pass_visit *v, uint32_t span)
{
    for (uint32_t k = 0; k < v->spans->n_spans; k++)
        if (v->spans->span[k] == span)
            return v->at[k];
    return NULL;
}

char *pass_span(const struct tr_pass_visit *v, uint32_t span)
{
    char *at = pass_find(v, span);

    assert(at);
    return at;
}

void *pass_boundary(const struct tr_pass_state *p, int layer, int64_t token)
{
    const struct tr_model_config *c = &p->model->config;
    uint64_t row = (uint64_t)c->hidden * tr_dtype_size(p->model->dtype);

    return pass_span(p->visit, p->model->layout.n_spans + (uint32_t)layer) + (uint64_t)token * row;
}

struct pass_frame pass_frame(const struct tr_pass_state *p, int layer, const struct tr_micro *u)
{
    const struct tr_model_config *c = &p->model->config;
    const struct tr_plan *plan = p->plan;
    int kept = tr_plan_keeps(plan, layer);
    const struct tr_frame *f = kept ? &plan->kept_frame : &plan->shared_frame;
    const struct tr_frame *g = &plan->shared_frame;
    char *grads = pass_at(p, &plan->shared);
    char *base = kept ? pass_span(p->visit, tr_frame_span(p->model, plan->keep, layer)) : grads;
    int64_t s = plan->by_parts ? u->first_token : 0, t = kept ? u->first_token : s;
    int64_t qd = (int64_t)c->heads * c->head_dim, kd = (int64_t)c->kv_heads * c->head_dim;
    int64_t raw = c->qk_norm ? t : 0, size = (int64_t)tr_dtype_size(pass_compute(p));

#define AT(field, elements)   (base + f->field + (elements)*size)
#define F32(field, elements)  ((float *)(base + f->field) + (elements))
#define GRAD(field, elements) (grads + g->field + (elements)*size)
    return (struct pass_frame){
        .xn1 = AT(xn1, t * c->hidden),
        .rstd1 = F32(rstd1, t),
        .q = AT(q, t * qd),
        .k = AT(k, t * kd),
        .v = AT(v, t * kd),
        .q_raw = AT(q_raw, raw * qd),
        .k_raw = AT(k_raw, raw * kd),
        .rstd_q = F32(rstd_q, raw * c->heads),
        .rstd_k = F32(rstd_k, raw * c->kv_heads),
        .o = AT(o, t * qd),
        .lse = F32(lse, t * c->heads),
        .x_mid = F32(x_mid, t * c->hidden),
        .xn2 = tr_plan_remakes(plan, layer) ? pass_at(p, &plan->act) : AT(xn2, t * c->hidden),
        .rstd2 = F32(rstd2, t),
        .gate = AT(gate, t * c->ffn),
        .up = AT(up, t * c->ffn),
        .dgate = GRAD(gate, s * c->ffn),
        .dup = GRAD(up, s * c->ffn),
        .dq = GRAD(dq, s * qd),
        .dk = GRAD(dk, s * kd),
        .dv = GRAD(dv, s * kd),
        .dxn = (float *)(grads + g->dxn) + s * c->hidden,
    };
#undef GRAD
#undef F32
#undef AT
}

void *pass_weight(const struct tr_pass_state *p, const struct tr_pass_visit *v, enum tr_role r)
{
    const struct tr_block *block = &p->model->blocks[v->unit.index];
    const uint32_t *span = r >= TR_ROLE_LORA ? block->adapter_span : block->params_span;
    int32_t t = block->tensor[r];

    return t < 0 ? NULL : pass_span(v, span[tr_model_part(r)]) + p->model->tensors[t].offset;
}

char *pass_block_state(const struct tr_pass_state *p, const struct tr_pass_visit *v, enum tr_role r)
{
    const struct tr_block *block = &p->model->blocks[v->unit.index];
    const uint32_t *span = r >= TR_ROLE_LORA ? block->adapter_span : block->state_span;

    return pass_span(v, span[tr_model_part(r)]);
}

char *pass_block_parked(const struct tr_pass_visit *v, const struct tr_model *m, enum tr_role r)
{
    const struct tr_block *block = &m->blocks[v->unit.index];
    const uint32_t *span = r >= TR_ROLE_LORA ? block->adapter_span : block->parked_span;

    return pass_span(v, span[tr_model_part(r)]);
}

/* Ranges of `start` that lie in tokens [t0, t1), counted from t0. Returns how many. */
static int32_t cut_ranges(const int32_t *start, int32_t n, int32_t t0, int32_t t1, int32_t *out)
{
    int32_t count = 0;

    for (int32_t i = 0; i < n; i++)
        if (start[i] >= t0 && start[i] < t1)
            out[count++] = start[i] - t0;
    out[count] = t1 - t0;
    return count;
}

/* The next micro-batch from grain `g` on: whole grains while they fit. Returns the grain after. */
static int32_t cut_micro(const struct tr_pass_state *p, const struct tr_batch *b, int32_t g,
                         struct tr_micro *u)
{
    int32_t end = g + 1;

    while (end < b->n_grains &&
           b->grain_start[end + 1] - b->grain_start[g] <= p->plan->micro_tokens)
        end++;
    u->first_token = b->grain_start[g];
    u->n_tokens = b->grain_start[end] - u->first_token;
    return end;
}

static int cut_batch(struct tr_pass_state *p, const struct tr_batch *b)
{
    size_t room = 5 * (size_t)b->n_grains + (size_t)b->n_docs;
    int32_t *at;

    tr_pass_free(p);
    if (p->apart)
        tr_apart_restart(p->apart);
    p->grain = tr_alloc_array(TR_MEM_BATCH, (size_t)b->n_grains, sizeof(*p->grain));
    p->micro = tr_alloc_array(TR_MEM_BATCH, (size_t)b->n_grains, sizeof(*p->micro));
    p->ranges = at = tr_alloc_array(TR_MEM_BATCH, room, sizeof(*p->ranges));
    if (!p->micro || !p->ranges || !p->grain)
        return -ENOMEM;
    for (int32_t g = 0; g < b->n_grains; g++, at += 2) {
        at[1] = b->grain_start[g + 1] - b->grain_start[g];
        p->grain[g] = (struct tr_ranges){1, at};
    }
    for (int32_t g = 0; g < b->n_grains;) {
        struct tr_micro *u = &p->micro[p->n_micro++];
        int32_t end;

        g = cut_micro(p, b, g, u);
        end = u->first_token + u->n_tokens;
        u->grains.start = at;
        u->grains.n = cut_ranges(b->grain_start, b->n_grains, u->first_token, end, at);
        at += u->grains.n + 1;
        u->docs.start = at;
        u->docs.n = cut_ranges(b->doc_start, b->n_docs, u->first_token, end, at);
        at += u->docs.n + 1;
    }
    return 0;
}

static int copy(const struct tr_pass_state *p, const struct tr_place *to, const void *from)
{
    return p->device->ops->copy_in(p->device, TR_STREAM_COMPUTE, pass_at(p, to), from,
                                   (size_t)p->batch->n_tokens * 4);
}

static int copy_cache(const struct tr_pass_state *p)
{
    int r = p->cache.use ? copy(p, &p->plan->cache_first, p->cache.first) : 0;

    return r < 0 || !p->cache.use ? r : copy(p, &p->plan->cache_row, p->cache.row);
}

/* What is made of the batch for the device: (n_tokens) each. */
struct made {
    float *scale;                 /* d loss / d nll, loss = sum(w nll) / sum(w) */
    int32_t *doc_first, *doc_end; /* counted from the token's micro-batch */
};

static void fill_scale(const struct tr_batch *b, float loss_scale, float *scale)
{
    for (int32_t t = 0; t < b->n_tokens; t++)
        scale[t] = b->weight[t] > 0 ? (float)(b->weight[t] / b->weight_sum * loss_scale) : 0;
}

static void fill_docs(const struct tr_pass_state *p, const struct made *made)
{
    for (int i = 0; i < p->n_micro; i++) {
        const struct tr_micro *u = &p->micro[i];
        const int32_t *start = u->docs.start;

        for (int32_t d = 0; d < u->docs.n; d++)
            for (int32_t t = start[d]; t < start[d + 1]; t++) {
                made->doc_first[u->first_token + t] = start[d];
                made->doc_end[u->first_token + t] = start[d + 1];
            }
    }
}

int tr_pass_batch(struct tr_pass_state *p, const struct tr_batch *batch, float loss_scale)
{
    size_t n = (size_t)batch->n_tokens;
    struct made made;
    int r = cut_batch(p, batch);

    if (r < 0)
        return r;
    p->batch = batch;
    made.scale = tr_alloc_array(TR_MEM_BATCH, 3 * n, sizeof(float));
    if (!made.scale)
        return -ENOMEM;
    made.doc_first = (int32_t *)(made.scale + n);
    made.doc_end = made.doc_first + n;
    fill_scale(batch, loss_scale, made.scale);
    fill_docs(p, &made);
    if ((r = copy(p, &p->plan->ids, batch->ids)) == 0 &&
        (r = copy(p, &p->plan->targets, batch->targets)) == 0 &&
        (r = copy(p, &p->plan->position, batch->position)) == 0 &&
        (r = copy(p, &p->plan->doc_first, made.doc_first)) == 0 &&
        (r = copy(p, &p->plan->doc_end, made.doc_end)) == 0 &&
        (r = copy(p, &p->plan->scale, made.scale)) == 0 && (r = copy_cache(p)) == 0)
        r = p->device->ops->sync(p->device, TR_STREAM_COMPUTE);
    tr_free(TR_MEM_BATCH, made.scale);
    return r;
}

void tr_pass_free(struct tr_pass_state *p)
{
    tr_free(TR_MEM_BATCH, p->micro);
    tr_free(TR_MEM_BATCH, p->ranges);
    tr_free(TR_MEM_BATCH, p->grain);
    p->micro = NULL;
    p->ranges = NULL;
    p->grain = NULL;
    p->n_micro = 0;
}

static int pass_update(struct tr_pass_state *p, const struct tr_pass_visit *v)
{
    if (v->unit.place == TR_WORK_NORM)
        return pass_norm_update(p, v);
    return v->unit.place == TR_WORK_BLOCK_GRAD ? pass_block_update(p, v) : pass_table_update(p, v);
}

int tr_pass_run(struct tr_pass_state *p, const struct tr_pass_visit *v)
{
    static int (*const work[])(struct tr_pass_state *, const struct tr_pass_visit *) = {
        [TR_WORK_EMBED] = pass_embed,
        [TR_WORK_BLOCK] = pass_block,
        [TR_WORK_HEAD] = pass_head,
        [TR_WORK_HEAD_GRAD] = pass_head_grad,
        [TR_WORK_BLOCK_GRAD] = pass_block_grad,
        [TR_WORK_EMBED_GRAD] = pass_embed_grad,
        [TR_WORK_UPDATE] = pass_update,
    };
    int makes = v->unit.work >= TR_WORK_HEAD_GRAD, r = 0;

    p->visit = v;
    if (p->apart && makes)
        r = tr_apart_begin(p->apart, &v->unit);
    if (r == 0)
        r = work[v->unit.work](p, v);
    return r == 0 && p->apart && makes ? tr_apart_end(p->apart, &v->unit) : r;
}
