/* SPDX-License-Identifier: Apache-2.0
 *
 * Budgets of tests that train on whatever device they are given.
 */
#ifndef TR_TESTS_DEVICE_BUDGET_H
#define TR_TESTS_DEVICE_BUDGET_H

#include <stdint.h>

/* device_memory for a run that needs `bytes`, on a device by name (NULL: the default one). A GPU
 * has its driver's context and code in it before anything else, on some of them more than half a
 * gigabyte; the cpu device's own part is small and inside `bytes`. */
uint64_t test_budget(const char *device, uint64_t bytes);

#endif
