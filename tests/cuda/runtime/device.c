/* SPDX-License-Identifier: Apache-2.0
 *
 * What the fake device says of itself: a card of compute capability 8.6.
 */
#include <stdio.h>
#include <string.h>

#include "tests/cuda/runtime/runtime.h"

static _Thread_local int current;

static cudaError_t check_device(int device)
{
    return device >= 0 && device < fake_state.options.devices ? cudaSuccess
                                                              : cudaErrorInvalidDevice;
}

cudaError_t cudaGetDeviceCount(int *count)
{
    cudaError_t e = fake_enter("cudaGetDeviceCount", 0);

    if (!count)
        return fake_leave(cudaErrorInvalidValue);
    *count = e ? 0 : fake_state.options.devices;
    return fake_leave(e);
}

cudaError_t cudaSetDevice(int device)
{
    cudaError_t e = fake_enter("cudaSetDevice", 0);

    if (!e)
        e = check_device(device);
    if (!e)
        current = device;
    return fake_leave(e);
}

cudaError_t cudaGetDevice(int *device)
{
    cudaError_t e = fake_enter("cudaGetDevice", 0);

    if (!e && !device)
        e = cudaErrorInvalidValue;
    if (!e)
        *device = current;
    return fake_leave(e);
}

int fake_shared_optin(void)
{
    int sm = fake_state.options.sm;

    if (sm == 80 || sm == 87)
        return 163 << 10;
    return sm >= 90 && sm < 120 ? 227 << 10 : 99 << 10;
}

static void describe(struct cudaDeviceProp *p, int device)
{
    *p = (struct cudaDeviceProp){.totalGlobalMem = fake_state.options.memory,
                                 .sharedMemPerBlock = FAKE_SHARED_DEFAULT,
                                 .regsPerBlock = 65536,
                                 .warpSize = 32,
                                 .maxThreadsPerBlock = 1024,
                                 .maxThreadsDim = {1024, 1024, 64},
                                 .maxGridSize = {0x7fffffff, 65535, 65535},
                                 .major = fake_state.options.sm / 10,
                                 .minor = fake_state.options.sm % 10,
                                 .multiProcessorCount = 82,
                                 .canMapHostMemory = 1,
                                 .pciBusID = device + 1,
                                 .asyncEngineCount = 2,
                                 .unifiedAddressing = 1,
                                 .memoryBusWidth = 384,
                                 .l2CacheSize = 6 << 20,
                                 .maxThreadsPerMultiProcessor = 1536,
                                 .sharedMemPerMultiprocessor = (size_t)fake_shared_optin() + 1024,
                                 .regsPerMultiprocessor = 65536,
                                 .sharedMemPerBlockOptin = (size_t)fake_shared_optin(),
                                 .hostRegisterSupported = 1};
    snprintf(p->name, sizeof(p->name), "fake CUDA device %d", device);
}

cudaError_t cudaGetDeviceProperties(struct cudaDeviceProp *prop, int device)
{
    cudaError_t e = fake_enter("cudaGetDeviceProperties", 0);

    if (!e && !prop)
        e = cudaErrorInvalidValue;
    if (!e)
        e = check_device(device);
    if (!e)
        describe(prop, device);
    return fake_leave(e);
}

static int attribute(const struct cudaDeviceProp *p, enum cudaDeviceAttr attr)
{
    switch (attr) {
    case cudaDevAttrMaxThreadsPerBlock:
        return p->maxThreadsPerBlock;
    case cudaDevAttrMaxSharedMemoryPerBlock:
        return (int)p->sharedMemPerBlock;
    case cudaDevAttrWarpSize:
        return p->warpSize;
    case cudaDevAttrClockRate:
        return 1695000;
    case cudaDevAttrMultiProcessorCount:
        return p->multiProcessorCount;
    case cudaDevAttrIntegrated:
        return p->integrated;
    case cudaDevAttrPciBusId:
        return p->pciBusID;
    case cudaDevAttrPciDeviceId:
        return p->pciDeviceID;
    case cudaDevAttrMemoryClockRate:
        return 9751000;
    case cudaDevAttrGlobalMemoryBusWidth:
        return p->memoryBusWidth;
    case cudaDevAttrL2CacheSize:
        return p->l2CacheSize;
    case cudaDevAttrAsyncEngineCount:
        return p->asyncEngineCount;
    case cudaDevAttrPciDomainId:
        return p->pciDomainID;
    case cudaDevAttrComputeCapabilityMajor:
        return p->major;
    case cudaDevAttrComputeCapabilityMinor:
        return p->minor;
    case cudaDevAttrMaxSharedMemoryPerMultiprocessor:
        return (int)p->sharedMemPerMultiprocessor;
    case cudaDevAttrMaxSharedMemoryPerBlockOptin:
        return (int)p->sharedMemPerBlockOptin;
    case cudaDevAttrHostRegisterSupported:
        return p->hostRegisterSupported;
    }
    return -1;
}

cudaError_t cudaDeviceGetAttribute(int *value, enum cudaDeviceAttr attr, int device)
{
    cudaError_t e = fake_enter("cudaDeviceGetAttribute", 0);
    struct cudaDeviceProp p;

    if (!e && !value)
        e = cudaErrorInvalidValue;
    if (!e)
        e = check_device(device);
    if (!e) {
        describe(&p, device);
        *value = attribute(&p, attr);
        if (*value < 0)
            e = cudaErrorInvalidValue;
    }
    return fake_leave(e);
}

cudaError_t cudaDeviceGetPCIBusId(char *pciBusId, int len, int device)
{
    cudaError_t e = fake_enter("cudaDeviceGetPCIBusId", 0);

    if (!e && (!pciBusId || len < 13))
        e = cudaErrorInvalidValue;
    if (!e)
        e = check_device(device);
    if (!e)
        snprintf(pciBusId, (size_t)len, "0000:%02x:00.0", (unsigned)(device + 1) & 0xff);
    return fake_leave(e);
}

/* The two versions are told even where the driver is missing or too old: 0 is "no driver". */
static cudaError_t version(const char *name, int *out, const int *value)
{
    cudaError_t e = fake_enter(name, 0);

    if (!out)
        return fake_leave(cudaErrorInvalidValue);
    if (e == cudaErrorInsufficientDriver || e == cudaErrorNoDevice)
        e = cudaSuccess;
    if (!e)
        *out = *value;
    return fake_leave(e);
}

cudaError_t cudaDriverGetVersion(int *driverVersion)
{
    return version("cudaDriverGetVersion", driverVersion, &fake_state.options.driver);
}

cudaError_t cudaRuntimeGetVersion(int *runtimeVersion)
{
    static const int value = CUDART_VERSION;

    return version("cudaRuntimeGetVersion", runtimeVersion, &value);
}
