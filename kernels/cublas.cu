/* SPDX-License-Identifier: Apache-2.0 */
#include "kernels/cublas.h"

#include "kernels/cuda.h"

#ifdef __CUDACC__

#include <dlfcn.h>

#define TEXT_OF(x) #x
#define TEXT(x)    TEXT_OF(x)
#define LIBRARY    "libcublasLt.so." TEXT(CUBLAS_VER_MAJOR)

int tr_cublas_load(struct tr_cublas *c)
{
    void *library = dlopen(LIBRARY, RTLD_NOW | RTLD_LOCAL);

    if (!library)
        return tr_cuda_refuse(-ENODEV, "cuBLAS is missing: %s (is its folder in LD_LIBRARY_PATH?)",
                              dlerror());
#define X(name)                                                                                    \
    *(void **)&c->name = dlsym(library, "cublasLt" #name);                                         \
    if (!c->name)                                                                                  \
        return tr_cuda_refuse(-ENODEV, LIBRARY " has no cublasLt" #name);
    TR_CUBLAS_FUNCTIONS(X)
#undef X
    return 0;
}

#else /* the tests' own is linked */

int tr_cublas_load(struct tr_cublas *c)
{
#define X(name) c->name = cublasLt##name;
    TR_CUBLAS_FUNCTIONS(X)
#undef X
    return 0;
}

#endif
