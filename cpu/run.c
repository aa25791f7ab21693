/* SPDX-License-Identifier: Apache-2.0 */
#include "cpu/run.h"

#include "cpu/blas.h"
#include "src/base/err.h"

int tr_cpu_context_open(struct tr_cpu_context *c, const char *tier, int threads)
{
    int error = tr_cpu_tier_parse(tier, &c->tier);

    if (!error)
        error = tr_blas_open(&c->cpu.blas);
    if (!error)
        error = tr_pool_open(&c->cpu.pool, threads);
    if (error)
        return error;
    tr_cpu_kernels_init(&c->kernels, c->tier);
    c->cpu.kernels = &c->kernels;
    return 0;
}

void tr_cpu_context_close(struct tr_cpu_context *c)
{
    tr_pool_close(c->cpu.pool);
    c->cpu.pool = NULL;
}

/* The dtype of the activations of an op, where it has one. */
static enum tr_dtype compute_dtype(const struct tr_op *op)
{
    switch (op->kind) {
    case TR_OP_RMSNORM:
    case TR_OP_RMSNORM_GRAD:
        return op->rmsnorm.y_dtype;
    case TR_OP_MATMUL:
    case TR_OP_MATMUL_DX:
    case TR_OP_MATMUL_DW:
        return op->matmul.in_dtype ? op->matmul.in_dtype : op->matmul.out_dtype;
    case TR_OP_BIAS_GRAD:
        return op->bias_grad.dtype;
    case TR_OP_ROPE:
        return op->rope.dtype;
    case TR_OP_ATTENTION:
    case TR_OP_ATTENTION_GRAD:
        return op->attention.dtype;
    case TR_OP_ATTENTION_CACHED:
        return op->attention_cached.dtype;
    case TR_OP_SWIGLU:
    case TR_OP_SWIGLU_GRAD:
        return op->swiglu.dtype;
    case TR_OP_XENT_GRAD:
        return op->xent.dtype;
    default:
        return TR_F32;
    }
}

int tr_cpu_run(const struct tr_cpu *cpu, const struct tr_op *op)
{
    if (compute_dtype(op) != TR_F32)
        return tr_error(-EINVAL, "op %d: the cpu device computes in f32, not in %s", (int)op->kind,
                        tr_dtype_name(compute_dtype(op)));
    switch (op->kind) {
    case TR_OP_EMBED:
        return tr_cpu_embed(cpu, &op->embed);
    case TR_OP_EMBED_GRAD:
        return tr_cpu_embed_grad(cpu, &op->embed);
    case TR_OP_RMSNORM:
        return tr_cpu_rmsnorm(cpu, &op->rmsnorm);
    case TR_OP_RMSNORM_GRAD:
        return tr_cpu_rmsnorm_grad(cpu, &op->rmsnorm);
    case TR_OP_MATMUL:
        return tr_cpu_matmul(cpu, &op->matmul);
    case TR_OP_MATMUL_DX:
        return tr_cpu_matmul_dx(cpu, &op->matmul);
    case TR_OP_MATMUL_DW:
        return tr_cpu_matmul_dw(cpu, &op->matmul);
    case TR_OP_BIAS_GRAD:
        return tr_cpu_bias_grad(cpu, &op->bias_grad);
    case TR_OP_ROPE:
        return tr_cpu_rope(cpu, &op->rope);
    case TR_OP_ATTENTION:
        return tr_cpu_attention(cpu, &op->attention);
    case TR_OP_ATTENTION_GRAD:
        return tr_cpu_attention_grad(cpu, &op->attention);
    case TR_OP_ATTENTION_CACHED:
        return tr_cpu_attention_cached(cpu, &op->attention_cached);
    case TR_OP_SWIGLU:
        return tr_cpu_swiglu(cpu, &op->swiglu);
    case TR_OP_SWIGLU_GRAD:
        return tr_cpu_swiglu_grad(cpu, &op->swiglu);
    case TR_OP_ADD:
        return tr_cpu_add(cpu, &op->add);
    case TR_OP_XENT:
        return tr_cpu_xent(cpu, &op->xent);
    case TR_OP_XENT_LOSS:
        return tr_cpu_xent_loss(cpu, &op->xent);
    case TR_OP_XENT_GRAD:
        return tr_cpu_xent_grad(cpu, &op->xent);
    case TR_OP_CAST:
        return tr_cpu_cast(cpu, &op->cast);
    case TR_OP_SUMSQ:
        return tr_cpu_sumsq(cpu, &op->sumsq);
    case TR_OP_ROUND:
        return tr_cpu_round(cpu, &op->round);
    case TR_OP_DROPOUT:
        return tr_cpu_dropout(cpu, &op->dropout);
    case TR_OP_SGD:
        return tr_cpu_sgd(cpu, &op->update);
    case TR_OP_ADAMW:
        return tr_cpu_adamw(cpu, &op->update);
    case TR_OP_MOMENTUM:
        return tr_cpu_momentum(cpu, &op->update);
    case TR_OP_ADAM_MINI:
        return tr_cpu_adam_mini(cpu, &op->update);
    case TR_OP_ADALOMO_SUM:
        return tr_cpu_adalomo_sum(cpu, &op->update);
    case TR_OP_ADALOMO_FACTOR:
        return tr_cpu_adalomo_factor(cpu, &op->update);
    case TR_OP_ADALOMO:
        return tr_cpu_adalomo(cpu, &op->update);
    case TR_OP_KINDS:
        break;
    }
    return tr_error(-EINVAL, "no such op: %d", (int)op->kind);
}
