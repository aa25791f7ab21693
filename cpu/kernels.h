/* SPDX-License-Identifier: Apache-2.0
 *
 * The table of row and range kernels: what the ops call inside a worker. Plain C fills it first and
 * is the definition; tiers overwrite entries, weakest to strongest (cpu/add.c, cpu/add_avx2.c,
 * cpu/add_avx512.c and so on; one template per op serves both tiers).
 *
 * Every kernel has the same bits on every tier: sums run over TR_LANES accumulators (element i goes
 * to lane i % TR_LANES) that are folded by halves, products and sums are rounded one by one, fma is
 * used only where device.h says so, and exp is the same arithmetic everywhere (cpu/exp.h). So an
 * element's value depends neither on the tier nor on its place in a vector or a tail.
 * Kernels know no threads and allocate nothing. Buffers may be unaligned.
 */
#ifndef TR_CPU_KERNELS_H
#define TR_CPU_KERNELS_H

#include "cpu/flags.h"
#include "src/base/code8.h"
#include "src/base/device.h"

#define TR_LANES 16

/* Elements that an op handles at a time in buffers on the stack. */
#define TR_BLOCK 1024

/* One row of rmsnorm's input gradient. */
struct tr_rmsnorm_row {
    const float *x, *w, *dy; /* (n) */
    float *dx;               /* (n); may be dy */
    int64_t n;
    float rstd, mean; /* mean of dy * w * x * rstd over the row */
    int add;
};

/* What one row of attention's backward pass knows of its query. */
struct tr_attention_row {
    float scale, lse, delta;
};

/* A part of one row of adalomo_sum. */
struct tr_adalomo_row {
    int64_t begin, n; /* elements of op's g */
    float inverse;
    double *plain, *weighted; /* (n) */
};

/* Values in f32 of the elements that an update is made of; m and v where the optimizer has one for
 * each element. */
struct tr_update_values {
    float *x, *m, *v;
};

/* Updates the values of elements [begin, end) of op. */
typedef void tr_update_kernel(const struct tr_update_values *values, const struct tr_op_update *op,
                              int64_t begin, int64_t end);

/* What is drawn for a block of an input: its first element is `first` of op. */
struct tr_dropout_draw {
    const struct tr_op_dropout *op;
    uint64_t first;
};

struct tr_cpu_kernels {
    /* cast: n elements between a storage dtype and f32; round to nearest. */
    void (*to_f32[TR_DTYPES])(float *to, const void *from, int64_t n);
    void (*from_f32[TR_DTYPES])(void *to, const float *from, int64_t n);
    /* The random halves of stochastic rounding for groups [group, group + groups) of 8 elements. */
    void (*random)(uint16_t *to, uint64_t group, int64_t groups, const struct tr_op_update *op);
    void (*to_bf16_stochastic)(uint16_t *to, const float *from, const uint16_t *random, int64_t n);
    /* A block of n elements in 8 bits (src/base/code8.h). */
    void (*code8_load)(float *to, const uint8_t *block, int64_t n, enum tr_code8 kind);
    void (*code8_store)(uint8_t *block, const float *from, const uint16_t *random, int64_t n,
                        enum tr_code8 kind);
    /* tr_master_join and tr_master_split of dtype.h; rest may be NULL, and is then not kept. */
    void (*master_join)(float *to, const uint16_t *w, const int16_t *rest, int64_t n);
    void (*master_split)(uint16_t *w, int16_t *rest, const float *from, int64_t n);

    /* At most TR_BLOCK values, scaled, or 0 where they are drawn; to may be x. */
    void (*dropout)(float *to, const float *x, int64_t n, const struct tr_dropout_draw *draw);

    void (*add)(float *to, const float *a, const float *b, int64_t n); /* to may be a or b */
    double (*sumsq)(const float *x, int64_t n);

    /* rmsnorm: sum of x^2; y = x * rstd * w; sum of dy * w * x; dx; acc += dy * (x * rstd). */
    float (*rmsnorm_sumsq)(const float *x, int64_t n);
    void (*rmsnorm_scale)(float *y, const float *x, const float *w, float rstd, int64_t n);
    float (*rmsnorm_dot)(const float *dy, const float *w, const float *x, int64_t n);
    void (*rmsnorm_dx)(const struct tr_rmsnorm_row *row);
    void (*rmsnorm_dw)(float *acc, const float *dy, const float *x, float rstd, int64_t n);

    /* rope: one head's pairs (i, i + half) turned by the angle whose cos and sign * sin are given.
     */
    void (*rope)(float *x, const float *cos, const float *sin, float sign, int64_t half);

    void (*swiglu)(float *out, const float *gate, const float *up, int64_t n);
    void (*swiglu_grad)(const struct tr_op_swiglu *op, int64_t begin, int64_t end);

    /* xent: largest of a row and *max; sum of exp(x - max); x = exp(x - lse) * scale. */
    float (*xent_max)(const float *x, float max, int64_t n);
    float (*xent_sum)(const float *x, float max, int64_t n);
    void (*xent_grad)(float *x, float lse, float scale, int64_t n);

    /* attention, rows of a tile of scores before scaling, n a multiple of TR_LANES, masked scores
     * -infinity. Forward: s = exp((s - max) * scale), returns the sum. Backward: s = exp(s * scale
     * - lse), ds = s * (ds - delta) * scale. And: largest of a row and max; x *= by; a . b. */
    float (*attention_max)(const float *s, float max, int64_t n);
    float (*attention_exp)(float *s, float max, float scale, int64_t n);
    void (*attention_grad)(float *s, float *ds, const struct tr_attention_row *row, int64_t n);
    void (*attention_scale)(float *x, float by, int64_t n);
    float (*attention_dot)(const float *a, const float *b, int64_t n);

    /* The updates of device.h. */
    tr_update_kernel *sgd;
    tr_update_kernel *adamw;
    tr_update_kernel *momentum;
    tr_update_kernel *adam_mini;
    /* The sum of G * G over a piece of adam_mini: elements [begin, begin + n) of op's g. */
    double (*gradient_sumsq)(const struct tr_op_update *op, int64_t begin, int64_t n);
    tr_update_kernel *adalomo;
    /* Of adalomo_sum: adds the squares of elements [begin, begin + n), as they are and weighted. */
    void (*adalomo_columns)(const struct tr_op_update *op, const struct tr_adalomo_row *row);
};

/* Fills the table: C, then every tier up to `tier`. */
void tr_cpu_kernels_init(struct tr_cpu_kernels *k, enum tr_cpu_tier tier);

/* The SIMD part, chosen by file: cpu/kernels_x86.c. */
void tr_cpu_kernels_init_simd(struct tr_cpu_kernels *k, enum tr_cpu_tier tier);

/* What has kernels of its own: the one place where a new row is registered. */
#define TR_CPU_KERNELS(X)                                                                          \
    X(cast)                                                                                        \
    X(code8)                                                                                       \
    X(dropout)                                                                                     \
    X(add)                                                                                         \
    X(sumsq)                                                                                       \
    X(rmsnorm)                                                                                     \
    X(rope) X(swiglu) X(xent) X(attention) X(sgd) X(adamw) X(momentum) X(adam_mini) X(adalomo)

#define TR_CPU_KERNELS_DECLARE(op)                                                                 \
    void tr_##op##_init_c(struct tr_cpu_kernels *k);                                               \
    void tr_##op##_init_avx2(struct tr_cpu_kernels *k);                                            \
    void tr_##op##_init_avx512(struct tr_cpu_kernels *k);
TR_CPU_KERNELS(TR_CPU_KERNELS_DECLARE)

/* Folds the accumulators by halves: lane j + 8 onto j, then 4, 2, 1. */
static inline float tr_lanes_sum(float lanes[TR_LANES])
{
    for (int half = TR_LANES / 2; half; half /= 2)
        for (int j = 0; j < half; j++)
            lanes[j] += lanes[j + half];
    return lanes[0];
}

static inline double tr_lanes_sum_f64(double lanes[TR_LANES])
{
    for (int half = TR_LANES / 2; half; half /= 2)
        for (int j = 0; j < half; j++)
            lanes[j] += lanes[j + half];
    return lanes[0];
}

#endif
