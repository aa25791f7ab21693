/* SPDX-License-Identifier: Apache-2.0
 *
 * Placement is one walk over all buffers (place_all) that hands out 4096-aligned offsets; trying a
 * choice means walking again and looking at the sum. First comes what streams: whole blocks where
 * two of them fit, so that one is on its way while the other computes, else their parts one by one,
 * all through slots of the largest part's size. The other choices are made in the order in which
 * memory buys most: a second and third slot (overlap), block inputs that stay (of all that can stay
 * they alone save writes too, and drives wear), one micro-batch (fewer passes over the weights'
 * panels), then records that stay (no reads), then all gradients until the global norm is known (no
 * second backward), then activations that stay (no recompute). Whether some of these had better
 * come before the records, or pass the time in host memory, hangs on the machine: keep_first and
 * keep_spills say it (src/run/choose.c).
 */
#include "src/plan/plan.h"

#include <string.h>

#include "src/base/err.h"
#include "src/base/mem.h"
#include "src/model/freeze.h"

static uint64_t max64(uint64_t a, uint64_t b)
{
    return a > b ? a : b;
}

static int32_t min32(int32_t a, int32_t b)
{
    return a < b ? a : b;
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

/* How far before gate dxn begins, in bytes: of all micro-batches, from token a to before b, the
 * most that dxn's first b rows are longer than gate's first a. */
static uint64_t dxn_ahead(const struct tr_plan *p)
{
    const struct tr_model_config *c = &p->in.model->config;
    uint64_t row = (uint64_t)c->hidden * 4, gate = (uint64_t)c->ffn * tr_dtype_size(p->in.compute);
    uint64_t n = (uint64_t)p->in.batch_tokens, m = (uint64_t)p->micro_tokens;
    uint64_t last = n * row > (n - m) * gate ? n * row - (n - m) * gate : 0;

    return tr_round_up(max64(m * row, last), 64);
}

/* m: tokens of the frame; parts: of the shared one where blocks stream part by part. */
static void lay_frame(struct tr_frame *f, const struct tr_plan *p, uint64_t m, int parts)
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
    f->bytes = aligned(max64(n, grads));
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
    b->bytes = aligned(max64(max64(mlp, attention), m * c->hidden * 4)); /* or mlp_out */
}

static void place(struct tr_plan *p, struct tr_place *at, uint64_t bytes)
{
    at->offset = p->peak;
    at->bytes = bytes;
    p->peak += aligned(bytes);
}

static void place_host(struct tr_plan *p, struct tr_place *at, uint64_t bytes)
{
    at->offset = p->host_bytes;
    at->bytes = bytes;
    p->host_bytes += aligned(bytes);
}

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
            sum += tr_round_up(grad_floats(p, r), 16);
    return sum;
}

/* Floats of the block gradients that are there at once, at most. */
static uint64_t block_grad_floats(const struct tr_plan *p)
{
    uint64_t most = 0;

    for (int r = 0; r < TR_ROLES; r++)
        if (grad_floats(p, r))
            most = max64(most, grads_before(p, TR_ROLES, r));
    return most;
}

/* The first block that the backward pass goes through. */
static int32_t backward_from(const struct tr_plan *p)
{
    int32_t layer = tr_lowest(p->in.model).layer;

    return layer > 0 ? layer : 0;
}

static uint64_t slice_rows(const struct tr_model *m)
{
    uint64_t rows = (uint64_t)tr_model_head(m)->slices[0].rows;

    return max64(rows, (uint64_t)m->embed.slices[0].rows);
}

/* The most columns of a tensor that AdaLomo sums over; 0: another optimizer. */
static uint64_t sum_columns(const struct tr_model *m)
{
    uint64_t most = 0;

    for (int32_t i = 0; i < m->n_tensors; i++)
        if (tr_model_state(m, &m->tensors[i]) == TR_STATE_ADALOMO)
            most = max64(most, (uint64_t)m->tensors[i].cols);
    return most;
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
        most = max64(most, group_before(p, g, p->in.model->n_tensors));
    return most;
}

/* The place of a tensor's gradient among those of its group. */
static uint64_t in_group(const struct tr_plan *p, const struct tr_tensor *t)
{
    const struct tr_model *m = p->in.model;

    return group_before(p, unit_of(m, t) / p->in.group, (int32_t)(t - m->tensors));
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
    place(p, &p->cache, 2 * (uint64_t)p->in.model->config.layers * aligned(cache_bytes(p)));
}

/* The widest input (or output) of a matrix that has an adapter. */
static uint64_t adapter_width(const struct tr_model *m, int output)
{
    uint64_t most = 0;

    for (int t = 0; t < TR_LORA_TARGETS; t++) {
        int32_t i = m->blocks[0].tensor[output ? TR_LORA_B(t) : TR_LORA_A(t)];

        if (i >= 0)
            most = max64(most, (uint64_t)(output ? m->tensors[i].rows : m->tensors[i].cols));
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
    uint64_t rows = p->held ? (uint64_t)c->vocab : slice;
    uint64_t grad = p->parked                    ? m->n_trained
                    : p->in.group                ? group_floats(p)
                    : m->parked == TR_PARKED_F32 ? 0 /* made in the slots where they are kept */
                                                 : max64(block_grad_floats(p), rows * c->hidden);
    uint64_t entries = (uint64_t)m->n_tensors + m->embed.n_slices + m->head.n_slices;

    place(p, &p->dx, (uint64_t)p->in.batch_tokens * c->hidden * 4);
    place(p, &p->back_scratch, p->back.bytes);
    p->mlp_out = p->back_scratch; /* of the forward pass alone, which that is not */
    place(p, &p->grad, grad * 4);
    place(p, &p->norm_grad, (uint64_t)c->hidden * 4);
    place(p, &p->sumsq, entries * 8);
    if (columns) {
        place(p, &p->sums, (32 + 32 * columns) * 8);
        place(p, &p->factor, (columns + 3) * 4);
    }
}

static uint64_t largest_weight(const struct tr_model *m)
{
    uint64_t most = 0;

    for (int32_t i = 0; i < m->n_tensors; i++)
        most = max64(most, tr_dtype_size(m->tensors[i].dtype));
    return most;
}

/* Of the tensors of one visit; those of the head's last visit are a slice and the final norm. */
static void place_apart(struct tr_plan *p)
{
    const struct tr_model *m = p->in.model;
    uint64_t hidden = (uint64_t)m->config.hidden, columns = sum_columns(m);
    uint64_t slice = tr_trains_table(m) ? tr_round_up(slice_rows(m) * hidden, 16) : 0;
    uint64_t floats = max64(block_grad_floats(p), slice + tr_round_up(hidden, 16));

    place_host(p, &p->host_grads, 2 * floats * 4);
    place_host(p, &p->host_weights, 2 * floats * largest_weight(m));
    place_host(p, &p->host_sums, columns ? (32 + 32 * columns) * 8 : 0);
    place_host(p, &p->host_factor, columns ? (columns + 3) * 4 : 0);
}

static void place_pool(struct tr_plan *p, int pool)
{
    uint64_t bytes = p->slots[pool] * p->slot_bytes[pool];

    if (tr_plan_is_host_pool(p, pool))
        place_host(p, &p->pool[pool], bytes);
    else
        place(p, &p->pool[pool], bytes);
}

static void place_all(struct tr_plan *p)
{
    const struct tr_model *m = p->in.model;
    const struct tr_model_config *c = &m->config;
    uint64_t esize = tr_dtype_size(m->dtype), n = (uint64_t)p->in.batch_tokens;
    uint64_t m_tokens = (uint64_t)p->micro_tokens;
    uint64_t act = max64((uint64_t)c->ffn, p->by_parts ? (uint64_t)c->hidden : 0);
    uint64_t logit_rows = max64((uint64_t)p->in.grain_tokens, (uint64_t)p->in.logit_rows);
    enum tr_dtype t = p->in.compute;

    p->peak = p->host_bytes = 0;
    p->several = p->micro_tokens < p->in.batch_tokens;
    lay_frame(&p->shared_frame, p, p->by_parts ? n : m_tokens, p->by_parts);
    lay_backward(&p->back, p);
    for (int i = 0; i < TR_SLOT_POOLS; i++)
        place_pool(p, i);
    place_batch(p);
    place(p, &p->shared, p->shared_frame.bytes);
    place(p, &p->act, m_tokens * act * tr_dtype_size(t));
    place(p, &p->norm2, p->by_parts ? (uint64_t)c->hidden * largest_weight(m) : 0);
    place(p, &p->mlp_out, p->in.train ? 0 : m_tokens * c->hidden * 4);
    place(p, &p->head_x, logit_rows * c->hidden * tr_dtype_size(t));
    place(p, &p->head_rstd, max64(n, logit_rows) * 4);
    place(p, &p->logits,
          max64(logit_rows * slice_rows(m), p->in.fused ? n * TR_FUSED_ROWS : 0) * 4);
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

static int has_room(const struct tr_plan *p)
{
    return p->peak <= p->in.budget && (!p->in.apart || p->host_bytes <= p->in.host_budget);
}

static int fits(struct tr_plan *p)
{
    place_all(p);
    return has_room(p);
}

/* The first pool of those of a block's parts that this one is among; -1: it is of no part. */
static int first_of_parts(int pool)
{
    static const int first[] = {TR_SLOTS_BLOCK, TR_SLOTS_BLOCK_STATE, TR_SLOTS_BLOCK_PARKED};

    for (size_t i = 0; i < sizeof(first) / sizeof(first[0]); i++)
        if (pool >= first[i] && pool < first[i] + TR_PARTS)
            return first[i];
    return -1;
}

int tr_plan_pools_with(int pool)
{
    return first_of_parts(pool) == pool ? TR_PARTS : 1;
}

/* Block inputs that are there at once, at most: from that of the lowest block that is gone through
 * backwards on. */
static uint32_t live_boundaries(const struct tr_plan *p)
{
    int32_t n = (int32_t)tr_plan_boundaries(p) - backward_from(p);

    return n > 2 ? (uint32_t)n : 2;
}

/* How many spans of each pool there are, and the largest. */
static void count_spans(struct tr_plan *p)
{
    const struct tr_layout *l = &p->in.model->layout;

    memset(p->spans, 0, sizeof(p->spans));
    memset(p->slot_bytes, 0, sizeof(p->slot_bytes));
    for (uint32_t i = 0; i < l->n_spans; i++) {
        int pool = (int)l->spans[i].pool;

        int used = p->in.train || pool < TR_SLOTS_BLOCK_STATE || pool == TR_SLOTS_ADAPTER;

        pool = tr_plan_pool(p, pool);
        p->spans[pool] += (uint32_t)used; /* forward passes leave a run's state where it is */
        p->slot_bytes[pool] = max64(p->slot_bytes[pool], l->spans[i].bytes);
    }
    lay_frame(&p->kept_frame, p, (uint64_t)p->in.batch_tokens, 0);
    p->spans[TR_SLOTS_FRAME] = (uint32_t)p->keep;
    p->slot_bytes[TR_SLOTS_FRAME] = aligned(p->kept_frame.bytes);
    p->spans[TR_SLOTS_BOUNDARY] = p->in.train ? live_boundaries(p) : 2; /* forward: in and out */
    p->slot_bytes[TR_SLOTS_BOUNDARY] =
        aligned((uint64_t)p->in.batch_tokens * (uint64_t)p->in.model->config.hidden *
                tr_dtype_size(p->in.model->dtype));
}

static void set_slots(struct tr_plan *p, int pool, int n_pools, uint32_t slots)
{
    for (int i = pool; i < pool + n_pools; i++)
        p->slots[i] = slots < p->spans[i] ? slots : p->spans[i];
}

/* Of pools whose slots come and go together: the most of any. They have equally many, but where
 * some have no state at all. */
static uint32_t most(const uint32_t count[TR_SLOT_POOLS], int pool, int n_pools)
{
    uint32_t n = 0;

    for (int i = pool; i < pool + n_pools; i++)
        n = count[i] > n ? count[i] : n;
    return n;
}

/* Raises the slots of n_pools pools to at most `want` while all fits. */
static void grow(struct tr_plan *p, int pool, int n_pools, uint32_t want)
{
    uint32_t low = most(p->slots, pool, n_pools), high = want;

    while (low < high) { /* the largest count that fits */
        uint32_t mid = low + (high - low + 1) / 2;

        set_slots(p, pool, n_pools, mid);
        if (fits(p))
            low = mid;
        else
            high = mid - 1;
    }
    set_slots(p, pool, n_pools, low);
}

static void grow_overlap(struct tr_plan *p)
{
    for (uint32_t depth = 2; depth <= 3; depth++)
        for (int i = 0; i < TR_SLOT_POOLS; i += tr_plan_pools_with(i)) {
            uint32_t spans = most(p->spans, i, tr_plan_pools_with(i));

            grow(p, i, tr_plan_pools_with(i), spans < depth ? spans : depth);
        }
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

static void grow_residents(struct tr_plan *p)
{
    static const int order[] = {TR_SLOTS_NORM,        TR_SLOTS_NORM_STATE,   TR_SLOTS_BLOCK,
                                TR_SLOTS_BLOCK_STATE, TR_SLOTS_TABLE,        TR_SLOTS_TABLE_STATE,
                                TR_SLOTS_NORM_PARKED, TR_SLOTS_BLOCK_PARKED, TR_SLOTS_TABLE_PARKED};

    for (size_t i = 0; i < sizeof(order) / sizeof(order[0]); i++)
        if (!tr_plan_is_host_pool(p, order[i]))
            grow(p, order[i], tr_plan_pools_with(order[i]),
                 most(p->spans, order[i], tr_plan_pools_with(order[i])));
}

/* What is left is too small for a block more, but perhaps not for a part of one. */
static void grow_rest(struct tr_plan *p)
{
    for (int i = 0; i < TR_SLOT_POOLS; i++)
        if (!tr_plan_is_host_pool(p, i))
            grow(p, i, 1, p->spans[i]);
}

void tr_plan_grow_host(struct tr_plan *p, uint64_t bytes)
{
    p->in.host_budget = p->host_bytes + bytes;
    for (int i = TR_SLOTS_BLOCK_STATE; i <= TR_SLOTS_NORM_STATE; i += tr_plan_pools_with(i))
        grow(p, i, tr_plan_pools_with(i), most(p->spans, i, tr_plan_pools_with(i)));
    place_all(p);
}

/* A table that is swept twice needs its gradients made but once where all of them have room. */
static void grow_held(struct tr_plan *p)
{
    if (!p->in.train || p->in.model->parked || p->in.group ||
        p->in.model->state != TR_STATE_ADALOMO || !tr_trains_table(p->in.model))
        return;
    p->held = 1;
    p->held = fits(p);
}

/* With every gradient kept until the norm is known the backward pass runs once, not twice. */
static void grow_parked(struct tr_plan *p)
{
    if (!p->in.norm || p->in.model->parked || p->in.group)
        return;
    p->parked = 1;
    p->parked = fits(p);
}

static void keep_on_device(struct tr_plan *p, int32_t keep)
{
    p->keep = keep;
    p->spans[TR_SLOTS_FRAME] = p->slots[TR_SLOTS_FRAME] = (uint32_t)keep;
}

/* To at most `most` blocks, none of which spills. */
static void grow_kept(struct tr_plan *p, int32_t most)
{
    int32_t low = p->keep, high = min32(most, p->in.model->config.layers - backward_from(p));

    if (p->in.keep >= 0 || !p->in.train)
        return;
    while (low < high) {
        int32_t mid = low + (high - low + 1) / 2;

        keep_on_device(p, mid);
        if (fits(p))
            low = mid;
        else
            high = mid - 1;
    }
    keep_on_device(p, low);
}

/* So many by name: none spills, if there is room. */
static void grow_frames(struct tr_plan *p)
{
    uint32_t before = p->slots[TR_SLOTS_FRAME];

    if (p->in.keep_spills)
        return;
    p->slots[TR_SLOTS_FRAME] = p->spans[TR_SLOTS_FRAME];
    if (!fits(p))
        p->slots[TR_SLOTS_FRAME] = before;
}

static int32_t clamp_micro(const struct tr_plan_params *in)
{
    int32_t m = in->micro_tokens > in->grain_tokens ? in->micro_tokens : in->grain_tokens;

    return m < in->batch_tokens ? m : in->batch_tokens;
}

/* The smallest micro-batches have the smallest activations, but where there is only one the weight
 * gradients are smaller: whichever takes less. */
static int fits_in_micro(struct tr_plan *p)
{
    uint64_t small;

    p->micro_tokens = clamp_micro(&p->in);
    place_all(p);
    if (p->in.micro_tokens)
        return has_room(p);
    small = p->peak;
    p->micro_tokens = p->in.batch_tokens;
    place_all(p);
    if (small < p->peak)
        p->micro_tokens = clamp_micro(&p->in);
    return fits(p);
}

/* The least that works: `slots` slots of each kind of span, or what there is of the kind. */
static int fits_with(struct tr_plan *p, int by_parts, uint32_t slots)
{
    p->by_parts = by_parts;
    count_spans(p);
    for (int i = 0; i < TR_SLOT_POOLS; i++) {
        set_slots(p, i, 1, first_of_parts(i) >= 0 ? slots : 1);
    }
    p->slots[TR_SLOTS_ADAPTER] = p->spans[TR_SLOTS_ADAPTER];
    /* What a block reads and what it makes; no part of it does both. */
    p->slots[TR_SLOTS_BOUNDARY] = by_parts && p->in.train ? 1 : 2;
    return fits_in_micro(p);
}

/* Whole blocks need the fewest loads, but one that has to go before the next can come leaves the
 * device waiting: then parts. Their stages go through all tokens of the step, so with many small
 * micro-batches a single block may be the smaller of the two. */
static int choose_streams(struct tr_plan *p, uint64_t *smallest)
{
    int blocks = p->in.streams != TR_STREAMS_PARTS, parts = p->in.streams != TR_STREAMS_BLOCKS;

    *smallest = UINT64_MAX;
    if (blocks && parts && fits_with(p, 0, 2))
        return 1;
    if (parts) {
        if (fits_with(p, 1, 1))
            return 1;
        *smallest = p->peak;
    }
    if (blocks) {
        if (fits_with(p, 0, 1))
            return 1;
        *smallest = p->peak < *smallest ? p->peak : *smallest;
    }
    return 0;
}

/* Slots of state are the smallest where they hold a matrix's. */
static void take_least_host(struct tr_plan *p)
{
    fits_with(p, p->in.streams != TR_STREAMS_BLOCKS, 1);
    if (p->peak > p->in.budget)
        fits_with(p, 0, 1);
}

static int refuse_device(const struct tr_plan_params *p, uint64_t smallest)
{
    return tr_error(-ENOMEM,
                    "the device budget is too small: %llu bytes (%.1f MiB) are given, the smallest "
                    "that would do is %llu (%.1f MiB); raise --device-memory or lower --batch-size "
                    "or --seq-len",
                    (unsigned long long)(p->budget + p->workspace),
                    (double)(p->budget + p->workspace) / 1048576,
                    (unsigned long long)(smallest + p->workspace),
                    (double)(smallest + p->workspace) / 1048576);
}

int tr_plan_make(struct tr_plan *plan, const struct tr_plan_params *p)
{
    uint64_t smallest;
    int found;

    memset(plan, 0, sizeof(*plan));
    plan->in = *p;
    plan->keep = p->keep > 0 ? min32(p->keep, p->model->config.layers - backward_from(plan)) : 0;
    if (p->group >= p->model->config.layers + 2) { /* all in one: exact */
        plan->in.group = 0;
        plan->parked = 1;
    }
    found = choose_streams(plan, &smallest);
    plan->least = smallest;
    if (!found && smallest > p->budget)
        return refuse_device(p, smallest);
    if (!found) /* and nothing grows */
        take_least_host(plan);
    if (tr_lora_freezes(&p->model->lora)) /* adapters' gradients are small, a second pass is not */
        grow_parked(plan);
    grow_frames(plan);
    grow(plan, TR_SLOTS_BOUNDARY, 1, 2); /* before all else: one is saved, the other is made */
    grow_overlap(plan);
    grow(plan, TR_SLOTS_BOUNDARY, 1, plan->spans[TR_SLOTS_BOUNDARY]);
    grow_micro(plan);
    grow_kept(plan, p->keep_first);
    grow_residents(plan);
    grow_parked(plan);
    grow_held(plan);
    grow_kept(plan, INT32_MAX);
    grow_rest(plan);
    place_all(plan);
    return 0;
}

int tr_plan_is_host_pool(const struct tr_plan *plan, int pool)
{
    return plan->in.apart && pool >= TR_SLOTS_BLOCK_STATE && pool <= TR_SLOTS_NORM_STATE;
}

int tr_plan_pool(const struct tr_plan *plan, int pool)
{
    int first = plan->by_parts ? first_of_parts(pool) : -1;

    return first < 0 ? pool : first;
}

int tr_plan_spares(int pool)
{
    return pool >= TR_SLOTS_BLOCK_STATE && pool < TR_SLOTS_BOUNDARY;
}

uint32_t tr_plan_boundaries(const struct tr_plan *plan)
{
    return (uint32_t)plan->in.model->config.layers + 1;
}

uint32_t tr_plan_scratch(const struct tr_plan *plan)
{
    return tr_plan_boundaries(plan) + (uint32_t)plan->keep;
}

struct tr_span *tr_plan_spans(const struct tr_plan *plan, uint32_t *n_spans)
{
    const struct tr_layout *l = &plan->in.model->layout;
    uint32_t frames = l->n_spans + tr_plan_boundaries(plan);
    uint32_t n = l->n_spans + tr_plan_scratch(plan);
    struct tr_span *spans = tr_alloc_array(TR_MEM_MISC, n, sizeof(*spans));

    if (!spans)
        return NULL;
    memcpy(spans, l->spans, l->n_spans * sizeof(*spans));
    for (uint32_t i = l->n_spans; i < n; i++) {
        uint32_t pool = i < frames ? TR_SLOTS_BOUNDARY : TR_SLOTS_FRAME;

        spans[i] = (struct tr_span){.pool = pool, .bytes = plan->slot_bytes[pool]};
    }
    *n_spans = n;
    return spans;
}

int tr_plan_keeps(const struct tr_plan *plan, int layer)
{
    return layer >= plan->in.model->config.layers - plan->keep;
}

int tr_plan_remakes(const struct tr_plan *plan, int layer)
{
    return plan->by_parts && !tr_plan_keeps(plan, layer);
}

uint64_t tr_plan_cache(const struct tr_plan *plan, int layer, int values)
{
    return plan->cache.offset + (2 * (uint64_t)layer + values) * aligned(cache_bytes(plan));
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
