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
        return tr_error(-EINVAL, "op %s: the cpu device computes in f32, not in %s",
                        tr_op_name(op->kind), tr_dtype_name(compute_dtype(op)));
    switch (op->kind) {
#define RUN(kind, name, member)                                                                    \
    case TR_OP_##kind:                                                                             \
        return tr_cpu_##name(cpu, &op->member);
        TR_OPS(RUN)
#undef RUN
    case TR_OP_KINDS:
        break;
    }
    return tr_error(-EINVAL, "no such op: %d", (int)op->kind);
}
