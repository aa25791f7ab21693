/* SPDX-License-Identifier: Apache-2.0
 *
 * What is bound by arithmetic: products of a 7B model's shapes, grain by grain, against the best
 * rate of one large product; and attention at 4096 tokens against the same.
 */
#include <stdio.h>

#include "tests/cuda/bench/bench.h"

struct shape {
    int64_t n, m, k;
    int32_t grain; /* tokens of one */
};

static void run(const struct bench *b, void *arg)
{
    bench_must(b->d->ops->run(b->d, TR_STREAM_COMPUTE, arg));
}

typedef double timer(const struct bench *b, void (*fn)(const struct bench *b, void *arg),
                     void *arg);

static double product_rate(const struct bench *b, enum tr_op_kind kind, const struct shape *s,
                           timer *time)
{
    int32_t start[9];
    char *w = b->arena, *x = w + 2 * s->m * s->k, *y = x + 2 * s->n * s->k;
    char *dx = y + 2 * s->n * s->m, *dw = dx + 4 * s->n * s->k;
    struct tr_op op = {kind, .matmul = {.w = w,
                                        .w_dtype = TR_BF16,
                                        .in_dtype = TR_BF16,
                                        .out_dtype = kind == TR_OP_MATMUL ? TR_BF16 : TR_F32,
                                        .x = x,
                                        .y = y,
                                        .dy = y,
                                        .dx = dx,
                                        .dw = (float *)dw,
                                        .n = s->n,
                                        .m = s->m,
                                        .k = s->k,
                                        .grains = {(int32_t)(s->n / s->grain), start}}};

    for (int32_t g = 0; g <= op.matmul.grains.n; g++)
        start[g] = g * s->grain;
    return 2.0 * (double)s->n * (double)s->m * (double)s->k / time(b, run, &op) * 1e-12;
}

static void bench_attention(const struct bench *b, int64_t n, int64_t kv_heads)
{
    int64_t heads = b->quick ? 4 : 32, d = b->quick ? 64 : 128;
    size_t q = (size_t)(n * heads * d) * 2, kv = (size_t)(n * kv_heads * d) * 2;
    size_t rows = (size_t)(n * heads) * sizeof(float), ids = (size_t)n * sizeof(int32_t);
    int32_t docs[2] = {0, (int32_t)n};
    char *at = b->arena, *first = at, *end = at + ids, *floats = end + ids, *half;
    struct tr_op op = {TR_OP_ATTENTION, .attention = {.dtype = TR_BF16,
                                                      .n = n,
                                                      .heads = heads,
                                                      .kv_heads = kv_heads,
                                                      .head_dim = d,
                                                      .scale = 0.088f,
                                                      .docs = {1, docs}}};
    struct tr_op_attention *a = &op.attention;
    double flops = 2.0 * (double)n * (double)n * (double)(heads * d), t;
    static int32_t last[4096];

    for (int64_t i = 0; i < n; i++)
        last[i] = (int32_t)n;
    bench_must(b->d->ops->fill(b->d, TR_STREAM_COMPUTE, first, 0, ids));
    bench_must(b->d->ops->copy_in(b->d, TR_STREAM_COMPUTE, end, last, ids));
    a->doc_first = (int32_t *)first;
    a->doc_end = (int32_t *)end;
    a->lse = (float *)floats;
    a->delta = (float *)(floats + rows);
    half = floats + 2 * rows;
    a->q = half;
    a->o = half + q;
    a->d_o = half + 2 * q;
    a->dq = half + 3 * q;
    half += 4 * q;
    a->k = half;
    a->v = half + kv;
    a->dk = half + 2 * kv;
    a->dv = half + 3 * kv;
    t = bench_time(b, run, &op);
    bench_row(kv_heads == heads ? "attention" : "attention, grouped", flops / t * 1e-12, "TFLOP/s",
              b->gemm_rate);
    op.kind = TR_OP_ATTENTION_GRAD;
    t = bench_time(b, run, &op);
    bench_row(kv_heads == heads ? "attention_grad" : "attention_grad, grouped",
              2.5 * flops / t * 1e-12, "TFLOP/s", b->gemm_rate);
}

static void product_row(const struct bench *b, enum tr_op_kind kind, const struct shape *s)
{
    const char *name = kind == TR_OP_MATMUL      ? "matmul"
                       : kind == TR_OP_MATMUL_DX ? "matmul_dx"
                                                 : "matmul_dw";
    char what[96];

    snprintf(what, sizeof(what), "%s %lld x %lld x %lld in grains of %d, bf16", name,
             (long long)s->n, (long long)s->m, (long long)s->k, (int)s->grain);
    bench_row(what, product_rate(b, kind, s, bench_time), "TFLOP/s", b->gemm_rate);
}

void bench_gemm(struct bench *b)
{
    struct shape best = {8192, 8192, 8192, 8192}, mlp = {8192, 11008, 4096, 0};
    struct shape square = {8192, 4096, 4096, 0};
    struct tr_device_info info;

    b->d->ops->info(b->d, &info);
    mlp.grain = square.grain = info.grain_tokens;
    if (b->quick)
        best = mlp = square = (struct shape){32, 32, 32, 16};
    b->gemm_rate = product_rate(b, TR_OP_MATMUL, &best, bench_time);
    product_row(b, TR_OP_MATMUL, &best);
    bench_row("the same after seconds of nothing else",
              product_rate(b, TR_OP_MATMUL, &best, bench_time_warm), "TFLOP/s", b->gemm_rate);
    product_row(b, TR_OP_MATMUL, &mlp);
    product_row(b, TR_OP_MATMUL_DX, &mlp);
    product_row(b, TR_OP_MATMUL_DW, &mlp);
    product_row(b, TR_OP_MATMUL, &square);
}

void bench_attentions(const struct bench *b)
{
    bench_attention(b, b->quick ? 64 : 4096, b->quick ? 4 : 32);
    bench_attention(b, b->quick ? 64 : 4096, b->quick ? 2 : 8);
}
