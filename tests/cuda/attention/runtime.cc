/* SPDX-License-Identifier: Apache-2.0
 *
 * The runtime that attention needs, without streams: a launch runs at once. What CUDA would refuse
 * (a configuration, shared memory over what was asked for or over what the GPU has) is refused.
 */
#include "kernels/cuda.h"
#include "kernels/launch.cuh"

#include <stdarg.h>
#include <stdio.h>

#include "tests/cuda/attention/case.h"
#include "tests/cuda/shim/shim.h"

static cudaError_t kept;
static int launches, allowed = 48 << 10, most;

/* The most shared memory of a block, by the CUDA C++ programming guide. */
void runtime_set_sm(int sm)
{
    most = (sm == 80 ? 163 : sm == 90 ? 227 : 99) << 10;
}

int runtime_launches(void)
{
    return launches;
}

cudaError_t cudaFuncSetAttribute(const void *, enum cudaFuncAttribute, int value)
{
    allowed = value;
    return value > most ? cudaErrorInvalidValue : cudaSuccess;
}

cudaError_t tr_fake_launch(cudaStream_t, const struct tr_shim_grid *g, void (*body)(void *),
                           void (*destroy)(void *), void *arg)
{
    char error[512] = "configuration";
    bool sound = g->grid.x && g->grid.y && g->grid.y <= 65535 && g->block.x <= 1024 &&
                 g->shared_bytes <= (size_t)allowed;

    launches++;
    allowed = 48 << 10;
    if (!sound || tr_shim_run(g, body, arg, error, sizeof(error)) < 0) {
        fprintf(stderr, "launch: %s\n", error);
        kept = cudaErrorLaunchFailure;
    }
    destroy(arg);
    return kept;
}

int tr_cuda_launched(const struct tr_cuda *, const char *)
{
    cudaError_t e = kept;

    kept = cudaSuccess;
    return e == cudaSuccess ? 0 : -EIO;
}

int tr_cuda_error(cudaError_t, const char *, ...)
{
    return -EIO;
}

int tr_cuda_refuse(int code, const char *, ...)
{
    return code;
}
