/* SPDX-License-Identifier: Apache-2.0
 *
 * The state of the matmuls: the library's handle, its workspace, and its choices by shape.
 * kernels/choice.cu asks the library and keeps its answers, kernels/matmul.cu uses them.
 */
#ifndef TR_KERNELS_MATMUL_H
#define TR_KERNELS_MATMUL_H

#include "kernels/cublas.h"
#include "kernels/cuda.h"

/* Fixed, because the library's choice of an algorithm depends on it. */
#define TR_CUDA_MATMUL_WORKSPACE_BYTES (32u << 20)

/* Kept at a time. A step asks for about ten shapes for every length of a grain, in every layer
 * again: so many that a step of 64 grains finds all of them (with a fourth of the sets some were
 * asked for anew in each layer), few looked at for each. */
#define TR_CUDA_SETS    512
#define TR_CUDA_WAYS    8
#define TR_CUDA_CHOICES (TR_CUDA_SETS * TR_CUDA_WAYS)
#define TR_CUDA_ALIGNED 16 /* what the widest loads of the library's kernels need */

/* Everything that a choice depends on. */
struct tr_cuda_shape {
    int64_t m, n, k; /* the library's: columns of the output, rows, depth */
    int64_t lda, ldb;
    enum tr_dtype in, out;
    int trans_a, trans_b, bias;
    uint32_t align_a, align_b, align_out;
};

struct tr_cuda_choice {
    struct tr_cuda_shape shape;
    cublasLtMatmulDesc_t desc; /* NULL: none here yet */
    cublasLtMatrixLayout_t a, b, out;
    cublasLtMatmulAlgo_t algo;
    size_t workspace_bytes;
};

struct tr_cuda_matmul {
    struct tr_cublas blas;
    cublasLtHandle_t handle;
    void *workspace;
    struct tr_cuda_choice choices[TR_CUDA_CHOICES]; /* set by set, by a hash of the shape */
    uint8_t next[TR_CUDA_SETS];                     /* of a set: the one to be replaced next */
};

/* Opens the library. -ENODEV and what is missing where it is not there. */
int tr_cuda_matmul_open(struct tr_cuda_matmul **out);
void tr_cuda_matmul_close(struct tr_cuda_matmul *m);
/* Gives it the workspace, 256-aligned device memory. */
void tr_cuda_matmul_give(struct tr_cuda_matmul *m, void *workspace);
void tr_cuda_matmul_version(const struct tr_cuda_matmul *m, char *text, size_t room);
/* The choices so far, a line each: length of the whole text, of which room bytes are written. */
size_t tr_cuda_matmul_describe(const struct tr_cuda_matmul *m, char *text, size_t room);

/* What the library suggests for that shape; the choice stays valid until the next call. */
int tr_cuda_choose(struct tr_cuda_matmul *m, const struct tr_cuda_shape *s,
                   const struct tr_cuda_choice **out);
/* Keeps "cuBLASLt: SHAPE: STATUS". */
int tr_cuda_blas_error(const struct tr_cuda_matmul *m, cublasStatus_t status,
                       const struct tr_cuda_shape *s);

#endif
