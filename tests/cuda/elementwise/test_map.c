/* SPDX-License-Identifier: Apache-2.0
 *
 * Element by element: add, cast, round, swiglu, rope, and sumsq, which is not, but as flat. In f32
 * they are compared with the cpu device, in bf16 and f16 with its f32 result on the same inputs.
 */
#include "tests/cuda/elementwise/harness.h"

#include <float.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

static const size_t sizes[] = {1, 7, 8, 9, 255, 2048, 4099};

/* What rounding and widening get wrong first. */
static const float specials[] = {0.0f,        -0.0f,       INFINITY,   -INFINITY,  NAN,
                                 FLT_MAX,     -FLT_MAX,    FLT_MIN,    1e-42f,     65504.0f,
                                 65519.99f,   65520.0f,    6.1e-5f,    5.96e-8f,   2.98e-8f,
                                 1.00390625f, 1.01171875f, 3.3895e38f, 1.0004883f, -2.9e-8f};

static void *make_special(enum tr_dtype dtype, size_t n)
{
    void *p = make(dtype, n, 3);

    for (size_t i = 0; i < n; i += 3)
        tr_store_f32(p, dtype, i, specials[i / 3 % COUNT(specials)]);
    return p;
}

static void add_one(size_t n, enum tr_dtype a, enum tr_dtype out)
{
    struct tr_op op = {TR_OP_ADD, .add = {.a_dtype = a, .out_dtype = out, .n = (int64_t)n}};
    void *want = make_poison(out, n), *got = make_poison(out, n);

    op.add.a = make_special(a, n);
    op.add.b = make(TR_F32, n, 1);
    op.add.out = want;
    run_cpu(&op);
    op.add.out = got;
    run_cuda(&op);
    expect_bits("add", got, want, n * tr_dtype_size(out));
    if (a == out) {
        op.add.a = op.add.out = make_copy(a, op.add.a, n);
        run_cuda(&op);
        expect_bits("add in place of a", op.add.out, want, n * tr_dtype_size(out));
    }
}

static void cast_one(size_t n, enum tr_dtype from, enum tr_dtype to)
{
    struct tr_op op = {TR_OP_CAST, .cast = {.from_dtype = from, .to_dtype = to, .n = (int64_t)n}};
    void *want = make_poison(to, n), *got = make_poison(to, n);

    op.cast.from = make_special(from, n);
    op.cast.to = want;
    run_cpu(&op);
    op.cast.to = got;
    run_cuda(&op);
    expect_bits("cast", got, want, n * tr_dtype_size(to));
}

static void round_one(size_t n, enum tr_dtype dtype)
{
    float *want = make_special(TR_F32, n), *got = make_copy(TR_F32, want, n);
    struct tr_op op = {TR_OP_ROUND, .round = {.x = want, .n = (int64_t)n, .dtype = dtype}};

    run_cpu(&op);
    op.round.x = got;
    run_cuda(&op);
    expect_bits("round", got, want, n * sizeof(float));
}

static void dropout_one(size_t n, enum tr_dtype from, uint32_t threshold)
{
    struct tr_op op = {TR_OP_DROPOUT, .dropout = {.from_dtype = from,
                                                  .n = (int64_t)n,
                                                  .first = 0x3fffffff5,
                                                  .scale = 1.7f,
                                                  .threshold = threshold,
                                                  .step = 3,
                                                  .seed = 5,
                                                  .name = 7}};
    float *want = make_poison(TR_F32, n), *got = make_poison(TR_F32, n);

    op.dropout.from = make_special(from, n);
    op.dropout.to = want;
    run_cpu(&op);
    op.dropout.to = got;
    run_cuda(&op);
    expect_bits("dropout", got, want, n * sizeof(float));
}

static void test_moves(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT(sizes); i++)
        for (int a = 0; a < TR_DTYPES; a++) {
            harness_shift(i % 2 ? a : 0);
            round_one(sizes[i], (enum tr_dtype)a);
            dropout_one(sizes[i], (enum tr_dtype)a, 0);
            dropout_one(sizes[i], (enum tr_dtype)a, 0x40000000);
            for (int b = 0; b < TR_DTYPES; b++) {
                add_one(sizes[i], (enum tr_dtype)a, (enum tr_dtype)b);
                cast_one(sizes[i], (enum tr_dtype)a, (enum tr_dtype)b);
            }
        }
}

/* Every value of both 16-bit types. */
static void test_cast_all(void **state)
{
    enum { N = 1 << 16 };

    (void)state;
    for (int from = TR_BF16; from < TR_DTYPES; from++)
        for (int to = 0; to < TR_DTYPES; to++) {
            struct tr_op op = {TR_OP_CAST, .cast = {.n = N}};
            uint16_t *p = make_poison(TR_BF16, N);
            void *want = make_poison(TR_F32, N), *got = make_copy(TR_F32, want, N);

            for (int i = 0; i < N; i++)
                p[i] = (uint16_t)i;
            op.cast.from = p;
            op.cast.from_dtype = (enum tr_dtype)from;
            op.cast.to_dtype = (enum tr_dtype)to;
            op.cast.to = want;
            run_cpu(&op);
            op.cast.to = got;
            run_cuda(&op);
            expect_bits("cast of every value", got, want, N * sizeof(float));
        }
}

/* The op in f32, for the cpu device. */
static struct tr_op swiglu_wide(const struct tr_op *op)
{
    struct tr_op wide = *op;
    struct tr_op_swiglu *s = &wide.swiglu;
    size_t n = (size_t)s->n;

    s->gate = make_wide(s->dtype, s->gate, n);
    s->up = make_wide(s->dtype, s->up, n);
    s->dout = make_wide(s->dtype, s->dout, n);
    s->out = make_poison(TR_F32, n);
    s->dgate = make_poison(TR_F32, n);
    s->dup = make_poison(TR_F32, n);
    s->dtype = TR_F32;
    return wide;
}

static void swiglu_one(size_t n, enum tr_dtype dtype)
{
    struct tr_op op = {TR_OP_SWIGLU, .swiglu = {.dtype = dtype, .n = (int64_t)n}}, wide;
    struct tr_op_swiglu *s = &op.swiglu;
    struct nearness near = {dtype, 1e-6, 1e-36}, slope = {dtype, 2e-5, 1e-6};

    s->gate = make(dtype, n, 4);
    s->up = make(dtype, n, 1);
    s->dout = make(dtype, n, 1);
    tr_store_f32((void *)s->gate, dtype, 0, n % 2 ? INFINITY : -INFINITY);
    tr_store_f32((void *)s->gate, dtype, n / 2, n % 3 ? 100 : NAN);
    s->out = make_poison(dtype, n);
    wide = swiglu_wide(&op);
    run_cpu(&wide);
    run_cuda(&op);
    expect_near("swiglu", near, s->out, wide.swiglu.out, n);

    wide.kind = op.kind = TR_OP_SWIGLU_GRAD;
    s->dgate = make_poison(dtype, n);
    s->dup = make_poison(dtype, n);
    run_cpu(&wide);
    run_cuda(&op);
    expect_near("swiglu dgate", slope, s->dgate, wide.swiglu.dgate, n);
    expect_near("swiglu dup", near, s->dup, wide.swiglu.dup, n);

    /* In place, the two ways that device.h allows. */
    struct tr_op in = op;
    in.swiglu.gate = in.swiglu.dgate = make_copy(dtype, s->gate, n);
    in.swiglu.up = in.swiglu.dup = make_copy(dtype, s->up, n);
    run_cuda(&in);
    expect_bits("swiglu dgate over gate", in.swiglu.dgate, s->dgate, n * tr_dtype_size(dtype));
    expect_bits("swiglu dup over up", in.swiglu.dup, s->dup, n * tr_dtype_size(dtype));
    in = op;
    in.swiglu.dout = in.swiglu.dgate = make_copy(dtype, s->dout, n);
    run_cuda(&in);
    expect_bits("swiglu dgate over dout", in.swiglu.dgate, s->dgate, n * tr_dtype_size(dtype));
}

static void test_swiglu(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT(sizes); i++)
        for (int d = 0; d < TR_DTYPES; d++) {
            harness_shift(i % 2 ? d : 0);
            swiglu_one(sizes[i], (enum tr_dtype)d);
        }
}

static void rope_one(const int64_t shape[3], enum tr_dtype dtype, int inverse)
{
    enum { POSITIONS = 40 };
    int64_t half = shape[2] / 2;
    size_t n = (size_t)(shape[0] * shape[1] * shape[2]);
    struct tr_op op = {TR_OP_ROPE, .rope = {.n = shape[0],
                                            .heads = shape[1],
                                            .head_dim = shape[2],
                                            .dtype = dtype,
                                            .inverse = inverse}};
    void *got = make(dtype, n, 1);
    float *want = make_wide(dtype, got, n), *cosine, *sine;

    op.rope.position = make_ints((size_t)shape[0], 0, POSITIONS);
    op.rope.cos = cosine = make(TR_F32, (size_t)(POSITIONS * half), 1);
    op.rope.sin = sine = make(TR_F32, (size_t)(POSITIONS * half), 1);
    for (int64_t i = 0; i < POSITIONS * half; i++) {
        float angle = cosine[i] * 100;

        cosine[i] = cosf(angle);
        sine[i] = sinf(angle);
    }
    op.rope.x = got;
    run_cuda(&op);
    op.rope.x = want;
    op.rope.dtype = TR_F32;
    run_cpu(&op);
    if (dtype == TR_F32)
        expect_bits("rope", got, want, n * sizeof(float));
    else
        expect_near("rope", (struct nearness){dtype, 0, 0}, got, want, n);
}

static void test_rope(void **state)
{
    static const int64_t shapes[][3] = {{1, 1, 2},  {5, 3, 6},  {33, 8, 16},
                                        {7, 2, 80}, {9, 5, 64}, {3, 40, 128}};

    (void)state;
    for (size_t i = 0; i < COUNT(shapes); i++)
        for (int d = 0; d < TR_DTYPES; d++)
            for (int inverse = 0; inverse < 2; inverse++)
                rope_one(shapes[i], (enum tr_dtype)d, inverse);
}

static double sumsq_of(const float *x, size_t n)
{
    double *out = make_poison(TR_F32, 2);
    struct tr_op op = {TR_OP_SUMSQ, .sumsq = {.x = x, .n = (int64_t)n, .out = out}};

    run_cuda(&op);
    expect_bits("sumsq", out, out, sizeof(*out));
    return *out;
}

static void sumsq_one(size_t n, float scale)
{
    float *x = make(TR_F32, n, 1), *moved;
    long double want = 0;
    double got;

    for (size_t i = 0; i < n; i++) {
        x[i] *= scale;
        want += (long double)x[i] * x[i];
    }
    got = sumsq_of(x, n);
    if (fabsl(got - want) > 1e-13L * want)
        fail_msg("sumsq of %zu: %.17g, not %.17Lg", n, got, want);
    harness_shift(1);
    moved = make_copy(TR_F32, x, n);
    harness_shift(0);
    assert_true(sumsq_of(moved, n) == got);
    if (n == 0)
        return;
    x[n - 1] = 2 * x[n - 1] + scale;
    assert_true(sumsq_of(x, n) != got);
    x[n / 2] = INFINITY;
    assert_true(isinf(sumsq_of(x, n)));
    x[n / 3] = NAN;
    assert_true(isnan(sumsq_of(x, n)));
}

/* The scales take the ways through f32 pairs, through f64, and elements between. */
static void test_sumsq(void **state)
{
    static const float scales[] = {1, 1e-3f, 1e-12f, 1e-21f, 1e-40f, 1e18f, 1e37f};

    (void)state;
    sumsq_one(0, 1);
    for (size_t i = 0; i < COUNT(sizes); i++)
        for (size_t s = 0; s < COUNT(scales); s++)
            sumsq_one(sizes[i], scales[s]);
    sumsq_one(2200003, 1); /* more than one round of all blocks */
}

const struct CMUnitTest map_tests[] = {HARNESS_TEST(test_moves), HARNESS_TEST(test_cast_all),
                                       HARNESS_TEST(test_swiglu), HARNESS_TEST(test_rope),
                                       HARNESS_TEST(test_sumsq)};
const size_t map_count = COUNT(map_tests);
