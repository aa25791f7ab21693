/* SPDX-License-Identifier: Apache-2.0
 *
 * Backward of a block with the update fused in, in stages: the parts of a block from the last to
 * the first. For each matrix: first the input gradient, from the weights as they were before the
 * update (invariant 5), then the weight gradient, then, at the last micro-batch, the update; the
 * next matrix may reuse the gradient's memory (invariant 4). A stage needs no part but its own, so
 * the others may be elsewhere, and may be updated already if they come later in the block.
 * The gradient at the block's output lies in plan->dx and becomes the one at its input in place.
 */
#include "src/model/freeze.h"
#include "src/train/pass.h"

struct block {
    struct tr_pass_state *p;
    const struct tr_pass_visit *v;
    const struct tr_block *tensors;
    const struct tr_micro *u;
    int first, last; /* micro-batch of the step */
    struct tr_lowest low;
    struct pass_frame f;
    float *dx, *dxn, *delta;
    void *dy; /* dx in the compute dtype */
    void *dact, *dgate, *dup, *d_o, *dq, *dk, *dv;
};

static const struct tr_tensor *tensor(const struct block *b, enum tr_role r)
{
    return &b->p->model->tensors[b->tensors->tensor[r]];
}

static int has(const struct block *b, enum tr_role r)
{
    return b->tensors->tensor[r] >= 0;
}

static int trains(const struct block *b, enum tr_role r)
{
    return tr_trains(b->p->model, b->tensors->tensor[r]);
}

static int is_fused(const struct block *b, enum tr_role r)
{
    return b->p->plan->in.fused && tensor(b, r)->dims == 2;
}

/* Where the gradient is kept for the next step; NULL: it is not. */
static char *parked(const struct block *b, enum tr_role r)
{
    return b->p->model->parked ? pass_block_parked(b->v, b->p->model, r) + tensor(b, r)->g_offset
                               : NULL;
}

/* In f32 it is made where it is kept. NULL: the tensor stays as it is, or its update is fused. */
static float *grad_of(const struct block *b, enum tr_role r)
{
    if (!trains(b, r) || is_fused(b, r))
        return NULL;
    if (b->p->model->parked == TR_PARKED_F32)
        return (float *)parked(b, r);
    return (float *)((char *)pass_at(b->p, &b->p->plan->grad) +
                     tr_plan_grad(b->p->plan, b->tensors, r));
}

/* The gradient of `role` holds this micro-batch too; after the last one it is whole. */
static int finish(const struct block *b, enum tr_role r)
{
    const struct tr_tensor *t = tensor(b, r);
    int update = pass_updates(b->p, &b->v->unit, b->tensors->tensor[r]);
    char *state;

    if (!b->last || !trains(b, r))
        return 0;
    state = update && tr_model_keeps(b->p->model, t) ? pass_block_state(b->p, b->v, r) : NULL;
    return pass_finish(b->p, &b->v->unit,
                       &(struct pass_grad){.tensor = b->tensors->tensor[r],
                                           .grad = grad_of(b, r),
                                           .parked = parked(b, r),
                                           .weight = pass_weight(b->p, b->v, r),
                                           .m = state ? (float *)(state + t->m_offset) : NULL,
                                           .v = state ? (float *)(state + t->v_offset) : NULL,
                                           .master = state ? state + t->master_offset : NULL,
                                           .n = (uint64_t)t->rows * (uint64_t)t->cols});
}

struct output {
    void *dx;
    enum tr_dtype dtype;
    int add;
};

static int input_grad_as(const struct block *b, enum tr_role r, const void *dy,
                         const struct output *out)
{
    const struct tr_tensor *t = tensor(b, r);
    int e = pass_op(b->p, &(struct tr_op){.kind = TR_OP_MATMUL_DX,
                                          .matmul = {.w = pass_weight(b->p, b->v, r),
                                                     .w_dtype = t->dtype,
                                                     .in_dtype = pass_compute(b->p),
                                                     .out_dtype = out->dtype,
                                                     .dy = dy,
                                                     .dx = out->dx,
                                                     .n = b->u->n_tokens,
                                                     .m = t->rows,
                                                     .k = t->cols,
                                                     .add = out->add,
                                                     .grains = b->u->grains}});

    if (e < 0 || pass_adapter(b->p, b->v, r) < 0)
        return e;
    return pass_adapter_dx(
        b->p,
        &(struct pass_linear){
            .v = b->v, .u = b->u, .role = r, .dy = dy, .dx = out->dx, .dx_dtype = out->dtype});
}

/* dx = dy W in the compute dtype, */
static int input_grad(const struct block *b, enum tr_role r, const void *dy, void *dx)
{
    return input_grad_as(b, r, dy, &(struct output){dx, pass_compute(b->p), 0});
}

/* or dxn (= or +=) dy W in f32. */
static int normed_grad(const struct block *b, enum tr_role r, const void *dy, int add)
{
    return input_grad_as(b, r, dy, &(struct output){b->dxn, TR_F32, add});
}

static int bias_grad(const struct block *b, enum tr_role r, const void *dy)
{
    int e;

    if (!trains(b, r))
        return 0;
    e = pass_op(b->p, &(struct tr_op){.kind = TR_OP_BIAS_GRAD,
                                      .bias_grad = {.dy = dy,
                                                    .dtype = pass_compute(b->p),
                                                    .db = grad_of(b, r),
                                                    .n = b->u->n_tokens,
                                                    .m = tensor(b, r)->cols,
                                                    .add = !b->first,
                                                    .grains = b->u->grains}});
    return e < 0 ? e : finish(b, r);
}

/* The gradients of a matrix's adapter, and its update when they are whole. */
static int adapter_grad(const struct block *b, enum tr_role r, const void *dy, const void *x)
{
    int target = pass_adapter(b->p, b->v, r), e;
    enum tr_role role_a = (enum tr_role)TR_LORA_A(target);
    enum tr_role role_b = (enum tr_role)TR_LORA_B(target);
    struct pass_linear l = {.v = b->v, .u = b->u, .role = r, .x = x, .dy = dy, .add = !b->first};

    if (target < 0)
        return 0;
    l.dw = grad_of(b, role_b);
    if ((e = pass_adapter_db(b->p, &l)) < 0 || (e = finish(b, role_b)) < 0)
        return e;
    l.dw = grad_of(b, role_a);
    e = pass_adapter_da(b->p, &l);
    return e < 0 ? e : finish(b, role_a);
}

/* dW (= or +=) dy^T x, and the update when it is whole; or the update itself, as the stage has used
 * the weights for the last time. */
static int weight_grad(const struct block *b, enum tr_role r, const void *dy, const void *x)
{
    const struct tr_tensor *t = tensor(b, r);
    int fused = is_fused(b, r), e = adapter_grad(b, r, dy, x);

    if (e < 0 || t->frozen)
        return e;
    e = pass_op(b->p,
                &(struct tr_op){.kind = TR_OP_MATMUL_DW,
                                .matmul = {.dy = dy,
                                           .x = x,
                                           .in_dtype = pass_compute(b->p),
                                           .dw = fused ? pass_weight(b->p, b->v, r) : grad_of(b, r),
                                           .n = b->u->n_tokens,
                                           .m = t->rows,
                                           .k = t->cols,
                                           .add = !b->first,
                                           .fused = fused,
                                           .lr = (float)b->p->update.lr,
                                           .grains = b->u->grains}});
    return e < 0 ? e : finish(b, r);
}

/* Parts with one input, and the norm of that; TR_ROLES: none. */
struct inputs {
    enum tr_part first, last;
    enum tr_role norm;
};

static const struct inputs attention_in = {TR_PART_KV, TR_PART_Q, TR_ROLE_NORM1};
static const struct inputs attention_out = {TR_PART_O, TR_PART_O, TR_ROLES};
static const struct inputs mlp_in = {TR_PART_UP, TR_PART_GATE, TR_ROLE_NORM2};
static const struct inputs mlp_out = {TR_PART_DOWN, TR_PART_DOWN, TR_ROLES};

/* Is the gradient at that input of any use? Where the lowest part that trains is one of them it is
 * to the norm alone. */
static int goes_on(const struct block *b, const struct inputs *in)
{
    int lowest =
        b->low.layer == b->v->unit.index && b->low.part >= in->first && b->low.part <= in->last;

    return !lowest || (in->norm < TR_ROLES && trains(b, in->norm));
}

/* Gradient through a norm of the residual stream: added to dx, which already holds the skip path.
 */
static int norm_grad(const struct block *b, enum tr_role r, const void *x, enum tr_dtype x_dtype,
                     const float *rstd)
{
    const struct tr_model_config *c = &b->p->model->config;
    int e = pass_op(b->p, &(struct tr_op){.kind = TR_OP_RMSNORM_GRAD,
                                          .rmsnorm = {.x = x,
                                                      .x_dtype = x_dtype,
                                                      .w = pass_weight(b->p, b->v, r),
                                                      .w_dtype = tensor(b, r)->dtype,
                                                      .rstd = (float *)rstd,
                                                      .rows = b->u->n_tokens,
                                                      .cols = c->hidden,
                                                      .eps = c->rms_eps,
                                                      .dy = b->dxn,
                                                      .dx = b->dx,
                                                      .add_dx = 1,
                                                      .dw = grad_of(b, r),
                                                      .add_dw = !b->first,
                                                      .grains = b->u->grains,
                                                      .rows_per_token = 1}});

    return e < 0 ? e : finish(b, r);
}

static int head_norm_grad(const struct block *b, enum tr_role r, const void *x, const float *rstd,
                          void *dy)
{
    const struct tr_model_config *c = &b->p->model->config;
    int64_t heads = r == TR_ROLE_Q_NORM ? c->heads : c->kv_heads;
    int e = pass_op(b->p, &(struct tr_op){.kind = TR_OP_RMSNORM_GRAD,
                                          .rmsnorm = {.x = x,
                                                      .x_dtype = pass_compute(b->p),
                                                      .y_dtype = pass_compute(b->p),
                                                      .w = pass_weight(b->p, b->v, r),
                                                      .w_dtype = tensor(b, r)->dtype,
                                                      .rstd = (float *)rstd,
                                                      .rows = b->u->n_tokens * heads,
                                                      .cols = c->head_dim,
                                                      .eps = c->rms_eps,
                                                      .dy = dy,
                                                      .dx = dy,
                                                      .dw = grad_of(b, r),
                                                      .add_dw = !b->first,
                                                      .grains = b->u->grains,
                                                      .rows_per_token = heads}});

    return e < 0 ? e : finish(b, r);
}

/* The residual gradient as the matmuls take it. */
static int lower_residual(const struct block *b)
{
    if (b->dy == b->dx)
        return 0;
    return pass_op(
        b->p, &(struct tr_op){.kind = TR_OP_CAST,
                              .cast = {.from = b->dx,
                                       .from_dtype = TR_F32,
                                       .to = b->dy,
                                       .to_dtype = pass_compute(b->p),
                                       .n = (int64_t)b->u->n_tokens * b->p->model->config.hidden}});
}

static int swiglu_grad(const struct block *b)
{
    return pass_op(
        b->p, &(struct tr_op){.kind = TR_OP_SWIGLU_GRAD,
                              .swiglu = {.dtype = pass_compute(b->p),
                                         .gate = b->f.gate,
                                         .up = b->f.up,
                                         .dout = b->dact,
                                         .dgate = b->dgate,
                                         .dup = b->dup,
                                         .n = (int64_t)b->u->n_tokens * b->p->model->config.ffn}});
}

static int down_grad(const struct block *b)
{
    int further = goes_on(b, &mlp_out), r;

    if ((r = pass_swiglu(b->p, b->u, &b->f)) < 0 || (r = lower_residual(b)) < 0 ||
        (further && (r = input_grad(b, TR_ROLE_DOWN, b->dy, b->dact)) < 0) ||
        (r = weight_grad(b, TR_ROLE_DOWN, b->dy, pass_at(b->p, &b->p->plan->act))) < 0)
        return r;
    return further ? swiglu_grad(b) : 0;
}

static int gate_grad(const struct block *b)
{
    int further = goes_on(b, &mlp_in);
    int r = pass_remake_xn2(b->p, b->v, b->u);

    if (r == 0 && further)
        r = normed_grad(b, TR_ROLE_GATE, b->dgate, 0);
    return r < 0 ? r : weight_grad(b, TR_ROLE_GATE, b->dgate, b->f.xn2);
}

static int up_grad(const struct block *b)
{
    int further = goes_on(b, &mlp_in);
    int r = pass_remake_xn2(b->p, b->v, b->u);

    if (r == 0 && further)
        r = normed_grad(b, TR_ROLE_UP, b->dup, 1);
    if (r < 0 || (r = weight_grad(b, TR_ROLE_UP, b->dup, b->f.xn2)) < 0 || !further)
        return r;
    return norm_grad(b, TR_ROLE_NORM2, b->f.x_mid, TR_F32, b->f.rstd2);
}

static int attention_grad(const struct block *b)
{
    const struct tr_model_config *c = &b->p->model->config;
    struct tr_op_attention op = pass_attention(b->p, b->v->unit.index, b->u, &b->f);
    int r;

    op.d_o = b->d_o;
    op.dq = b->dq;
    op.dk = b->dk;
    op.dv = b->dv;
    op.delta = b->delta;
    r = pass_op(b->p, &(struct tr_op){.kind = TR_OP_ATTENTION_GRAD, .attention = op});
    if (r < 0 || (r = pass_rope(b->p, b->u, b->dq, c->heads, 1)) < 0)
        return r;
    return pass_rope(b->p, b->u, b->dk, c->kv_heads, 1);
}

static int o_grad(const struct block *b)
{
    int further = goes_on(b, &attention_out), r;

    if ((r = lower_residual(b)) < 0 ||
        (further && (r = input_grad(b, TR_ROLE_O, b->dy, b->d_o)) < 0) ||
        (r = weight_grad(b, TR_ROLE_O, b->dy, b->f.o)) < 0 ||
        (r = bias_grad(b, TR_ROLE_O_BIAS, b->dy)) < 0)
        return r;
    return further ? attention_grad(b) : 0;
}

static int q_grad(const struct block *b)
{
    int r = 0;

    if (has(b, TR_ROLE_Q_NORM))
        r = head_norm_grad(b, TR_ROLE_Q_NORM, b->f.q_raw, b->f.rstd_q, b->dq);
    if (r == 0 && goes_on(b, &attention_in))
        r = normed_grad(b, TR_ROLE_Q, b->dq, 0);
    if (r < 0 || (r = weight_grad(b, TR_ROLE_Q, b->dq, b->f.xn1)) < 0)
        return r;
    return bias_grad(b, TR_ROLE_Q_BIAS, b->dq);
}

static int kv_weights_grad(const struct block *b)
{
    int r;

    if ((r = weight_grad(b, TR_ROLE_K, b->dk, b->f.xn1)) < 0 ||
        (r = weight_grad(b, TR_ROLE_V, b->dv, b->f.xn1)) < 0 ||
        (r = bias_grad(b, TR_ROLE_K_BIAS, b->dk)) < 0)
        return r;
    return bias_grad(b, TR_ROLE_V_BIAS, b->dv);
}

/* The last stage: dx becomes the gradient at the block's input. */
static int kv_grad(const struct block *b)
{
    struct tr_pass_state *p = b->p;
    const void *x = pass_boundary(p, b->v->unit.index, b->u->first_token);
    int further = goes_on(b, &attention_in), r = 0;

    if (has(b, TR_ROLE_K_NORM))
        r = head_norm_grad(b, TR_ROLE_K_NORM, b->f.k_raw, b->f.rstd_k, b->dk);
    if (r == 0 && further && (r = normed_grad(b, TR_ROLE_K, b->dk, 1)) == 0)
        r = normed_grad(b, TR_ROLE_V, b->dv, 1);
    if (r < 0 || (r = kv_weights_grad(b)) < 0 || !further ||
        (r = norm_grad(b, TR_ROLE_NORM1, x, p->model->dtype, b->f.rstd1)) < 0)
        return r;
    return pass_round_boundary(p, b->dx, (int64_t)b->u->n_tokens * p->model->config.hidden);
}

static void point_scratch(struct block *b)
{
    const struct tr_plan *plan = b->p->plan;
    const struct tr_backward_scratch *s = &plan->back;
    const struct pass_frame *f = &b->f;
    int64_t hidden = b->p->model->config.hidden;
    char *base = pass_at(b->p, &plan->back_scratch);

    b->dx = pass_rows(b->p, &plan->dx, b->u->first_token, hidden);
    b->dxn = plan->by_parts ? f->dxn : (float *)(base + s->dxn);
    b->dy = pass_compute(b->p) == TR_F32 ? (void *)b->dx : base + s->dy;
    b->dact = base + s->dact;
    b->d_o = base + s->d_o;
    b->delta = (float *)(base + s->delta);
    b->dgate = f->dgate;
    b->dup = f->dup;
    b->dq = f->dq;
    b->dk = f->dk;
    b->dv = f->dv;
}

/* The parts of the visit, of one micro-batch. Where it is a visit of all, what the backward pass
 * needs is made again first; else earlier visits have done so. */
static int micro_grad(struct tr_pass_state *p, const struct tr_pass_visit *v, int i)
{
    static int (*const stage[TR_PARTS])(const struct block *) = {
        [TR_PART_KV] = kv_grad, [TR_PART_Q] = q_grad,       [TR_PART_O] = o_grad,
        [TR_PART_UP] = up_grad, [TR_PART_GATE] = gate_grad, [TR_PART_DOWN] = down_grad,
    };
    int layer = v->unit.index, r = 0;
    struct block b = {.p = p,
                      .v = v,
                      .tensors = &p->model->blocks[layer],
                      .u = &p->micro[i],
                      .first = i == 0,
                      .last = i == p->n_micro - 1,
                      .low = tr_lowest(p->model)};

    if (!p->plan->by_parts && !tr_plan_keeps(p->plan, layer))
        r = pass_block_forward(p, v, b.u, TR_PART_GATE);
    b.f = pass_frame(p, layer, b.u);
    point_scratch(&b);
    for (int part = v->unit.to; part >= (int)v->unit.lowest && r == 0; part--)
        r = stage[part](&b);
    return r;
}

/* Parked gradients of a block's parts at hand: every tensor is finished, in the order of roles. */
int pass_block_update(struct tr_pass_state *p, const struct tr_pass_visit *v)
{
    struct block b = {.p = p, .v = v, .tensors = &p->model->blocks[v->unit.index], .last = 1};
    int r = 0;

    for (int role = 0; role < TR_ROLES && r == 0; role++) {
        enum tr_part part = tr_model_part((enum tr_role)role);
        int here = part >= v->unit.from && part <= v->unit.to;

        if (here && has(&b, (enum tr_role)role) &&
            pass_updates(p, &v->unit, b.tensors->tensor[role]))
            r = finish(&b, (enum tr_role)role);
    }
    return r;
}

int pass_block_grad(struct tr_pass_state *p, const struct tr_pass_visit *v)
{
    int r = 0;

    for (int i = 0; i < p->n_micro && r == 0; i++)
        r = micro_grad(p, v, i);
    return r;
}
