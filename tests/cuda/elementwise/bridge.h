/* SPDX-License-Identifier: Apache-2.0
 *
 * The cuda device's ops for tests in C: no streams, a launch runs the grid before it returns.
 */
#ifndef TR_TESTS_CUDA_BRIDGE_H
#define TR_TESTS_CUDA_BRIDGE_H

#include "src/base/device.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Runs an op with that much scratch, poisoned. 0, or a negative errno and bridge_message(). */
int bridge_run(const struct tr_op *op, size_t scratch_bytes);
const char *bridge_message(void);
/* As the kernels widen what they sum in f64. */
double bridge_widen(float x);

#ifdef __cplusplus
}
#endif
#endif
