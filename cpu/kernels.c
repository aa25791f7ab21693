/* SPDX-License-Identifier: Apache-2.0
 *
 * Fills the kernel table: every op's plain C first, then what the machine's tiers overwrite.
 */
#include "cpu/kernels.h"

void tr_cpu_kernels_init(struct tr_cpu_kernels *k, enum tr_cpu_tier tier)
{
#define INIT(op) tr_##op##_init_c(k);
    TR_CPU_KERNELS(INIT)
    tr_cpu_kernels_init_simd(k, tier);
}
