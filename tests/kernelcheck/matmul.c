/* SPDX-License-Identifier: Apache-2.0
 *
 * matmul, matmul_dx and matmul_dw: against double at sampled elements, and bit for bit against
 * themselves over other thread counts and over grains one at a time (invariant 1). Mutants show
 * that the comparison sees one flipped bit and a sum that does not restart at its grain.
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cpu/blas.h"
#include "tests/kernelcheck/bench.h"
#include "tests/kernelcheck/check.h"

#define SAMPLES 1500
#define PAIRS   15

/* Token counts of up to three grains; 0 ends. */
struct shape {
    int32_t grains[3];
    int64_t m, k;
};

struct matmul_case {
    struct tr_op_matmul op;
    int32_t start[4];
};

static struct tr_op_matmul *open_case(struct check *c, struct matmul_case *t, const struct shape *s,
                                      enum tr_dtype dtype)
{
    struct tr_op_matmul *op = &t->op;
    enum check_values v = check_bench_on(c) ? CHECK_UNIFORM : CHECK_NORMAL;

    *t = (struct matmul_case){.op = {.w_dtype = dtype, .m = s->m, .k = s->k}};
    for (int i = 0; i < 3 && s->grains[i]; i++) {
        t->start[i + 1] = t->start[i] + s->grains[i];
        op->grains.n = i + 1;
    }
    op->grains.start = t->start;
    op->n = t->start[op->grains.n];
    op->w = check_input(c, dtype, (size_t)(op->m * op->k), v);
    op->bias = check_input(c, dtype, (size_t)op->m, v);
    op->x = check_input(c, TR_F32, (size_t)(op->n * op->k), v);
    op->dy = check_input(c, TR_F32, (size_t)(op->n * op->m), v);
    op->y = check_output(c, TR_F32, (size_t)(op->n * op->m));
    op->dx = check_output(c, TR_F32, (size_t)(op->n * op->k));
    op->dw = check_output(c, TR_F32, (size_t)(op->m * op->k));
    return op;
}

static void run_three(struct check *c, const struct tr_cpu *cpu, const struct tr_op_matmul *op)
{
    check_ok(c, tr_cpu_matmul(cpu, op));
    check_ok(c, tr_cpu_matmul_dx(cpu, op));
    check_ok(c, tr_cpu_matmul_dw(cpu, op));
}

/* ---- against double ---- */

/* A sum in double, and that of the magnitudes: what rounding errors are proportional to. */
struct sum {
    double value, magnitude;
};

static void add_to(struct sum *s, double term)
{
    s->value += term;
    s->magnitude += fabs(term);
}

static double at(const void *values, int64_t i)
{
    return ((const float *)values)[i];
}

static double weight(const struct tr_op_matmul *op, int64_t i, int64_t j)
{
    return tr_load_f32(op->w, op->w_dtype, (size_t)(i * op->k + j));
}

static struct sum want_y(const struct tr_op_matmul *op, int64_t t, int64_t i)
{
    struct sum s = {0, 0};

    for (int64_t j = 0; j < op->k; j++)
        add_to(&s, at(op->x, t * op->k + j) * weight(op, i, j));
    if (op->bias)
        add_to(&s, tr_load_f32(op->bias, op->w_dtype, (size_t)i));
    return s;
}

static struct sum want_dx(const struct tr_op_matmul *op, int64_t t, int64_t j)
{
    struct sum s = {0, 0};

    for (int64_t i = 0; i < op->m; i++)
        add_to(&s, at(op->dy, t * op->m + i) * weight(op, i, j));
    return s;
}

static struct sum want_dw(const struct tr_op_matmul *op, int64_t i, int64_t j)
{
    struct sum s = {0, 0};

    for (int64_t t = 0; t < op->n; t++)
        add_to(&s, at(op->dy, t * op->m + i) * at(op->x, t * op->k + j));
    return s;
}

struct result {
    const char *name;
    const float *got; /* (rows, cols) */
    int64_t rows, cols;
    struct sum (*want)(const struct tr_op_matmul *op, int64_t row, int64_t col);
    double factor; /* how often the value was added */
};

/* All elements of a small result, else a sample, in units of their magnitude; none may be left as
 * poison. */
static void judge(struct check *c, const struct tr_op_matmul *op, const struct result *r)
{
    int64_t n = r->rows * r->cols, samples = n < SAMPLES ? n : SAMPLES, nans = 0;
    float *got = check_scratch(c, (size_t)samples * sizeof(float));
    double *want = check_scratch(c, (size_t)samples * sizeof(double));

    for (int64_t s = 0; s < samples; s++) {
        int64_t i = n == samples ? s : check_random_below(c, n);

        struct sum sum = r->want(op, i / r->cols, i % r->cols);

        got[s] = (float)(r->got[i] / (sum.magnitude * r->factor));
        want[s] = sum.value / sum.magnitude;
    }
    for (int64_t i = 0; i < n; i++)
        nans += isnan(r->got[i]) != 0;
    check_true(c, nans == 0, "%s: %lld elements not written", r->name, (long long)nans);
    check_close(c, r->name, got, want, (size_t)samples);
}

static void judge_three(struct check *c, const struct tr_op_matmul *op, double added)
{
    struct result r[] = {{"y", op->y, op->n, op->m, want_y, 1},
                         {"dx", op->dx, op->n, op->k, want_dx, added},
                         {"dw", op->dw, op->m, op->k, want_dw, added}};

    for (int i = 0; i < 3; i++)
        judge(c, op, &r[i]);
}

static void check_values_of(struct check *c, const struct shape *s, enum tr_dtype dtype)
{
    struct matmul_case t;

    while (check_case(c, "%s grains=%d,%d,%d m=%lld k=%lld", tr_dtype_name(dtype), s->grains[0],
                      s->grains[1], s->grains[2], (long long)s->m, (long long)s->k)) {
        struct tr_op_matmul *op = open_case(c, &t, s, dtype);

        run_three(c, c->cpu, op);
        judge_three(c, op, 1);
        op->add = 1;
        op->bias = NULL;
        run_three(c, c->cpu, op);
        judge_three(c, op, 2);
    }
}

/* ---- bit for bit ---- */

struct results {
    float *y, *dx, *dw;
};

static void use_fresh(struct check *c, struct tr_op_matmul *op, struct results *r)
{
    r->y = op->y = check_output(c, TR_F32, (size_t)(op->n * op->m));
    r->dx = op->dx = check_output(c, TR_F32, (size_t)(op->n * op->k));
    r->dw = op->dw = check_output(c, TR_F32, (size_t)(op->m * op->k));
}

static void check_same(struct check *c, const struct tr_op_matmul *op, const struct results *a,
                       const struct results *b)
{
    check_equal(c, "y", TR_F32, a->y, b->y, (size_t)(op->n * op->m));
    check_equal(c, "dx", TR_F32, a->dx, b->dx, (size_t)(op->n * op->k));
    check_equal(c, "dw", TR_F32, a->dw, b->dw, (size_t)(op->m * op->k));
}

/* Every grain as an op of its own, the later ones adding to dw. */
static void run_grain_by_grain(struct check *c, const struct tr_op_matmul *whole)
{
    for (int32_t g = 0; g < whole->grains.n; g++) {
        int32_t t0 = whole->grains.start[g], start[2] = {0, whole->grains.start[g + 1] - t0};
        struct tr_op_matmul op = *whole;

        op.n = start[1];
        op.grains = (struct tr_ranges){1, start};
        op.x = (const float *)op.x + t0 * op.k;
        op.y = (float *)op.y + t0 * op.m;
        op.dx = (float *)op.dx + t0 * op.k;
        op.dy = (const float *)op.dy + t0 * op.m;
        check_ok(c, tr_cpu_matmul(c->cpu, &op));
        check_ok(c, tr_cpu_matmul_dx(c->cpu, &op));
        op.add = g > 0;
        check_ok(c, tr_cpu_matmul_dw(c->cpu, &op));
    }
}

static void check_mutants(struct check *c, const struct tr_op_matmul *op, const struct results *r)
{
    size_t bytes = (size_t)(op->m * op->k) * sizeof(float);
    float *flipped = check_scratch(c, bytes);
    int32_t merged[2] = {0, (int32_t)op->n};
    struct tr_op_matmul mutant = *op;

    memcpy(flipped, r->dw, bytes);
    flipped[bytes / 8] = tr_bits_f32(tr_f32_bits(flipped[bytes / 8]) ^ 1);
    check_true(c, check_differs(flipped, r->dw, bytes), "mutant: one flipped bit was not seen");
    mutant.grains = (struct tr_ranges){1, merged};
    mutant.dw = check_output(c, TR_F32, bytes / sizeof(float));
    check_ok(c, tr_cpu_matmul_dw(c->cpu, &mutant));
    check_true(c, check_differs(mutant.dw, r->dw, bytes), "mutant: merged grains were not seen");
}

static void check_bits_of(struct check *c, const struct shape *s, enum tr_dtype dtype)
{
    struct matmul_case t;
    struct results first, other;

    while (check_case(c, "bits %s grains=%d,%d,%d m=%lld k=%lld", tr_dtype_name(dtype),
                      s->grains[0], s->grains[1], s->grains[2], (long long)s->m, (long long)s->k)) {
        struct tr_op_matmul *op = open_case(c, &t, s, dtype);

        use_fresh(c, op, &first);
        run_three(c, check_cpu(c, 1), op);
        for (int threads = 2; threads <= CHECK_MAX_THREADS; threads++) {
            use_fresh(c, op, &other);
            run_three(c, check_cpu(c, threads), op);
            check_same(c, op, &first, &other);
        }
        use_fresh(c, op, &other);
        run_grain_by_grain(c, op);
        check_same(c, op, &first, &other);
        check_mutants(c, op, &first);
    }
}

/* A NaN in one token reaches its own row and no other. */
static void check_nan_row(struct check *c)
{
    struct shape s = {{40, 30}, 300, 70};
    struct matmul_case t;
    struct results clean, dirty;

    while (check_case(c, "a NaN token")) {
        struct tr_op_matmul *op = open_case(c, &t, &s, TR_F32);
        float *x = check_scratch(c, (size_t)(op->n * op->k) * sizeof(float));
        int64_t row = 41;

        use_fresh(c, op, &clean);
        check_ok(c, tr_cpu_matmul(c->cpu, op));
        memcpy(x, op->x, (size_t)(op->n * op->k) * sizeof(float));
        x[row * op->k + 3] = NAN;
        op->x = x;
        use_fresh(c, op, &dirty);
        check_ok(c, tr_cpu_matmul(c->cpu, op));
        for (int64_t i = 0; i < op->m; i++)
            check_true(c, isnan(dirty.y[row * op->m + i]), "column %lld lost the NaN",
                       (long long)i);
        memcpy(dirty.y + row * op->m, clean.y + row * op->m, (size_t)op->m * sizeof(float));
        check_equal(c, "y", TR_F32, dirty.y, clean.y, (size_t)(op->n * op->m));
    }
}

/* ---- speed ---- */

typedef int matmul_fn(const struct tr_cpu *cpu, const struct tr_op_matmul *op);

enum kind { Y, DX, DW };

static const char *const kind_names[] = {"y", "dx", "dw"};
static matmul_fn *const kind_fns[] = {tr_cpu_matmul, tr_cpu_matmul_dx, tr_cpu_matmul_dw};

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
        kind_fns[kind](c->cpu, op);
        t2 = bench_now();
        ratios[i] = (t1 - t0) / (t2 - t1);
        best = t1 - t0 < best ? t1 - t0 : best;
    }
    qsort(ratios, PAIRS, sizeof(ratios[0]), by_value);
    printf("        tiled / plain: %.2f (plain: one sgemm per core, %.0f GFLOP/s)\n",
           ratios[PAIRS / 2], 2e-9 * (double)(op->n * op->m * op->k) / best);
}

static void bench_shape(struct check *c, const struct shape *s, enum tr_dtype dtype)
{
    struct matmul_case t;

    for (enum kind kind = Y; kind <= DW; kind++)
        while (check_case(c, "%s %s n=%d m=%lld k=%lld", kind_names[kind], tr_dtype_name(dtype),
                          s->grains[0] + s->grains[1] + s->grains[2], (long long)s->m,
                          (long long)s->k)) {
            struct tr_op_matmul *op = open_case(c, &t, s, dtype);
            double flops = 2.0 * (double)(op->n * op->m * op->k);

            op->bias = NULL;
            CHECK_BENCH(c, 0, flops)
            check_ok(c, kind_fns[kind](c->cpu, op));
            bench_ratio(c, op, kind);
        }
}

void check_matmul(struct check *c)
{
    static const struct shape values[] = {
        {{1}, 1, 1},       {{1}, 7, 13},           {{5}, 1, 3},
        {{3}, 3, 1},       {{2, 3}, 67, 131},      {{129, 1, 70}, 521, 67},
        {{1}, 1031, 1601}, {{515, 61}, 530, 1601},
    };
    static const struct shape bits[] = {{{512, 588, 37}, 521, 1601}, {{1025, 513}, 100, 97}};
    static const struct shape speed[] = {{{512}, 2048, 2048},
                                         {{512}, 5632, 2048},
                                         {{512}, 2048, 5632},
                                         {{512, 512}, 5632, 2048},
                                         {{512, 512, 512}, 512, 192}};
    size_t n_values = sizeof(values) / sizeof(values[0]),
           n_speed = sizeof(speed) / sizeof(speed[0]);

    for (size_t i = 0; i < n_speed && check_bench_on(c); i++)
        for (enum tr_dtype d = TR_F32; d <= TR_BF16; d++)
            bench_shape(c, &speed[i], d);
    if (check_bench_on(c))
        return;
    for (enum tr_dtype d = TR_F32; d < TR_DTYPES; d++) {
        for (size_t i = 0; i < n_values; i++)
            check_values_of(c, &values[i], d);
        for (size_t i = 0; i < 2; i++)
            check_bits_of(c, &bits[i], d);
    }
    check_nan_row(c);
}
