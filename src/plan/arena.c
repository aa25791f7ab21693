/* SPDX-License-Identifier: Apache-2.0
 *
 * Where every buffer of a plan lies: one walk over all of them that hands out 4096-aligned offsets,
 * in the arena of the device and, where updates run on the cpu, in pinned host memory. Knows
 * nothing of why there are so many slots or tokens (plan.c).
 */
#include "src/plan/plan_parts.h"

#include "src/base/device.h"
#include "src/model/freeze.h"

/* A bump inside a frame: 64-byte aligned arrays. */
static uint64_t take(uint64_t *used, uint64_t elements, enum tr_dtype dtype)
{
    uint64_t at = *used;

    *used += tr_round_up(elements * tr_dtype_size(dtype), 64);
    return at;
}

/* How far before gate dxn begins, in bytes: of all micro-batches, from token a to before b, the
 * most that dxn's first b rows are longer than gate's first a. */
static uint64_t dxn_ahead(const struct tr_plan *p)
{
    const struct tr_model_config *c = &p->in.model->config;
    uint64_t row = (uint64_t)c->hidden * 4, gate = (uint64_t)c->ffn * tr_dtype_size(p->in.compute);
    uint64_t n = (uint64_t)p->in.batch_tokens, m = (uint64_t)p->micro_tokens;
    uint64_t last = n * row > (n - m) * gate ? n * row - (n - m) * gate : 0;

    return tr_round_up(plan_max(m * row, last), 64);
}

void plan_lay_frame(struct tr_frame *f, const struct tr_plan *p, uint64_t m, int parts)
{
    const struct tr_model_config *c = &p->in.model->config;
    uint64_t qd = (uint64_t)c->heads * c->head_dim, kd = (uint64_t)c->kv_heads * c->head_dim;
    uint64_t n = 0, grads;
    enum tr_dtype t = p->in.compute;
    int dxn = parts && p->in.train;

    f->xn1 = take(&n, m * c->hidden, t);
    f->rstd1 = take(&n, m, TR_F32);
    f->q = take(&n, m * qd, t);
    f->k = take(&n, m * kd, t);
    f->v = take(&n, m * kd, t);
    f->q_raw = take(&n, c->qk_norm ? m * qd : 0, t);
    f->k_raw = take(&n, c->qk_norm ? m * kd : 0, t);
    f->rstd_q = take(&n, c->qk_norm ? m * c->heads : 0, TR_F32);
    f->rstd_k = take(&n, c->qk_norm ? m * c->kv_heads : 0, TR_F32);
    f->o = take(&n, m * qd, t);
    f->lse = take(&n, m * c->heads, TR_F32);
    f->x_mid = take(&n, m * c->hidden, TR_F32);
    f->xn2 = take(&n, parts ? 0 : m * c->hidden, t);
    f->rstd2 = take(&n, m, TR_F32);
    f->dxn = n;
    n += dxn ? dxn_ahead(p) : 0;
    grads = dxn ? f->dxn : n;
    take(&grads, dxn ? m * c->hidden : 0, TR_F32);
    f->gate = take(&n, m * c->ffn, t);
    f->up = take(&n, m * c->ffn, t);
    f->dq = take(&grads, m * qd, t);
    f->dk = take(&grads, m * kd, t);
    f->dv = take(&grads, m * kd, t);
    f->bytes = plan_aligned(plan_max(n, grads));
}

static void lay_backward(struct tr_backward_scratch *b, const struct tr_plan *p)
{
    const struct tr_model_config *c = &p->in.model->config;
    uint64_t n = 0, m = (uint64_t)p->micro_tokens, mlp, attention;
    enum tr_dtype t = p->in.compute;

    b->dxn = take(&n, p->by_parts ? 0 : m * c->hidden, TR_F32);
    b->dy = take(&n, t == TR_F32 ? 0 : m * c->hidden, t);
    mlp = attention = n;
    b->dact = take(&mlp, m * c->ffn, t);
    b->d_o = take(&attention, m * c->heads * c->head_dim, t);
    b->delta = take(&attention, m * c->heads, TR_F32);
    b->bytes = plan_aligned(plan_max(plan_max(mlp, attention), m * c->hidden * 4)); /* or mlp_out */
}

static void place_behind(uint64_t *end, struct tr_place *at, uint64_t bytes)
{
    at->offset = *end;
    at->bytes = bytes;
    *end += plan_aligned(bytes);
}

static void place(struct tr_plan *p, struct tr_place *at, uint64_t bytes)
{
    place_behind(&p->peak, at, bytes);
}

static void place_host(struct tr_plan *p, struct tr_place *at, uint64_t bytes)
{
    place_behind(&p->host_bytes, at, bytes);
}

static uint64_t slice_rows(const struct tr_model *m)
{
    uint64_t rows = (uint64_t)tr_model_head(m)->slices[0].rows;

    return plan_max(rows, (uint64_t)m->embed.slices[0].rows);
}

/* The most columns of a tensor that AdaLomo sums over; 0: another optimizer. */
static uint64_t sum_columns(const struct tr_model *m)
{
    uint64_t most = 0;

    for (int32_t i = 0; i < m->n_tensors; i++)
        if (tr_model_state(m, &m->tensors[i]) == TR_STATE_ADALOMO)
            most = plan_max(most, (uint64_t)m->tensors[i].cols);
    return most;
}

/* AdaLomo's, of a tensor of so many columns. */
static uint64_t sums_bytes(uint64_t columns)
{
    return columns ? tr_adalomo_sums(columns) * sizeof(double) : 0;
}

static uint64_t factor_bytes(uint64_t columns)
{
    return columns ? tr_adalomo_factors(columns) * sizeof(float) : 0;
}

static void place_batch(struct tr_plan *p)
{
    uint64_t n = (uint64_t)p->in.batch_tokens * 4;
    uint64_t table = (uint64_t)p->in.positions * p->in.model->config.head_dim / 2 * 4;

    place(p, &p->ids, n);
    place(p, &p->targets, n);
    place(p, &p->position, n);
    place(p, &p->scale, n);
    place(p, &p->doc_first, n);
    place(p, &p->doc_end, n);
    place(p, &p->max, n);
    place(p, &p->sum, n);
    place(p, &p->target_logit, n);
    place(p, &p->lse, n);
    place(p, &p->nll, n);
    place(p, &p->cos, table);
    place(p, &p->sin, table);
}

static uint64_t cache_bytes(const struct tr_plan *p)
{
    const struct tr_model_config *c = &p->in.model->config;

    return (uint64_t)p->in.cache_tokens * c->kv_heads * c->head_dim * tr_dtype_size(p->in.compute);
}

static void place_cache(struct tr_plan *p)
{
    uint64_t n = p->in.cache_tokens ? (uint64_t)p->in.batch_tokens * 4 : 0;

    place(p, &p->cache_first, n);
    place(p, &p->cache_row, n);
    place(p, &p->cache, 2 * (uint64_t)p->in.model->config.layers * plan_aligned(cache_bytes(p)));
}

/* The widest input (or output) of a matrix that has an adapter. */
static uint64_t adapter_width(const struct tr_model *m, int output)
{
    uint64_t most = 0;

    for (int t = 0; t < TR_LORA_TARGETS; t++) {
        int32_t i = m->blocks[0].tensor[output ? TR_LORA_B(t) : TR_LORA_A(t)];

        if (i >= 0)
            most = plan_max(most, (uint64_t)(output ? m->tensors[i].rows : m->tensors[i].cols));
    }
    return most;
}

static void place_adapter(struct tr_plan *p)
{
    const struct tr_model *m = p->in.model;
    uint64_t row = (uint64_t)p->micro_tokens * 4, rank = (uint64_t)m->lora.rank;

    place(p, &p->lora_x, row * adapter_width(m, 0));
    place(p, &p->lora_y, row * adapter_width(m, 1));
    place(p, &p->lora_h, row * rank);
    place(p, &p->lora_dh, p->in.train ? row * rank : 0);
}

static void place_backward(struct tr_plan *p)
{
    const struct tr_model *m = p->in.model;
    const struct tr_model_config *c = &m->config;
    uint64_t slice = tr_trains_table(m) && !p->in.fused ? slice_rows(m) : 0;
    uint64_t columns = sum_columns(m);
    uint64_t entries = (uint64_t)m->n_tensors + m->embed.n_slices + m->head.n_slices;

    place(p, &p->dx, (uint64_t)p->in.batch_tokens * c->hidden * 4);
    place(p, &p->back_scratch, p->back.bytes);
    p->mlp_out = p->back_scratch; /* of the forward pass alone, which that is not */
    place(p, &p->grad, plan_grad_floats(p, slice) * 4);
    place(p, &p->norm_grad, (uint64_t)c->hidden * 4);
    place(p, &p->sumsq, entries * 8);
    place(p, &p->sums, sums_bytes(columns));
    place(p, &p->factor, factor_bytes(columns));
}

static uint64_t largest_weight(const struct tr_model *m)
{
    uint64_t most = 0;

    for (int32_t i = 0; i < m->n_tensors; i++)
        most = plan_max(most, tr_dtype_size(m->tensors[i].dtype));
    return most;
}

/* Of the tensors of one visit; those of the head's last visit are a slice and the final norm. */
static void place_apart(struct tr_plan *p)
{
    const struct tr_model *m = p->in.model;
    uint64_t hidden = (uint64_t)m->config.hidden, columns = sum_columns(m);
    uint64_t slice = tr_trains_table(m) ? tr_grad_room(slice_rows(m) * hidden) : 0;
    uint64_t floats = plan_max(plan_block_grad_floats(p), slice + tr_grad_room(hidden));

    place_host(p, &p->host_grads, 2 * floats * 4);
    place_host(p, &p->host_weights, 2 * floats * largest_weight(m));
    place_host(p, &p->host_sums, sums_bytes(columns));
    place_host(p, &p->host_factor, factor_bytes(columns));
}

static void place_pool(struct tr_plan *p, int pool)
{
    uint64_t bytes = p->slots[pool] * p->slot_bytes[pool];

    if (tr_plan_is_host_pool(p, pool))
        place_host(p, &p->pool[pool], bytes);
    else
        place(p, &p->pool[pool], bytes);
}

void plan_place(struct tr_plan *p)
{
    const struct tr_model *m = p->in.model;
    const struct tr_model_config *c = &m->config;
    uint64_t esize = tr_dtype_size(m->dtype), n = (uint64_t)p->in.batch_tokens;
    uint64_t m_tokens = (uint64_t)p->micro_tokens;
    uint64_t act = plan_max((uint64_t)c->ffn, p->by_parts ? (uint64_t)c->hidden : 0);
    uint64_t logit_rows = plan_max((uint64_t)p->in.grain_tokens, (uint64_t)p->in.logit_rows);
    enum tr_dtype t = p->in.compute;

    p->peak = p->host_bytes = 0;
    p->several = p->micro_tokens < p->in.batch_tokens;
    plan_lay_frame(&p->shared_frame, p, p->by_parts ? n : m_tokens, p->by_parts);
    lay_backward(&p->back, p);
    for (int i = 0; i < TR_SLOT_POOLS; i++)
        place_pool(p, i);
    place_batch(p);
    place(p, &p->shared, p->shared_frame.bytes);
    place(p, &p->act, m_tokens * act * tr_dtype_size(t));
    place(p, &p->norm2, p->by_parts ? (uint64_t)c->hidden * largest_weight(m) : 0);
    place(p, &p->mlp_out, p->in.train ? 0 : m_tokens * c->hidden * 4);
    place(p, &p->head_x, logit_rows * c->hidden * tr_dtype_size(t));
    place(p, &p->head_rstd, plan_max(n, logit_rows) * 4);
    place(p, &p->logits,
          plan_max(logit_rows * slice_rows(m), p->in.fused ? n * TR_FUSED_ROWS : 0) * 4);
    p->dlogits = p->logits;
    if (p->in.train && t != TR_F32)
        place(p, &p->dlogits, logit_rows * slice_rows(m) * tr_dtype_size(t));
    place(p, &p->gathered, (uint64_t)p->in.logit_rows * c->hidden * esize);
    place_cache(p);
    place_adapter(p);
    if (p->in.train)
        place_backward(p);
    if (p->in.apart)
        place_apart(p);
}

uint64_t tr_plan_cache(const struct tr_plan *plan, int layer, int values)
{
    return plan->cache.offset + (2 * (uint64_t)layer + values) * plan_aligned(cache_bytes(plan));
}
