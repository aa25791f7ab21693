/* SPDX-License-Identifier: Apache-2.0
 *
 * A machine without SIMD tiers of ours: plain C stays in the table.
 */
#include "cpu/kernels.h"

void tr_cpu_kernels_init_simd(struct tr_cpu_kernels *k, enum tr_cpu_tier tier)
{
    (void)k;
    (void)tier;
}
