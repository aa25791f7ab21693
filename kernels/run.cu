/* SPDX-License-Identifier: Apache-2.0 */
#include "kernels/cuda.h"

#include <stdio.h>

#include "kernels/device.h"

static const char *const names[TR_OP_KINDS] = {
    "embed",       "embed_grad", "rmsnorm", "rmsnorm_grad", "matmul",         "matmul_dx",
    "matmul_dw",   "bias_grad",  "rope",    "attention",    "attention_grad", "attention_cached",
    "swiglu",
    "swiglu_grad", "add",        "xent",    "xent_loss",    "xent_grad",      "cast",
    "sumsq",       "round",      "dropout", "sgd",          "adamw",          "momentum",
    "adam_mini",   "adalomo_sum", "adalomo_factor", "adalomo"};

static int dispatch(const struct tr_cuda *cuda, const struct tr_op *op)
{
    switch (op->kind) {
    case TR_OP_EMBED:
        return tr_cuda_embed(cuda, &op->embed);
    case TR_OP_EMBED_GRAD:
        return tr_cuda_embed_grad(cuda, &op->embed);
    case TR_OP_RMSNORM:
        return tr_cuda_rmsnorm(cuda, &op->rmsnorm);
    case TR_OP_RMSNORM_GRAD:
        return tr_cuda_rmsnorm_grad(cuda, &op->rmsnorm);
    case TR_OP_MATMUL:
        return tr_cuda_matmul(cuda, &op->matmul);
    case TR_OP_MATMUL_DX:
        return tr_cuda_matmul_dx(cuda, &op->matmul);
    case TR_OP_MATMUL_DW:
        return tr_cuda_matmul_dw(cuda, &op->matmul);
    case TR_OP_BIAS_GRAD:
        return tr_cuda_bias_grad(cuda, &op->bias_grad);
    case TR_OP_ROPE:
        return tr_cuda_rope(cuda, &op->rope);
    case TR_OP_ATTENTION:
        return tr_cuda_attention(cuda, &op->attention);
    case TR_OP_ATTENTION_GRAD:
        return tr_cuda_attention_grad(cuda, &op->attention);
    case TR_OP_ATTENTION_CACHED:
        return tr_cuda_attention_cached(cuda, &op->attention_cached);
    case TR_OP_SWIGLU:
        return tr_cuda_swiglu(cuda, &op->swiglu);
    case TR_OP_SWIGLU_GRAD:
        return tr_cuda_swiglu_grad(cuda, &op->swiglu);
    case TR_OP_ADD:
        return tr_cuda_add(cuda, &op->add);
    case TR_OP_XENT:
        return tr_cuda_xent(cuda, &op->xent);
    case TR_OP_XENT_LOSS:
        return tr_cuda_xent_loss(cuda, &op->xent);
    case TR_OP_XENT_GRAD:
        return tr_cuda_xent_grad(cuda, &op->xent);
    case TR_OP_CAST:
        return tr_cuda_cast(cuda, &op->cast);
    case TR_OP_SUMSQ:
        return tr_cuda_sumsq(cuda, &op->sumsq);
    case TR_OP_ROUND:
        return tr_cuda_round(cuda, &op->round);
    case TR_OP_DROPOUT:
        return tr_cuda_dropout(cuda, &op->dropout);
    case TR_OP_SGD:
        return tr_cuda_sgd(cuda, &op->update);
    case TR_OP_ADAMW:
        return tr_cuda_adamw(cuda, &op->update);
    case TR_OP_MOMENTUM:
        return tr_cuda_momentum(cuda, &op->update);
    case TR_OP_ADAM_MINI:
        return tr_cuda_adam_mini(cuda, &op->update);
    case TR_OP_ADALOMO_SUM:
        return tr_cuda_adalomo_sum(cuda, &op->update);
    case TR_OP_ADALOMO_FACTOR:
        return tr_cuda_adalomo_factor(cuda, &op->update);
    case TR_OP_ADALOMO:
        return tr_cuda_adalomo(cuda, &op->update);
    case TR_OP_KINDS:
        break;
    }
    return tr_cuda_refuse(-EINVAL, "no such op: %d", (int)op->kind);
}

int tr_cuda_run(const struct tr_cuda *cuda, const struct tr_op *op)
{
    int error = dispatch(cuda, op);
    char message[400];

    if (!error || op->kind >= TR_OP_KINDS)
        return error;
    snprintf(message, sizeof(message), "%s", tr_cuda_host->message());
    return tr_cuda_refuse(error, "op %s on the cuda device: %s", names[op->kind], message);
}
