/* SPDX-License-Identifier: Apache-2.0
 *
 * Gradients of swiglu, and of cross-entropy over three vocabulary slices with weighted tokens.
 */
#include <string.h>

#include "tests/gradcheck/grad.h"

static double swiglu_loss(void *arg)
{
    const struct tr_op_swiglu *op = arg;

    grad_run(TR_OP_SWIGLU, op);
    return grad_dot(op->out, op->dout, op->n);
}

void grad_swiglu(void)
{
    float *gate = grad_values(333), *up = grad_values(333);
    struct tr_op_swiglu op = {.gate = gate, .up = up, .n = 333};

    op.out = grad_zeros(op.n);
    op.dout = grad_values(op.n);
    op.dgate = grad_zeros(op.n);
    op.dup = grad_zeros(op.n);
    grad_run(TR_OP_SWIGLU_GRAD, &op);
    grad_judge(&(struct grad_case){
        "swiglu", swiglu_loss, &op, {{"gate", gate, op.dgate, 333}, {"up", up, op.dup, 333}}});
}

enum { TOKENS = 6, SLICE = 15, VOCABULARY = 3 * SLICE };

struct head {
    struct tr_op_xent op;
    float *logits; /* (TOKENS, VOCABULARY) */
};

static void load_slice(struct head *h, int64_t row0)
{
    h->op.row0 = row0;
    h->op.first = row0 == 0;
    for (int t = 0; t < TOKENS; t++)
        memcpy(h->op.logits + t * SLICE, h->logits + t * VOCABULARY + row0, SLICE * sizeof(float));
}

static double xent_loss(void *arg)
{
    struct head *h = arg;

    for (int64_t row0 = 0; row0 < VOCABULARY; row0 += SLICE) {
        load_slice(h, row0);
        grad_run(TR_OP_XENT, &h->op);
    }
    grad_run(TR_OP_XENT_LOSS, &h->op);
    return grad_dot(h->op.nll, h->op.scale, TOKENS);
}

void grad_xent(void)
{
    static const int32_t targets[TOKENS] = {0, 14, 15, -1, 44, 30};
    static const float scales[TOKENS] = {1, 0.5f, 2, 0, 1.25f, 0.75f};
    float *all = grad_zeros(8 * TOKENS), *gradient = grad_zeros(TOKENS * VOCABULARY);
    struct head h = {.op = {.n = TOKENS, .rows = SLICE, .targets = grad_ints(targets, TOKENS)}};
    float *scale = grad_zeros(TOKENS);

    memcpy(scale, scales, sizeof(scales));
    h.op.scale = scale;
    h.logits = grad_values(TOKENS * VOCABULARY);
    h.op.logits = grad_zeros(TOKENS * SLICE);
    h.op.max = all;
    h.op.sum = all + TOKENS;
    h.op.target_logit = all + 2 * TOKENS;
    h.op.lse = all + 3 * TOKENS;
    h.op.nll = all + 4 * TOKENS;
    xent_loss(&h);
    for (int64_t row0 = 0; row0 < VOCABULARY; row0 += SLICE) {
        load_slice(&h, row0);
        h.op.dlogits = h.op.logits;
        grad_run(TR_OP_XENT_GRAD, &h.op);
        for (int t = 0; t < TOKENS; t++)
            memcpy(gradient + t * VOCABULARY + row0, h.op.logits + t * SLICE,
                   SLICE * sizeof(float));
    }
    grad_judge(&(struct grad_case){"xent, three slices",
                                   xent_loss,
                                   &h,
                                   {{"logits", h.logits, gradient, TOKENS * VOCABULARY}}});
}
