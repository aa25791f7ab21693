/* SPDX-License-Identifier: Apache-2.0
 *
 * The product and its heuristic: they refuse what the real library refuses, and more that is
 * plainly a mistake (memory that is not the device's, an output that overlaps an input, an
 * algorithm that was chosen for another product), each with a line on stderr. The result of the
 * heuristic holds the product it was asked for, the alignment it relies on and the workspace it
 * needs.
 */
#include <stdlib.h>
#include <string.h>

#include "tests/cuda/runtime/blaslt.h"
#include "tests/cuda/runtime/product.h"
#include "tests/cuda/runtime/runtime.h"

struct problem {
    const struct fake_desc *desc;
    const struct fake_layout *layout[4]; /* A, B, C, D */
    int64_t m, n, k;
};

/* What cublasLtMatmulAlgo_t holds. */
struct algo {
    int64_t m, n, k;
    uint64_t workspace;
    int32_t batches;
    uint8_t types[4], orders[4], transpose[2], epilogue, align[4];
};

_Static_assert(sizeof(struct algo) <= sizeof(cublasLtMatmulAlgo_t), "an algorithm fits");

static cublasStatus_t refuse(cublasStatus_t status, const char *why)
{
    fake_say("cublasLt: %s", why);
    return status;
}

static int dtype_of(int32_t type, enum tr_dtype *out)
{
    *out = type == CUDA_R_16BF ? TR_BF16 : type == CUDA_R_16F ? TR_F16 : TR_F32;
    return type == CUDA_R_16BF || type == CUDA_R_16F || type == CUDA_R_32F;
}

static size_t size_of(const struct fake_layout *l)
{
    return l->type == CUDA_R_32F ? 4 : 2;
}

/* Inputs of one type; 16 bits give their own type or f32, f32 gives f32. */
static int types_supported(const struct problem *p)
{
    int32_t in = p->layout[0]->type, out = p->layout[3]->type;
    enum tr_dtype unused;

    return dtype_of(in, &unused) && in == p->layout[1]->type && out == p->layout[2]->type &&
           (out == CUDA_R_32F || out == in);
}

static int layout_fits(const struct fake_layout *l, const int64_t shape[2], int transposed)
{
    uint64_t rows = (uint64_t)shape[transposed], cols = (uint64_t)shape[!transposed];
    uint64_t least = l->order == CUBLASLT_ORDER_COL ? rows : cols;

    return l->rows == rows && l->cols == cols && l->ld >= 0 && (uint64_t)l->ld >= least &&
           (l->order == CUBLASLT_ORDER_COL || l->order == CUBLASLT_ORDER_ROW);
}

static cublasStatus_t check_desc(const struct fake_desc *d)
{
    for (int i = 0; i < 2; i++)
        if (d->transpose[i] < CUBLAS_OP_N || d->transpose[i] > CUBLAS_OP_C)
            return refuse(CUBLAS_STATUS_INVALID_VALUE, "no such operation");
    if (d->compute != CUBLAS_COMPUTE_32F || d->scale != CUDA_R_32F)
        return refuse(CUBLAS_STATUS_NOT_SUPPORTED, "only CUBLAS_COMPUTE_32F scaled by f32");
    if (d->pointer_mode != CUBLASLT_POINTER_MODE_HOST)
        return refuse(CUBLAS_STATUS_NOT_SUPPORTED, "only alpha and beta in host memory");
    if (d->epilogue != CUBLASLT_EPILOGUE_DEFAULT && d->epilogue != CUBLASLT_EPILOGUE_BIAS)
        return refuse(CUBLAS_STATUS_NOT_SUPPORTED, "only the epilogues default and bias");
    return CUBLAS_STATUS_SUCCESS;
}

/* Fills m, n and k. */
static cublasStatus_t check_problem(struct problem *p)
{
    const struct fake_layout *a = p->layout[0], *d = p->layout[3];
    cublasStatus_t e = p->desc ? check_desc(p->desc) : CUBLAS_STATUS_INVALID_VALUE;
    int ta, tb;

    if (e)
        return e;
    for (int i = 0; i < 4; i++)
        if (!p->layout[i])
            return refuse(CUBLAS_STATUS_INVALID_VALUE, "a layout that is not live");
    ta = p->desc->transpose[0] != CUBLAS_OP_N;
    tb = p->desc->transpose[1] != CUBLAS_OP_N;
    p->m = (int64_t)d->rows;
    p->n = (int64_t)d->cols;
    p->k = (int64_t)(ta ? a->rows : a->cols);
    if (p->m <= 0 || p->n <= 0 || p->k <= 0)
        return refuse(CUBLAS_STATUS_INVALID_VALUE, "a matrix without elements");
    if (!layout_fits(a, (const int64_t[]){p->m, p->k}, ta) ||
        !layout_fits(p->layout[1], (const int64_t[]){p->k, p->n}, tb) ||
        !layout_fits(p->layout[2], (const int64_t[]){p->m, p->n}, 0) ||
        !layout_fits(d, (const int64_t[]){p->m, p->n}, 0))
        return refuse(CUBLAS_STATUS_INVALID_VALUE, "shapes or leading dimensions do not fit");
    for (int i = 0; i < 4; i++)
        if (p->layout[i]->batch_count != d->batch_count || d->batch_count < 1)
            return refuse(CUBLAS_STATUS_INVALID_VALUE, "batch counts differ");
    if (!types_supported(p))
        return refuse(CUBLAS_STATUS_NOT_SUPPORTED, "this combination of types");
    return CUBLAS_STATUS_SUCCESS;
}

/* The alignment of columns, and so of what a kernel can rely on: at most 16. */
static uint8_t alignment(const struct fake_layout *l, uint32_t promised)
{
    uint64_t bytes = (uint64_t)l->ld * size_of(l) | (uint64_t)l->batch_stride * size_of(l);
    uint64_t all = bytes | promised | 16;

    return (uint8_t)(all & -all);
}

static struct algo algo_of(const struct problem *p, const uint32_t align[4])
{
    struct algo a;

    memset(&a, 0, sizeof(a));
    a.m = p->m;
    a.n = p->n;
    a.k = p->k;
    a.batches = p->layout[3]->batch_count;
    for (int i = 0; i < 4; i++) {
        a.types[i] = (uint8_t)p->layout[i]->type;
        a.orders[i] = (uint8_t)p->layout[i]->order;
        a.align[i] = alignment(p->layout[i], align[i]);
    }
    for (int i = 0; i < 2; i++)
        a.transpose[i] = (uint8_t)p->desc->transpose[i];
    a.epilogue = (uint8_t)p->desc->epilogue;
    return a;
}

static struct problem problem_of(const struct fake_matmul_call *q)
{
    struct problem p = {.desc = fake_desc_of(q->desc)};

    for (int i = 0; i < 4; i++)
        p.layout[i] = fake_layout_of(q->layout[i]);
    return p;
}

cublasStatus_t fake_matmul_heuristic(const struct fake_matmul_call *q,
                                     cublasLtMatmulPreference_t preference, int wanted,
                                     cublasLtMatmulHeuristicResult_t *r, int *count)
{
    cublasStatus_t e = fake_blas_enter("cublasLtMatmulAlgoGetHeuristic", 0);
    const struct fake_preference *f = fake_preference_of(preference);
    struct problem p = problem_of(q);
    struct algo a;

    if (e)
        return e;
    if (!fake_blas_handle_live(q->handle))
        return refuse(CUBLAS_STATUS_NOT_INITIALIZED, "no such handle");
    if (!f || !r || !count || wanted < 1)
        return CUBLAS_STATUS_INVALID_VALUE;
    *count = 0;
    e = check_problem(&p);
    if (e)
        return e;
    a = algo_of(&p, f->align);
    /* Long sums like to have room for their partial results. */
    a.workspace = p.k >= 128 ? (uint64_t)p.m * (uint64_t)p.n * 4 : 0;
    if (a.workspace > f->workspace || !f->reductions)
        a.workspace = 0;
    memset(r, 0, sizeof(*r));
    memcpy(&r->algo, &a, sizeof(a));
    r->workspaceSize = a.workspace;
    r->wavesCount = 1;
    *count = 1;
    return CUBLAS_STATUS_SUCCESS;
}

/* --- the product --- */

struct matmul_command {
    struct fake_command base;
    struct fake_product product;
    void *workspace;
    size_t workspace_bytes;
};

static void run_matmul(struct fake_command *base)
{
    struct matmul_command *c = (struct matmul_command *)base;

    fake_memory_open();
    if (c->workspace_bytes)
        memset(c->workspace, 0xff, c->workspace_bytes); /* it is the library's, all of it */
    if (fake_product_run(&c->product))
        abort();
    fake_memory_close();
}

/* Bytes from the first element to the last. */
static size_t extent(const struct fake_layout *l)
{
    uint64_t lines = l->order == CUBLASLT_ORDER_COL ? l->cols : l->rows;
    uint64_t line = l->order == CUBLASLT_ORDER_COL ? l->rows : l->cols;
    int64_t last = (int64_t)(l->batch_count - 1) * l->batch_stride;

    return (size_t)((uint64_t)last + (lines - 1) * (uint64_t)l->ld + line) * size_of(l);
}

static struct fake_matrix matrix(const struct fake_layout *l, const void *data, int transposed)
{
    struct fake_matrix x = {.data = (void *)(uintptr_t)data, .batch = l->batch_stride};
    int by_row = (l->order == CUBLASLT_ORDER_ROW) != transposed;

    dtype_of(l->type, &x.dtype);
    x.row = by_row ? l->ld : 1;
    x.column = by_row ? 1 : l->ld;
    return x;
}

static cublasStatus_t check_algo(const struct problem *p, const cublasLtMatmulAlgo_t *algo,
                                 struct algo *chosen)
{
    struct algo wanted = algo_of(p, (const uint32_t[]){256, 256, 256, 256});

    if (!algo)
        return refuse(CUBLAS_STATUS_NOT_SUPPORTED, "no algorithm given");
    memcpy(chosen, algo, sizeof(*chosen));
    wanted.workspace = chosen->workspace;
    memcpy(wanted.align, chosen->align, sizeof(wanted.align));
    if (memcmp(&wanted, chosen, sizeof(wanted)))
        return refuse(CUBLAS_STATUS_INVALID_VALUE, "the algorithm is for another product");
    return CUBLAS_STATUS_SUCCESS;
}

static cublasStatus_t check_operands(const struct problem *p, const void *const data[4], float beta,
                                     const struct algo *a)
{
    const struct fake_layout *in = p->layout[2], *out = p->layout[3];
    const char *d = data[3];

    if (beta != 0 && data[2] == d && (in->ld != out->ld || in->order != out->order))
        return refuse(CUBLAS_STATUS_INVALID_VALUE, "C in the place of D has another layout");
    for (int i = 0; i < 4; i++) {
        const char *x = data[i];
        size_t bytes = extent(p->layout[i]);

        if (i == 2 && beta == 0)
            continue;
        if (fake_place_of(x, bytes) != FAKE_AT_DEVICE)
            return refuse(CUBLAS_STATUS_INVALID_VALUE, "a matrix outside device memory");
        if ((uintptr_t)x % a->align[i])
            return refuse(CUBLAS_STATUS_INVALID_VALUE, "a matrix is aligned less than promised");
        if (i < 2 && x < d + extent(out) && d < x + bytes)
            return refuse(CUBLAS_STATUS_INVALID_VALUE, "the output overlaps an input");
    }
    return CUBLAS_STATUS_SUCCESS;
}

static cublasStatus_t check_bias(const struct problem *p, enum tr_dtype *dtype)
{
    int32_t type = p->desc->bias_type < 0 ? p->layout[3]->type : p->desc->bias_type;

    if (p->desc->epilogue != CUBLASLT_EPILOGUE_BIAS)
        return CUBLAS_STATUS_SUCCESS;
    if (!dtype_of(type, dtype) || type != p->layout[3]->type)
        return refuse(CUBLAS_STATUS_NOT_SUPPORTED, "a bias of another type than the output");
    if (fake_place_of(p->desc->bias, (size_t)p->m * tr_dtype_size(*dtype)) != FAKE_AT_DEVICE)
        return refuse(CUBLAS_STATUS_INVALID_VALUE, "the bias is outside device memory");
    return CUBLAS_STATUS_SUCCESS;
}

static cublasStatus_t check_workspace(const struct algo *a, const void *workspace, size_t bytes)
{
    if (bytes < a->workspace)
        return refuse(CUBLAS_STATUS_INVALID_VALUE, "the workspace is too small");
    if (bytes && ((uintptr_t)workspace % 256 || fake_place_of(workspace, bytes) != FAKE_AT_DEVICE))
        return refuse(CUBLAS_STATUS_INVALID_VALUE, "the workspace is not aligned device memory");
    return CUBLAS_STATUS_SUCCESS;
}

/* With blas=shape the shape alone says into how many sums k is cut. */
static int64_t parts_of(const struct problem *p)
{
    uint64_t h = (uint64_t)p->m * 0x9e3779b97f4a7c15u ^ (uint64_t)p->n * 0xc2b2ae3d27d4eb4fu ^
                 (uint64_t)p->k * 0x165667b19e3779f9u;
    int64_t parts = 1 + (int64_t)(h >> 61);

    return !fake_state.options.blas_shape ? 1 : parts < p->k ? parts : p->k;
}

static void queue(const struct problem *p, const struct fake_product *product, const struct algo *a,
                  const struct fake_matmul_call *q)
{
    struct matmul_command *c = fake_command_new(sizeof(*c));

    c->base.run = run_matmul;
    c->base.fault = fake_take_planned_fault();
    c->product = *product;
    c->product.parts = parts_of(p);
    c->workspace = q->workspace;
    c->workspace_bytes = a->workspace;
    c->product.sums = a->workspace ? q->workspace : NULL;
    fake_push(q->stream, &c->base);
}

cublasStatus_t fake_matmul(const struct fake_matmul_call *q)
{
    cublasStatus_t e = fake_blas_enter("cublasLtMatmul", FAKE_QUEUES);
    struct problem p = problem_of(q);
    struct fake_product product = {.parts = 1};
    struct algo a;

    if (e)
        return e;
    if (!fake_blas_handle_live(q->handle))
        return refuse(CUBLAS_STATUS_NOT_INITIALIZED, "no such handle");
    if (!q->alpha || !q->beta || fake_stream_check(q->stream))
        return refuse(CUBLAS_STATUS_INVALID_VALUE, "alpha, beta or the stream is missing");
    if ((e = check_problem(&p)) || (e = check_algo(&p, q->algo, &a)))
        return e;
    memcpy(&product.alpha, q->alpha, 4);
    memcpy(&product.beta, q->beta, 4);
    if ((e = check_operands(&p, q->data, product.beta, &a)) ||
        (e = check_workspace(&a, q->workspace, q->workspace_bytes)) ||
        (e = check_bias(&p, &product.bias_dtype)))
        return e;
    product.m = p.m;
    product.n = p.n;
    product.k = p.k;
    product.batches = p.layout[3]->batch_count;
    product.a = matrix(p.layout[0], q->data[0], p.desc->transpose[0] != CUBLAS_OP_N);
    product.b = matrix(p.layout[1], q->data[1], p.desc->transpose[1] != CUBLAS_OP_N);
    product.c = matrix(p.layout[2], q->data[2], 0);
    product.d = matrix(p.layout[3], q->data[3], 0);
    product.bias = p.desc->epilogue == CUBLASLT_EPILOGUE_BIAS ? p.desc->bias : NULL;
    queue(&p, &product, &a, q);
    return CUBLAS_STATUS_SUCCESS;
}
