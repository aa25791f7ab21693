/* SPDX-License-Identifier: Apache-2.0
 *
 * What a test of every SIMD tier says about those that it passes over.
 */
#ifndef TR_TESTS_TIERS_H
#define TR_TESTS_TIERS_H

#include <stdio.h>

#include "cpu/flags.h"

static inline void say_missing_tiers(void)
{
    for (int t = (int)tr_cpu_tier_best() + 1; t < TR_TIERS; t++)
        printf("skipped: tier %s, not checked for this CPU lacks it\n",
               tr_cpu_tier_name((enum tr_cpu_tier)t));
}

#endif
