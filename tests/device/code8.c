/* SPDX-License-Identifier: Apache-2.0
 *
 * Optimizer state in 8 bits: known values of bytes, rounding between two neighbours and its mean,
 * the bound of the error of a block, and blocks at the ends of the range, in every tier that the
 * machine runs. (That all tiers agree with exact arithmetic on any numbers is kernelcheck's to
 * say.)
 */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "cpu/kernels.h"
#include "tests/tiers.h"

#define N 256

static const enum tr_code8 kinds[2] = {TR_CODE8_SIGNED, TR_CODE8_SQUARES};

static void test_known_values(void **state)
{
    static const struct {
        enum tr_code8 kind;
        uint8_t code;
        double value;
    } known[] = {
        {TR_CODE8_SIGNED, 0x00, 0},        {TR_CODE8_SIGNED, 0x01, 0x1p-17},
        {TR_CODE8_SIGNED, 0x07, 0x7p-17},  {TR_CODE8_SIGNED, 0x08, 0x1p-14},
        {TR_CODE8_SIGNED, 0x09, 0x9p-17},  {TR_CODE8_SIGNED, 0x10, 0x1p-13},
        {TR_CODE8_SIGNED, 0x70, 0.5},      {TR_CODE8_SIGNED, 0x77, 0.9375},
        {TR_CODE8_SIGNED, 0x78, 1},        {TR_CODE8_SIGNED, 0x79, 1.125},
        {TR_CODE8_SIGNED, 0x7f, 1.875},    {TR_CODE8_SIGNED, 0x81, -0x1p-17},
        {TR_CODE8_SIGNED, 0xf8, -1},       {TR_CODE8_SIGNED, 0xff, -1.875},
        {TR_CODE8_SQUARES, 0x00, 0},       {TR_CODE8_SQUARES, 0x01, 0x1p-33},
        {TR_CODE8_SQUARES, 0x07, 0x7p-33}, {TR_CODE8_SQUARES, 0x08, 0x1p-30},
        {TR_CODE8_SQUARES, 0x80, 0x1p-15}, {TR_CODE8_SQUARES, 0x87, 0xfp-18},
        {TR_CODE8_SQUARES, 0xf0, 0.5},     {TR_CODE8_SQUARES, 0xf8, 1},
        {TR_CODE8_SQUARES, 0xfd, 1.625},   {TR_CODE8_SQUARES, 0xff, 1.875},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(known) / sizeof(known[0]); i++)
        if ((double)tr_code8_value(known[i].code, known[i].kind) != known[i].value)
            fail_msg("%d: byte 0x%02x is %.9g", known[i].kind, known[i].code,
                     (double)tr_code8_value(known[i].code, known[i].kind));
}

static int last_of(enum tr_code8 kind)
{
    return kind == TR_CODE8_SIGNED ? 127 : 255;
}

/* A value that a byte has is that byte, whatever the random bits. */
static void test_values_stay(void **state)
{
    (void)state;
    for (int k = 0; k < 2; k++)
        for (int code = 0; code <= last_of(kinds[k]); code++) {
            float x = tr_code8_value((uint8_t)code, kinds[k]);

            assert_true(code == 0 || x > tr_code8_value((uint8_t)(code - 1), kinds[k]));
            assert_int_equal(tr_code8_round(x, 0, kinds[k]), code);
            assert_int_equal(tr_code8_round(x, 0xffff, kinds[k]), code);
            if (kinds[k] == TR_CODE8_SIGNED && code)
                assert_int_equal(tr_code8_round(-x, 0xffff, kinds[k]), code + 128);
        }
}

/* Between neighbours as many of all random numbers go up as say where it lies. */
static void test_means(void **state)
{
    static const double places[] = {0.001, 0.25, 0.5, 0.9};

    (void)state;
    for (int k = 0; k < 2; k++)
        for (int code = 1; code < last_of(kinds[k]); code += 7)
            for (int i = 0; i < 4; i++) {
                double from = tr_code8_value((uint8_t)code, kinds[k]);
                double step = tr_code8_value((uint8_t)(code + 1), kinds[k]) - from;
                float t = (float)(from + places[i] * step);
                double up = 0;

                for (uint32_t r = 0; r < 0x10000; r++) {
                    uint8_t to = tr_code8_round(t, (uint16_t)r, kinds[k]);

                    assert_true(to == code || to == code + 1);
                    up += to == code + 1;
                }
                assert_true(fabs(up / 0x10000 - (t - from) / step) <= 0x1p-16);
            }
}

/* The best of the tiers, or a weaker one. */
static struct tr_cpu_kernels kernels_of(int tier)
{
    enum tr_cpu_tier best = tr_cpu_tier_best();
    struct tr_cpu_kernels k;

    tr_cpu_kernels_init(&k, tier < (int)best ? (enum tr_cpu_tier)tier : best);
    return k;
}

static float of_octave(int i, int octaves)
{
    return ldexpf(1 + (float)(i * 37 % 97) / 97, -(i * 11 % octaves));
}

/* A step is at most an eighth of what it is next to, or of the smallest octave's. */
static void test_error(void **state)
{
    (void)state;
    for (int tier = 0; tier < 3; tier++)
        for (int k = 0; k < 2; k++)
            for (int n = 1; n <= N; n += n < 20 ? 1 : 59) {
                struct tr_cpu_kernels kernels = kernels_of(tier);
                float x[N], y[N];
                uint8_t block[TR_CODE8_STRIDE];
                uint16_t random[N];
                double low = kinds[k] == TR_CODE8_SIGNED ? 0x1p-17 : 0x1p-33, scale = 0;

                for (int i = 0; i < n; i++) {
                    x[i] = of_octave(i, 40) * (kinds[k] == TR_CODE8_SIGNED && i % 3 ? -1 : 1);
                    random[i] = (uint16_t)(i * 40503);
                    scale = fmax(scale, fabs((double)x[i]) / 1.875);
                }
                kernels.code8_store(block, x, random, n, kinds[k]);
                kernels.code8_load(y, block, n, kinds[k]);
                for (int i = 0; i < n; i++) {
                    double error = fabs((double)y[i] - x[i]);

                    assert_true(error <= fmax(fabs((double)x[i]) / 8, low * scale) * 1.000001);
                    assert_true(kinds[k] == TR_CODE8_SIGNED || y[i] > 0);
                }
            }
}

/* One block of x, of which what is loaded again comes back in x. */
static void there_and_back(int tier, float *x, uint8_t block[TR_CODE8_STRIDE], enum tr_code8 kind)
{
    struct tr_cpu_kernels kernels = kernels_of(tier);
    uint16_t random[N];

    memset(random, 0x7f, sizeof(random));
    memset(block, 0xaa, TR_CODE8_STRIDE);
    kernels.code8_store(block, x, random, N, kind);
    kernels.code8_load(x, block, N, kind);
}

/* Zeros are bytes of zero, as a new store has them; what is too small becomes such; what is not
 * finite spoils its block and says so. */
static void test_ends(void **state)
{
    static const float odd[] = {INFINITY, -INFINITY, NAN};
    uint8_t block[TR_CODE8_STRIDE];
    float x[N];

    (void)state;
    for (int tier = 0; tier < 3; tier++)
        for (int k = 0; k < 2; k++) {
            for (int i = 0; i < N; i++)
                x[i] = i % 2 ? 0 : 0x1p-97f;
            there_and_back(tier, x, block, kinds[k]);
            for (int i = 0; i < TR_CODE8_STRIDE; i++)
                assert_int_equal(block[i], 0);
            for (int i = 0; i < N; i++)
                assert_true(x[i] == 0);
            for (int i = 0; i < 3; i++) {
                for (int j = 0; j < N; j++)
                    x[j] = j == 200 ? odd[i] : 1;
                there_and_back(tier, x, block, kinds[k]);
                for (int j = 0; j < N; j++)
                    assert_true(isnan(x[j]));
            }
            for (int i = 0; i < N; i++)
                x[i] = i == 77 ? 0x1.fffffep+127f : 0x1p-149f;
            there_and_back(tier, x, block, kinds[k]);
            assert_true(isfinite(x[77]) && x[77] > 0x1p127f);
        }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_known_values), cmocka_unit_test(test_values_stay),
        cmocka_unit_test(test_means), cmocka_unit_test(test_error), cmocka_unit_test(test_ends)};

    say_missing_tiers();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
