/* SPDX-License-Identifier: Apache-2.0
 *
 * What nvcc gives a .cu file, for ordinary C++: the runtime's interface, the built-in variables and
 * functions of the execution model (tr_shim_builtins.h), and the typed overloads that the real
 * header has too. Kernels are launched through kernels/launch.cuh.
 */
#ifndef TR_FAKE_CUDA_RUNTIME_H
#define TR_FAKE_CUDA_RUNTIME_H

#include <cuda_runtime_api.h>

#ifdef __cplusplus

#include <tr_shim_builtins.h>

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
