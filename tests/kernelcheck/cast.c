/* SPDX-License-Identifier: Apache-2.0
 *
 * Casts against the scalar definitions of dtype.h: every 16-bit pattern widened, and f32 patterns
 * of every kind narrowed; random halves against philox.h, over a counter's carry; the op between
 * all dtypes. All bit for bit.
 */
#include <string.h>

#include "cpu/kernels.h"
#include "src/base/philox.h"
#include "tests/kernelcheck/variant.h"

static void widen_all(struct check *c, enum tr_dtype dtype)
{
    while (check_case(c, "all %s to f32", tr_dtype_name(dtype))) {
        int n = 65536;
        uint16_t *from = check_bytes(c, (size_t)n * 2);

        for (int i = 0; i < n; i++)
            from[i] = (uint16_t)i;
        check_freeze(c);
        float *to = check_output(c, TR_F32, (size_t)n), *want = check_scratch(c, (size_t)n * 4);
        for (int i = 0; i < n; i++)
            want[i] = tr_load_f32(from, dtype, (size_t)i);
        c->cpu->kernels->to_f32[dtype](to, from, n);
        check_equal(c, "to", TR_F32, to, want, (size_t)n);
    }
}

/* Random bits, values around the rounding of the dtype, and what check.h holds ready. */
static const float *patterns(struct check *c, int64_t n)
{
    float *x = check_inout(c, TR_F32, (size_t)n, CHECK_SPECIAL);

    for (int64_t i = 0; i < n; i++) {
        uint32_t r = check_random(c), kind = check_random(c) % 4;
        if (kind == 0)
            x[i] = tr_bits_f32(r);
        else if (kind == 1) /* ties and their neighbours, of both dtypes */
            x[i] = tr_bits_f32((r & 0xffff0000) + (r % 2 ? 0x8000 : 0x1000) + (r >> 1) % 3 - 1);
        else if (kind == 2) /* f16's subnormals and overflow */
            x[i] = tr_bits_f32((r & 0x807fffff) | (uint32_t)(98 + r % 48) << 23);
    }
    check_freeze(c);
    return x;
}

static void narrow(struct check *c, enum tr_dtype dtype, int64_t n)
{
    while (check_case(c, "f32 to %s n=%d", tr_dtype_name(dtype), (int)n)) {
        const float *x = patterns(c, n);
        void *to = check_output(c, dtype, (size_t)n), *want = check_scratch(c, (size_t)n * 4);

        for (int64_t i = 0; i < n; i++)
            tr_store_f32(want, dtype, (size_t)i, x[i]);
        c->cpu->kernels->from_f32[dtype](to, x, n);
        check_equal(c, "to", dtype, to, want, (size_t)n);
    }
}

static void stochastic(struct check *c, int64_t n)
{
    while (check_case(c, "stochastic bf16 n=%d", (int)n)) {
        const float *x = patterns(c, n);
        uint16_t *random = check_bytes(c, (size_t)n * 2);
        for (int64_t i = 0; i < n; i++)
            random[i] = (uint16_t)check_random(c);
        check_freeze(c);
        uint16_t *to = check_output(c, TR_BF16, (size_t)n), *want = check_scratch(c, (size_t)n * 2);

        for (int64_t i = 0; i < n; i++)
            want[i] = tr_f32_bf16_stochastic(x[i], random[i]);
        c->cpu->kernels->to_bf16_stochastic(to, x, random, n);
        check_equal(c, "to", TR_BF16, to, want, (size_t)n);
    }
}

static void random_halves(struct check *c, uint64_t group, int64_t groups)
{
    while (check_case(c, "random group=%llu groups=%d", (unsigned long long)group, (int)groups)) {
        struct tr_op_update op = {.step = 0x123456789abu, .seed = 42, .name = 0xdeadbeef};
        uint16_t *to = check_output(c, TR_BF16, (size_t)groups * 8);
        uint16_t *want = check_scratch(c, (size_t)groups * 16);

        for (int64_t i = 0; i < groups * 8; i++) {
            uint64_t index = group * 8 + (uint64_t)i;
            want[i] = tr_philox_half(tr_philox_round(index, op.step, op.seed, op.name), index);
        }
        c->cpu->kernels->random(to, group, groups, &op);
        check_equal(c, "random", TR_BF16, to, want, (size_t)groups * 8);
    }
}

/* A tier that forgot to enter its kernels would pass every other check as plain C. */
static void tiers_overwrite(struct check *c)
{
    while (check_case(c, "tiers overwrite the table")) {
        struct tr_cpu_kernels definition;
        void *const *a = (void *const *)&definition, *const *b = (void *const *)c->cpu->kernels;
        size_t entries = sizeof(definition) / sizeof(*a), same = 0;

        tr_cpu_kernels_init(&definition, TR_TIER_C);
        for (size_t i = 0; i < entries; i++)
            same += a[i] == b[i];
        check_true(c, same == (c->tier == TR_TIER_C ? entries : 2), /* f32 to f32 is a copy */
                   "%zu of %zu kernels are those of tier c", same, entries);
    }
}

static void check_op(struct check *c, enum tr_dtype from, enum tr_dtype to, int64_t n)
{
    size_t size = tr_dtype_size(from) + tr_dtype_size(to);

    while (check_case(c, "op %s to %s n=%d", tr_dtype_name(from), tr_dtype_name(to), (int)n)) {
        struct tr_op_cast op = {.from_dtype = from, .to_dtype = to, .n = n};
        const float *wide = patterns(c, n);
        void *x = check_output(c, from, (size_t)n), *want;

        for (int64_t i = 0; i < n; i++) /* of 16 bits, all patterns come */
            if (from == TR_F32)
                ((float *)x)[i] = wide[i];
            else
                ((uint16_t *)x)[i] = (uint16_t)(n < 65536 ? check_random(c) : i);
        check_freeze(c);
        want = check_scratch(c, (size_t)n * tr_dtype_size(to));
        for (int64_t i = 0; i < n; i++)
            tr_store_f32(want, to, (size_t)i, tr_load_f32(x, from, (size_t)i));
        op.from = x;
        do {
            op.to = check_output(c, to, (size_t)n);
            check_run(c, TR_OP_CAST, &op);
            check_equal(c, "to", to, op.to, want, (size_t)n);
        } while (check_variant(c));
        CHECK_BENCH(c, (double)(n * size), 0) check_run(c, TR_OP_CAST, &op);
    }
}

static void check_ops(struct check *c)
{
    for (enum tr_dtype from = TR_F32; from < TR_DTYPES; from++)
        for (enum tr_dtype to = TR_F32; to < TR_DTYPES; to++) {
            check_op(c, from, to, 0);
            check_op(c, from, to, 1);
            check_op(c, from, to, 4099);
            check_op(c, from, to, check_bench_on(c) ? 16 << 20 : 65536 + 37);
        }
}

static void bench(struct check *c, enum tr_dtype dtype)
{
    while (check_case(c, "%s n=1M", tr_dtype_name(dtype))) {
        int64_t n = 1 << 20;
        const void *from = check_input(c, dtype, (size_t)n, CHECK_NORMAL);
        float *x = check_output(c, TR_F32, (size_t)n);
        void *to = check_output(c, dtype, (size_t)n);

        CHECK_BENCH(c, (double)n * 6, 0) c->cpu->kernels->to_f32[dtype](x, from, n);
        CHECK_BENCH(c, (double)n * 6, 0) c->cpu->kernels->from_f32[dtype](to, x, n);
    }
}

/* The kernels of the cpu's tiers, which other ops use too. */
static void check_kernels(struct check *c)
{
    static const int64_t sizes[] = {1, 7, 16, 33, 4099};

    for (enum tr_dtype d = TR_BF16; d < TR_DTYPES; d++) {
        widen_all(c, d);
        for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++)
            narrow(c, d, sizes[i]);
    }
    for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++)
        stochastic(c, sizes[i]);
    random_halves(c, 0, 1);
    random_halves(c, 5, 37);
    random_halves(c, 0xfffffff9u, 16);
    tiers_overwrite(c);
    if (check_bench_on(c)) {
        bench(c, TR_BF16);
        bench(c, TR_F16);
    }
}

void check_cast(struct check *c)
{
    if (!c->device)
        check_kernels(c);
    check_ops(c);
}
