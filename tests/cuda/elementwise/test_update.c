/* SPDX-License-Identifier: Apache-2.0
 *
 * The optimizers' updates have the bits of the cpu device, in every storage dtype, with both
 * roundings, wherever a range begins (invariant 1: any split of a tensor gives the same bytes).
 */
#include "tests/cuda/elementwise/harness.h"

#include <errno.h>
#include <math.h>
#include <string.h>

#include "src/base/code8.h"
#include "tests/cuda/elementwise/bridge.h"

/* Sizes that can be cut get blocks of which several meet in a group of eight; of the largest, such
 * as are longer than a piece. */
static int64_t block_of(size_t n)
{
    return n == 2500 ? 1250 : n == 2048 ? 32 : 1;
}

static struct tr_op update(enum tr_op_kind kind, enum tr_dtype dtype, size_t n)
{
    struct tr_op op = {kind};
    struct tr_op_update *u = &op.update;
    float *v;

    *u = (struct tr_op_update){.dtype = dtype,
                               .n = (int64_t)n,
                               .unscale = 0.125f,
                               .clip_value = 0.5f,
                               .coefficient = 0.75f,
                               .lr = 0.01f,
                               .weight_decay = 0.1f,
                               .beta1 = 0.9f,
                               .beta2 = 0.999f,
                               .eps = 1e-8f,
                               .step_size = 0.02f,
                               .sqrt_bias2 = 0.3f,
                               .block = kind == TR_OP_ADAM_MINI ? block_of(n) : 1,
                               .step = 77,
                               .seed = 5,
                               .name = 0x1234567u};
    u->w = make(dtype, n, 1);
    u->g = make(TR_F32, n, 4);
    u->m = make(TR_F32, n, 0.1f);
    u->v = v = make(TR_F32, n, 0.1f);
    for (size_t i = 0; i < n; i++)
        v[i] *= v[i];
    tr_store_f32(u->w, dtype, n / 2, INFINITY);
    tr_store_f32((float *)u->g, TR_F32, n / 3, -INFINITY);
    return op;
}

/* The same update of copies. */
static struct tr_op copied(const struct tr_op *op)
{
    struct tr_op copy = *op;
    size_t n = (size_t)op->update.n;

    copy.update.w = make_copy(op->update.dtype, op->update.w, n);
    copy.update.m = make_copy(TR_F32, op->update.m, n);
    copy.update.v = make_copy(TR_F32, op->update.v, n);
    return copy;
}

/* Elements [begin, end) of op. */
static struct tr_op part(const struct tr_op *op, int64_t begin, int64_t end)
{
    struct tr_op p = *op;

    p.update.w = (char *)op->update.w + (size_t)begin * tr_dtype_size(op->update.dtype);
    p.update.g += begin;
    p.update.m += begin;
    p.update.v += begin / op->update.block;
    p.update.n = end - begin;
    p.update.first += begin;
    return p;
}

static void expect_same(const char *what, const struct tr_op *got, const struct tr_op *want)
{
    size_t n = (size_t)want->update.n;

    expect_bits(what, got->update.w, want->update.w, n * tr_dtype_size(want->update.dtype));
    expect_bits("m", got->update.m, want->update.m, n * sizeof(float));
    expect_bits("v", got->update.v, want->update.v, n * sizeof(float));
}

static void update_one(const struct tr_op *op)
{
    struct tr_op want = copied(op), got = copied(op), split = copied(op);
    int64_t block = op->update.block, cut = (op->update.n + 2) / 3 / block * block;
    int64_t cuts[] = {0, cut, cut + block > op->update.n ? cut : cut + block, op->update.n};

    run_cpu(&want);
    run_cuda(&got);
    expect_same("update", &got, &want);
    for (int i = 0; i < 3; i++) {
        struct tr_op p = part(&split, cuts[i], cuts[i + 1]);
        run_cuda(&p);
    }
    expect_same("update in parts", &split, &want);
}

static void variants(struct tr_op op)
{
    update_one(&op);
    op.update.clip_value = 0;
    op.update.weight_decay = 0;
    update_one(&op);
    op.update.first = ((int64_t)1 << 35) + 8;
    update_one(&op);
    op.update.first = 3;
    update_one(&op);
    if (op.update.dtype == TR_F16)
        return;
    op.update.rounding = TR_ROUND_STOCHASTIC;
    update_one(&op);
    op.update.first = ((int64_t)1 << 35) + 8;
    update_one(&op);
}

static void test_update(void **state)
{
    static const size_t sizes[] = {1, 8, 13, 2048, 2500};

    (void)state;
    for (size_t i = 0; i < COUNT(sizes); i++)
        for (int d = 0; d < TR_DTYPES; d++) {
            harness_shift(i == 3 ? 1 : 0);
            variants(update(TR_OP_SGD, (enum tr_dtype)d, sizes[i]));
            variants(update(TR_OP_ADAMW, (enum tr_dtype)d, sizes[i]));
            variants(update(TR_OP_MOMENTUM, (enum tr_dtype)d, sizes[i]));
            variants(update(TR_OP_ADAM_MINI, (enum tr_dtype)d, sizes[i]));
        }
}

/* State in blocks of bytes, from a first step. */
static void in_bytes(enum tr_op_kind kind, enum tr_dtype dtype, size_t n)
{
    struct tr_op op = update(kind, dtype, n), want, got, split, parts[2];
    int64_t block = op.update.block * TR_CODE8_BLOCK, cut = op.update.n / 3 / block * block;
    uint64_t at = tr_state_bytes(TR_8BIT, (uint64_t)cut);

    op.update.rounding = dtype == TR_BF16 ? TR_ROUND_STOCHASTIC : TR_ROUND_NEAREST;
    op.update.first = ((int64_t)1 << 35) + 3 * TR_CODE8_BLOCK;
    op.update.state_dtype = TR_8BIT;
    memset(op.update.m, 0, n * sizeof(float));
    memset(op.update.v, 0, n * sizeof(float));
    ((float *)op.update.g)[n / 3] = 1;
    run_cpu(&op);
    ((float *)op.update.g)[n - 1] = -INFINITY;
    want = copied(&op), got = copied(&op), split = copied(&op);
    run_cpu(&want);
    run_cuda(&got);
    expect_same("update in bytes", &got, &want);
    parts[0] = part(&split, 0, cut);
    parts[1] = part(&split, cut, op.update.n);
    parts[1].update.m = (float *)((char *)split.update.m + at);
    if (kind == TR_OP_ADAMW)
        parts[1].update.v = (float *)((char *)split.update.v + at);
    for (int i = 0; i < 2; i++)
        run_cuda(&parts[i]);
    expect_same("update in bytes, in parts", &split, &want);
    op.update.first++;
    assert_int_equal(bridge_run(&op, TR_CUDA_SCRATCH_BYTES), -EINVAL);
}

static void test_bytes(void **state)
{
    static const size_t sizes[] = {3, 256, 2048, 2500};

    (void)state;
    for (size_t i = 0; i < COUNT(sizes); i++)
        for (int d = 0; d < TR_DTYPES; d++) {
            in_bytes(TR_OP_ADAMW, (enum tr_dtype)d, sizes[i]);
            in_bytes(TR_OP_MOMENTUM, (enum tr_dtype)d, sizes[i]);
            in_bytes(TR_OP_ADAM_MINI, (enum tr_dtype)d, sizes[i]);
        }
}

/* Of any exponent, or 0, or infinite. */
static float any_size(void)
{
    uint32_t bits = harness_random();

    if ((bits & 0x7f800000) == 0x7f800000)
        bits &= 0xff800000;
    return tr_bits_f32(bits % 16 ? bits : bits & 0x80000000);
}

/* AdamW's short way and its plain one have the same bits, whatever the state, also beyond the
 * limits of the short one. */
static void test_sizes(void **state)
{
    static const float eps[] = {1e-8f, 0x1p-44f, 1, 0x1p-45f, 0}, bias[] = {0.03f, 0x1p-16f, 1e-6f};
    enum { N = 1 << 14 };

    (void)state;
    for (size_t e = 0; e < COUNT(eps) * COUNT(bias); e++) {
        struct tr_op op = update(TR_OP_ADAMW, TR_F32, N), want, got;
        float *w = op.update.w, *g = (float *)op.update.g;

        op.update.eps = eps[e / COUNT(bias)];
        op.update.sqrt_bias2 = bias[e % COUNT(bias)];
        for (int i = 0; i < N; i++) {
            op.update.m[i] = any_size();
            op.update.v[i] = fabsf(any_size());
            if (i % 32 && op.update.v[i] > 1) /* a large one sends its group the plain way */
                op.update.v[i] = 1 / op.update.v[i];
            g[i] = i % 8 ? 0 : g[i];
            w[i] = i % 9 ? w[i] : any_size();
        }
        want = copied(&op), got = copied(&op);
        run_cpu(&want);
        run_cuda(&got);
        expect_same("update of any size", &got, &want);
    }
}

static void test_stochastic_f16(void **state)
{
    struct tr_op op = update(TR_OP_SGD, TR_F16, 8);

    (void)state;
    op.update.rounding = TR_ROUND_STOCHASTIC;
    assert_int_equal(bridge_run(&op, TR_CUDA_SCRATCH_BYTES), -EINVAL);
    assert_non_null(strstr(bridge_message(), "bf16"));
}

/* What the kernels widen by integers is what the conversion gives: every sign and exponent, and of
 * the fractions both ends and a few. */
static void test_widen(void **state)
{
    static const uint32_t fractions[] = {0, 1, 2, 0x3fffff, 0x400000, 0x555555, 0x7ffffe, 0x7fffff};

    (void)state;
    for (uint32_t top = 0; top < 1u << 9; top++)
        for (size_t i = 0; i < COUNT(fractions); i++) {
            uint32_t bits = top << 23 | fractions[i];
            double want, got;
            float x;

            memcpy(&x, &bits, sizeof(x));
            want = x;
            got = bridge_widen(x);
            if (memcmp(&got, &want, sizeof(got)) != 0)
                fail_msg("%08x: %a, not %a", bits, got, want);
        }
}

const struct CMUnitTest update_tests[] = {
    HARNESS_TEST(test_update), HARNESS_TEST(test_bytes), HARNESS_TEST(test_sizes),
    HARNESS_TEST(test_stochastic_f16), HARNESS_TEST(test_widen)};
const size_t update_count = COUNT(update_tests);
