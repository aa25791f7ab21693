/* SPDX-License-Identifier: Apache-2.0
 *
 * Gradients of what is linear: embedding, matmul with its bias, rope. The loss is the dot product
 * of the output with fixed random weights, which are then the output's gradient.
 */
#include <math.h>

#include "tests/gradcheck/grad.h"

static double embed_loss(void *arg)
{
    const struct tr_op_embed *op = arg;

    grad_run(TR_OP_EMBED, op);
    return grad_dot(op->out, op->dy, op->n * op->cols);
}

void grad_embed(void)
{
    static const int32_t ids[9] = {3, 0, 3, 6, 6, 6, 1, 5, 3};
    float *table = grad_values(7 * 5);
    struct tr_op_embed op = {.table = table, .rows = 7, .cols = 5, .n = 9};

    op.ids = grad_ints(ids, 9);
    op.out = grad_zeros(9 * 5);
    op.dy = grad_values(9 * 5);
    op.grad = grad_zeros(7 * 5);
    grad_run(TR_OP_EMBED_GRAD, &op);
    grad_judge(&(struct grad_case){"embed", embed_loss, &op, {{"table", table, op.grad, 7 * 5}}});
}

static double matmul_loss(void *arg)
{
    const struct tr_op_matmul *op = arg;

    grad_run(TR_OP_MATMUL, op);
    return grad_dot(op->y, op->dy, op->n * op->m);
}

static struct tr_op_matmul open_matmul(float **w, float **x, float **bias)
{
    static const int32_t grains[4] = {0, 9, 14, 21};
    struct tr_op_matmul op = {.n = 21, .m = 19, .k = 13, .grains = {3, grains}};

    op.w = *w = grad_values(op.m * op.k);
    op.x = *x = grad_values(op.n * op.k);
    op.bias = *bias = grad_values(op.m);
    op.dy = grad_values(op.n * op.m);
    op.y = grad_zeros(op.n * op.m);
    op.dx = grad_zeros(op.n * op.k);
    op.dw = grad_zeros(op.m * op.k);
    return op;
}

void grad_matmul(void)
{
    float *w, *x, *bias;
    struct tr_op_matmul op = open_matmul(&w, &x, &bias);

    grad_run(TR_OP_MATMUL_DX, &op);
    grad_run(TR_OP_MATMUL_DW, &op);
    grad_judge(&(struct grad_case){
        "matmul", matmul_loss, &op, {{"x", x, op.dx, op.n * op.k}, {"w", w, op.dw, op.m * op.k}}});
}

void grad_bias(void)
{
    float *w, *x, *bias;
    struct tr_op_matmul op = open_matmul(&w, &x, &bias);
    struct tr_op_bias_grad grad = {.dy = op.dy, .db = grad_zeros(op.m), .n = op.n, .m = op.m};

    grad.grains = op.grains;
    grad_run(TR_OP_BIAS_GRAD, &grad);
    grad_judge(&(struct grad_case){"bias", matmul_loss, &op, {{"bias", bias, grad.db, op.m}}});
}

enum { TOKENS = 7, HEADS = 3, DIM = 12, POSITIONS = 20 };

struct turn {
    struct tr_op_rope op;
    float *x, *dy; /* (TOKENS, HEADS, DIM) */
};

static double rope_loss(void *arg)
{
    struct turn *t = arg;
    float *x = t->op.x;

    for (int i = 0; i < TOKENS * HEADS * DIM; i++)
        x[i] = t->x[i];
    grad_run(TR_OP_ROPE, &t->op);
    return grad_dot(t->op.x, t->dy, TOKENS * HEADS * DIM);
}

/* The gradient of turning forward is dy turned back. */
void grad_rope(void)
{
    static const int32_t position[TOKENS] = {0, 1, 19, 2, 3, 0, 1};
    float *cos_table = grad_zeros(POSITIONS * DIM / 2),
          *sin_table = grad_zeros(POSITIONS * DIM / 2);
    float *gradient = grad_zeros(TOKENS * HEADS * DIM);
    struct turn t = {.x = grad_values(TOKENS * HEADS * DIM),
                     .dy = grad_values(TOKENS * HEADS * DIM)};

    for (int i = 0; i < POSITIONS * DIM / 2; i++) {
        double angle = i / (DIM / 2) * pow(100, -(i % (DIM / 2)) / (double)(DIM / 2));

        cos_table[i] = (float)cos(angle);
        sin_table[i] = (float)sin(angle);
    }
    for (int i = 0; i < TOKENS * HEADS * DIM; i++)
        gradient[i] = t.dy[i];
    t.op = (struct tr_op_rope){.x = gradient,
                               .position = grad_ints(position, TOKENS),
                               .cos = cos_table,
                               .sin = sin_table,
                               .n = TOKENS,
                               .heads = HEADS,
                               .head_dim = DIM,
                               .inverse = 1};
    grad_run(TR_OP_ROPE, &t.op);
    t.op.x = grad_zeros(TOKENS * HEADS * DIM);
    t.op.inverse = 0;
    grad_judge(
        &(struct grad_case){"rope", rope_loss, &t, {{"x", t.x, gradient, TOKENS * HEADS * DIM}}});
}
