/* SPDX-License-Identifier: Apache-2.0
 *
 * AdaLomo bit for bit by device.h's order of arithmetic, in every dtype and variant, with the rows
 * in one part and in three, as a table's slices come; and two steps of a matrix and of a vector
 * against numbers that were worked out in double.
 */
#include <math.h>
#include <string.h>

#include "tests/kernelcheck/update.h"
#include "tests/kernelcheck/variant.h"

#define LANES 16

static double fold(const double *sums, int64_t stride)
{
    double l[LANES];

    for (int i = 0; i < LANES; i++)
        l[i] = sums[i * stride];
    for (int half = LANES / 2; half; half /= 2)
        for (int i = 0; i < half; i++)
            l[i] += l[i + half];
    return l[0];
}

/* The sum over a row in pieces of 1024; of gradients or of weights. */
static double row_sum(const struct tr_op_update *op, int64_t row, int weights)
{
    double sum = 0, lanes[LANES] = {0};

    for (int64_t j = 0; j < op->block; j++) {
        int64_t i = row * op->block + j;
        double x = weights ? check_update_load(op, i) : check_update_gradient(op, i);

        lanes[j % LANES] += x * x;
        if ((j + 1) % 1024 && j + 1 < op->block)
            continue;
        sum += fold(lanes, 1);
        memset(lanes, 0, sizeof(lanes));
    }
    return sum;
}

static void sum_row(const struct tr_op_update *op, int64_t row)
{
    int64_t lane = (op->first / op->block + row) % LANES;
    double *columns = op->sums + 32 + lane * op->block;
    float inverse = 1;

    if (op->factored) {
        float mean = (float)(row_sum(op, row, 0) / (double)op->block + (double)op->eps);
        float kept = op->beta2 * op->m[row];

        op->m[row] = fmaf(op->beta1, mean, kept);
        inverse = 1 / op->m[row];
        op->sums[lane] += (double)op->m[row];
    }
    op->sums[LANES + lane] += row_sum(op, row, 1);
    for (int64_t j = 0; j < op->block; j++) {
        double g = check_update_gradient(op, row * op->block + j);
        double *weighted = columns + LANES * op->block + j;

        columns[j] += g * g;
        *weighted = fma(g * g, inverse, *weighted);
    }
}

static void reference_sum(const struct tr_op_update *op)
{
    for (int64_t i = 0; !op->add && i < 32 + 32 * op->block; i++)
        op->sums[i] = 0;
    for (int64_t row = op->n / op->block - 1; row >= 0; row--)
        sum_row(op, row);
}

static void reference_factor(const struct tr_op_update *op)
{
    double rows = (double)(op->n / op->block), squares[LANES] = {0}, u, x;
    float mean = op->factored ? (float)(fold(op->sums, 1) / rows) : 1;

    for (int64_t j = 0; j < op->block; j++) {
        const double *columns = op->sums + 32 + j;
        float fresh = (float)(fold(columns, op->block) / rows + (double)op->eps);
        float kept = op->beta2 * op->v[j];

        op->v[j] = fmaf(op->beta1, fresh, kept);
        float root = sqrtf(op->v[j]), f = 1 / root;
        op->factor[j] = f;
        double square = (double)f * f;
        square = square * fold(columns + LANES * op->block, op->block);
        squares[j % LANES] += square;
    }
    u = sqrt((double)mean * fold(squares, 1) / (double)op->n);
    x = sqrt(fold(op->sums + LANES, 1) / (double)op->n);
    float rate = (float)((double)op->lr * (x > (double)op->eps2 ? x : (double)op->eps2));
    float decay = rate * op->weight_decay;
    op->factor[op->block] = mean;
    op->factor[op->block + 1] = (float)((double)rate / (u > 1 ? u : 1));
    op->factor[op->block + 2] = 1 - decay;
}

static float element(const struct tr_op_update *op, int64_t i, float x)
{
    float g = check_update_gradient(op, i), a = 1;

    if (op->factored) {
        float ratio = op->m[i / op->block] / op->factor[op->block], root = sqrtf(ratio);

        a = 1 / root;
    }
    float f = a * op->factor[i % op->block];
    float u = f * g;
    if (op->weight_decay != 0)
        x = x * op->factor[op->block + 2];
    return fmaf(-op->factor[op->block + 1], u, x);
}

/* Copies of all that the ops write. */
static struct tr_op_update copied(struct check *c, const struct tr_op_update *from)
{
    size_t rows = (size_t)(from->n / from->block), cols = (size_t)from->block;
    size_t bytes = (size_t)from->n * tr_dtype_size(from->dtype);
    struct tr_op_update op = *from;

    op.w = memcpy(check_bytes(c, bytes), from->w, bytes);
    op.m = memcpy(check_bytes(c, rows * 4), from->m, rows * 4);
    op.v = memcpy(check_bytes(c, cols * 4), from->v, cols * 4);
    op.sums = check_bytes(c, (32 + 32 * cols) * sizeof(double));
    op.factor = check_bytes(c, (cols + 3) * sizeof(float));
    check_update_copy_master(c, &op, from);
    return op;
}

static void reference(const struct tr_op_update *op)
{
    struct update_check u = {TR_OP_ADALOMO, NULL, element, {0}};

    reference_sum(op);
    reference_factor(op);
    check_update_reference(&u, op);
}

/* Rows [begin, end) of op. */
static struct tr_op_update part(const struct tr_op_update *op, int64_t begin, int64_t end)
{
    struct tr_op_update p = *op;

    p.w = (char *)op->w + (size_t)(begin * op->block) * tr_dtype_size(op->dtype);
    p.g += begin * op->block;
    p.m += begin;
    check_update_shift_master(&p, begin * op->block);
    p.first += begin * op->block;
    p.n = (end - begin) * op->block;
    p.add = end * op->block < op->n;
    return p;
}

/* As a table is updated whose rows are cut at cuts[1], cuts[2]. */
static void run_parts(struct check *c, const struct tr_op_update *op, const int64_t cuts[4])
{
    for (int i = 2; i >= 0; i--) {
        struct tr_op_update p = part(op, cuts[i], cuts[i + 1]);

        if (p.n)
            check_run(c, TR_OP_ADALOMO_SUM, &p);
    }
    check_run(c, TR_OP_ADALOMO_FACTOR, op);
    for (int i = 0; i < 3; i++) {
        struct tr_op_update p = part(op, cuts[i], cuts[i + 1]);

        if (p.n)
            check_run(c, TR_OP_ADALOMO, &p);
    }
}

static void judge(struct check *c, const struct tr_op_update *got, const struct tr_op_update *want)
{
    size_t cols = (size_t)want->block, sums = (32 + 32 * cols) * sizeof(double);

    check_true(c, !check_differs(got->sums, want->sums, sums), "sums differ");
    check_equal(c, "factor", TR_F32, got->factor, want->factor, cols + 3);
    check_equal(c, "r", TR_F32, got->m, want->m, (size_t)want->n / cols);
    check_equal(c, "c", TR_F32, got->v, want->v, cols);
    check_update_judge(c, got, want);
}

struct shape {
    int64_t rows, cols, row0; /* row0: as if as many rows came before */
    int factored;
};

static struct tr_op_update draw(struct check *c, const struct tr_op_update *settings,
                                const struct shape *s, enum tr_dtype dtype)
{
    struct tr_op_update op = *settings;
    size_t n = (size_t)(s->rows * s->cols);
    float *m = check_inout(c, TR_F32, (size_t)s->rows, CHECK_NORMAL);
    float *v = check_inout(c, TR_F32, (size_t)s->cols, CHECK_NORMAL);

    for (int64_t i = 0; i < s->rows; i++)
        m[i] *= m[i];
    for (int64_t j = 0; j < s->cols; j++)
        v[j] *= v[j];
    op.w = check_inout(c, dtype, n, CHECK_NORMAL);
    op.g = check_input(c, TR_F32, n, CHECK_NORMAL);
    op.m = m;
    op.v = v;
    op.n = (int64_t)n;
    op.block = s->cols;
    op.first = s->row0 * s->cols;
    op.factored = s->factored;
    op.dtype = dtype;
    op.step = 0x100000007u;
    op.seed = 42;
    op.name = 0x9e3779b9;
    if (op.master_kind)
        check_update_draw_master(c, &op);
    return op;
}

static void one(struct check *c, const struct tr_op_update *settings, const struct shape *s,
                enum tr_dtype dtype)
{
    while (check_case(c, "%s %s %d x %d from row %d%s decay=%g clip=%g", tr_dtype_name(dtype),
                      check_update_way(settings), (int)s->rows, (int)s->cols, (int)s->row0,
                      s->factored ? "" : ", not factored", (double)settings->weight_decay,
                      (double)settings->clip_value)) {
        struct tr_op_update from = draw(c, settings, s, dtype), want = copied(c, &from), got;
        int64_t first = s->rows / 3, second = s->rows - (s->rows + 4) / 5;

        reference(&want);
        do {
            got = copied(c, &from);
            run_parts(c, &got, (int64_t[]){0, s->rows, s->rows, s->rows});
            judge(c, &got, &want);
        } while (check_variant(c));
        got = copied(c, &from);
        run_parts(c, &got, (int64_t[]){0, first, second < first ? first : second, s->rows});
        judge(c, &got, &want);
    }
}

static void bench(struct check *c, const struct tr_op_update *settings, enum tr_dtype dtype)
{
    static const enum tr_op_kind kinds[] = {TR_OP_ADALOMO_SUM, TR_OP_ADALOMO_FACTOR, TR_OP_ADALOMO};
    static const char *const names[] = {"sum", "factor", "update"};
    struct shape s = {c->device ? 8192 : 1024, 4096, 0, 1};

    for (int k = 0; k < 3; k++)
        while (check_case(c, "%s %s %d x %d", names[k], tr_dtype_name(dtype), (int)s.rows,
                          (int)s.cols)) {
            struct tr_op_update from = draw(c, settings, &s, dtype), op = copied(c, &from);
            double moved = k == 0   ? 4 + (double)tr_dtype_size(dtype)
                           : k == 2 ? 4 + 2 * (double)tr_dtype_size(dtype)
                                    : 256.0 / (double)s.rows;

            check_run(c, TR_OP_ADALOMO_SUM, &op);
            check_run(c, TR_OP_ADALOMO_FACTOR, &op);
            CHECK_BENCH(c, (double)op.n * moved, 0)
            check_run(c, kinds[k], &op);
        }
}

static void check_all(struct check *c, const struct tr_op_update *settings)
{
    static const struct shape shapes[] = {{1, 1, 0, 1},      {1, 45, 0, 0},    {1, 2500, 0, 0},
                                          {33, 24, 3, 1},    {20, 1040, 5, 1}, {2, 2077, 0, 1},
                                          {2100, 17, 15, 1}, {70, 130, 256, 1}};

    for (enum tr_dtype d = TR_F32; d < TR_DTYPES; d++) {
        if ((settings->rounding == TR_ROUND_STOCHASTIC && d == TR_F16) ||
            (settings->master_kind && !tr_master_fits(settings->master_kind, d)))
            continue;
        for (size_t i = 0; i < sizeof(shapes) / sizeof(shapes[0]) && !check_bench_on(c); i++)
            one(c, settings, &shapes[i], d);
        if (check_bench_on(c))
            bench(c, settings, d);
    }
}

struct vector {
    const char *name;
    int64_t rows, cols;
    int steps;
    float decay;
    float w[6], g[2][6];
    double want[6], r[2], c[3];
};

#define W                                                                                          \
    {                                                                                              \
        .1f, -.2f, .3f, .05f, 0, -.1f                                                              \
    }
#define G1                                                                                         \
    {                                                                                              \
        .01f, -.02f, .03f, .002f, 0, -.004f                                                        \
    }
#define G2                                                                                         \
    {                                                                                              \
        -.02f, .01f, .05f, .001f, .003f, 0                                                         \
    }

static const struct vector vectors[] = {
    {"matrix, one step",
     2,
     3,
     1,
     0,
     W,
     {G1},
     {.0985378729, -.198508917, .298521997, .0475533935, 0, -.0983512187},
     {4.66666667e-4, 6.66666667e-6},
     {5.2e-5, 2e-4, 4.58e-4}},
    {"matrix, decay",
     2,
     3,
     1,
     .1f,
     W,
     {G1},
     {.0985219303, -.198477032, .298474169, .0475454222, 0, -.0983352761},
     {4.66666667e-4, 6.66666667e-6},
     {5.2e-5, 2e-4, 4.58e-4}},
    {"matrix, two steps",
     2,
     3,
     2,
     0,
     W,
     {G1, G2},
     {.10000706, -.199306602, .297097603, .0466165067, -.00305205675, -.0983512187},
     {7.72986228e-4, 4.75216941e-6},
     {1.37290853e-4, 1.16432195e-4, 9.12884549e-4}},
    {"vector, one step",
     1,
     3,
     1,
     0,
     {1, .9f, 1.1f},
     {{.01f, -.03f, .002f}},
     {.989966722, .910033278, 1.08996672},
     {0},
     {1e-4, 9e-4, 4e-6}},
    {"vector, two steps",
     1,
     3,
     2,
     0,
     {1, .9f, 1.1f},
     {{.01f, -.03f, .002f}, {.02f, 0, -.001f}},
     {.977854362, .910033278, 1.09658964},
     {0},
     {2.72304753e-4, 3.8308574e-4, 2.27695247e-6}},
};

static void worked_out(struct check *c, const struct tr_op_update *settings, const struct vector *v)
{
    while (check_case(c, "%s", v->name)) {
        size_t n = (size_t)(v->rows * v->cols);
        struct tr_op_update op = *settings;

        op.n = (int64_t)n;
        op.block = v->cols;
        op.factored = v->rows > 1;
        op.lr = .01f;
        op.weight_decay = v->decay;
        op.w = memcpy(check_bytes(c, n * 4), v->w, n * 4);
        op.m = check_scratch(c, 2 * 4);
        op.v = check_scratch(c, 3 * 4);
        op.sums = check_bytes(c, (size_t)(32 + 32 * v->cols) * sizeof(double));
        op.factor = check_bytes(c, (size_t)(v->cols + 3) * sizeof(float));
        for (int step = 1; step <= v->steps; step++) {
            op.g = memcpy(check_bytes(c, n * 4), v->g[step - 1], n * 4);
            op.beta1 = (float)pow(step, -.8);
            op.beta2 = (float)(1 - pow(step, -.8));
            run_parts(c, &op, (int64_t[]){0, v->rows, v->rows, v->rows});
        }
        check_close(c, "published w", TR_F32, op.w, v->want, n);
        check_close(c, "published c", TR_F32, op.v, v->c, 3);
        if (op.factored)
            check_close(c, "published r", TR_F32, op.m, v->r, 2);
    }
}

void check_adalomo(struct check *c)
{
    struct tr_op_update s = {.unscale = 1, .coefficient = 1, .lr = 1e-3f, .beta1 = .3f};

    s.beta2 = .7f;
    s.eps = 1e-30f;
    s.eps2 = 1e-3f;
    check_all(c, &s);
    s.rounding = TR_ROUND_STOCHASTIC;
    check_all(c, &s);
    if (check_bench_on(c))
        return;
    s.rounding = TR_ROUND_NEAREST;
    for (size_t i = 0; i < sizeof(vectors) / sizeof(vectors[0]); i++)
        worked_out(c, &s, &vectors[i]);
    s.weight_decay = 0.1f;
    s.clip_value = 0.5f;
    s.coefficient = 0.7f;
    s.unscale = 1.0f / 3;
    check_all(c, &s);
    for (s.master_kind = TR_MASTER_SPLIT; s.master_kind < TR_MASTER_KINDS; s.master_kind++)
        check_all(c, &s);
}
