/* SPDX-License-Identifier: Apache-2.0
 *
 * Stands in for the runtime and for what the device gives its ops: errors and scratch.
 */
#include "tests/cuda/elementwise/bridge.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/cuda.h"
#include "kernels/launch.cuh"
#include "kernels/update.cuh"
#include "tests/cuda/shim/shim.h"

#define POISONED (256u << 10) /* of the scratch, before each op */

static char message[512];
static int launch_failed;

cudaError_t tr_fake_launch(cudaStream_t s, const struct tr_shim_grid *g, void (*body)(void *),
                           void (*destroy)(void *), void *arg)
{
    (void)s;
    if (tr_shim_run(g, body, arg, message, sizeof(message)))
        launch_failed = 1;
    destroy(arg);
    return cudaSuccess;
}

int tr_cuda_refuse(int code, const char *fmt, ...)
{
    va_list ap;

    va_start(ap, fmt);
    vsnprintf(message, sizeof(message), fmt, ap);
    va_end(ap);
    return code;
}

int tr_cuda_launched(const struct tr_cuda *cuda, const char *kernel)
{
    (void)cuda, (void)kernel;
    return launch_failed ? -EIO : 0;
}

static int run(const struct tr_cuda *cuda, const struct tr_op *op)
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
    case TR_OP_BIAS_GRAD:
        return tr_cuda_bias_grad(cuda, &op->bias_grad);
    case TR_OP_ROPE:
        return tr_cuda_rope(cuda, &op->rope);
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
    default:
        return tr_cuda_refuse(-ENOTSUP, "op %d has its own test", (int)op->kind);
    }
}

int bridge_run(const struct tr_op *op, size_t scratch_bytes)
{
    static char *scratch = static_cast<char *>(aligned_alloc(4096, TR_CUDA_SCRATCH_BYTES));
    struct tr_cuda cuda = {};

    cuda.scratch = scratch;
    cuda.scratch_bytes = scratch_bytes;
    cuda.sm = 86;
    launch_failed = 0;
    memset(scratch, 0xff, scratch_bytes < POISONED ? scratch_bytes : POISONED);
    return run(&cuda, op);
}

const char *bridge_message(void)
{
    return message;
}

double bridge_widen(float x)
{
    return update_widen(x);
}
