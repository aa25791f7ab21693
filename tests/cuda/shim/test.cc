/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/cuda/shim/test.h"

thread_local char launch_error[512];
const char *const test_orders[] = {"ascending", "descending", "random:1", "random:2", NULL};

extern "C" cudaError_t tr_fake_launch(cudaStream_t s, const struct tr_shim_grid *g,
                                      void (*body)(void *), void (*destroy)(void *), void *arg)
{
    (void)s;
    launch_error[0] = 0;
    tr_shim_run(g, body, arg, launch_error, sizeof launch_error);
    destroy(arg);
    return (cudaError_t)0;
}
