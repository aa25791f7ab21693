/* SPDX-License-Identifier: Apache-2.0
 *
 * The cuda device inside: what every op gets. An op (kernels/rmsnorm.cu and so on) checks its
 * arguments, queues its kernels on cuda->stream and returns; it waits for nothing and allocates
 * nothing. Work of size 0 is legal and does nothing. One op has one name here, in cpu/ and in
 * tests/kernelcheck/.
 *
 * The same source is compiled twice: by nvcc into the module, and by the host compiler against
 * tests/cuda/include into a module that runs on the CPU, for the tests.
 */
#ifndef TR_KERNELS_CUDA_H
#define TR_KERNELS_CUDA_H

#include <cuda_runtime.h>

#include <errno.h>

#include "src/base/device.h"

struct tr_cuda_matmul; /* kernels/matmul.cu: cuBLASLt, its workspace and its choices by shape */

/* Device memory for partial sums; a kernel of the same stream may overwrite it at once. */
#define TR_CUDA_SCRATCH_BYTES (16u << 20)

struct tr_cuda {
    cudaStream_t
        stream;    /* the compute stream: in order, and so one owner of the scratch at a time */
    char *scratch; /* 256-aligned; undefined contents at the start of an op */
    size_t scratch_bytes; /* TR_CUDA_SCRATCH_BYTES */
    struct tr_cuda_matmul *matmul;
    int sm; /* compute capability as 10 * major + minor */
};

/* A GPU of a data centre: fast tensor cores, and memory of both kinds to match: sm_80, 90, 100; not
 * 86, 89, 120. */
static inline int tr_cuda_large(const struct tr_cuda *cuda)
{
    return cuda->sm == 80 || (cuda->sm >= 90 && cuda->sm < 120);
}

/* Keeps "TEXT: NAME (what it means)" with a hint where there is one; returns a negative errno. */
int tr_cuda_error(cudaError_t e, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* Keeps the message of an error that is not the runtime's (-EINVAL, -ENOTSUP); returns code. */
int tr_cuda_refuse(int code, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* 0, or the error of the launches since the last call. To be called once after an op's launches. */
int tr_cuda_launched(const struct tr_cuda *cuda, const char *kernel);

/* The ops; each returns 0 or a negative errno with a message. */
int tr_cuda_embed(const struct tr_cuda *cuda, const struct tr_op_embed *op);
int tr_cuda_embed_grad(const struct tr_cuda *cuda, const struct tr_op_embed *op);
int tr_cuda_rmsnorm(const struct tr_cuda *cuda, const struct tr_op_rmsnorm *op);
int tr_cuda_rmsnorm_grad(const struct tr_cuda *cuda, const struct tr_op_rmsnorm *op);
int tr_cuda_matmul(const struct tr_cuda *cuda, const struct tr_op_matmul *op);
int tr_cuda_matmul_dx(const struct tr_cuda *cuda, const struct tr_op_matmul *op);
int tr_cuda_matmul_dw(const struct tr_cuda *cuda, const struct tr_op_matmul *op);
int tr_cuda_bias_grad(const struct tr_cuda *cuda, const struct tr_op_bias_grad *op);
int tr_cuda_rope(const struct tr_cuda *cuda, const struct tr_op_rope *op);
int tr_cuda_attention(const struct tr_cuda *cuda, const struct tr_op_attention *op);
int tr_cuda_attention_grad(const struct tr_cuda *cuda, const struct tr_op_attention *op);
int tr_cuda_attention_cached(const struct tr_cuda *cuda, const struct tr_op_attention_cached *op);
int tr_cuda_swiglu(const struct tr_cuda *cuda, const struct tr_op_swiglu *op);
int tr_cuda_swiglu_grad(const struct tr_cuda *cuda, const struct tr_op_swiglu *op);
int tr_cuda_add(const struct tr_cuda *cuda, const struct tr_op_add *op);
int tr_cuda_xent(const struct tr_cuda *cuda, const struct tr_op_xent *op);
int tr_cuda_xent_loss(const struct tr_cuda *cuda, const struct tr_op_xent *op);
int tr_cuda_xent_grad(const struct tr_cuda *cuda, const struct tr_op_xent *op);
int tr_cuda_cast(const struct tr_cuda *cuda, const struct tr_op_cast *op);
int tr_cuda_sumsq(const struct tr_cuda *cuda, const struct tr_op_sumsq *op);
int tr_cuda_round(const struct tr_cuda *cuda, const struct tr_op_round *op);
int tr_cuda_dropout(const struct tr_cuda *cuda, const struct tr_op_dropout *op);
int tr_cuda_sgd(const struct tr_cuda *cuda, const struct tr_op_update *op);
int tr_cuda_adamw(const struct tr_cuda *cuda, const struct tr_op_update *op);
int tr_cuda_momentum(const struct tr_cuda *cuda, const struct tr_op_update *op);
int tr_cuda_adam_mini(const struct tr_cuda *cuda, const struct tr_op_update *op);
int tr_cuda_adalomo_sum(const struct tr_cuda *cuda, const struct tr_op_update *op);
int tr_cuda_adalomo_factor(const struct tr_cuda *cuda, const struct tr_op_update *op);
int tr_cuda_adalomo(const struct tr_cuda *cuda, const struct tr_op_update *op);

/* kernels/run.cu: the op by its kind. */
int tr_cuda_run(const struct tr_cuda *cuda, const struct tr_op *op);

#endif
