/* SPDX-License-Identifier: Apache-2.0
 *
 * All tests in three orders of blocks, warps and lanes. A kernel that leans on an order gives other
 * bits in one of them.
 */
#include "tests/cuda/elementwise/harness.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "tests/cuda/shim/shim.h"

static int run_all(void)
{
    struct CMUnitTest tests[64];
    size_t n = 0;

#define TAKE(group)                                                                                \
    for (size_t i = 0; i < group##_count; i++)                                                     \
    tests[n++] = group##_tests[i]
    TAKE(map);
    TAKE(update);
    TAKE(rows);
    TAKE(embed);
    TAKE(xent);
#undef TAKE
    return _cmocka_run_group_tests("elementwise", tests, n, NULL, NULL);
}

int main(void)
{
    static const char *const orders[] = {"ascending", "descending", "random:7"};
    uint64_t sums[COUNT(orders)];
    int failed = 0;

    for (size_t i = 0; i < COUNT(orders); i++) {
        printf("order %s\n", orders[i]);
        if (tr_shim_set_order(orders[i]))
            return 1;
        failed += run_all();
        sums[i] = harness_sum();
        if (!failed && sums[i] != sums[0]) {
            printf("order %s gives other bits\n", orders[i]);
            failed++;
        }
    }
    return failed != 0;
}
