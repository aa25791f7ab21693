/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/kernelcheck/code8.h"

#include <math.h>

#include "src/base/philox.h"

double check_code8_value(unsigned code, enum tr_code8 kind)
{
    int bias = kind == TR_CODE8_SIGNED ? 15 : 31;
    unsigned magnitude = kind == TR_CODE8_SIGNED ? code & 127 : code;
    int exponent = (int)(magnitude / 8), mantissa = (int)(magnitude % 8);
    double x = exponent ? ldexp(8 + mantissa, exponent - bias - 3) : ldexp(mantissa, -bias - 2);

    return magnitude == code ? x : -x;
}

void check_code8_load(float *to, const void *state, int64_t n, enum tr_code8 kind)
{
    const uint8_t *block = state;
    float scale = 0;

    for (int64_t i = 0; i < n; i++) {
        if (i % 256 == 0) {
            block = (const uint8_t *)state + i / 256 * 260;
            memcpy(&scale, block, 4);
        }
        to[i] = (float)check_code8_value(block[4 + i % 256], kind) * scale;
    }
}

/* The last code whose value is at most t. */
static unsigned below(double t, enum tr_code8 kind)
{
    unsigned code = 0, last = kind == TR_CODE8_SIGNED ? 127 : 255;

    for (unsigned step = 128; step; step /= 2)
        if (code + step <= last && check_code8_value(code + step, kind) <= t)
            code += step;
    return code;
}

/* Positions between neighbours have 20 bits, which is exact above the smallest octave. */
static uint8_t rounded(float t, uint16_t random, enum tr_code8 kind)
{
    unsigned last = kind == TR_CODE8_SIGNED ? 127 : 255, code = below(fabs((double)t), kind);
    double from = check_code8_value(code, kind);

    if (code < last) {
        double step = check_code8_value(code + 1, kind) - from;

        code += nearbyint((fabs((double)t) - from) / step * 0x1p20) + random * 16.0 >= 0x1p20;
    }
    if (kind == TR_CODE8_SIGNED)
        return (uint8_t)(signbit(t) ? code + 128 : code);
    return (uint8_t)(code == 0 && t != 0 ? 1 : code);
}

static float scale_of(const float *x, int64_t n)
{
    double top = 0;

    for (int64_t i = 0; i < n; i++)
        if (!isfinite(x[i]))
            return tr_bits_f32(0x7fc00000);
        else if (fabs((double)x[i]) > top)
            top = fabs((double)x[i]);
    return top < 0x1p-96 ? 0 : (float)top / 1.875f;
}

void check_code8_store(const struct check_code8 *c, void *state, const float *x, int64_t n)
{
    uint8_t *block = state;

    for (int64_t i = 0; i < n; i += 256, block += 260) {
        int64_t here = n - i < 256 ? n - i : 256;
        float scale = scale_of(x + i, here);

        memcpy(block, &scale, 4);
        for (int64_t k = 0; k < here; k++) {
            uint64_t index = (uint64_t)(c->op->first + i + k);
            struct tr_philox r = tr_philox_round(index, c->op->step, c->op->seed, c->name);

            block[4 + k] = 0;
            if (scale > 0)
                block[4 + k] = rounded(x[i + k] * (1 / scale), tr_philox_half(r, index), c->kind);
        }
    }
}
