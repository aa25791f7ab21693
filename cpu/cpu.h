/* SPDX-License-Identifier: Apache-2.0
 *
 * The cpu device inside: what every op gets. An op (cpu/rmsnorm.c and so on) splits its work over
 * the pool in parts that do not depend on the number of threads in any value, and calls the kernels
 * of the chosen tier. One op has one name here, in kernels/ and in tests/kernelcheck/.
 */
#ifndef TR_CPU_CPU_H
#define TR_CPU_CPU_H

#include "src/base/device.h"
#include "src/base/pool.h"

struct tr_cpu_kernels; /* cpu/kernels.h: row and range kernels, C first, tiers overwrite */
struct tr_blas;        /* cpu/blas.h: single-threaded sgemm of the right kernel type */

/* Scratch of each worker: panels of the matmuls, which widen 16-bit weights in them, and tiles of
 * attention, which are all that a device for f32 alone needs room for. */
#define TR_CPU_SCRATCH_BYTES (1u << 20)
#define TR_CPU_SCRATCH_F32   (1u << 17)

struct tr_cpu {
    struct tr_pool *pool;
    const struct tr_cpu_kernels *kernels;
    const struct tr_blas *blas;
    char *scratch; /* worker w owns bytes [w, w + 1) * tr_cpu_scratch_bytes, 64-aligned */
    int f32_only;  /* no weight is stored in 16 bits */
};

static inline size_t tr_cpu_scratch_bytes(int f32_only)
{
    return f32_only ? TR_CPU_SCRATCH_F32 : TR_CPU_SCRATCH_BYTES;
}

static inline void *tr_cpu_scratch(const struct tr_cpu *cpu, int worker)
{
    return cpu->scratch + (size_t)worker * tr_cpu_scratch_bytes(cpu->f32_only);
}

/* The ops; each returns 0 or a negative errno with a message. */
int tr_cpu_embed(const struct tr_cpu *cpu, const struct tr_op_embed *op);
int tr_cpu_embed_grad(const struct tr_cpu *cpu, const struct tr_op_embed *op);
int tr_cpu_rmsnorm(const struct tr_cpu *cpu, const struct tr_op_rmsnorm *op);
int tr_cpu_rmsnorm_grad(const struct tr_cpu *cpu, const struct tr_op_rmsnorm *op);
int tr_cpu_matmul(const struct tr_cpu *cpu, const struct tr_op_matmul *op);
int tr_cpu_matmul_dx(const struct tr_cpu *cpu, const struct tr_op_matmul *op);
int tr_cpu_matmul_dw(const struct tr_cpu *cpu, const struct tr_op_matmul *op);
int tr_cpu_bias_grad(const struct tr_cpu *cpu, const struct tr_op_bias_grad *op);
int tr_cpu_rope(const struct tr_cpu *cpu, const struct tr_op_rope *op);
int tr_cpu_attention(const struct tr_cpu *cpu, const struct tr_op_attention *op);
int tr_cpu_attention_grad(const struct tr_cpu *cpu, const struct tr_op_attention *op);
int tr_cpu_attention_cached(const struct tr_cpu *cpu, const struct tr_op_attention_cached *op);
int tr_cpu_swiglu(const struct tr_cpu *cpu, const struct tr_op_swiglu *op);
int tr_cpu_swiglu_grad(const struct tr_cpu *cpu, const struct tr_op_swiglu *op);
int tr_cpu_add(const struct tr_cpu *cpu, const struct tr_op_add *op);
int tr_cpu_xent(const struct tr_cpu *cpu, const struct tr_op_xent *op);
int tr_cpu_xent_loss(const struct tr_cpu *cpu, const struct tr_op_xent *op);
int tr_cpu_xent_grad(const struct tr_cpu *cpu, const struct tr_op_xent *op);
int tr_cpu_cast(const struct tr_cpu *cpu, const struct tr_op_cast *op);
int tr_cpu_sumsq(const struct tr_cpu *cpu, const struct tr_op_sumsq *op);
int tr_cpu_round(const struct tr_cpu *cpu, const struct tr_op_round *op);
int tr_cpu_dropout(const struct tr_cpu *cpu, const struct tr_op_dropout *op);
int tr_cpu_sgd(const struct tr_cpu *cpu, const struct tr_op_update *op);
int tr_cpu_adamw(const struct tr_cpu *cpu, const struct tr_op_update *op);
int tr_cpu_momentum(const struct tr_cpu *cpu, const struct tr_op_update *op);
int tr_cpu_adam_mini(const struct tr_cpu *cpu, const struct tr_op_update *op);
int tr_cpu_adalomo_sum(const struct tr_cpu *cpu, const struct tr_op_update *op);
int tr_cpu_adalomo_factor(const struct tr_cpu *cpu, const struct tr_op_update *op);
int tr_cpu_adalomo(const struct tr_cpu *cpu, const struct tr_op_update *op);

#endif
