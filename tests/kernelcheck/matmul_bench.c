/* SPDX-License-Identifier: Apache-2.0
 *
 * The products' speed; on the cpu also against plain calls of the same BLAS, in turn.
 */
#include <stdio.h>
#include <stdlib.h>

#include "cpu/blas.h"
#include "tests/kernelcheck/bench.h"
#include "tests/kernelcheck/matmul.h"

#define PAIRS 15

enum kind { Y, DX, DW };

static const char *const kind_names[] = {"y", "dx", "dw"};
static const enum tr_op_kind op_kinds[] = {TR_OP_MATMUL, TR_OP_MATMUL_DX, TR_OP_MATMUL_DW};

/* The best that untiled calls reach: one sgemm on each core, an equal share of the columns (rows
 * for dw), f32 weights. */
struct plain {
    const struct tr_cpu *cpu;
    const struct tr_op_matmul *op;
    const float *w;
    enum kind kind;
};

static void plain_part(void *arg, int64_t begin, int64_t end, int worker)
{
    const struct plain *p = arg;
    const struct tr_op_matmul *op = p->op;
    struct tr_gemm g = {.rows = op->n, .cols = end - begin, .lda = op->m, .ldb = op->k};

    (void)worker;
    if (p->kind == Y) {
        g.k = g.lda = op->k;
        g.a = op->x;
        g.b = p->w + begin * op->k;
        g.b_trans = 1;
        g.c = (float *)op->y + begin;
        g.ldc = op->m;
    } else if (p->kind == DX) {
        g.k = op->m;
        g.a = op->dy;
        g.b = p->w + begin;
        g.c = (float *)op->dx + begin;
        g.ldc = op->k;
    } else {
        g.k = op->n;
        g.rows = end - begin;
        g.cols = g.ldc = op->k;
        g.a = (const float *)op->dy + begin;
        g.a_trans = 1;
        g.b = op->x;
        g.c = op->dw + begin * op->k;
    }
    tr_blas_gemm(p->cpu->blas, &g);
}

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;

    return (x > y) - (x < y);
}

/* Plain and tiled in turn, so that the machine's moods hit both: the median of the pairs' ratios.
 */
static void bench_ratio(struct check *c, const struct tr_op_matmul *op, enum kind kind)
{
    double ratios[PAIRS], best = 1e9;
    float *w = check_scratch(c, (size_t)(op->m * op->k) * sizeof(float));
    struct plain p = {c->cpu, op, w, kind};

    for (int64_t i = 0; i < op->m * op->k; i++)
        w[i] = tr_load_f32(op->w, op->w_dtype, (size_t)i);
    for (int i = 0; i < PAIRS; i++) {
        double t0 = bench_now(), t1, t2;

        tr_pool_run(c->cpu->pool, kind == DX ? op->k : op->m, 64, plain_part, &p);
        t1 = bench_now();
        check_run(c, op_kinds[kind], op);
        t2 = bench_now();
        ratios[i] = (t1 - t0) / (t2 - t1);
        best = t1 - t0 < best ? t1 - t0 : best;
    }
    qsort(ratios, PAIRS, sizeof(ratios[0]), by_value);
    printf("        tiled / plain: %.2f (plain: one sgemm per core, %.0f GFLOP/s)\n",
           ratios[PAIRS / 2], 2e-9 * (double)(op->n * op->m * op->k) / best);
}

static void bench_shape(struct check *c, const struct matmul_shape *s,
                        const struct matmul_dtypes *d)
{
    struct matmul_case t;

    for (enum kind kind = Y; kind <= DW; kind++)
        while (check_case(c, "%s %s n=%d m=%lld k=%lld", kind_names[kind], tr_dtype_name(d->w),
                          s->grains[0] + s->grains[1] + s->grains[2], (long long)s->m,
                          (long long)s->k)) {
            struct tr_op_matmul *op = matmul_open(c, &t, s, d);
            double flops = 2.0 * (double)(op->n * op->m * op->k);

            op->bias = NULL;
            CHECK_BENCH(c, 0, flops)
            check_run(c, op_kinds[kind], op);
            if (!c->device)
                bench_ratio(c, op, kind);
        }
}

void matmul_bench(struct check *c, const struct matmul_dtypes *d)
{
    static const struct matmul_shape cpu[] = {{{512}, 2048, 2048},
                                              {{512}, 5632, 2048},
                                              {{512}, 2048, 5632},
                                              {{512, 512}, 5632, 2048},
                                              {{512, 512, 512}, 512, 192}};
    static const struct matmul_shape device[] = {{{2048, 2048, 2048}, 4096, 4096},
                                                 {{2048, 2048, 2048}, 11008, 4096},
                                                 {{2048, 2048, 2048}, 4096, 11008},
                                                 {{2048}, 8192, 8192}};

    if (d->w == TR_F16)
        return;
    for (size_t i = 0; i < (c->device ? 4 : 5); i++)
        bench_shape(c, c->device ? &device[i] : &cpu[i], d);
}
