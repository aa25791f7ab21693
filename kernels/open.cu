/* SPDX-License-Identifier: Apache-2.0
 *
 * Opening a GPU: driver, context, streams, cuBLASLt, and then the memory. The budget is hard: what
 * the driver reports in use by then, with all code loaded, counts against it, and so does a reserve
 * for what comes later: code that the libraries load at their first use, and the GPU's page tables
 * of the host memory that will be pinned. What is left is one allocation, the last one.
 */
#include "kernels/device.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/matmul.h"

#define MIB     (1ull << 20)
#define PAGE    4096ull
#define GRANULE (2 * MIB) /* what the driver hands out at a time */
#define OLDEST  80        /* bf16 on tensor cores */
#ifndef TR_CUDA_ARCHS
#define TR_CUDA_ARCHS "86" /* what the kernels are assembled for: "80,86" */
#endif
#define WORK ((uint64_t)TR_CUDA_SCRATCH_BYTES + TR_CUDA_MATMUL_WORKSPACE_BYTES)

__global__ void probe_image(void)
{
}

int tr_cuda_check_driver(int ordinal)
{
    int count = 0, driver = 0, runtime = 0;
    cudaError_t e;

    /* Read when the driver starts in this process: all code is on the GPU before memory is
     * measured, whatever the environment says, as images of other programs do. Only a sanitizer,
     * which takes minutes for all the code of cuBLASLt, gives up the budget for it. */
    setenv("CUDA_MODULE_LOADING", getenv("TAILRACE_CUDA_LAZY") ? "LAZY" : "EAGER", 1);
    e = cudaGetDeviceCount(&count);
    if (e == cudaErrorInsufficientDriver) {
        cudaGetLastError();
        cudaDriverGetVersion(&driver);
        cudaRuntimeGetVersion(&runtime);
        if (driver == 0)
            return tr_cuda_refuse(-ENODEV, "there is no NVIDIA driver");
        return tr_cuda_refuse(-ENODEV,
                              "the NVIDIA driver is too old: it knows CUDA %d.%d, and this build "
                              "needs %d.%d",
                              driver / 1000, driver % 1000 / 10, runtime / 1000,
                              runtime % 1000 / 10);
    }
    if (e == cudaErrorNoDevice || (e == cudaSuccess && count == 0)) {
        cudaGetLastError();
        return tr_cuda_refuse(-ENODEV, "there is no NVIDIA GPU");
    }
    if (e != cudaSuccess) {
        cudaGetLastError();
        return tr_cuda_refuse(-ENODEV, "CUDA does not start: %s (%s)", cudaGetErrorName(e),
                              cudaGetErrorString(e));
    }
    if (ordinal < 0 || ordinal >= count)
        return tr_cuda_refuse(-ENODEV, "there is no GPU %d: this machine has %d, counted from 0",
                              ordinal, count);
    return 0;
}

static int open_context(struct tr_cuda_device *d)
{
    struct cudaFuncAttributes attributes;
    struct cudaDeviceProp *p = NULL;
    cudaError_t e;
    int error = tr_cuda_use(d->ordinal);

    if (error)
        return error;
    p = (struct cudaDeviceProp *)tr_cuda_host->alloc(sizeof(*p));
    if (!p)
        return -ENOMEM;
    e = cudaGetDeviceProperties(p, d->ordinal);
    d->cuda.sm = 10 * p->major + p->minor;
    d->multiprocessors = p->multiProcessorCount;
    snprintf(d->name, sizeof(d->name), "cuda:%d (%.56s, sm_%d, %.1f GiB)", d->ordinal, p->name,
             d->cuda.sm, (double)p->totalGlobalMem / (1024.0 * MIB));
    tr_cuda_host->free(p);
    if (e != cudaSuccess)
        return tr_cuda_error(e, "GPU %d does not tell what it is", d->ordinal);
    if (d->cuda.sm < OLDEST)
        return tr_cuda_refuse(-ENODEV, "%s is too old: sm_%d or newer is needed", d->name, OLDEST);
    e = cudaFuncGetAttributes(&attributes, probe_image);
    if (e != cudaSuccess)
        return tr_cuda_error(e, "the kernels do not load on %s", d->name);
    return 0;
}

static int open_stream(const struct tr_cuda_device *d, cudaStream_t *out)
{
    cudaError_t e = cudaStreamCreateWithFlags(out, cudaStreamNonBlocking);

    if (e == cudaSuccess)
        return 0;
    *out = NULL;
    return tr_cuda_error(e, "a stream of %s", d->name);
}

static int open_event(const struct tr_cuda_device *d, unsigned flags, cudaEvent_t *out)
{
    cudaError_t e = cudaEventCreateWithFlags(out, cudaEventDisableTiming | flags);

    if (e == cudaSuccess)
        return 0;
    *out = NULL;
    return tr_cuda_error(e, "an event of %s", d->name);
}

static int open_streams(struct tr_cuda_device *d)
{
    int error = 0;

    for (int s = 0; s < TR_STREAMS && !error; s++) {
        error = open_stream(d, &d->streams[s]);
        if (!error)
            error = open_stream(d, &d->callers[s].stream);
        if (!error)
            error = open_event(d, 0, &d->callers[s].due);
        if (!error)
            error = open_event(d, cudaEventBlockingSync, &d->callers[s].end);
    }
    for (int i = 0; i < TR_CUDA_MARKS && !error; i++)
        error = open_event(d, cudaEventBlockingSync, &d->pace.mark[i]);
    if (error)
        return error;
    d->cuda.stream = d->streams[TR_STREAM_COMPUTE];
    return 0;
}

/* For code that cuBLASLt loads at the first use of a kernel. Of sm_100 and sm_103 it has most of
 * its code (13.1: of 355 kernels, 2 MiB each, a step uses a dozen for every length of a grain) in a
 * place that eager loading does not reach. */
static uint64_t reserve_of(int sm)
{
    return (sm / 10 == 10 ? 256 : 64) * MIB;
}

/* All of a budget that is not arena. It does not depend on the budget, or the smallest budget that
 * a plan names would not be enough: so the granule that rounding may cost is always counted. */
static uint64_t overhead_of(const struct tr_cuda_device *d, const struct tr_cuda_memory *now,
                            uint64_t host_bytes)
{
    uint64_t work = (WORK + GRANULE - 1) / GRANULE * GRANULE;

    return now->ours + reserve_of(d->cuda.sm) + tr_pinned_tables(host_bytes) + work + GRANULE +
           PAGE;
}

static uint64_t least_of(const struct tr_cuda_device *d, const struct tr_cuda_memory *now,
                         uint64_t host_bytes)
{
    return overhead_of(d, now, host_bytes) + PAGE;
}

int tr_cuda_least(const struct tr_cuda_device *d, uint64_t *bytes)
{
    struct tr_cuda_memory now;
    int error = tr_cuda_memory(d->ordinal, &now);

    *bytes = error ? 0 : least_of(d, &now, 0);
    return error;
}

static int take_memory(struct tr_cuda_device *d, const struct tr_device_params *p)
{
    struct tr_cuda_memory now;
    uint64_t least, bytes, budget = p->memory_bytes;
    cudaError_t e;
    int error = tr_cuda_memory(d->ordinal, &now);

    if (error)
        return error;
    if (budget == 0)
        budget = (now.ours + now.free) / 10 * 9;
    least = least_of(d, &now, p->host_bytes);
    if (budget < least)
        return tr_cuda_refuse(-EINVAL,
                              "a device memory of %.1f MiB is too small: the cuda device itself "
                              "needs %.1f MiB on %s (%.1f MiB in use, %.1f MiB of workspace)",
                              (double)budget / MIB, (double)least / MIB, d->name,
                              (double)now.ours / MIB, (double)(least - now.ours) / MIB);
    d->workspace_bytes = overhead_of(d, &now, p->host_bytes);
    d->arena_bytes = (budget - d->workspace_bytes) / PAGE * PAGE;
    bytes = d->arena_bytes + WORK + PAGE;
    e = cudaMalloc((void **)&d->memory, bytes);
    if (e != cudaSuccess) {
        d->memory = NULL;
        return tr_cuda_error(e, "cannot take %.1f MiB of the %.1f MiB that are free on %s",
                             (double)bytes / MIB, (double)now.free / MIB, d->name);
    }
    d->memory_bytes = bytes;
    tr_cuda_memory_take(d->ordinal, (int64_t)bytes);
    /* The driver aligns large allocations to pages of its own, but promises 256 bytes. */
    d->arena = (char *)(((uintptr_t)d->memory + PAGE - 1) / PAGE * PAGE);
    d->cuda.scratch = d->arena + d->arena_bytes;
    d->cuda.scratch_bytes = TR_CUDA_SCRATCH_BYTES;
    tr_cuda_matmul_give(d->cuda.matmul, d->cuda.scratch + TR_CUDA_SCRATCH_BYTES);
    return 0;
}

/* Code for one GPU runs on those of its generation that are newer. */
static int is_assembled(int sm)
{
    for (const char *at = TR_CUDA_ARCHS; *at; at += strcspn(at, "0123456789")) {
        int arch = (int)strtol(at, (char **)&at, 10);

        if (arch / 10 == sm / 10 && arch <= sm)
            return 1;
    }
    return 0;
}

/* Where the portable code runs, the driver has compiled it. */
static int describe(struct tr_cuda_device *d)
{
    int runtime = 0, driver = 0, n;
    char blas[24];
    cudaError_t e = cudaRuntimeGetVersion(&runtime);

    if (e == cudaSuccess)
        e = cudaDriverGetVersion(&driver);
    if (e != cudaSuccess)
        return tr_cuda_error(e, "the version of CUDA");
    tr_cuda_matmul_version(d->cuda.matmul, blas, sizeof(blas));
    n = snprintf(d->bits, sizeof(d->bits), "cuda sm_%d with %d SMs, CUDA %d.%d, cuBLASLt %s",
                 d->cuda.sm, d->multiprocessors, runtime / 1000, runtime % 1000 / 10, blas);
    if (!is_assembled(d->cuda.sm))
        snprintf(d->bits + n, sizeof(d->bits) - (size_t)n, ", driver for CUDA %d.%d", driver / 1000,
                 driver % 1000 / 10);
    return 0;
}

int tr_cuda_open_all_but_memory(struct tr_cuda_device *d, int ordinal)
{
    int error;

    d->ordinal = ordinal;
    error = tr_cuda_check_driver(ordinal);
    if (error)
        return error;
    tr_cuda_memory_before(ordinal);
    error = open_context(d);
    if (!error)
        error = open_streams(d);
    if (!error)
        error = tr_cuda_times_open(&d->times);
    return error ? error : tr_cuda_matmul_open(&d->cuda.matmul);
}

int tr_cuda_open(struct tr_cuda_device *d, const struct tr_device_params *p)
{
    int error = tr_cuda_open_all_but_memory(d, p->ordinal);

    if (!error)
        error = take_memory(d, p);
    return error ? error : describe(d);
}
