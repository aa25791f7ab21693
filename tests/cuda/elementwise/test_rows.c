/* SPDX-License-Identifier: Apache-2.0
 *
 * Rows and sums down columns: rmsnorm and bias_grad against the cpu device, and invariant 1: a row
 * has the same bits wherever it lies and whoever its neighbours are; a micro-batch of two grains
 * leaves the same sums as two micro-batches of one. The mutant is what a kernel that cut by the
 * micro-batch would do.
 */
#include "tests/cuda/elementwise/harness.h"

#include <errno.h>
#include <math.h>
#include <string.h>

#include "tests/cuda/elementwise/bridge.h"

struct rows_case {
    int64_t tokens, heads, cols; /* a row a head */
    enum tr_dtype x, w, y;
    int add;
};

static const struct rows_case cases[] = {
    {5, 1, 1, TR_F32, TR_F32, TR_F32, 0},
    {300, 1, 5, TR_F32, TR_BF16, TR_F32, 1},
    {70, 3, 8, TR_BF16, TR_BF16, TR_BF16, 0},
    {40, 7, 64, TR_F16, TR_F16, TR_F16, 1},
    {37, 2, 127, TR_F32, TR_F32, TR_F16, 0},
    {300, 2, 128, TR_BF16, TR_BF16, TR_BF16, 0},
    {61, 1, 250, TR_F16, TR_F16, TR_F32, 1},
    {33, 1, 257, TR_F32, TR_F32, TR_F32, 0},
    {290, 1, 320, TR_BF16, TR_BF16, TR_F32, 1},
    {900, 1, 264, TR_F32, TR_BF16, TR_F32, 0},
    /* three rows a block, one after the other */ {20, 1, 2048, TR_F32, TR_BF16, TR_BF16, 0},
    {9, 1, 4099, TR_BF16, TR_F16, TR_F32, 1},
    {6, 1, 8192, TR_F16, TR_F16, TR_F16, 0},
    {5, 1, 8200, TR_F32, TR_F32, TR_F32, 1},
    {4, 1, 16384, TR_BF16, TR_BF16, TR_F32, 0},
    {3, 1, 16383, TR_BF16, TR_F32, TR_BF16, 1},
};

static int64_t rows_of(const struct rows_case *c)
{
    return c->tokens * c->heads;
}

static struct tr_op rmsnorm(const struct rows_case *c)
{
    size_t rows = (size_t)rows_of(c), n = rows * (size_t)c->cols;
    struct tr_op op = {TR_OP_RMSNORM, .rmsnorm = {.x_dtype = c->x,
                                                  .w_dtype = c->w,
                                                  .y_dtype = c->y,
                                                  .rows = rows_of(c),
                                                  .cols = c->cols,
                                                  .eps = 1e-5f,
                                                  .rows_per_token = c->heads,
                                                  .add_dx = c->add}};

    op.rmsnorm.x = make(c->x, n, 2);
    op.rmsnorm.w = make(c->w, (size_t)c->cols, 1);
    op.rmsnorm.y = make_poison(c->y, n);
    op.rmsnorm.rstd = make_poison(TR_F32, rows);
    op.rmsnorm.dy = make(c->y, n, 1);
    return op;
}

/* Row r alone, elsewhere in memory. */
static struct tr_op row_alone(const struct tr_op *op, int64_t r)
{
    struct tr_op one = *op;
    struct tr_op_rmsnorm *m = &one.rmsnorm;
    size_t cols = (size_t)m->cols, at = (size_t)r * cols;

    harness_shift((int)(r % 3));
    m->rows = 1;
    m->x = make_copy(m->x_dtype, (const char *)m->x + at * tr_dtype_size(m->x_dtype), cols);
    m->dy = make_copy(m->y_dtype, (const char *)m->dy + at * tr_dtype_size(m->y_dtype), cols);
    m->y = make_poison(m->y_dtype, cols);
    m->dx = make_poison(m->y_dtype, cols);
    m->rstd = make_copy(TR_F32, m->rstd + r, 1);
    m->dw = NULL;
    harness_shift(0);
    return one;
}

static const void *row_at(const void *p, const struct tr_op_rmsnorm *m, int64_t r)
{
    return (const char *)p + (size_t)(r * m->cols) * tr_dtype_size(m->y_dtype);
}

/* In double: the cpu device's sums of long rows are the less exact of the two. */
static void forward_exact(const struct tr_op_rmsnorm *m, float *y, float *rstd)
{
    for (int64_t r = 0; r < m->rows; r++) {
        size_t at = (size_t)(r * m->cols);
        double sum = 0;

        for (int64_t i = 0; i < m->cols; i++) {
            double x = tr_load_f32(m->x, m->x_dtype, at + (size_t)i);
            sum += x * x;
        }
        double exact = 1 / sqrt(sum / (double)m->cols + (double)m->eps);

        rstd[r] = (float)exact;
        for (int64_t i = 0; i < m->cols; i++)
            y[at + (size_t)i] = (float)(tr_load_f32(m->x, m->x_dtype, at + (size_t)i) * exact *
                                        tr_load_f32(m->w, m->w_dtype, (size_t)i));
    }
}

static void forward_one(const struct rows_case *c)
{
    struct tr_op op = rmsnorm(c), wide = op;
    size_t rows = (size_t)rows_of(c), n = rows * (size_t)c->cols;
    size_t bytes = (size_t)c->cols * tr_dtype_size(c->y);
    float *y = make_poison(TR_F32, n), *rstd = make_poison(TR_F32, rows);

    wide.rmsnorm.y_dtype = TR_F32;
    wide.rmsnorm.y = make_poison(TR_F32, n);
    wide.rmsnorm.rstd = make_poison(TR_F32, rows);
    run_cpu(&wide);
    run_cuda(&op);
    expect_near("y and the cpu's", (struct nearness){c->y, 4e-6, 1e-9}, op.rmsnorm.y,
                wide.rmsnorm.y, n);
    forward_exact(&op.rmsnorm, y, rstd);
    expect_near("y", (struct nearness){c->y, 6e-7, 1e-9}, op.rmsnorm.y, y, n);
    expect_near("rstd", (struct nearness){TR_F32, 4e-7, 0}, op.rmsnorm.rstd, rstd, rows);
    for (int64_t r = 0; r < rows_of(c); r += 1 + rows_of(c) / 5) {
        struct tr_op one = row_alone(&op, r);

        run_cuda(&one);
        expect_bits("y of a row alone", one.rmsnorm.y, row_at(op.rmsnorm.y, &op.rmsnorm, r), bytes);
        expect_bits("rstd of a row alone", one.rmsnorm.rstd, op.rmsnorm.rstd + r, sizeof(float));
    }
    if (c->x == c->y) {
        struct tr_op in = op;

        in.rmsnorm.x = in.rmsnorm.y = make_copy(c->x, op.rmsnorm.x, n);
        run_cuda(&in);
        expect_bits("y over x", in.rmsnorm.y, op.rmsnorm.y, n * tr_dtype_size(c->y));
    }
}

static void test_rmsnorm(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT(cases); i++)
        forward_one(&cases[i]);
}

static void backward_one(const struct rows_case *c)
{
    struct tr_op op = rmsnorm(c), wide;
    struct tr_op_rmsnorm *m = &op.rmsnorm, *want = &wide.rmsnorm;
    size_t n = (size_t)(rows_of(c) * c->cols), bytes = (size_t)c->cols * tr_dtype_size(c->y);
    const int32_t start[] = {0, (int32_t)(c->tokens / 3), (int32_t)c->tokens};
    double sums = sqrt((double)rows_of(c));

    run_cuda(&op);
    op.kind = TR_OP_RMSNORM_GRAD;
    m->grains = (struct tr_ranges){2, start};
    m->dx = make(c->y, n, 1);
    m->dw = make(TR_F32, (size_t)c->cols, 1);
    m->add_dw = c->add;
    wide = op;
    want->dy = make_wide(c->y, m->dy, n);
    want->dx = make_wide(c->y, m->dx, n);
    want->dw = make_copy(TR_F32, m->dw, (size_t)c->cols);
    want->y_dtype = TR_F32;
    run_cpu(&wide);
    run_cuda(&op);
    expect_near("dx", (struct nearness){c->y, 2e-6, 4e-6}, m->dx, want->dx, n);
    expect_near("dw", (struct nearness){TR_F32, 1e-6, 2e-6 * sums}, m->dw, want->dw,
                (size_t)c->cols);
    if (c->add)
        return;
    for (int64_t r = 0; r < rows_of(c); r += 1 + rows_of(c) / 5) {
        struct tr_op one = row_alone(&op, r);

        run_cuda(&one);
        expect_bits("dx of a row alone", one.rmsnorm.dx, row_at(m->dx, m, r), bytes);
    }
    struct tr_op in = op;
    in.rmsnorm.dy = in.rmsnorm.dx = make_copy(c->y, m->dy, n);
    run_cuda(&in);
    expect_bits("dx over dy", in.rmsnorm.dx, m->dx, n * tr_dtype_size(c->y));
}

static void test_rmsnorm_grad(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT(cases); i++)
        backward_one(&cases[i]);
}

static void bias_one(int64_t n, int64_t m, enum tr_dtype dtype)
{
    const int32_t start[] = {0, (int32_t)(n / 3), (int32_t)n};
    size_t elements = (size_t)(n * m);
    struct tr_op op = {
        TR_OP_BIAS_GRAD,
        .bias_grad = {.dtype = dtype, .n = n, .m = m, .add = (int)(n % 2), .grains = {2, start}}};
    float *got = make(TR_F32, (size_t)m, 1), *want = make_copy(TR_F32, got, (size_t)m);

    op.bias_grad.dy = make(dtype, elements, 1);
    op.bias_grad.db = got;
    run_cuda(&op);
    op.bias_grad.dy = make_wide(dtype, op.bias_grad.dy, elements);
    op.bias_grad.dtype = TR_F32;
    op.bias_grad.db = want;
    run_cpu(&op);
    expect_near("db", (struct nearness){TR_F32, 1e-6, 2e-6 * sqrt((double)n)}, got, want,
                (size_t)m);
}

static void test_bias_grad(void **state)
{
    (void)state;
    for (int d = 0; d < TR_DTYPES; d++) {
        bias_one(1, 1, (enum tr_dtype)d);
        bias_one(700, 3, (enum tr_dtype)d);
        bias_one(130, 64, (enum tr_dtype)d);
        bias_one(99, 259, (enum tr_dtype)d);
        bias_one(1100, 1024, (enum tr_dtype)d);
    }
}

/* ---- the rule of grains ---- */

enum { TOKENS = 90, GRAINS = 3, COLS = 264, HEADS = 2 };
static const int32_t starts[GRAINS + 1] = {0, 32, 57, TOKENS};

/* The op's tokens of grains [begin, end), as a micro-batch of its own would give it. */
static struct tr_op micro_batch(const struct tr_op *op, int begin, int end, int32_t *start)
{
    struct tr_op part = *op;
    int64_t row = starts[begin] * HEADS, rows = starts[end] * HEADS - row;
    struct tr_ranges grains = {end - begin, start};

    for (int i = begin; i <= end; i++)
        start[i - begin] = starts[i] - starts[begin];
    if (op->kind == TR_OP_RMSNORM_GRAD) {
        struct tr_op_rmsnorm *m = &part.rmsnorm;

        m->x = (const float *)m->x + row * COLS;
        m->dy = (const float *)m->dy + row * COLS;
        m->dx = (float *)m->dx + row * COLS;
        m->rstd += row;
        m->rows = rows;
        m->grains = grains;
        m->add_dw = begin > 0;
    } else {
        part.bias_grad.dy = (const float *)op->bias_grad.dy + starts[begin] * COLS;
        part.bias_grad.n = starts[end] - starts[begin];
        part.bias_grad.grains = grains;
        part.bias_grad.add = begin > 0;
    }
    return part;
}

static float *sums_of(struct tr_op *op)
{
    float *out = make(TR_F32, COLS, 1);

    *(op->kind == TR_OP_RMSNORM_GRAD ? &op->rmsnorm.dw : &op->bias_grad.db) = out;
    return out;
}

/* The sums after micro-batches that end with the grains of the mask's bits. */
static float *sums_in(struct tr_op *op, unsigned ends)
{
    float *out = sums_of(op);
    int32_t start[GRAINS + 1];

    for (int begin = 0, end = 1; end <= GRAINS; end++)
        if (ends >> (end - 1) & 1) {
            struct tr_op part = micro_batch(op, begin, end, start);

            run_cuda(&part);
            begin = end;
        }
    return out;
}

/* What a kernel would do that took all its tokens for one grain. */
static float *sums_of_mutant(struct tr_op *op)
{
    float *out = sums_of(op);
    int32_t start[GRAINS + 1], all[2] = {0, TOKENS};
    struct tr_op mutant = micro_batch(op, 0, GRAINS, start);

    *(op->kind == TR_OP_RMSNORM_GRAD ? &mutant.rmsnorm.grains : &mutant.bias_grad.grains) =
        (struct tr_ranges){1, all};
    run_cuda(&mutant);
    return out;
}

static void expect_grain_rule(struct tr_op *op)
{
    float *whole = sums_in(op, 4);

    expect_bits("grains 1+2, 3", sums_in(op, 6), whole, COLS * sizeof(float));
    expect_bits("grains 1, 2+3", sums_in(op, 5), whole, COLS * sizeof(float));
    expect_bits("grains 1, 2, 3", sums_in(op, 7), whole, COLS * sizeof(float));
    if (!memcmp(sums_of_mutant(op), whole, COLS * sizeof(float)))
        fail_msg("a sum that ignores the grains has the same bits: the check sees nothing");
}

static void test_grains(void **state)
{
    struct rows_case c = {TOKENS, HEADS, COLS, TR_F32, TR_F32, TR_F32, 0};
    struct tr_op op = rmsnorm(&c);
    struct tr_op bias = {TR_OP_BIAS_GRAD, .bias_grad = {.m = COLS}};

    (void)state;
    run_cuda(&op);
    op.kind = TR_OP_RMSNORM_GRAD;
    op.rmsnorm.dx = make_poison(TR_F32, TOKENS * HEADS * COLS);
    expect_grain_rule(&op);
    bias.bias_grad.dy = op.rmsnorm.dy;
    expect_grain_rule(&bias);
}

/* No grain: the sum is empty, what is added to stays; dx is made of all rows nevertheless. */
static void test_no_grains(void **state)
{
    struct rows_case c = {7, 1, COLS, TR_F32, TR_F32, TR_F32, 0};
    struct tr_op op = rmsnorm(&c), bias = {TR_OP_BIAS_GRAD, .bias_grad = {.m = COLS}};
    float zeros[COLS] = {0}, *dx = make_poison(TR_F32, 7 * COLS), *kept;

    (void)state;
    run_cuda(&op);
    op.kind = TR_OP_RMSNORM_GRAD;
    op.rmsnorm.dx = dx;
    run_cuda(&op);
    op.rmsnorm.dx = make_poison(TR_F32, 7 * COLS);
    op.rmsnorm.dw = make(TR_F32, COLS, 1);
    run_cuda(&op);
    expect_bits("dw of no grain", op.rmsnorm.dw, zeros, sizeof(zeros));
    expect_bits("dx of no grain", op.rmsnorm.dx, dx, 7 * COLS * sizeof(float));
    bias.bias_grad.db = make(TR_F32, COLS, 1);
    run_cuda(&bias);
    expect_bits("db of no grain", bias.bias_grad.db, zeros, sizeof(zeros));
    bias.bias_grad.add = 1;
    bias.bias_grad.db = make(TR_F32, COLS, 1);
    kept = make_copy(TR_F32, bias.bias_grad.db, COLS);
    run_cuda(&bias);
    expect_bits("db that stays", bias.bias_grad.db, kept, sizeof(zeros));
}

static void test_refused(void **state)
{
    struct tr_op op = {TR_OP_RMSNORM, .rmsnorm = {.rows = 1, .cols = 16385}};
    struct tr_op bias = {TR_OP_BIAS_GRAD, .bias_grad = {.m = 1025}};

    (void)state;
    assert_int_equal(bridge_run(&op, TR_CUDA_SCRATCH_BYTES), -EINVAL);
    assert_non_null(strstr(bridge_message(), "16385"));
    assert_int_equal(bridge_run(&bias, 4096), -EINVAL);
    assert_non_null(strstr(bridge_message(), "1025"));
}

const struct CMUnitTest rows_tests[] = {
    HARNESS_TEST(test_rmsnorm), HARNESS_TEST(test_rmsnorm_grad), HARNESS_TEST(test_bias_grad),
    HARNESS_TEST(test_grains),  HARNESS_TEST(test_no_grains),    HARNESS_TEST(test_refused)};
const size_t rows_count = COUNT(rows_tests);
