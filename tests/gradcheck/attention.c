/* SPDX-License-Identifier: Apache-2.0
 *
 * Gradients of attention: causal over several tiles, grouped queries, windows, documents.
 */
#include <math.h>

#include "tests/gradcheck/grad.h"

enum { TOKENS = 150 };

static double loss(void *arg)
{
    const struct tr_op_attention *op = arg;

    grad_run(TR_OP_ATTENTION, op);
    return grad_dot(op->o, op->d_o, op->n * op->heads * op->head_dim);
}

/* The documents for a device. */
static void set_docs(struct tr_op_attention *op)
{
    int32_t first[TOKENS], end[TOKENS];

    for (int32_t d = 0; d < op->docs.n; d++)
        for (int32_t t = op->docs.start[d]; t < op->docs.start[d + 1]; t++) {
            first[t] = op->docs.start[d];
            end[t] = op->docs.start[d + 1];
        }
    op->doc_first = grad_ints(first, TOKENS);
    op->doc_end = grad_ints(end, TOKENS);
}

static void one(const char *name, struct tr_op_attention op)
{
    int64_t q = op.n * op.heads * op.head_dim, k = op.n * op.kv_heads * op.head_dim;
    float *values[3] = {grad_values(q), grad_values(k), grad_values(k)};

    set_docs(&op);
    op.scale = 1 / sqrtf((float)op.head_dim);
    op.q = values[0];
    op.k = values[1];
    op.v = values[2];
    op.d_o = grad_values(q);
    op.o = grad_zeros(q);
    op.lse = grad_zeros(op.n * op.heads);
    op.delta = grad_zeros(op.n * op.heads);
    op.dq = grad_zeros(q);
    op.dk = grad_zeros(k);
    op.dv = grad_zeros(k);
    grad_run(TR_OP_ATTENTION, &op);
    grad_run(TR_OP_ATTENTION_GRAD, &op);
    grad_judge(&(struct grad_case){
        name,
        loss,
        &op,
        {{"q", values[0], op.dq, q}, {"k", values[1], op.dk, k}, {"v", values[2], op.dv, k}}});
}

void grad_attention(void)
{
    static const int32_t whole[2] = {0, TOKENS}, docs[4] = {0, 9, 80, TOKENS};
    static const struct {
        const char *name;
        int heads, kv_heads, head_dim, window;
        struct tr_ranges docs;
    } cases[] = {
        {"attention", 2, 2, 8, 0, {1, whole}},
        {"attention, grouped queries", 6, 2, 8, 0, {1, whole}},
        {"attention, documents, one kv head", 3, 1, 5, 0, {3, docs}},
        {"attention, grouped, window, docs", 4, 2, 8, 7, {3, docs}},
        {"attention, heads as models have", 2, 1, 64, 0, {3, docs}},
    };

    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
        one(cases[i].name, (struct tr_op_attention){.n = TOKENS,
                                                    .heads = cases[i].heads,
                                                    .kv_heads = cases[i].kv_heads,
                                                    .head_dim = cases[i].head_dim,
                                                    .window = cases[i].window,
                                                    .docs = cases[i].docs});
}
