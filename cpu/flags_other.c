/* SPDX-License-Identifier: Apache-2.0
 *
 * cpu/flags.h on machines without SIMD tiers of ours: tier C, and OpenBLAS chooses by itself.
 */
#include "cpu/flags.h"

#include <string.h>

#include "src/base/err.h"

enum tr_cpu_tier tr_cpu_tier_best(void)
{
    return TR_TIER_C;
}

const char *tr_cpu_tier_name(enum tr_cpu_tier tier)
{
    return tier == TR_TIER_C ? "c" : tier == TR_TIER_AVX2 ? "avx2" : "avx512";
}

int tr_cpu_tier_parse(const char *name, enum tr_cpu_tier *out)
{
    *out = TR_TIER_C;
    if (!name || !strcmp(name, "c"))
        return 0;
    return tr_error(-EINVAL, "unknown cpu tier '%s': only c exists on this machine", name);
}

const char *tr_cpu_blas_coretype(void)
{
    return NULL;
}
