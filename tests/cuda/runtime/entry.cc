/* SPDX-License-Identifier: Apache-2.0
 *
 * The entries that C cannot or need not have: launches, whose configuration is C++'s dim3, and
 * cuBLASLt's two longest argument lists, gathered into a struct for matmul.c.
 */
#include <cuda_runtime.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/launch.cuh"
#include "tests/cuda/runtime/blaslt.h"
#include "tests/cuda/runtime/runtime.h"
#include "tests/cuda/shim/shim.h"

struct function {
    const void *kernel;
    int dynamic_shared;
    struct function *next;
};

struct launch {
    struct tr_shim_grid grid;
    void (*body)(void *), (*destroy)(void *);
    void *arg;
};

static struct function *functions;                             /* under fake_state.lock */
static pthread_mutex_t error_lock = PTHREAD_MUTEX_INITIALIZER; /* a stream takes it to fail only */
static char shim_error[512];

/* The most dynamic shared memory that this kernel may ask for. */
static int shared_limit(const void *kernel)
{
    int limit = FAKE_SHARED_DEFAULT;

    pthread_mutex_lock(&fake_state.lock);
    for (struct function *f = functions; f; f = f->next)
        if (f->kernel == kernel)
            limit = f->dynamic_shared;
    pthread_mutex_unlock(&fake_state.lock);
    return limit;
}

static void set_shared_limit(const void *kernel, int bytes)
{
    struct function *f;

    pthread_mutex_lock(&fake_state.lock);
    for (f = functions; f && f->kernel != kernel; f = f->next)
        ;
    if (!f) {
        f = static_cast<struct function *>(calloc(1, sizeof(*f)));
        if (!f)
            abort();
        f->kernel = kernel;
        f->next = functions;
        functions = f;
    }
    f->dynamic_shared = bytes;
    pthread_mutex_unlock(&fake_state.lock);
}

void fake_functions_forget(void)
{
    struct function *next;

    pthread_mutex_lock(&fake_state.lock);
    for (; functions; functions = next) {
        next = functions->next;
        free(functions);
    }
    pthread_mutex_unlock(&fake_state.lock);
    pthread_mutex_lock(&error_lock);
    shim_error[0] = 0;
    pthread_mutex_unlock(&error_lock);
}

cudaError_t cudaFuncSetAttribute(const void *func, enum cudaFuncAttribute attr, int value)
{
    cudaError_t e = fake_enter("cudaFuncSetAttribute", 0);

    if (!e && !func)
        e = cudaErrorInvalidDeviceFunction;
    if (!e && attr == cudaFuncAttributeMaxDynamicSharedMemorySize) {
        if (value < 0 || value > fake_shared_optin())
            e = cudaErrorInvalidValue;
        else
            set_shared_limit(func, value);
    } else if (!e && attr != cudaFuncAttributePreferredSharedMemoryCarveout) {
        e = cudaErrorInvalidValue;
    }
    return fake_leave(e);
}

/* What the compiler would know of a kernel is not known here: plausible constants. */
cudaError_t cudaFuncGetAttributes(struct cudaFuncAttributes *attr, const void *func)
{
    cudaError_t e = fake_enter("cudaFuncGetAttributes", 0);

    if (!e && !attr)
        e = cudaErrorInvalidValue;
    if (!e && !func)
        e = cudaErrorInvalidDeviceFunction;
    if (!e) {
        memset(attr, 0, sizeof(*attr));
        attr->maxThreadsPerBlock = 1024;
        attr->numRegs = 32;
        attr->ptxVersion = attr->binaryVersion = 86;
        attr->maxDynamicSharedSizeBytes = shared_limit(func);
    }
    return fake_leave(e);
}

const char *fake_last_shim_error(void)
{
    static thread_local char copy[sizeof(shim_error)];

    pthread_mutex_lock(&error_lock);
    memcpy(copy, shim_error, sizeof(copy));
    pthread_mutex_unlock(&error_lock);
    return copy;
}

static void keep_error(const char *error)
{
    fake_say("kernel: %s", error);
    pthread_mutex_lock(&error_lock);
    snprintf(shim_error, sizeof(shim_error), "%s", error);
    pthread_mutex_unlock(&error_lock);
}

static void run_launch(void *arg)
{
    struct launch *l = static_cast<struct launch *>(arg);
    char error[sizeof(shim_error)] = "";

    if (tr_shim_run(&l->grid, l->body, l->arg, error, sizeof(error)) == 0)
        return;
    keep_error(error);
    fake_fault(cudaErrorLaunchFailure);
}

/* On a GPU the kernel would fault where it uses the pointer; here every use is possible, so the
 * launch does, and at the same time: when it runs. */
static void check_pointers(const struct tr_shim_grid *g)
{
    char error[sizeof(shim_error)];

    for (unsigned i = 0; i < g->n_pointers; i++)
        if (g->pointers[i] && !fake_device_sees(g->pointers[i])) {
            snprintf(error, sizeof(error), "argument %u is neither device memory nor pinned", i);
            keep_error(error);
            fake_plan_fault(cudaErrorIllegalAddress);
        }
}

static void destroy_launch(void *arg)
{
    struct launch *l = static_cast<struct launch *>(arg);

    l->destroy(l->arg);
    free(l);
}

static cudaError_t check_configuration(const struct tr_shim_grid *g)
{
    const dim3 &b = g->block, &n = g->grid;

    if (!b.x || !b.y || !b.z || !n.x || !n.y || !n.z)
        return cudaErrorInvalidConfiguration;
    if (b.x > 1024 || b.y > 1024 || b.z > 64 || (uint64_t)b.x * b.y * b.z > 1024)
        return cudaErrorInvalidConfiguration;
    if (n.x > 0x7fffffff || n.y > 65535 || n.z > 65535)
        return cudaErrorInvalidConfiguration;
    if (g->shared_bytes > (size_t)shared_limit(g->kernel))
        return cudaErrorInvalidValue;
    return cudaSuccess;
}

cudaError_t tr_fake_launch(cudaStream_t s, const struct tr_shim_grid *g, void (*body)(void *),
                           void (*destroy)(void *), void *arg)
{
    cudaError_t e = fake_enter("launch", FAKE_QUEUES);
    struct launch *l;

    if (!e)
        e = fake_stream_check(s);
    if (!e)
        e = check_configuration(g);
    if (e) {
        destroy(arg);
        return fake_leave(e);
    }
    check_pointers(g);
    l = static_cast<struct launch *>(malloc(sizeof(*l)));
    if (!l)
        abort();
    *l = launch{*g, body, destroy, arg};
    fake_push_work(s, run_launch, destroy_launch, l);
    return cudaSuccess;
}

cublasStatus_t cublasLtMatmul(cublasLtHandle_t lightHandle, cublasLtMatmulDesc_t computeDesc,
                              const void *alpha, const void *A, cublasLtMatrixLayout_t Adesc,
                              const void *B, cublasLtMatrixLayout_t Bdesc, const void *beta,
                              const void *C, cublasLtMatrixLayout_t Cdesc, void *D,
                              cublasLtMatrixLayout_t Ddesc, const cublasLtMatmulAlgo_t *algo,
                              void *workspace, size_t workspaceSizeInBytes, cudaStream_t stream)
{
    const struct fake_matmul_call q = {
        lightHandle, computeDesc, {Adesc, Bdesc, Cdesc, Ddesc}, alpha, beta, {A, B, C, D},
        algo,        workspace,   workspaceSizeInBytes,         stream};

    return fake_matmul(&q);
}

cublasStatus_t cublasLtMatmulAlgoGetHeuristic(
    cublasLtHandle_t lightHandle, cublasLtMatmulDesc_t operationDesc, cublasLtMatrixLayout_t Adesc,
    cublasLtMatrixLayout_t Bdesc, cublasLtMatrixLayout_t Cdesc, cublasLtMatrixLayout_t Ddesc,
    cublasLtMatmulPreference_t preference, int requestedAlgoCount,
    cublasLtMatmulHeuristicResult_t heuristicResultsArray[], int *returnAlgoCount)
{
    struct fake_matmul_call q = {};

    q.handle = lightHandle;
    q.desc = operationDesc;
    q.layout[0] = Adesc;
    q.layout[1] = Bdesc;
    q.layout[2] = Cdesc;
    q.layout[3] = Ddesc;
    return fake_matmul_heuristic(&q, preference, requestedAlgoCount, heuristicResultsArray,
                                 returnAlgoCount);
}
