/* SPDX-License-Identifier: Apache-2.0 */
#include "cpu/flags.h"

#include <cpuid.h>
#include <string.h>

#include "src/base/err.h"

static const char *const tier_names[TR_TIERS] = {"c", "avx2", "avx512"};

/* The compiler's own detection also asks whether the operating system saves the registers; F16C
 * comes with every AVX2 machine but is not known to all compilers by name. */
static int has_f16c(void)
{
    unsigned a, b, c, d;

    return __get_cpuid(1, &a, &b, &c, &d) && (c & bit_F16C);
}

static int has_avx2(void)
{
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && has_f16c();
}

static int has_avx512(void)
{
    return has_avx2() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
           __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq");
}

enum tr_cpu_tier tr_cpu_tier_best(void)
{
    __builtin_cpu_init();
    if (has_avx512())
        return TR_TIER_AVX512;
    return has_avx2() ? TR_TIER_AVX2 : TR_TIER_C;
}

const char *tr_cpu_tier_name(enum tr_cpu_tier tier)
{
    return tier_names[tier];
}

int tr_cpu_tier_parse(const char *name, enum tr_cpu_tier *out)
{
    enum tr_cpu_tier best = tr_cpu_tier_best();

    if (!name) {
        *out = best;
        return 0;
    }
    for (int t = 0; t < TR_TIERS; t++) {
        if (strcmp(name, tier_names[t]))
            continue;
        if (t > best)
            return tr_error(-ENOTSUP, "this CPU cannot run tier %s (its best is %s)", name,
                            tier_names[best]);
        *out = t;
        return 0;
    }
    return tr_error(-EINVAL, "unknown cpu tier '%s': use c, avx2 or avx512", name);
}

/* OpenBLAS 0.3.21 knows families by number and gives newer CPUs its oldest kernels; the features
 * say what really runs. Zen before AVX-512 has its own type; with it, SkylakeX is the faster one.
 */
const char *tr_cpu_blas_coretype(void)
{
    enum tr_cpu_tier best = tr_cpu_tier_best();

    if (best == TR_TIER_AVX512)
        return "SkylakeX";
    if (best == TR_TIER_AVX2)
        return __builtin_cpu_is("amd") ? "Zen" : "Haswell";
    return NULL;
}
