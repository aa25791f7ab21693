/* SPDX-License-Identifier: Apache-2.0
 *
 * The conversions of kernels/ptx.cuh have the bits of src/base/dtype.h: all 16-bit values, and f32
 * values of every exponent, the ties among them, and at random. The fast ones may differ in NaN,
 * which stays one.
 *
 * To say more than that a header agrees with itself, the f32 side is also checked against the
 * definition: of the 16-bit values that lie around x, the nearer, and of two as near the even one.
 */
#include "tests/cuda/shim/test.h"

#include <math.h>

#include "kernels/ptx.cuh"
#include "src/base/philox.h"

static bool is_nan16(uint16_t h, uint16_t infinity)
{
    return (h & 0x7fff) > infinity;
}

static void check_up(uint16_t h)
{
    uint32_t pair = (uint32_t)h | (uint32_t)(h ^ 0x1234) << 16;
    float bf16 = ptx_bf16_f32(h), f16 = ptx_f16_f32(h), low = ptx_f16_low(pair);

    assert_int_equal(tr_f32_bits(bf16), tr_f32_bits(tr_bf16_f32(h)));
    assert_int_equal(tr_f32_bits(bf16), (uint32_t)h << 16);
    assert_int_equal(tr_f32_bits(f16), tr_f32_bits(tr_f16_f32(h)));
    assert_int_equal(tr_f32_bits(ptx_bf16_low(pair)), tr_f32_bits(bf16));
    assert_int_equal(tr_f32_bits(ptx_bf16_high(pair ^ 0x12340000)), tr_f32_bits(bf16));
    if (is_nan16(h, 0x7c00)) {
        assert_true(low != low && ptx_f16_high(pair ^ 0x12340000) != low);
        return;
    }
    assert_int_equal(tr_f32_bits(low), tr_f32_bits(f16));
    assert_int_equal(tr_f32_bits(ptx_f16_high(pair ^ 0x12340000)), tr_f32_bits(f16));
    if ((h & 0x7fff) < 0x7c00)
        assert_true(f16 == (h & 0x8000 ? -1.0f : 1.0f) *
                               ldexpf((float)((h & 0x3ff) | (h & 0x7c00 ? 0x400 : 0)),
                                      (h & 0x7c00 ? h >> 10 & 31 : 1) - 25));
}

static void test_up(void **state)
{
    (void)state;
    for (uint32_t h = 0; h < 0x10000; h++)
        check_up((uint16_t)h);
}

/* h is the value nearest to x of a format whose magnitudes count up from 0 to `infinity`. Overflow
 * is at the point halfway to what would be the next finite value. */
static void check_nearest(float x, uint16_t h, uint16_t infinity, float (*up)(uint16_t))
{
    uint16_t a = h & 0x7fff;
    double size = fabs((double)x), here, above, below;

    assert_int_equal(h >> 15, tr_f32_bits(x) >> 31);
    assert_true(a <= infinity);
    below = a ? (double)up(a - 1) : -1;
    here = a < infinity ? (double)up(a) : 2 * below - (double)up(a - 2);
    above = a + 1 < infinity ? (double)up(a + 1) : 2 * here - below;
    assert_true(a == infinity ||
                (above - size >= size - here && (above - size > size - here || !(a & 1))));
    if (a)
        assert_true(size - below >= here - size && (size - below > here - size || !(a & 1)));
}

static void check_down(uint32_t bits)
{
    float x = tr_bits_f32(bits), one = 1.0f;
    uint16_t bf16 = ptx_f32_bf16(x), f16 = ptx_f32_f16(x);
    uint32_t low = ptx_pack_bf16(x, one), high = ptx_pack_f16(one, x);

    assert_int_equal(bf16, tr_f32_bf16(x));
    assert_int_equal(f16, tr_f32_f16(x));
    assert_int_equal(low >> 16, 0x3f80);
    assert_int_equal(high & 0xffff, 0x3c00);
    if (x != x) {
        assert_true(is_nan16(bf16, 0x7f80) && is_nan16(f16, 0x7c00));
        assert_true((low & 0xffff) == 0x7fff && high >> 16 == 0x7fff);
        return;
    }
    assert_int_equal(low & 0xffff, bf16);
    assert_int_equal(high >> 16, f16);
    if (isinf(x)) {
        assert_int_equal(bf16 & 0x7fff, 0x7f80);
        assert_int_equal(f16 & 0x7fff, 0x7c00);
        return;
    }
    check_nearest(x, bf16, 0x7f80, tr_bf16_f32);
    check_nearest(x, f16, 0x7c00, tr_f16_f32);
}

/* Around every 16-bit value's tie with the next, for both formats. */
static void test_down_ties(void **state)
{
    static const uint32_t lows[] = {0, 1, 0x7fff, 0x8000, 0x8001, 0xffff};

    (void)state;
    for (uint32_t h = 0; h < 0x10000; h++)
        for (uint32_t low : lows)
            check_down(h << 16 | low);
    for (uint32_t h = 0; h < 0x7c00; h++) {
        uint32_t middle =
            tr_f32_bits((tr_f16_f32((uint16_t)h) + tr_f16_f32((uint16_t)(h + 1))) / 2);
        for (uint32_t bits = middle - 1; h + 1 < 0x7c00 && bits != middle + 2; bits++)
            check_down(bits), check_down(bits | 0x80000000);
    }
}

static void test_down_random(void **state)
{
    (void)state;
    for (uint32_t i = 0; i < (TR_SHIM_TSAN + TR_SHIM_ASAN > 0 ? 50000 : 1000000); i++) {
        struct tr_philox r = tr_philox4x32({{i, 0, 0, 0}}, 5, 7);
        for (uint32_t bits : r.v)
            check_down(bits);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_up),
        cmocka_unit_test(test_down_ties),
        cmocka_unit_test(test_down_random),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
