/* SPDX-License-Identifier: Apache-2.0
 *
 * CUDA's errors become negative errno here, with the runtime's own name for them and, where a user
 * can do something about it, what that is.
 */
#include "kernels/cuda.h"

#include <stdarg.h>
#include <stdio.h>

#include "kernels/device.h"

const struct tr_module_host *tr_cuda_host;

static int errno_of(cudaError_t e)
{
    switch (e) {
    case cudaErrorMemoryAllocation:
        return -ENOMEM;
    case cudaErrorInvalidValue:
    case cudaErrorInvalidConfiguration:
        return -EINVAL;
    case cudaErrorNoDevice:
    case cudaErrorInvalidDevice:
    case cudaErrorInsufficientDriver:
    case cudaErrorNoKernelImageForDevice:
    case cudaErrorUnsupportedPtxVersion:
    case cudaErrorDevicesUnavailable:
    case cudaErrorSystemNotReady:
    case cudaErrorSystemDriverMismatch:
        return -ENODEV;
    case cudaErrorNotSupported:
        return -ENOTSUP;
    case cudaErrorLaunchTimeout:
        return -ETIMEDOUT;
    default:
        return -EIO;
    }
}

static const char *hint_of(cudaError_t e)
{
    switch (e) {
    case cudaErrorMemoryAllocation:
        return "; other programs use the GPU, or --device-memory is too large";
    case cudaErrorInsufficientDriver:
    case cudaErrorSystemDriverMismatch:
        return "; update the NVIDIA driver";
    case cudaErrorNoKernelImageForDevice:
        return "; this build has no code for this GPU: build with -Dgpu_archs=all";
    case cudaErrorUnsupportedPtxVersion:
        return "; this build has only portable code for this GPU, and the driver is older than "
               "that: update it, or build with -Dgpu_archs=all";
    case cudaErrorDevicesUnavailable:
        return "; another program has the GPU for itself";
    case cudaErrorECCUncorrectable:
        return "; the GPU's memory is faulty: what was committed before is intact";
    case cudaErrorLaunchTimeout:
        return "; a GPU that drives a display stops long kernels";
    case cudaErrorIllegalAddress:
    case cudaErrorMisalignedAddress:
    case cudaErrorLaunchFailure:
    case cudaErrorUnknown:
        return "; the device is lost to this process: what was committed before is intact";
    default:
        return "";
    }
}

int tr_cuda_error(cudaError_t e, const char *fmt, ...)
{
    char text[256], message[512];
    va_list ap;

    va_start(ap, fmt);
    vsnprintf(text, sizeof(text), fmt, ap);
    va_end(ap);
    cudaGetLastError(); /* else the next launch of this thread would report it again */
    snprintf(message, sizeof(message), "%s: %s (%s)%s", text, cudaGetErrorName(e),
             cudaGetErrorString(e), hint_of(e));
    return tr_cuda_host->error(errno_of(e), message);
}

int tr_cuda_refuse(int code, const char *fmt, ...)
{
    char message[512];
    va_list ap;

    va_start(ap, fmt);
    vsnprintf(message, sizeof(message), fmt, ap);
    va_end(ap);
    return tr_cuda_host->error(code, message);
}

int tr_cuda_launched(const struct tr_cuda *cuda, const char *kernel)
{
    cudaError_t e = cudaGetLastError();

    (void)cuda;
    if (e == cudaSuccess || e == cudaErrorNotReady)
        return 0;
    return tr_cuda_error(e, "%s", kernel);
}
