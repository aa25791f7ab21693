/* SPDX-License-Identifier: Apache-2.0
 *
 * Adapters in the forward and the backward pass (src/model/lora.h), all in f32:
 *
 *   h = s drop(x) A^T,  y += h B^T
 *   dB = dy^T h,  dh = s dy B,  dA = dh^T drop(x),  dx += drop(dh A)
 *
 * with s = alpha / rank. The rank is small, so h and dh are made again wherever they are used; a
 * mask is a function of (seed, step, name of A, element), so it can be made again as well.
 */
#include "src/train/pass.h"

#include <math.h>

static const struct tr_tensor *matrix(const struct tr_pass_state *p, const struct pass_linear *l,
                                      int b)
{
    int target = pass_adapter(p, l->v, l->role);
    int role = b ? TR_LORA_B(target) : TR_LORA_A(target);

    return &p->model->tensors[p->model->blocks[l->v->unit.index].tensor[role]];
}

int pass_adapter(const struct tr_pass_state *p, const struct tr_pass_visit *v, enum tr_role r)
{
    int target = tr_lora_target_of((int)r);

    if (target < 0 || p->model->blocks[v->unit.index].tensor[TR_LORA_A(target)] < 0)
        return -1;
    return target;
}

/* to = scale * from, and of (n, k) inputs and their gradients (masked) some elements dropped. */
struct scaled {
    const void *from;
    enum tr_dtype from_dtype;
    float *to;
    int64_t width;
    float scale;
    int masked;
};

static int scaled(const struct tr_pass_state *p, const struct pass_linear *l,
                  const struct scaled *s)
{
    const struct tr_tensor *a = matrix(p, l, 0);
    float drop = s->masked ? p->dropout : 0;

    return pass_op(p,
                   &(struct tr_op){.kind = TR_OP_DROPOUT,
                                   .dropout = {.from = s->from,
                                               .from_dtype = s->from_dtype,
                                               .to = s->to,
                                               .n = l->u->n_tokens * s->width,
                                               .first = l->u->first_token * s->width,
                                               .scale = drop > 0 ? s->scale / (1 - drop) : s->scale,
                                               .threshold = (uint32_t)(drop * 0x1p32),
                                               .step = p->drop_step,
                                               .seed = p->update.seed,
                                               .name = p->update.names[a - p->model->tensors]}});
}

static int product(const struct tr_pass_state *p, const struct pass_linear *l, enum tr_op_kind kind,
                   int b, struct tr_op_matmul op)
{
    const struct tr_tensor *t = matrix(p, l, b);

    op.w = pass_weight(p, l->v, t->role);
    op.n = l->u->n_tokens;
    op.m = t->rows;
    op.k = t->cols;
    op.grains = l->u->grains;
    return pass_op(p, &(struct tr_op){.kind = kind, .matmul = op});
}

/* Is the input as the adapter takes it there already? */
static int takes_input(const struct tr_pass_state *p)
{
    return pass_compute(p) == TR_F32 && !(p->dropout > 0);
}

static const float *input(const struct tr_pass_state *p, const struct pass_linear *l)
{
    return takes_input(p) ? l->x : pass_at(p, &p->plan->lora_x);
}

static const float *output_grad(const struct tr_pass_state *p, const struct pass_linear *l)
{
    return pass_compute(p) == TR_F32 ? l->dy : pass_at(p, &p->plan->lora_y);
}

/* h, from an input that is made first. */
static int hidden(const struct tr_pass_state *p, const struct pass_linear *l)
{
    float *h = pass_at(p, &p->plan->lora_h);
    struct scaled in = {.from = l->x,
                        .from_dtype = pass_compute(p),
                        .to = pass_at(p, &p->plan->lora_x),
                        .width = matrix(p, l, 0)->cols,
                        .scale = 1,
                        .masked = 1};
    struct scaled out = {
        .from = h, .to = h, .width = p->model->lora.rank, .scale = tr_lora_scale(&p->model->lora)};
    int r = takes_input(p) ? 0 : scaled(p, l, &in);

    if (r == 0)
        r = product(p, l, TR_OP_MATMUL, 0, (struct tr_op_matmul){.x = input(p, l), .y = h});
    return r < 0 ? r : scaled(p, l, &out);
}

/* dh, from a gradient that is brought to f32 first. */
static int hidden_grad(const struct tr_pass_state *p, const struct pass_linear *l)
{
    float *dh = pass_at(p, &p->plan->lora_dh);
    struct scaled in = {.from = l->dy,
                        .from_dtype = pass_compute(p),
                        .to = pass_at(p, &p->plan->lora_y),
                        .width = matrix(p, l, 1)->rows,
                        .scale = 1};
    struct scaled out = {.from = dh,
                         .to = dh,
                         .width = p->model->lora.rank,
                         .scale = tr_lora_scale(&p->model->lora)};
    int r = pass_compute(p) == TR_F32 ? 0 : scaled(p, l, &in);

    if (r == 0)
        r = product(p, l, TR_OP_MATMUL_DX, 1,
                    (struct tr_op_matmul){.dy = output_grad(p, l), .dx = dh});
    return r < 0 ? r : scaled(p, l, &out);
}

static int add_to(const struct tr_pass_state *p, const struct pass_linear *l, void *to,
                  enum tr_dtype dtype, struct scaled what)
{
    return pass_op(p, &(struct tr_op){.kind = TR_OP_ADD,
                                      .add = {.a = to,
                                              .a_dtype = dtype,
                                              .b = what.to,
                                              .out = to,
                                              .out_dtype = dtype,
                                              .n = l->u->n_tokens * what.width}});
}

int pass_adapter_forward(const struct tr_pass_state *p, const struct pass_linear *l)
{
    struct scaled y = {.to = pass_at(p, &p->plan->lora_y), .width = matrix(p, l, 1)->rows};
    const float *h = pass_at(p, &p->plan->lora_h);
    int r = hidden(p, l);

    if (r == 0)
        r = product(p, l, TR_OP_MATMUL, 1, (struct tr_op_matmul){.x = h, .y = y.to});
    return r < 0 ? r : add_to(p, l, l->y, l->y_dtype, y);
}

int pass_adapter_dx(const struct tr_pass_state *p, const struct pass_linear *l)
{
    float *dx = pass_at(p, &p->plan->lora_x);
    const float *dh = pass_at(p, &p->plan->lora_dh);
    struct scaled drop = {
        .from = dx, .to = dx, .width = matrix(p, l, 0)->cols, .scale = 1, .masked = 1};
    int r = hidden_grad(p, l);

    if (r == 0)
        r = product(p, l, TR_OP_MATMUL_DX, 0, (struct tr_op_matmul){.dy = dh, .dx = dx});
    if (r == 0 && p->dropout > 0)
        r = scaled(p, l, &drop);
    return r < 0 ? r : add_to(p, l, l->dx, l->dx_dtype, drop);
}

int pass_adapter_db(const struct tr_pass_state *p, const struct pass_linear *l)
{
    const float *h = pass_at(p, &p->plan->lora_h);
    int r = hidden(p, l);

    if (r < 0 || (r = hidden_grad(p, l)) < 0)
        return r;
    return product(
        p, l, TR_OP_MATMUL_DW, 1,
        (struct tr_op_matmul){.dy = output_grad(p, l), .x = h, .dw = l->dw, .add = l->add});
}

int pass_adapter_da(const struct tr_pass_state *p, const struct pass_linear *l)
{
    const float *dh = pass_at(p, &p->plan->lora_dh);

    return product(p, l, TR_OP_MATMUL_DW, 0,
                   (struct tr_op_matmul){.dy = dh, .x = input(p, l), .dw = l->dw, .add = l->add});
}
