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

    if (s->mutant) {
        s->case_failed = 1;
        return;
    }
    if (!s->case_failed)
        printf("FAIL %s (%s) %s, --seed=%llu\n", c->op, tr_cpu_tier_name(c->tier), s->case_name,
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

static int element_ok(const struct tolerance *t, double rms, float got, double want)
{
    double off = fabs((double)got - want);

    if (isnan(want) || isnan(got))
        return isnan(want) && isnan(got);
    if (isinf((float)want) || isinf(got))
        return (float)want == got;
    switch (t->kind) {
    case TOLERANCE_EXACT:
        return got == (float)want;
    case TOLERANCE_ULP:
        return ulps(got, (float)want) <= t->limit || off <= t->abs;
    case TOLERANCE_ABS_REL:
        return off <= t->abs + t->limit * fabs(want);
    default:
        return off <= t->abs * rms;
    }
}

/* Squared error and rms of the finite elements; an all-zero reference allows no error at all. */
static double sum_errors(const float *got, const double *want, size_t n, double *rms)
{
    double error = 0, power = 0;

    for (size_t i = 0; i < n; i++) {
        if (!isfinite(want[i]))
            continue;
        error += (got[i] - want[i]) * (got[i] - want[i]);
        power += want[i] * want[i];
    }
    *rms = n ? sqrt(power / (double)n) : 0;
    return power > 0 ? error / power : error > 0 ? INFINITY : 0;
}

void check_close_as(struct check *c, const char *row, const char *what, const float *got,
                    const double *want, size_t n)
{
    const struct tolerance *t = tolerance_find(c->op, row);
    double rms = 0, nmse;
    size_t wrong = 0;

    if (!t) {
        check_fail(c, "%s: tolerance.c has no row %s or %s.%s", what, c->op, c->op, row);
        return;
    }
    nmse = sum_errors(got, want, n, &rms);
    for (size_t i = 0; i < n; i++) {
        if (element_ok(t, rms, got[i], want[i]))
            continue;
        if (wrong++ < 4)
            check_fail(c, "%s[%zu] = %.9g, want %.9g (off by %.3g)", what, i, (double)got[i],
                       want[i], fabs(got[i] - want[i]));
    }
    if (wrong)
        check_fail(c, "%s: %zu of %zu elements off", what, wrong, n);
    else if (t->kind == TOLERANCE_NMSE && !(nmse <= t->limit))
        check_fail(c, "%s: normalised mean square error %.3g, allowed %.3g", what, nmse, t->limit);
}

void check_close(struct check *c, const char *what, const float *got, const double *want, size_t n)
{
    check_close_as(c, what, what, got, want, n);
}
