/* SPDX-License-Identifier: Apache-2.0
 *
 * What nvcc gives a .cu file, for ordinary C++: the runtime's interface, the built-in variables and
 * functions of the execution model (tr_shim_builtins.h), the typed overloads that the real header
 * has too, and the door by which a kernel launch enters the fake runtime.
 */
#ifndef TR_FAKE_CUDA_RUNTIME_H
#define TR_FAKE_CUDA_RUNTIME_H

#include <cuda_runtime_api.h>

#ifdef __cplusplus

#include <tr_shim_builtins.h>

struct tr_shim_grid;

/* Queues one launch: checks the configuration as CUDA does; body(arg) runs once per CUDA thread,
 * destroy(arg) once afterwards, whatever happens. An error is kept for cudaGetLastError too. */
extern "C" cudaError_t tr_fake_launch(cudaStream_t s, const struct tr_shim_grid *g,
                                      void (*body)(void *), void (*destroy)(void *), void *arg);

template <class T> static inline cudaError_t cudaMalloc(T **devPtr, size_t size)
{
    return ::cudaMalloc((void **)(void *)devPtr, size);
}

template <class T> static inline cudaError_t cudaHostAlloc(T **ptr, size_t size, unsigned int flags)
{
    return ::cudaHostAlloc((void **)(void *)ptr, size, flags);
}

template <class T>
static inline cudaError_t cudaFuncSetAttribute(T *func, enum cudaFuncAttribute attr, int value)
{
    return ::cudaFuncSetAttribute((const void *)func, attr, value);
}

template <class T>
static inline cudaError_t cudaFuncGetAttributes(struct cudaFuncAttributes *attr, T *func)
{
    return ::cudaFuncGetAttributes(attr, (const void *)func);
}

#endif
#endif
