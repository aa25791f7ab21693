/* SPDX-License-Identifier: Apache-2.0
 *
 * Comparisons of the kernel checker.
 */
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "src/base/err.h"
#include "tests/kernelcheck/state.h"
#include "tests/kernelcheck/tolerance.h"

void check_fail(struct check *c, const char *fmt, ...)
{
    struct check_state *s = c->state;
    va_list ap;

    if (s->mutant || s->planted) {
        s->case_failed = 1;
        return;
    }
    if (!s->case_failed)
        printf("FAIL %s (%s) %s, --seed=%llu\n", c->op, check_where(c), s->case_name,
               (unsigned long long)s->options.seed);
    s->case_failed = 1;
    printf("    ");
    va_start(ap, fmt);
    vprintf(fmt, ap);
    va_end(ap);
    printf("\n");
}

void check_ok(struct check *c, int error)
{
    if (error)
        check_fail(c, "returned %d: %s", error, tr_error_message());
}

void check_true(struct check *c, int ok, const char *fmt, ...)
{
    char text[256];
    va_list ap;

    if (ok)
        return;
    va_start(ap, fmt);
    vsnprintf(text, sizeof(text), fmt, ap);
    va_end(ap);
    check_fail(c, "%s", text);
}

int check_differs(const void *a, const void *b, size_t bytes)
{
    return memcmp(a, b, bytes) != 0;
}

void check_equal(struct check *c, const char *what, enum tr_dtype dtype, const void *got,
                 const void *want, size_t n)
{
    size_t size = tr_dtype_size(dtype), shown = 0, wrong = 0;
    const char *g = got, *w = want;

    if (!check_differs(got, want, n * size))
        return;
    for (size_t i = 0; i < n; i++) {
        if (!memcmp(g + i * size, w + i * size, size))
            continue;
        wrong++;
        if (shown++ < 4)
            check_fail(c, "%s[%zu] = %.9g, want %.9g (not equal in bits)", what, i,
                       (double)tr_load_f32(got, dtype, i), (double)tr_load_f32(want, dtype, i));
    }
    check_fail(c, "%s: %zu of %zu elements differ", what, wrong, n);
}

/* The distance in representable numbers, both zeros being one. */
static double ulps(float a, float b)
{
    int32_t x = (int32_t)tr_f32_bits(a), y = (int32_t)tr_f32_bits(b);

    x = x < 0 ? (int32_t)(0x80000000u - (uint32_t)x) : x;
    y = y < 0 ? (int32_t)(0x80000000u - (uint32_t)y) : y;
    return fabs((double)x - (double)y);
}

/* Half the spacing of a 16-bit dtype at x: how far rounding to nearest may move a value. */
static double half_spacing(enum tr_dtype dtype, double x)
{
    int exponent = x == 0 ? -200 : ilogb(x);

    if (dtype == TR_F32)
        return 0; /* the rows speak of f32 results and have its rounding in them */
    if (dtype == TR_BF16)
        return ldexp(1, (exponent < -126 ? -126 : exponent) - 8);
    return ldexp(1, (exponent < -14 ? -14 : exponent) - 11);
}

double check_unrounded(enum tr_dtype dtype, double got, double want)
{
    double off = got - want, rounding = half_spacing(dtype, want);

    return fabs(off) <= rounding ? want : got - copysign(rounding, off);
}

struct comparison {
    enum tr_dtype dtype;
    const void *got;
    const double *want;
    size_t n;
};

static double got_at(const struct comparison *v, size_t i)
{
    return tr_load_f32(v->got, v->dtype, i);
}

/* The distance that the last rounding does not explain. */
static double off_at(const struct comparison *v, size_t i)
{
    return fabs(check_unrounded(v->dtype, got_at(v, i), v->want[i]) - v->want[i]);
}

static int element_ok(const struct tolerance *t, double rms, const struct comparison *v, size_t i)
{
    double off = off_at(v, i), want = v->want[i];
    float got = (float)got_at(v, i), rounded;

    tr_store_f32(&rounded, v->dtype, 0, (float)want);
    rounded = tr_load_f32(&rounded, v->dtype, 0);
    if (isnan(want) || isnan(got))
        return isnan(want) && isnan(got);
    if (isinf(rounded) || isinf(got))
        return rounded == got;
    switch (t->kind) {
    case TOLERANCE_EXACT:
        return got == rounded;
    case TOLERANCE_ULP:
        return (v->dtype == TR_F32 ? ulps(got, rounded) <= t->limit
                                   : off <= t->limit * 0x1p-23 * fabs(want)) ||
               off <= t->abs;
    case TOLERANCE_ABS_REL:
        return off <= t->abs + t->limit * fabs(want);
    default:
        return off <= t->abs * rms;
    }
}

/* Squared error and rms of the finite elements; an all-zero reference allows no error at all. */
static double sum_errors(const struct comparison *v, double *rms)
{
    double error = 0, power = 0;

    for (size_t i = 0; i < v->n; i++) {
        if (!isfinite(v->want[i]))
            continue;
        error += off_at(v, i) * off_at(v, i);
        power += v->want[i] * v->want[i];
    }
    *rms = v->n ? sqrt(power / (double)v->n) : 0;
    return power > 0 ? error / power : error > 0 ? INFINITY : 0;
}

void check_close(struct check *c, const char *what, enum tr_dtype dtype, const void *got,
                 const double *want, size_t n)
{
    struct tolerance_of of = {c->device ? c->device->name : NULL, c->op, what, dtype};
    struct comparison v = {dtype, got, want, n};
    struct tolerance t;
    double rms = 0, nmse;
    size_t wrong = 0;

    if (!tolerance_find(&of, &t)) {
        check_fail(c, "%s: tolerance.c has no row %s or %s.%s", what, c->op, c->op, what);
        return;
    }
    nmse = sum_errors(&v, &rms);
    for (size_t i = 0; i < n; i++) {
        if (element_ok(&t, rms, &v, i))
            continue;
        if (wrong++ < 4)
            check_fail(c, "%s[%zu] = %.9g, want %.9g (off by %.3g)", what, i, got_at(&v, i),
                       want[i], fabs(got_at(&v, i) - want[i]));
    }
    if (wrong)
        check_fail(c, "%s: %zu of %zu elements off", what, wrong, n);
    else if (t.kind == TOLERANCE_NMSE && !(nmse <= t.limit))
        check_fail(c, "%s: normalised mean square error %.3g, allowed %.3g", what, nmse, t.limit);
}
