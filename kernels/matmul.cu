/* SPDX-License-Identifier: Apache-2.0
 *
 * The products with a weight matrix, on cuBLASLt. The library thinks in columns, so a row-major
 * matrix is its own transpose there, and every product is written transposed:
 *
 *     y  (n, m) = x w^T    y^T  = w x^T      dims (m, n, k)   w transposed, x as it lies
 *     dx (n, k) = dy w     dx^T = w^T dy^T   dims (k, n, m)   both as they lie
 *     dw (m, k) = dy^T x   dw^T = x^T dy     dims (k, m, n)   x as it lies, dy transposed
 *
 * Invariant 1: bits depend on shapes alone. So y and dx are one product per grain, dw is one per
 * grain that adds to the one before; and the library is told a workspace and alignments that follow
 * from the shape of one grain and not from where it lies, and its first suggestion is taken, which
 * is then a function of the shape too (kernels/choice.cu). Sums are f32 throughout, TF32 is not
 * used, and where the depth is split the parts are added in f32 in a fixed order.
 */
#include "kernels/matmul.h"

#include <limits.h>
#include <string.h>

#include "kernels/launch.cuh"
#include "kernels/ptx.cuh"

struct product {
    struct tr_cuda_shape shape;
    const void *a, *b, *bias;
    void *out;
    float alpha, beta;
};

/* The alignment of every row of a matrix, whichever row a grain starts at. */
static uint32_t align_of(const void *base, int64_t row, enum tr_dtype t)
{
    uint64_t bits = (uint64_t)(uintptr_t)base | (uint64_t)row * tr_dtype_size(t) | TR_CUDA_ALIGNED;

    return (uint32_t)(bits & -bits);
}

static int multiply(const struct tr_cuda *cuda, const struct product *p)
{
    struct tr_cuda_matmul *m = cuda->matmul;
    const struct tr_cuda_choice *c = NULL;
    cublasStatus_t status;
    int error = tr_cuda_choose(m, &p->shape, &c);

    if (error)
        return error;
    if (p->shape.bias) {
        status = m->blas.MatmulDescSetAttribute(c->desc, CUBLASLT_MATMUL_DESC_BIAS_POINTER,
                                                &p->bias, sizeof(p->bias));
        if (status != CUBLAS_STATUS_SUCCESS)
            return tr_cuda_blas_error(m, status, &p->shape);
    }
    status = m->blas.Matmul(m->handle, c->desc, &p->alpha, p->a, c->a, p->b, c->b, &p->beta, p->out,
                            c->out, p->out, c->out, &c->algo, m->workspace,
                            TR_CUDA_MATMUL_WORKSPACE_BYTES, cuda->stream);
    return status == CUBLAS_STATUS_SUCCESS ? 0 : tr_cuda_blas_error(m, status, &p->shape);
}

static int check(const struct tr_op_matmul *op)
{
    if (op->m < 1 || op->k < 1 || op->m > INT_MAX || op->k > INT_MAX)
        return tr_cuda_refuse(-EINVAL, "a weight of %lld x %lld is outside 1 to 2^31 - 1",
                              (long long)op->m, (long long)op->k);
    if (op->grains.n < 1 || op->grains.start[op->grains.n] != op->n)
        return tr_cuda_refuse(-EINVAL, "the grains do not cover the %lld tokens", (long long)op->n);
    return 0;
}

static int check_dtypes(const struct tr_op_matmul *op)
{
    if (op->in_dtype != op->w_dtype || (op->out_dtype != TR_F32 && op->out_dtype != op->in_dtype))
        return tr_cuda_refuse(-ENOTSUP,
                              "activations must have the weight's dtype, and results that or f32");
    return 0;
}

static const char *row(const void *base, int64_t r, int64_t columns, enum tr_dtype t)
{
    return (const char *)base + (size_t)(r * columns) * tr_dtype_size(t);
}

/* out (n, m) = (+)= in (n, k) times the weight, grain by grain; p has what all grains share. */
static int multiply_grains(const struct tr_cuda *cuda, const struct product *all,
                           const struct tr_ranges *grains)
{
    struct product p = *all;
    int error = 0;

    for (int32_t g = 0; g < grains->n && !error; g++) {
        int64_t first = grains->start[g];

        p.shape.n = grains->start[g + 1] - first;
        if (p.shape.n == 0)
            continue;
        p.b = row(all->b, first, all->shape.k, all->shape.in);
        p.out = (char *)all->out + (size_t)(first * all->shape.m) * tr_dtype_size(all->shape.out);
        error = multiply(cuda, &p);
    }
    return error;
}

__device__ static float widen(const void *from, int64_t i, int dtype)
{
    if (dtype == TR_F32)
        return ((const float *)from)[i];
    return dtype == TR_BF16 ? ptx_bf16_f32(((const uint16_t *)from)[i])
                            : ptx_f16_f32(((const uint16_t *)from)[i]);
}

/* Every row of out (n, m) becomes the bias, for a product that then adds to it. */
__global__ void __launch_bounds__(256)
    spread_bias_f32(float *out, const void *bias, int dtype, int64_t m, int64_t n)
{
    for (int64_t i = (int64_t)blockIdx.x * 256 + threadIdx.x; i < n * m; i += 256ll * gridDim.x)
        out[i] = widen(bias, i % m, dtype);
}

__global__ void __launch_bounds__(256)
    spread_bias_16(uint16_t *out, const uint16_t *bias, int64_t m, int64_t n)
{
    for (int64_t i = (int64_t)blockIdx.x * 256 + threadIdx.x; i < n * m; i += 256ll * gridDim.x)
        out[i] = bias[i % m];
}

/* The library adds a bias of the output's dtype that lies well; any other one goes first. */
static int start_with_bias(const struct tr_cuda *cuda, const struct tr_op_matmul *op)
{
    int64_t blocks = (op->n * op->m + 2047) / 2048;
    unsigned grid = (unsigned)(blocks < 65535 ? blocks : 65535);

    if (blocks == 0)
        return 0;
    if (op->out_dtype == TR_F32)
        TR_LAUNCH(spread_bias_f32, grid, 256, 0, cuda->stream, (float *)op->y, op->bias,
                  (int)op->w_dtype, op->m, op->n);
    else
        TR_LAUNCH(spread_bias_16, grid, 256, 0, cuda->stream, (uint16_t *)op->y,
                  (const uint16_t *)op->bias, op->m, op->n);
    return tr_cuda_launched(cuda, "spread_bias");
}

int tr_cuda_matmul(const struct tr_cuda *cuda, const struct tr_op_matmul *op)
{
    struct product p;
    int error = check(op);

    if (!error)
        error = check_dtypes(op);
    if (error)
        return error;
    memset(&p, 0, sizeof(p));
    p.shape.m = op->m;
    p.shape.k = op->k;
    p.shape.lda = p.shape.ldb = op->k;
    p.shape.in = op->in_dtype;
    p.shape.out = op->out_dtype;
    p.shape.trans_a = 1;
    p.shape.align_a = align_of(op->w, op->k, op->w_dtype);
    p.shape.align_b = align_of(op->x, op->k, op->in_dtype);
    p.shape.align_out = align_of(op->y, op->m, op->out_dtype);
    p.a = op->w;
    p.b = op->x;
    p.out = op->y;
    p.alpha = 1.0f;
    if (op->bias && op->w_dtype == op->out_dtype && (uintptr_t)op->bias % TR_CUDA_ALIGNED == 0) {
        p.bias = op->bias;
        p.shape.bias = 1;
    } else if (op->bias) {
        p.beta = 1.0f;
        error = start_with_bias(cuda, op);
    }
    return error ? error : multiply_grains(cuda, &p, &op->grains);
}

int tr_cuda_matmul_dx(const struct tr_cuda *cuda, const struct tr_op_matmul *op)
{
    struct product p;
    int error = check(op);

    if (!error)
        error = check_dtypes(op);
    if (!error && op->add && op->out_dtype != TR_F32)
        error = tr_cuda_refuse(-EINVAL, "sums of dx are f32");
    if (error)
        return error;
    memset(&p, 0, sizeof(p));
    p.shape.m = op->k;
    p.shape.k = op->m;
    p.shape.lda = op->k;
    p.shape.ldb = op->m;
    p.shape.in = op->in_dtype;
    p.shape.out = op->out_dtype;
    p.shape.align_a = align_of(op->w, op->k, op->w_dtype);
    p.shape.align_b = align_of(op->dy, op->m, op->in_dtype);
    p.shape.align_out = align_of(op->dx, op->k, op->out_dtype);
    p.a = op->w;
    p.b = op->dy;
    p.out = op->dx;
    p.alpha = 1.0f;
    p.beta = op->add ? 1.0f : 0.0f;
    return multiply_grains(cuda, &p, &op->grains);
}

int tr_cuda_matmul_dw(const struct tr_cuda *cuda, const struct tr_op_matmul *op)
{
    struct product p;
    int error = check(op);

    if (error)
        return error;
    if (op->n == 0 && !op->add && !op->fused) {
        cudaError_t e =
            cudaMemsetAsync(op->dw, 0, (size_t)(op->m * op->k) * sizeof(float), cuda->stream);

        return e == cudaSuccess ? 0 : tr_cuda_error(e, "no tokens");
    }
    memset(&p, 0, sizeof(p));
    p.shape.m = p.shape.lda = op->k;
    p.shape.n = p.shape.ldb = op->m;
    p.shape.in = op->in_dtype;
    p.shape.out = TR_F32;
    p.shape.trans_b = 1;
    p.shape.align_a = align_of(op->x, op->k, op->in_dtype);
    p.shape.align_b = align_of(op->dy, op->m, op->in_dtype);
    p.shape.align_out = align_of(op->dw, op->k, TR_F32);
    p.out = op->dw;
    p.alpha = op->fused ? -op->lr : 1.0f;
    p.beta = op->add || op->fused ? 1.0f : 0.0f;
    for (int32_t g = 0; g < op->grains.n && !error; g++) {
        int64_t first = op->grains.start[g];

        p.shape.k = op->grains.start[g + 1] - first;
        if (p.shape.k == 0)
            continue;
        p.a = row(op->x, first, op->k, op->in_dtype);
        p.b = row(op->dy, first, op->m, op->in_dtype);
        error = multiply(cuda, &p);
        p.beta = 1.0f;
    }
    return error;
}
