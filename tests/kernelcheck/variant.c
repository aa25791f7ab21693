/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/kernelcheck/variant.h"

#include "cpu/kernels.h"

const struct tr_cpu *check_variant(struct check *c, int i)
{
    static struct tr_cpu_kernels definition;
    static struct tr_cpu cpu;

    if (check_bench_on(c) || i > 2)
        return NULL;
    if (i < 2)
        return check_cpu(c, i ? 3 : 1);
    tr_cpu_kernels_init(&definition, TR_TIER_C);
    cpu = *c->cpu;
    cpu.kernels = &definition;
    return &cpu;
}
