/* SPDX-License-Identifier: Apache-2.0
 *
 * cuBLASLt as a table of functions: the library is opened at run time, so that a machine without it
 * gets a message instead of a module that does not load, and a build needs only its header.
 */
#ifndef TR_KERNELS_CUBLAS_H
#define TR_KERNELS_CUBLAS_H

#include <cublasLt.h>

#define TR_CUBLAS_FUNCTIONS(X)                                                                     \
    X(Create)                                                                                      \
    X(Destroy)                                                                                     \
    X(GetVersion)                                                                                  \
    X(GetStatusName)                                                                               \
    X(MatmulDescCreate)                                                                            \
    X(MatmulDescDestroy)                                                                           \
    X(MatmulDescSetAttribute)                                                                      \
    X(MatrixLayoutCreate)                                                                          \
    X(MatrixLayoutDestroy)                                                                         \
    X(MatmulPreferenceCreate)                                                                      \
    X(MatmulPreferenceDestroy)                                                                     \
    X(MatmulPreferenceSetAttribute)                                                                \
    X(MatmulAlgoGetHeuristic)                                                                      \
    X(Matmul)

struct tr_cublas {
#define X(name) decltype(&cublasLt##name) name;
    TR_CUBLAS_FUNCTIONS(X)
#undef X
};

/* Fills the table; -ENODEV with what is missing. The library stays loaded. */
int tr_cublas_load(struct tr_cublas *c);

#endif
