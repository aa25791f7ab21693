/* SPDX-License-Identifier: Apache-2.0
 *
 * For the shim's own tests: a launch that runs at once on the calling thread, and the orders that
 * every sample kernel is run in.
 */
#ifndef TR_TESTS_CUDA_SHIM_TEST_H
#define TR_TESTS_CUDA_SHIM_TEST_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

extern "C" {
#include <cmocka.h>
}

#include "kernels/launch.cuh"
#include "tests/cuda/shim/shim.h"

/* What the last launch of this thread ended with: "" or the shim's message. */
extern thread_local char launch_error[512];

extern const char *const test_orders[]; // the two greedy ones first, NULL at the end
enum { GREEDY_ORDERS = 2 };

/* Small whole numbers, exact in every float format. */
static inline float test_value(uint32_t i)
{
    return (float)((i * 2654435761u >> 20) % 17) - 8.0f;
}

#endif
