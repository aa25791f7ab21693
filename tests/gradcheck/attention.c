/* SPDX-License-Identifier: Apache-2.0
 *
 * Gradients of attention: causal over several tiles, grouped queries, windows, documents.
 */
#include <math.h>

#include "tests/gradcheck/grad.h"

static double loss(void *arg)
{
    const struct tr_op_attention *op = arg;

    grad_ok(tr_cpu_attention(grad_cpu(), op));
    return grad_dot(op->o, op->d_o, op->n * op->heads * op->head_dim);
}

static void one(const char *name, struct tr_op_attention op)
{
    int64_t q = op.n * op.heads * op.head_dim, k = op.n * op.kv_heads * op.head_dim;
    float *values[3] = {grad_values(q), grad_values(k), grad_values(k)};

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
    grad_ok(tr_cpu_attention(grad_cpu(), &op));
    grad_ok(tr_cpu_attention_grad(grad_cpu(), &op));
    grad_judge(&(struct grad_case){
        name,
        loss,
        &op,
        {{"q", values[0], op.dq, q}, {"k", values[1], op.dk, k}, {"v", values[2], op.dv, k}}});
}

void grad_attention(void)
{
    static const int32_t whole[2] = {0, 150}, docs[4] = {0, 9, 80, 150};

    one("attention", (struct tr_op_attention){
                         .n = 150, .heads = 2, .kv_heads = 2, .head_dim = 8, .docs = {1, whole}});
    one("attention, grouped queries",
        (struct tr_op_attention){
            .n = 150, .heads = 6, .kv_heads = 2, .head_dim = 8, .docs = {1, whole}});
    one("attention, documents, one kv head",
        (struct tr_op_attention){
            .n = 150, .heads = 3, .kv_heads = 1, .head_dim = 5, .docs = {3, docs}});
    one("attention, grouped, window, docs",
        (struct tr_op_attention){
            .n = 150, .heads = 4, .kv_heads = 2, .head_dim = 8, .window = 7, .docs = {3, docs}});
}
