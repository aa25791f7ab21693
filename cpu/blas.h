/* SPDX-License-Identifier: Apache-2.0
 *
 * The one GEMM of the cpu device: OpenBLAS's sgemm, single-threaded, with the kernels that fit this
 * CPU. Called from several workers at once, each on its own tile.
 */
#ifndef TR_CPU_BLAS_H
#define TR_CPU_BLAS_H

#include <stdint.h>

struct tr_blas; /* one per process, never closed */

/* Opens OpenBLAS on the first call (any thread); later calls give the same. OPENBLAS_CORETYPE and
 * OPENBLAS_NUM_THREADS are set around the loading, which reads them, unless the user has set the
 * former, and put back after it. setenv is not thread-safe against getenv in other threads: open
 * the first device before starting threads that read the environment. -ENOENT where the library is
 * missing: the message names the package. */
int tr_blas_open(const struct tr_blas **out);

/* -ENOMEM where so many threads would not get their packing buffers: refused one, OpenBLAS asks
 * again for ever. What is found is given back, so nothing large is to be mapped between this and
 * their first products. */
int tr_blas_check_room(int threads);

/* "OpenBLAS 0.3.21 SkylakeX": what the bits of every product depend on. */
const char *tr_blas_bits(const struct tr_blas *blas);
/* Where its kernels are not the best for this CPU: which they are, why, and what to do; else "". */
const char *tr_blas_remark(const struct tr_blas *blas);

/* C (rows, cols) = A B (times alpha, if scaled) + beta C, all row-major; A is (rows, k), or (k,
 * rows) if a_trans; B is (k, cols), or (cols, k) if b_trans. ld: elements from one stored row to
 * the next. */
struct tr_gemm {
    int64_t rows, cols, k;
    const float *a, *b;
    float *c;
    int64_t lda, ldb, ldc;
    int a_trans, b_trans, scaled;
    float alpha, beta;
};

void tr_blas_gemm(const struct tr_blas *blas, const struct tr_gemm *g);

#endif
