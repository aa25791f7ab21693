/* SPDX-License-Identifier: Apache-2.0
 *
 * matmul, matmul_dx and matmul_dw: against double at sampled elements, and bit for bit against
 * themselves in every variant and over grains one at a time (invariant 1). Mutants show that the
 * comparison sees one flipped bit and a sum that does not restart at its grain.
 */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "tests/kernelcheck/matmul.h"
#include "tests/kernelcheck/variant.h"

#define SAMPLES 1500

/* ---- cases ---- */

struct tr_op_matmul *matmul_open(struct check *c, struct matmul_case *t,
                                 const struct matmul_shape *s, const struct matmul_dtypes *d)
{
    struct tr_op_matmul *op = &t->op;
    enum check_values v = check_bench_on(c) ? CHECK_UNIFORM : CHECK_NORMAL;

    *t = (struct matmul_case){.op = {.w_dtype = d->w, .m = s->m, .k = s->k}};
    for (int i = 0; i < 3 && s->grains[i]; i++) {
        t->start[i + 1] = t->start[i] + s->grains[i];
        op->grains.n = i + 1;
    }
    op->in_dtype = d->in;
    op->out_dtype = d->out;
    op->grains.start = t->start;
    op->n = t->start[op->grains.n];
    op->w = check_input(c, d->w, (size_t)(op->m * op->k), v);
    op->bias = check_input(c, d->w, (size_t)op->m, v);
    op->x = check_input(c, d->in, (size_t)(op->n * op->k), v);
    op->dy = check_input(c, d->in, (size_t)(op->n * op->m), v);
    matmul_fresh(c, op);
    c->compute = d->in;
    return op;
}

void matmul_fresh(struct check *c, struct tr_op_matmul *op)
{
    op->y = check_output(c, op->out_dtype, (size_t)(op->n * op->m));
    op->dx = check_output(c, op->out_dtype, (size_t)(op->n * op->k));
    op->dw = check_output(c, TR_F32, (size_t)(op->m * op->k));
}

static void run_three(struct check *c, const struct tr_op_matmul *op)
{
    check_run(c, TR_OP_MATMUL, op);
    check_run(c, TR_OP_MATMUL_DX, op);
    check_run(c, TR_OP_MATMUL_DW, op);
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

static double at(const struct tr_op_matmul *op, const void *values, int64_t i)
{
    return tr_load_f32(values, op->in_dtype, (size_t)i);
}

static double weight(const struct tr_op_matmul *op, int64_t i, int64_t j)
{
    return tr_load_f32(op->w, op->w_dtype, (size_t)(i * op->k + j));
}

static struct sum want_y(const struct tr_op_matmul *op, int64_t t, int64_t i)
{
    struct sum s = {0, 0};

    for (int64_t j = 0; j < op->k; j++)
        add_to(&s, at(op, op->x, t * op->k + j) * weight(op, i, j));
    if (op->bias)
        add_to(&s, tr_load_f32(op->bias, op->w_dtype, (size_t)i));
    return s;
}

static struct sum want_dx(const struct tr_op_matmul *op, int64_t t, int64_t j)
{
    struct sum s = {0, 0};

    for (int64_t i = 0; i < op->m; i++)
        add_to(&s, at(op, op->dy, t * op->m + i) * weight(op, i, j));
    return s;
}

static struct sum want_dw(const struct tr_op_matmul *op, int64_t i, int64_t j)
{
    struct sum s = {0, 0};

    for (int64_t t = 0; t < op->n; t++)
        add_to(&s, at(op, op->dy, t * op->m + i) * at(op, op->x, t * op->k + j));
    return s;
}

struct result {
    const char *name;
    enum tr_dtype dtype;
    const void *got; /* (rows, cols) */
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
        double value = tr_load_f32(r->got, r->dtype, (size_t)i), all = sum.value * r->factor;

        got[s] = (float)(check_unrounded(r->dtype, value, all) / (sum.magnitude * r->factor));
        want[s] = sum.value / sum.magnitude;
    }
    for (int64_t i = 0; i < n; i++)
        nans += isnan(tr_load_f32(r->got, r->dtype, (size_t)i)) != 0;
    check_true(c, nans == 0, "%s: %lld elements not written", r->name, (long long)nans);
    check_close(c, r->name, TR_F32, got, want, (size_t)samples);
}

static void judge_three(struct check *c, const struct tr_op_matmul *op, double added)
{
    struct result r[] = {{"y", op->out_dtype, op->y, op->n, op->m, want_y, 1},
                         {"dx", op->out_dtype, op->dx, op->n, op->k, want_dx, added},
                         {"dw", TR_F32, op->dw, op->m, op->k, want_dw, added}};

    for (int i = 0; i < 3; i++)
        judge(c, op, &r[i]);
}

static const char *name_of(const struct matmul_dtypes *d)
{
    static char name[32];

    snprintf(name, sizeof(name), "%s %s->%s", tr_dtype_name(d->w), tr_dtype_name(d->in),
             tr_dtype_name(d->out));
    return name;
}

static void check_values_of(struct check *c, const struct matmul_shape *s,
                            const struct matmul_dtypes *d)
{
    struct matmul_case t;

    while (check_case(c, "%s grains=%d,%d,%d m=%lld k=%lld", name_of(d), s->grains[0], s->grains[1],
                      s->grains[2], (long long)s->m, (long long)s->k)) {
        struct tr_op_matmul *op = matmul_open(c, &t, s, d);

        run_three(c, op);
        judge_three(c, op, 1);
        if (d->out != TR_F32)
            continue;
        op->add = 1;
        op->bias = NULL;
        run_three(c, op);
        judge_three(c, op, 2);
        op->fused = 1; /* from what is there, whatever add says */
        op->add = 0;
        op->lr = 0.5f;
        check_run(c, TR_OP_MATMUL_DW, op);
        judge(c, op, &(struct result){"fused dw", TR_F32, op->dw, op->m, op->k, want_dw, 1.5});
    }
}

/* ---- bit for bit ---- */

static void check_same(struct check *c, const struct tr_op_matmul *a, const struct tr_op_matmul *b)
{
    check_equal(c, "y", a->out_dtype, a->y, b->y, (size_t)(a->n * a->m));
    check_equal(c, "dx", a->out_dtype, a->dx, b->dx, (size_t)(a->n * a->k));
    check_equal(c, "dw", TR_F32, a->dw, b->dw, (size_t)(a->m * a->k));
}

/* Every grain as an op of its own, the later ones adding to dw. */
static void run_grain_by_grain(struct check *c, const struct tr_op_matmul *whole)
{
    size_t in = tr_dtype_size(whole->in_dtype), out = tr_dtype_size(whole->out_dtype);

    for (int32_t g = 0; g < whole->grains.n; g++) {
        int32_t t0 = whole->grains.start[g], start[2] = {0, whole->grains.start[g + 1] - t0};
        struct tr_op_matmul op = *whole;

        op.n = start[1];
        op.grains = (struct tr_ranges){1, start};
        op.x = (const char *)op.x + (size_t)(t0 * op.k) * in;
        op.y = (char *)op.y + (size_t)(t0 * op.m) * out;
        op.dx = (char *)op.dx + (size_t)(t0 * op.k) * out;
        op.dy = (const char *)op.dy + (size_t)(t0 * op.m) * in;
        check_run(c, TR_OP_MATMUL, &op);
        check_run(c, TR_OP_MATMUL_DX, &op);
        op.add = g > 0;
        check_run(c, TR_OP_MATMUL_DW, &op);
    }
}

static void check_mutants(struct check *c, const struct tr_op_matmul *op)
{
    size_t bytes = (size_t)(op->m * op->k) * sizeof(float);
    float *flipped = check_scratch(c, bytes);
    int32_t merged[2] = {0, (int32_t)op->n};
    struct tr_op_matmul mutant = *op;

    memcpy(flipped, op->dw, bytes);
    flipped[bytes / 8] = tr_bits_f32(tr_f32_bits(flipped[bytes / 8]) ^ 1);
    check_true(c, check_differs(flipped, op->dw, bytes), "mutant: one flipped bit was not seen");
    mutant.grains = (struct tr_ranges){1, merged};
    mutant.dw = check_output(c, TR_F32, bytes / sizeof(float));
    check_run(c, TR_OP_MATMUL_DW, &mutant);
    check_true(c, check_differs(mutant.dw, op->dw, bytes), "mutant: merged grains were not seen");
}

static void check_bits_of(struct check *c, const struct matmul_shape *s,
                          const struct matmul_dtypes *d)
{
    struct matmul_case t;

    while (check_case(c, "bits %s grains=%d,%d,%d m=%lld k=%lld", name_of(d), s->grains[0],
                      s->grains[1], s->grains[2], (long long)s->m, (long long)s->k)) {
        struct tr_op_matmul *op = matmul_open(c, &t, s, d), first = *op;

        run_three(c, &first);
        while (check_variant(c)) {
            matmul_fresh(c, op);
            run_three(c, op);
            check_same(c, &first, op);
        }
        matmul_fresh(c, op);
        run_grain_by_grain(c, op);
        check_same(c, &first, op);
        check_mutants(c, &first);
    }
}

/* A NaN in one token reaches its own row and no other. */
static void check_nan_row(struct check *c, const struct matmul_dtypes *d)
{
    struct matmul_shape s = {{40, 30}, 300, 70};
    struct matmul_case t;

    while (check_case(c, "%s a NaN token", name_of(d))) {
        struct tr_op_matmul *op = matmul_open(c, &t, &s, d), clean = *op;
        size_t bytes = (size_t)(op->n * op->k) * tr_dtype_size(d->in), row = 41;
        size_t out = (size_t)op->m * tr_dtype_size(d->out);
        void *x = memcpy(check_bytes(c, bytes), op->x, bytes);

        check_run(c, TR_OP_MATMUL, &clean);
        tr_store_f32(x, d->in, row * (size_t)op->k + 3, NAN);
        op->x = x;
        matmul_fresh(c, op);
        check_run(c, TR_OP_MATMUL, op);
        for (size_t i = 0; i < (size_t)op->m; i++)
            check_true(c, isnan(tr_load_f32(op->y, d->out, row * (size_t)op->m + i)),
                       "column %zu lost the NaN", i);
        memcpy((char *)op->y + row * out, (char *)clean.y + row * out, out);
        check_equal(c, "y", d->out, op->y, clean.y, (size_t)(op->n * op->m));
    }
}

static void check_dtypes(struct check *c, const struct matmul_dtypes *d)
{
    static const struct matmul_shape values[] = {
        {{1}, 1, 1},
        {{1}, 7, 13},
        {{5}, 1, 3},
        {{3}, 3, 1},
        {{2, 3}, 67, 131},
        {{129, 1, 70}, 130, 67},
        {{129, 1, 70}, 521, 67},
        {{1}, 1031, 1601},
        {{515, 61}, 530, 1601},
    };
    static const struct matmul_shape bits[] = {{{512, 588, 37}, 521, 1601}, {{1025, 513}, 100, 97}};
    static const struct matmul_shape small_bits[] = {{{64, 50, 9}, 67, 133}, {{50, 33}, 40, 64}};
    size_t n_values = check_small(c) ? 6 : sizeof(values) / sizeof(values[0]);

    for (size_t i = 0; i < n_values; i++)
        check_values_of(c, &values[i], d);
    for (size_t i = 0; i < 2; i++)
        check_bits_of(c, check_small(c) ? &small_bits[i] : &bits[i], d);
    check_nan_row(c, d);
}

/* Storage dtypes with what activations have then; results for further products, and in f32. */
void check_matmul(struct check *c)
{
    for (enum tr_dtype s = TR_F32; s < TR_DTYPES; s++) {
        struct matmul_dtypes d = {s, check_compute(c, s), check_compute(c, s)};

        if (check_bench_on(c)) {
            matmul_bench(c, &d);
            continue;
        }
        check_dtypes(c, &d);
        d.out = TR_F32;
        if (d.in != TR_F32)
            check_dtypes(c, &d);
    }
}
