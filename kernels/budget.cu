/* SPDX-License-Identifier: Apache-2.0
 *
 * How much device memory this process has in use, context and code included, so that a budget
 * can be kept to the driver's own figure. The runtime tells only what is free on the whole GPU, and
 * only once there is a context; so the management library is asked before and after, where there is
 * one, and the difference is ours. What other programs take or return in between is counted as
 * ours, or not; where the library is missing, everything in use on the GPU is counted as ours, so
 * that a budget is kept in any case, by a smaller arena.
 */
#include "kernels/device.h"

#define MAX_GPUS 64

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static uint64_t free_before[MAX_GPUS]; /* 0: not asked, or not known */
static uint64_t taken[MAX_GPUS];       /* by devices of ours that are open: in their own budgets */

#ifdef __CUDACC__

#include <dlfcn.h>

/* The management library's own names and types (nvml.h), as far as they are used. */
struct nvml_memory {
    unsigned long long total, free, used;
};

struct nvml {
    void *handle;
    int (*init)(void);
    int (*shutdown)(void);
    int (*by_bus)(const char *bus, void **device);
    int (*memory)(void *device, struct nvml_memory *out);
};

static int load_nvml(struct nvml *n)
{
    n->handle = dlopen("libnvidia-ml.so.1", RTLD_NOW | RTLD_LOCAL);
    if (!n->handle)
        return 0;
    *(void **)&n->init = dlsym(n->handle, "nvmlInit_v2");
    *(void **)&n->shutdown = dlsym(n->handle, "nvmlShutdown");
    *(void **)&n->by_bus = dlsym(n->handle, "nvmlDeviceGetHandleByPciBusId_v2");
    *(void **)&n->memory = dlsym(n->handle, "nvmlDeviceGetMemoryInfo");
    return n->init && n->shutdown && n->by_bus && n->memory && n->init() == 0;
}

/* 1 and the figures of a GPU, by its place on the bus, or 0. Makes no context. */
static int ask_library(int ordinal, struct tr_cuda_memory *out)
{
    struct nvml n = {};
    struct nvml_memory m = {};
    void *device = NULL;
    char bus[32];
    int ok = 0;

    if (load_nvml(&n)) {
        ok = cudaDeviceGetPCIBusId(bus, sizeof(bus), ordinal) == cudaSuccess &&
             n.by_bus(bus, &device) == 0 && n.memory(device, &m) == 0;
        n.shutdown();
    }
    if (n.handle)
        dlclose(n.handle);
    out->free = m.free;
    out->total = m.total;
    return ok;
}

#else

static int ask_library(int ordinal, struct tr_cuda_memory *out)
{
    (void)ordinal;
    (void)out;
    return 0;
}

#endif

void tr_cuda_memory_before(int ordinal)
{
    struct tr_cuda_memory m;

    pthread_mutex_lock(&lock);
    if (ordinal < MAX_GPUS && !free_before[ordinal] && ask_library(ordinal, &m))
        free_before[ordinal] = m.free;
    pthread_mutex_unlock(&lock);
}

void tr_cuda_memory_take(int ordinal, int64_t bytes)
{
    pthread_mutex_lock(&lock);
    if (ordinal < MAX_GPUS)
        taken[ordinal] += (uint64_t)bytes;
    pthread_mutex_unlock(&lock);
}

int tr_cuda_memory(int ordinal, struct tr_cuda_memory *out)
{
    size_t free_bytes = 0, total_bytes = 0;
    uint64_t before, others;
    cudaError_t e;
    int error;

    tr_cuda_memory_before(ordinal);
    error = tr_cuda_use(ordinal);
    if (error)
        return error;
    e = cudaMemGetInfo(&free_bytes, &total_bytes);
    if (e != cudaSuccess)
        return tr_cuda_error(e, "GPU %d does not tell its memory", ordinal);
    out->free = free_bytes;
    out->total = total_bytes;
    pthread_mutex_lock(&lock);
    before = ordinal < MAX_GPUS ? free_before[ordinal] : 0;
    others = ordinal < MAX_GPUS ? taken[ordinal] : 0;
    pthread_mutex_unlock(&lock);
    out->ours = out->total - out->free;
    if (before > out->free && before - out->free < out->ours)
        out->ours = before - out->free;
    out->ours -= others < out->ours ? others : out->ours;
    return 0;
}
