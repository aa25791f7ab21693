/* SPDX-License-Identifier: Apache-2.0
 *
 * The x86 tiers of the kernel table, weakest to strongest. cpu/kernels_other.c elsewhere.
 */
#include "cpu/kernels.h"

void tr_cpu_kernels_init_simd(struct tr_cpu_kernels *k, enum tr_cpu_tier tier)
{
    if (tier < TR_TIER_AVX2)
        return;
#define INIT_AVX2(op) tr_##op##_init_avx2(k);
    TR_CPU_KERNELS(INIT_AVX2)
    if (tier < TR_TIER_AVX512)
        return;
#define INIT_AVX512(op) tr_##op##_init_avx512(k);
    TR_CPU_KERNELS(INIT_AVX512)
}
