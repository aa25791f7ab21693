/* SPDX-License-Identifier: Apache-2.0
 *
 * The embedding and its gradient have the bits of the cpu device: rows of any width, ids outside
 * the slice, ids that occur once, often and always, slices that the scratch holds in parts only.
 * And: work of size 0 does nothing.
 */
#include "tests/cuda/elementwise/harness.h"

#include <string.h>

#include "tests/cuda/elementwise/bridge.h"

struct embed_case {
    int64_t row0, rows, cols, n;
    int32_t low, end; /* of the ids */
    int shift;
};

static const struct embed_case cases[] = {
    {0, 1, 1, 1, 0, 1, 0},     {0, 40, 8, 100, 0, 40, 0},        {10, 20, 64, 300, 0, 40, 0},
    {5, 3, 5, 700, -1, 10, 1}, {0, 50000, 7, 1000, 0, 50000, 0}, {100, 2, 520, 1300, 99, 103, 0},
    {0, 9, 33, 1200, 4, 5, 0}, {0, 700, 256, 40, 0, 700, 3},     {7, 30, 1030, 513, 0, 40, 0},
};

static struct tr_op embed(const struct embed_case *c, enum tr_dtype dtype)
{
    struct tr_op op = {
        TR_OP_EMBED,
        .embed = {.dtype = dtype, .row0 = c->row0, .rows = c->rows, .cols = c->cols, .n = c->n}};

    op.embed.ids = make_ints((size_t)c->n, c->low, c->end);
    harness_shift(c->shift);
    return op;
}

static void test_embed(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT(cases); i++)
        for (int d = 0; d < TR_DTYPES; d++) {
            struct tr_op op = embed(&cases[i], (enum tr_dtype)d);
            size_t n = (size_t)(cases[i].n * cases[i].cols);
            void *got = make((enum tr_dtype)d, n, 1), *want = make_copy((enum tr_dtype)d, got, n);

            op.embed.table = make((enum tr_dtype)d, (size_t)(cases[i].rows * cases[i].cols), 1);
            op.embed.out = want;
            run_cpu(&op);
            op.embed.out = got;
            run_cuda(&op);
            expect_bits("embed", got, want, n * tr_dtype_size((enum tr_dtype)d));
            harness_shift(0);
        }
}

static void grad_one(const struct embed_case *c)
{
    struct tr_op op = embed(c, TR_F32);
    size_t n = (size_t)(c->rows * c->cols);
    float *got = make(TR_F32, n, 1), *want = make_copy(TR_F32, got, n);
    float *parts = make_copy(TR_F32, got, n);

    op.kind = TR_OP_EMBED_GRAD;
    op.embed.dy = make(TR_F32, (size_t)(c->n * c->cols), 1);
    op.embed.grad = want;
    run_cpu(&op);
    op.embed.grad = got;
    run_cuda(&op);
    expect_bits("embed_grad", got, want, n * sizeof(float));
    harness_shift(0);
    if (c->rows > 1000)
        return;
    op.embed.grad = parts;
    assert_int_equal(bridge_run(&op, 200), 0); /* sixteen rows at a time */
    expect_bits("embed_grad in parts", parts, want, n * sizeof(float));
}

static void test_embed_grad(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT(cases); i++)
        grad_one(&cases[i]);
}

static void test_nothing(void **state)
{
    (void)state;
    for (int kind = 0; kind < TR_OP_KINDS; kind++) {
        struct tr_op op = {(enum tr_op_kind)kind};
        double sum = 1;

        if (kind == TR_OP_SUMSQ)
            op.sumsq.out = &sum;
        if (kind != TR_OP_MATMUL && kind != TR_OP_MATMUL_DX && kind != TR_OP_MATMUL_DW &&
            kind != TR_OP_ATTENTION && kind != TR_OP_ATTENTION_GRAD &&
            kind != TR_OP_ATTENTION_CACHED)
            run_cuda(&op);
        assert_true(sum == (kind == TR_OP_SUMSQ ? 0 : 1));
    }
}

const struct CMUnitTest embed_tests[] = {HARNESS_TEST(test_embed), HARNESS_TEST(test_embed_grad),
                                         HARNESS_TEST(test_nothing)};
const size_t embed_count = COUNT(embed_tests);
