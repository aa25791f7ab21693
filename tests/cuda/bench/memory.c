/* SPDX-License-Identifier: Apache-2.0
 *
 * What is bound by the device's memory: the ops that touch every element once, by the bytes they
 * must move, against what only copies: a kernel or the driver, whichever is faster.
 */
#include "src/base/code8.h"
#include "tests/cuda/bench/bench.h"

#define COLS 4096

static void run(const struct bench *b, void *arg)
{
    bench_must(b->d->ops->run(b->d, TR_STREAM_COMPUTE, arg));
}

static double rate(const struct bench *b, struct tr_op op, double bytes)
{
    return bytes / bench_time(b, run, &op) * 1e-9;
}

/* Five arrays of n f32, apart. */
static char *part(const struct bench *b, int i, int64_t n)
{
    return b->arena + (size_t)i * (size_t)n * sizeof(float);
}

/* State in fewer bits: of arithmetic there is more to each byte. */
static void bench_states(const struct bench *b, struct tr_op adamw, int64_t n)
{
    adamw.update.state_dtype = TR_BF16;
    bench_row("update adamw, bf16 stochastic, bf16 state", rate(b, adamw, 16.0 * (double)n), "GB/s",
              b->copy_rate);
    adamw.update.state_dtype = TR_8BIT;
    bench_row("update adamw, bf16 stochastic, 8-bit state",
              rate(b, adamw, 8.0 * (double)n + 4.0 * (double)tr_state_bytes(TR_8BIT, (uint64_t)n)),
              "GB/s", b->copy_rate);
}

/* The gradient goes by twice for the sums, along rows and along columns. */
static void bench_adalomo(const struct bench *b, struct tr_op sgd, int64_t n)
{
    struct tr_op update = sgd, sum;

    update.kind = TR_OP_ADALOMO;
    update.update.block = b->quick ? 64 : COLS;
    update.update.factored = 1;
    update.update.m = (float *)part(b, 2, n);
    update.update.sums = (double *)part(b, 3, n);
    update.update.factor = (float *)part(b, 4, n);
    sum = update;
    sum.kind = TR_OP_ADALOMO_SUM;
    bench_row("sums of adalomo, bf16", rate(b, sum, 10.0 * (double)n), "GB/s", b->copy_rate);
    bench_row("update adalomo, bf16 stochastic", rate(b, update, 8.0 * (double)n), "GB/s",
              b->copy_rate);
}

static void bench_updates(const struct bench *b, int64_t n)
{
    struct tr_op sgd = {TR_OP_SGD, .update = {.w = part(b, 0, n),
                                              .dtype = TR_BF16,
                                              .g = (float *)part(b, 1, n),
                                              .n = n,
                                              .unscale = 1,
                                              .coefficient = 1,
                                              .lr = 1e-3f,
                                              .rounding = TR_ROUND_STOCHASTIC}};
    struct tr_op adamw = sgd, sumsq = {TR_OP_SUMSQ, .sumsq = {.x = (float *)part(b, 1, n),
                                                              .n = n,
                                                              .out = (double *)part(b, 0, n)}};

    adamw.kind = TR_OP_ADAMW;
    adamw.update.m = (float *)part(b, 2, n);
    adamw.update.v = (float *)part(b, 3, n);
    adamw.update.beta1 = 0.9f;
    adamw.update.beta2 = 0.999f;
    adamw.update.eps = 1e-8f;
    adamw.update.step_size = 1e-3f;
    adamw.update.sqrt_bias2 = 1;
    bench_row("update sgd, bf16 stochastic", rate(b, sgd, 8.0 * (double)n), "GB/s", b->copy_rate);
    bench_row("update adamw, bf16 stochastic", rate(b, adamw, 24.0 * (double)n), "GB/s",
              b->copy_rate);
    bench_states(b, adamw, n);
    bench_adalomo(b, sgd, n);
    bench_row("sum of squares", rate(b, sumsq, 4.0 * (double)n), "GB/s", b->copy_rate);
}

static void bench_rows(const struct bench *b, int64_t n)
{
    int64_t rows = n / COLS;
    int32_t grain[2] = {0, (int32_t)rows};
    struct tr_op norm = {TR_OP_RMSNORM, .rmsnorm = {.x = part(b, 0, n),
                                                    .x_dtype = TR_BF16,
                                                    .w_dtype = TR_BF16,
                                                    .y_dtype = TR_BF16,
                                                    .w = part(b, 1, n),
                                                    .y = part(b, 2, n),
                                                    .rstd = (float *)part(b, 3, n),
                                                    .rows = rows,
                                                    .cols = COLS,
                                                    .eps = 1e-5f,
                                                    .dy = part(b, 2, n),
                                                    .dx = part(b, 4, n),
                                                    .dw = (float *)part(b, 1, n) + COLS,
                                                    .grains = {1, grain},
                                                    .rows_per_token = 1}};
    struct tr_op swiglu = {TR_OP_SWIGLU, .swiglu = {.dtype = TR_BF16,
                                                    .gate = part(b, 0, n),
                                                    .up = part(b, 1, n),
                                                    .out = part(b, 2, n),
                                                    .n = n}};
    struct tr_op add = {TR_OP_ADD, .add = {.a = part(b, 0, n),
                                           .a_dtype = TR_BF16,
                                           .b = (float *)part(b, 1, n),
                                           .out = part(b, 2, n),
                                           .out_dtype = TR_F32,
                                           .n = n}};

    bench_row("rmsnorm, bf16", rate(b, norm, 4.0 * (double)n), "GB/s", b->copy_rate);
    norm.kind = TR_OP_RMSNORM_GRAD;
    bench_row("rmsnorm_grad, bf16", rate(b, norm, 6.0 * (double)n), "GB/s", b->copy_rate);
    bench_row("swiglu, bf16", rate(b, swiglu, 6.0 * (double)n), "GB/s", b->copy_rate);
    bench_row("add, bf16 + f32", rate(b, add, 10.0 * (double)n), "GB/s", b->copy_rate);
}

void bench_memory(struct bench *b)
{
    int64_t n = b->quick ? 4 * COLS : (int64_t)64 << 20;
    struct tr_op copy = {TR_OP_CAST, .cast = {.from = part(b, 0, n),
                                              .from_dtype = TR_F32,
                                              .to_dtype = TR_F32,
                                              .to = part(b, 1, n),
                                              .n = n}};
    double driver, kernel;

    bench_must(
        b->d->ops->fill(b->d, TR_STREAM_COMPUTE, part(b, 3, n), 0, (size_t)n * sizeof(float)));
    driver = bench_driver_copy(b, (size_t)n * sizeof(float));
    if (driver > 0)
        bench_row("copy within the device by the driver, read and written", driver, "GB/s", 0);
    kernel = rate(b, copy, 8.0 * (double)n);
    bench_row("copy within the device, f32, read and written", kernel, "GB/s", driver);
    b->copy_rate = kernel > driver ? kernel : driver;
    bench_updates(b, n);
    bench_rows(b, n);
}
