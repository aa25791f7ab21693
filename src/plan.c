/* SPDX-License-Identifier: Apache-2.0
 *
 * Placement is one walk over all buffers (place_all) that hands out 4096-aligned offsets; trying a
 * choice means walking again and looking at the sum. The choices are made in the order in which
 * memory buys most: a second and third slot (overlap), one micro-batch (fewer passes over the
 * weights' panels), then records that stay (no reads), then all gradients until the global norm is
 * known (no second backward), then activations that stay (no recompute).
 */
#include "src/plan.h"

#include <stdio.h>
#include <string.h>

#include "src/base/err.h"
#include "src/base/mem.h"

static uint64_t max64(uint64_t a, uint64_t b)
{
    return a > b ? a : b;
}

static uint64_t aligned(uint64_t bytes)
{
    return tr_round_up(bytes, TR_STORE_ALIGN);
}

/* A bump inside a frame: 64-byte aligned arrays. */
static uint64_t take(uint64_t *used, uint64_t elements, enum tr_dtype dtype)
{
    uint64_t at = *used;

    *used += tr_round_up(elements * tr_dtype_size(dtype), 64);
    return at;
}

static void lay_frame(struct tr_frame *f, const struct tr_model_config *c, enum tr_dtype t,
                      uint64_t m)
{
    uint64_t qd = (uint64_t)c->heads * c->head_dim, kd = (uint64_t)c->kv_heads * c->head_dim, n = 0;

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
    f->xn2 = take(&n, m * c->hidden, t);
    f->rstd2 = take(&n, m, TR_F32);
    f->gate = take(&n, m * c->ffn, t);
    f->up = take(&n, m * c->ffn, t);
    f->act = take(&n, m * c->ffn, t);
    f->bytes = aligned(n);
}

static void lay_backward(struct tr_backward_scratch *b, const struct tr_model_config *c,
                         enum tr_dtype t, uint64_t m)
{
    uint64_t qd = (uint64_t)c->heads * c->head_dim, kd = (uint64_t)c->kv_heads * c->head_dim;
    uint64_t n = 0, mlp, attention;

    b->dxn = take(&n, m * c->hidden, TR_F32);
    b->dy = take(&n, t == TR_F32 ? 0 : m * c->hidden, t);
    mlp = attention = n;
    b->dact = take(&mlp, m * c->ffn, t);
    b->dup = take(&mlp, m * c->ffn, t);
    b->d_o = take(&attention, m * qd, t);
    b->dq = take(&attention, m * qd, t);
    b->dk = take(&attention, m * kd, t);
    b->dv = take(&attention, m * kd, t);
    b->delta = take(&attention, m * c->heads, TR_F32);
    b->bytes = aligned(max64(mlp, attention));
}

static void place(struct tr_plan *p, struct tr_place *at, uint64_t bytes)
{
    at->offset = p->peak;
    at->bytes = bytes;
    p->peak += aligned(bytes);
}

/* f32 elements of the gradients of all tensors of a block, or of its largest one. */
static uint64_t block_grad_floats(const struct tr_model *m, int whole_layer)
{
    uint64_t sum = 0, most = 0;

    for (int r = 0; r < TR_ROLES; r++) {
        int32_t t = m->blocks[0].tensor[r];
        uint64_t n = t < 0 ? 0 : (uint64_t)m->tensors[t].rows * m->tensors[t].cols;

        sum += tr_round_up(n, 16);
        most = max64(most, n);
    }
    return whole_layer ? sum : most;
}

static uint64_t slice_rows(const struct tr_model *m)
{
    uint64_t rows = (uint64_t)tr_model_head(m)->slices[0].rows;

    return max64(rows, (uint64_t)m->embed.slices[0].rows);
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

static void place_backward(struct tr_plan *p)
{
    const struct tr_model *m = p->in.model;
    const struct tr_model_config *c = &m->config;
    uint64_t grad = p->parked ? m->n_params
                              : max64(block_grad_floats(m, p->several), slice_rows(m) * c->hidden);
    uint64_t entries = (uint64_t)m->n_tensors + m->embed.n_slices + m->head.n_slices;

    place(p, &p->dx, (uint64_t)p->in.batch_tokens * c->hidden * 4);
    place(p, &p->back_scratch, p->back.bytes);
    place(p, &p->grad, grad * 4);
    place(p, &p->norm_grad, (uint64_t)c->hidden * 4);
    place(p, &p->sumsq, p->in.norm ? entries * 8 : 0);
}

static void place_all(struct tr_plan *p)
{
    const struct tr_model *m = p->in.model;
    const struct tr_model_config *c = &m->config;
    uint64_t esize = tr_dtype_size(m->dtype), n = (uint64_t)p->in.batch_tokens;
    uint64_t boundaries = p->in.train ? (uint64_t)c->layers + 1 : 2; /* forward only: in and out */
    uint64_t logit_rows = max64((uint64_t)p->in.grain_tokens, (uint64_t)p->in.logit_rows);
    enum tr_dtype t = p->in.compute;

    p->peak = 0;
    p->several = p->micro_tokens < p->in.batch_tokens;
    lay_frame(&p->kept_frame, c, t, n);
    lay_frame(&p->shared_frame, c, t, (uint64_t)p->micro_tokens);
    lay_backward(&p->back, c, t, (uint64_t)p->micro_tokens);
    for (int i = 0; i < TR_SLOT_POOLS; i++)
        place(p, &p->pool[i], p->slots[i] * p->slot_bytes[i]);
    place_batch(p);
    place(p, &p->boundary, boundaries * n * c->hidden * esize);
    place(p, &p->frames, (uint64_t)p->keep * p->kept_frame.bytes + p->shared_frame.bytes);
    place(p, &p->mlp_out, (uint64_t)p->micro_tokens * c->hidden * 4);
    place(p, &p->head_x, logit_rows * c->hidden * tr_dtype_size(t));
    place(p, &p->head_rstd, max64(n, logit_rows) * 4);
    place(p, &p->logits, logit_rows * slice_rows(m) * 4);
    p->dlogits = p->logits;
    if (p->in.train && t != TR_F32)
        place(p, &p->dlogits, logit_rows * slice_rows(m) * tr_dtype_size(t));
    place(p, &p->gathered, (uint64_t)p->in.logit_rows * c->hidden * esize);
    if (p->in.train)
        place_backward(p);
}

static int fits(struct tr_plan *p)
{
    place_all(p);
    return p->peak <= p->in.budget;
}

/* How many spans of each pool there are, and the largest. */
static void count_spans(struct tr_plan *p, uint32_t spans[TR_SLOT_POOLS])
{
    const struct tr_layout *l = &p->in.model->layout;

    memset(spans, 0, TR_SLOT_POOLS * sizeof(spans[0]));
    for (uint32_t i = 0; i < l->n_spans; i++) {
        uint32_t pool = l->spans[i].pool;

        if (!p->in.train && pool >= TR_SLOTS_BLOCK_STATE)
            continue;
        spans[pool]++;
        p->slot_bytes[pool] = max64(p->slot_bytes[pool], l->spans[i].bytes);
    }
}

/* Raises slots[pool] to at most `want` while all fits. */
static void grow(struct tr_plan *p, int pool, uint32_t want)
{
    uint32_t low = p->slots[pool], high = want;

    while (low < high) { /* the largest count that fits */
        uint32_t mid = low + (high - low + 1) / 2;

        p->slots[pool] = mid;
        if (fits(p))
            low = mid;
        else
            high = mid - 1;
    }
    p->slots[pool] = low;
}

static void grow_overlap(struct tr_plan *p, const uint32_t spans[TR_SLOT_POOLS])
{
    for (uint32_t depth = 2; depth <= 3; depth++)
        for (int i = 0; i < TR_SLOT_POOLS; i++)
            grow(p, i, spans[i] < depth ? spans[i] : depth);
}

static void grow_micro(struct tr_plan *p)
{
    int32_t before = p->micro_tokens, grain = p->in.grain_tokens;

    if (p->in.micro_tokens)
        return;
    p->micro_tokens = p->in.batch_tokens;
    while (p->micro_tokens > before && !fits(p))
        p->micro_tokens = p->micro_tokens > before + grain ? p->micro_tokens - grain : before;
}

static void grow_residents(struct tr_plan *p, const uint32_t spans[TR_SLOT_POOLS])
{
    static const int order[] = {TR_SLOTS_NORM,        TR_SLOTS_NORM_STATE, TR_SLOTS_BLOCK,
                                TR_SLOTS_BLOCK_STATE, TR_SLOTS_TABLE,      TR_SLOTS_TABLE_STATE};

    for (int i = 0; i < TR_SLOT_POOLS; i++)
        grow(p, order[i], spans[order[i]]);
}

/* With every gradient kept until the norm is known the backward pass runs once, not twice. */
static void grow_parked(struct tr_plan *p)
{
    if (!p->in.norm)
        return;
    p->parked = 1;
    p->parked = fits(p);
}

static void grow_kept(struct tr_plan *p)
{
    int32_t low = p->keep, high = p->in.model->config.layers;

    if (p->in.keep >= 0 || !p->in.train)
        return;
    while (low < high) {
        int32_t mid = low + (high - low + 1) / 2;

        p->keep = mid;
        if (fits(p))
            low = mid;
        else
            high = mid - 1;
    }
    p->keep = low;
}

static int32_t clamp_micro(const struct tr_plan_params *in)
{
    int32_t m = in->micro_tokens > in->grain_tokens ? in->micro_tokens : in->grain_tokens;

    return m < in->batch_tokens ? m : in->batch_tokens;
}

int tr_plan_make(struct tr_plan *plan, const struct tr_plan_params *p)
{
    uint32_t spans[TR_SLOT_POOLS];

    memset(plan, 0, sizeof(*plan));
    plan->in = *p;
    plan->micro_tokens = clamp_micro(p);
    plan->keep = p->keep > 0 ? p->keep : 0;
    count_spans(plan, spans);
    for (int i = 0; i < TR_SLOT_POOLS; i++)
        plan->slots[i] = spans[i] > 0;
    if (!fits(plan))
        return tr_error(
            -ENOMEM,
            "the device budget is too small: %llu bytes (%.1f MiB) are given, the smallest "
            "that would do is %llu (%.1f MiB); raise --device-memory or lower --batch-size "
            "or --seq-len",
            (unsigned long long)(p->budget + p->workspace),
            (double)(p->budget + p->workspace) / 1048576,
            (unsigned long long)(plan->peak + p->workspace),
            (double)(plan->peak + p->workspace) / 1048576);
    grow_overlap(plan, spans);
    grow_micro(plan);
    grow_residents(plan, spans);
    grow_parked(plan);
    grow_kept(plan);
    place_all(plan);
    return 0;
}

int tr_plan_keeps(const struct tr_plan *plan, int layer)
{
    return layer >= plan->in.model->config.layers - plan->keep;
}

uint64_t tr_plan_frame(const struct tr_plan *plan, int layer)
{
    int first = plan->in.model->config.layers - plan->keep;

    if (layer < first)
        return plan->frames.offset + (uint64_t)plan->keep * plan->kept_frame.bytes;
    return plan->frames.offset + (uint64_t)(layer - first) * plan->kept_frame.bytes;
}

uint64_t tr_plan_grad(const struct tr_plan *plan, const struct tr_block *block, enum tr_role role)
{
    uint64_t at = 0;

    if (plan->parked)
        return plan->in.model->tensors[block->tensor[role]].first_param * 4;
    if (!plan->several) /* one tensor at a time, all at the start */
        return 0;
    for (int r = 0; r < (int)role; r++) {
        int32_t t = block->tensor[r];

        if (t >= 0)
            at += tr_round_up(
                (uint64_t)plan->in.model->tensors[t].rows * plan->in.model->tensors[t].cols, 16);
    }
    return at * 4;
}

uint64_t tr_plan_table_grad(const struct tr_plan *plan, const struct tr_tensor *table, int64_t row0)
{
    return plan->parked ? (table->first_param + (uint64_t)(row0 * table->cols)) * 4 : 0;
}

static void row(struct tr_plan_row *r, uint64_t bytes, const char *kind)
{
    snprintf(r->kind, sizeof(r->kind), "%s", kind);
    r->bytes = bytes;
}

static void row_slots(struct tr_plan_row *r, const struct tr_plan *p, const char *kind, int pool)
{
    snprintf(r->kind, sizeof(r->kind), "%s (%u x %.1f MiB)", kind, p->slots[pool],
             (double)p->slot_bytes[pool] / 1048576);
    r->bytes = p->pool[pool].bytes;
}

int tr_plan_table(const struct tr_plan *p, struct tr_plan_row rows[TR_PLAN_ROWS])
{
    uint64_t shared = p->shared_frame.bytes, known = 0;
    int n = 0;

    row_slots(&rows[n++], p, "block slots", TR_SLOTS_BLOCK);
    row_slots(&rows[n++], p, "table slots", TR_SLOTS_TABLE);
    if (p->slots[TR_SLOTS_BLOCK_STATE]) {
        row_slots(&rows[n++], p, "block state slots", TR_SLOTS_BLOCK_STATE);
        row_slots(&rows[n++], p, "table state slots", TR_SLOTS_TABLE_STATE);
    }
    row(&rows[n++], p->boundary.bytes, "block inputs");
    row(&rows[n++], shared + p->mlp_out.bytes, "activations of one block");
    row(&rows[n++], p->frames.bytes - shared, "activations kept");
    row(&rows[n++], p->dx.bytes + p->back_scratch.bytes, "activation gradients");
    row(&rows[n++], p->grad.bytes + p->norm_grad.bytes,
        p->parked    ? "weight gradients (all, until the norm is known)"
        : p->several ? "weight gradients (one layer)"
                     : "weight gradient (one tensor)");
    row(&rows[n++],
        p->logits.bytes + p->head_x.bytes +
            (p->dlogits.offset == p->logits.offset ? 0 : p->dlogits.bytes),
        "logits of one slice");
    for (int i = 0; i < n; i++)
        known += rows[i].bytes;
    row(&rows[n++], p->peak - known, "tokens, tables, norms");
    return n;
}
