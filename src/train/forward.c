/* SPDX-License-Identifier: Apache-2.0
 *
 * Forward of the embedding and of a block. The same function serves the forward pass and the
 * recomputation in the backward pass, so kept and recomputed activations have the same bits.
 *
 *   x -> norm1 -> k v q -> (k_norm q_norm) -> rope -> attention -> o -> + x = x_mid
 *   x_mid -> norm2 -> up gate -> swiglu -> down -> + x_mid = next x
 *
 * A block is done in stages, one for each of its parts (src/model/model.h), each from what the
 * stages before have left in the frame. A visit is of all parts or of one; the ops, and so the
 * bits, are the same.
 */
#include "src/train/pass.h"

struct block {
    struct tr_pass_state *p;
    const struct tr_pass_visit *v;
    int layer;
    const struct tr_micro *u;
    struct pass_frame f;
};

int pass_embed(struct tr_pass_state *p, const struct tr_pass_visit *v)
{
    const struct tr_slice *s = &p->model->embed.slices[v->unit.index];

    return pass_op(p, &(struct tr_op){.kind = TR_OP_EMBED,
                                      .embed = {.table = pass_span(v, s->params_span),
                                                .dtype = p->model->dtype,
                                                .row0 = s->row0,
                                                .rows = s->rows,
                                                .cols = p->model->config.hidden,
                                                .n = p->batch->n_tokens,
                                                .ids = pass_at(p, &p->plan->ids),
                                                .out = pass_boundary(p, 0, 0)}});
}

static enum tr_dtype weight_dtype(const struct block *b, enum tr_role r)
{
    return b->p->model->tensors[b->p->model->blocks[b->layer].tensor[r]].dtype;
}

/* out: the compute dtype, or f32 where y joins the residual stream. */
static int matmul(const struct block *b, enum tr_role role, const void *x, void *y,
                  enum tr_dtype out)
{
    const struct tr_model *m = b->p->model;
    const struct tr_tensor *w = &m->tensors[m->blocks[b->layer].tensor[role]];
    enum tr_role bias = role == TR_ROLE_Q   ? TR_ROLE_Q_BIAS
                        : role == TR_ROLE_K ? TR_ROLE_K_BIAS
                        : role == TR_ROLE_V ? TR_ROLE_V_BIAS
                        : role == TR_ROLE_O ? TR_ROLE_O_BIAS
                                            : TR_ROLES;
    int r = pass_op(
        b->p,
        &(struct tr_op){.kind = TR_OP_MATMUL,
                        .matmul = {.w = pass_weight(b->p, b->v, role),
                                   .w_dtype = w->dtype,
                                   .bias = bias == TR_ROLES ? NULL : pass_weight(b->p, b->v, bias),
                                   .in_dtype = pass_compute(b->p),
                                   .out_dtype = out,
                                   .x = x,
                                   .y = y,
                                   .n = b->u->n_tokens,
                                   .m = w->rows,
                                   .k = w->cols,
                                   .grains = b->u->grains}});

    if (r < 0 || pass_adapter(b->p, b->v, role) < 0)
        return r;
    return pass_adapter_forward(
        b->p,
        &(struct pass_linear){.v = b->v, .u = b->u, .role = role, .x = x, .y = y, .y_dtype = out});
}

struct norm {
    const void *x, *w;
    enum tr_dtype x_dtype, w_dtype;
    void *y;
    float *rstd;
};

static int norm(const struct block *b, const struct norm *n)
{
    const struct tr_model_config *c = &b->p->model->config;

    return pass_op(b->p, &(struct tr_op){.kind = TR_OP_RMSNORM,
                                         .rmsnorm = {.x = n->x,
                                                     .x_dtype = n->x_dtype,
                                                     .w = n->w,
                                                     .w_dtype = n->w_dtype,
                                                     .y = n->y,
                                                     .y_dtype = pass_compute(b->p),
                                                     .rstd = n->rstd,
                                                     .rows = b->u->n_tokens,
                                                     .cols = c->hidden,
                                                     .eps = c->rms_eps,
                                                     .rows_per_token = 1}});
}

static int head_norm(const struct block *b, enum tr_role role, const void *x, void *y, float *rstd)
{
    const struct tr_model_config *c = &b->p->model->config;
    int64_t heads = role == TR_ROLE_Q_NORM ? c->heads : c->kv_heads;

    return pass_op(b->p, &(struct tr_op){.kind = TR_OP_RMSNORM,
                                         .rmsnorm = {.x = x,
                                                     .x_dtype = pass_compute(b->p),
                                                     .w = pass_weight(b->p, b->v, role),
                                                     .w_dtype = weight_dtype(b, role),
                                                     .y = y,
                                                     .y_dtype = pass_compute(b->p),
                                                     .rstd = rstd,
                                                     .rows = b->u->n_tokens * heads,
                                                     .cols = c->head_dim,
                                                     .eps = c->rms_eps,
                                                     .rows_per_token = heads}});
}

int pass_rope(const struct tr_pass_state *p, const struct tr_micro *u, void *x, int64_t heads,
              int inverse)
{
    const struct tr_plan *plan = p->plan;
    const int32_t *position = pass_at(p, &plan->position);

    return pass_op(p, &(struct tr_op){.kind = TR_OP_ROPE,
                                      .rope = {.x = x,
                                               .dtype = pass_compute(p),
                                               .position = position + u->first_token,
                                               .cos = pass_at(p, &plan->cos),
                                               .sin = pass_at(p, &plan->sin),
                                               .n = u->n_tokens,
                                               .heads = heads,
                                               .head_dim = p->model->config.head_dim,
                                               .inverse = inverse}});
}

struct tr_op_attention pass_attention(const struct tr_pass_state *p, int layer,
                                      const struct tr_micro *u, const struct pass_frame *f)
{
    const struct tr_model_config *c = &p->model->config;
    const int32_t *first = pass_at(p, &p->plan->doc_first), *end = pass_at(p, &p->plan->doc_end);

    return (struct tr_op_attention){.dtype = pass_compute(p),
                                    .q = f->q,
                                    .k = f->k,
                                    .v = f->v,
                                    .o = f->o,
                                    .lse = f->lse,
                                    .n = u->n_tokens,
                                    .heads = c->heads,
                                    .kv_heads = c->kv_heads,
                                    .head_dim = c->head_dim,
                                    .window = c->window[layer],
                                    .scale = (float)(1 / __builtin_sqrt(c->head_dim)),
                                    .docs = u->docs,
                                    .doc_first = first + u->first_token,
                                    .doc_end = end + u->first_token};
}

int pass_attend_cached(const struct tr_pass_state *p, int layer, const struct tr_micro *u,
                       const struct pass_frame *f)
{
    struct tr_op_attention a = pass_attention(p, layer, u, f);
    const int32_t *first = pass_at(p, &p->plan->cache_first);
    const int32_t *row = pass_at(p, &p->plan->cache_row);
    struct tr_op_attention_cached op = {.dtype = a.dtype,
                                        .q = a.q,
                                        .k = a.k,
                                        .v = a.v,
                                        .o = p->cache.use == TR_CACHE_GROW ? a.o : NULL,
                                        .k_cache = p->arena + tr_plan_cache(p->plan, layer, 0),
                                        .v_cache = p->arena + tr_plan_cache(p->plan, layer, 1),
                                        .first = first + u->first_token,
                                        .row = row + u->first_token,
                                        .n = a.n,
                                        .heads = a.heads,
                                        .kv_heads = a.kv_heads,
                                        .head_dim = a.head_dim,
                                        .window = a.window,
                                        .scale = a.scale};

    return pass_op(p, &(struct tr_op){.kind = TR_OP_ATTENTION_CACHED, .attention_cached = op});
}

static int attend(const struct block *b)
{
    int r = 0;

    if (b->p->cache.use)
        r = pass_attend_cached(b->p, b->layer, b->u, &b->f);
    if (r < 0 || b->p->cache.use == TR_CACHE_GROW)
        return r;
    return pass_op(b->p, &(struct tr_op){.kind = TR_OP_ATTENTION,
                                         .attention = pass_attention(b->p, b->layer, b->u, &b->f)});
}

/* out = round(a + b); the residual stream is f32 inside a block and stored at its boundaries. */
static int add(const struct block *b, const void *a, enum tr_dtype a_dtype, const float *y,
               void *out, enum tr_dtype out_dtype)
{
    return pass_op(
        b->p, &(struct tr_op){.kind = TR_OP_ADD,
                              .add = {.a = a,
                                      .a_dtype = a_dtype,
                                      .b = y,
                                      .out = out,
                                      .out_dtype = out_dtype,
                                      .n = (int64_t)b->u->n_tokens * b->p->model->config.hidden}});
}

static int kv_stage(const struct block *b)
{
    const void *x = pass_boundary(b->p, b->layer, b->u->first_token);
    const struct tr_model_config *c = &b->p->model->config;
    const struct pass_frame *f = &b->f;
    enum tr_dtype t = pass_compute(b->p);
    int r;

    if ((r = norm(b, &(struct norm){.x = x,
                                    .x_dtype = b->p->model->dtype,
                                    .w = pass_weight(b->p, b->v, TR_ROLE_NORM1),
                                    .w_dtype = weight_dtype(b, TR_ROLE_NORM1),
                                    .y = f->xn1,
                                    .rstd = f->rstd1})) < 0 ||
        (r = matmul(b, TR_ROLE_K, f->xn1, c->qk_norm ? f->k_raw : f->k, t)) < 0 ||
        (c->qk_norm && (r = head_norm(b, TR_ROLE_K_NORM, f->k_raw, f->k, f->rstd_k)) < 0) ||
        (r = pass_rope(b->p, b->u, f->k, c->kv_heads, 0)) < 0)
        return r;
    return matmul(b, TR_ROLE_V, f->xn1, f->v, t);
}

static int q_stage(const struct block *b)
{
    const struct tr_model_config *c = &b->p->model->config;
    const struct pass_frame *f = &b->f;
    int r;

    if ((r = matmul(b, TR_ROLE_Q, f->xn1, c->qk_norm ? f->q_raw : f->q, pass_compute(b->p))) < 0 ||
        (c->qk_norm && (r = head_norm(b, TR_ROLE_Q_NORM, f->q_raw, f->q, f->rstd_q)) < 0))
        return r;
    return pass_rope(b->p, b->u, f->q, c->heads, 0);
}

static int o_stage(const struct block *b)
{
    const void *x = pass_boundary(b->p, b->layer, b->u->first_token);
    const struct pass_frame *f = &b->f;
    int r;

    if ((r = attend(b)) < 0 || (r = matmul(b, TR_ROLE_O, f->o, f->x_mid, TR_F32)) < 0)
        return r;
    return add(b, x, b->p->model->dtype, f->x_mid, f->x_mid, TR_F32);
}

/* w: the second norm's weight, wherever it is. */
static int norm2(const struct block *b, const void *w)
{
    return norm(b, &(struct norm){.x = b->f.x_mid,
                                  .x_dtype = TR_F32,
                                  .w = w,
                                  .w_dtype = weight_dtype(b, TR_ROLE_NORM2),
                                  .y = b->f.xn2,
                                  .rstd = b->f.rstd2});
}

int pass_remake_xn2(struct tr_pass_state *p, const struct tr_pass_visit *v,
                    const struct tr_micro *u)
{
    struct block b = {p, v, v->unit.index, u, pass_frame(p, v->unit.index, u)};

    if (!tr_plan_remakes(p->plan, b.layer))
        return 0;
    return norm2(&b, v->unit.from == TR_PART_UP ? pass_weight(p, v, TR_ROLE_NORM2)
                                                : pass_at(p, &p->plan->norm2));
}

/* The norm's weight for visits of the gate, which comes after this stage both ways. */
static int leave_norm2(const struct block *b)
{
    enum tr_dtype dtype = weight_dtype(b, TR_ROLE_NORM2);

    if (!tr_plan_remakes(b->p->plan, b->layer) || b->u != b->p->micro)
        return 0;
    return pass_op(b->p, &(struct tr_op){.kind = TR_OP_CAST,
                                         .cast = {.from = pass_weight(b->p, b->v, TR_ROLE_NORM2),
                                                  .from_dtype = dtype,
                                                  .to = pass_at(b->p, &b->p->plan->norm2),
                                                  .to_dtype = dtype,
                                                  .n = b->p->model->config.hidden}});
}

static int up_stage(const struct block *b)
{
    const struct pass_frame *f = &b->f;
    int r = leave_norm2(b);

    if (r < 0 || (r = norm2(b, pass_weight(b->p, b->v, TR_ROLE_NORM2))) < 0)
        return r;
    return matmul(b, TR_ROLE_UP, f->xn2, f->up, pass_compute(b->p));
}

static int gate_stage(const struct block *b)
{
    int r = pass_remake_xn2(b->p, b->v, b->u);

    return r < 0 ? r : matmul(b, TR_ROLE_GATE, b->f.xn2, b->f.gate, pass_compute(b->p));
}

int pass_swiglu(const struct tr_pass_state *p, const struct tr_micro *u, const struct pass_frame *f)
{
    return pass_op(p,
                   &(struct tr_op){.kind = TR_OP_SWIGLU,
                                   .swiglu = {.dtype = pass_compute(p),
                                              .gate = f->gate,
                                              .up = f->up,
                                              .out = pass_at(p, &p->plan->act),
                                              .n = (int64_t)u->n_tokens * p->model->config.ffn}});
}

static int down_stage(const struct block *b)
{
    struct tr_pass_state *p = b->p;
    float *y = pass_at(p, &p->plan->mlp_out);
    int r;

    if ((r = pass_swiglu(p, b->u, &b->f)) < 0 ||
        (r = matmul(b, TR_ROLE_DOWN, pass_at(p, &p->plan->act), y, TR_F32)) < 0)
        return r;
    return add(b, b->f.x_mid, TR_F32, y, pass_boundary(p, b->layer + 1, b->u->first_token),
               p->model->dtype);
}

int pass_block_forward(struct tr_pass_state *p, const struct tr_pass_visit *v,
                       const struct tr_micro *u, enum tr_part to)
{
    static int (*const stage[TR_PARTS])(const struct block *) = {
        [TR_PART_KV] = kv_stage, [TR_PART_Q] = q_stage,       [TR_PART_O] = o_stage,
        [TR_PART_UP] = up_stage, [TR_PART_GATE] = gate_stage, [TR_PART_DOWN] = down_stage,
    };
    struct block b = {p, v, v->unit.index, u, pass_frame(p, v->unit.index, u)};
    int r = 0;

    for (int part = v->unit.from; part <= (int)to && r == 0; part++)
        r = stage[part](&b);
    return r;
}

int pass_block(struct tr_pass_state *p, const struct tr_pass_visit *v)
{
    int r = 0;

    for (int i = 0; i < p->n_micro && r == 0; i++)
        r = pass_block_forward(p, v, &p->micro[i], v->unit.to);
    return r;
}
