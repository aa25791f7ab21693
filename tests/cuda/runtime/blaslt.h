/* SPDX-License-Identifier: Apache-2.0
 *
 * Inside the fake cuBLASLt: what its opaque things hold.
 */
#ifndef TR_TESTS_CUDA_BLASLT_H
#define TR_TESTS_CUDA_BLASLT_H

#include <cublasLt.h>

struct fake_layout {
    int32_t type, order, batch_count;
    uint64_t rows, cols;
    int64_t ld, batch_stride;
};

struct fake_desc {
    int32_t compute, scale, pointer_mode, transpose[2], bias_type;
    uint32_t epilogue;
    const void *bias;
};

struct fake_preference {
    uint32_t search_mode, reductions, align[4];
    uint64_t workspace;
};

/* The arguments of cublasLtMatmul; of the heuristic, those that it has. */
struct fake_matmul_call {
    cublasLtHandle_t handle;
    cublasLtMatmulDesc_t desc;
    cublasLtMatrixLayout_t layout[4]; /* A, B, C, D */
    const void *alpha, *beta, *data[4];
    const cublasLtMatmulAlgo_t *algo;
    void *workspace;
    size_t workspace_bytes;
    cudaStream_t stream;
};

#ifdef __cplusplus
extern "C" {
#endif

/* --- matmul.c --- */
cublasStatus_t fake_matmul(const struct fake_matmul_call *q);
cublasStatus_t fake_matmul_heuristic(const struct fake_matmul_call *q,
                                     cublasLtMatmulPreference_t preference, int wanted,
                                     cublasLtMatmulHeuristicResult_t *r, int *count);

/* --- blaslt.c --- */
/* fake_enter's answer as a status. */
cublasStatus_t fake_blas_enter(const char *name, int flags);
/* Whether this is a live handle, descriptor or layout. */
int fake_blas_handle_live(cublasLtHandle_t h);
const struct fake_desc *fake_desc_of(cublasLtMatmulDesc_t d);
const struct fake_layout *fake_layout_of(cublasLtMatrixLayout_t l);
const struct fake_preference *fake_preference_of(cublasLtMatmulPreference_t p);

#ifdef __cplusplus
}
#endif

#endif
