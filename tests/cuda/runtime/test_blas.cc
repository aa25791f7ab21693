/* SPDX-License-Identifier: Apache-2.0
 *
 * The fake cuBLASLt against sums in double, for all transposes, orders and types; that an element's
 * bits are its row's and its column's alone; and that mistakes are refused.
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "src/base/dtype.h"
#include "tests/cuda/runtime/harness.h"

struct product {
    int m, n, k, batches;
    cublasOperation_t ta, tb;
    cudaDataType in, out;
    cublasLtOrder_t order[4];
    float alpha, beta;
    bool bias, in_place; /* in place: C is D */
    size_t workspace;
    uint32_t align;
};

struct operand {
    int rows, cols, ld, batches;
    cublasLtOrder_t order;
    enum tr_dtype dtype;
    size_t elements;
    char *host, *device;
    cublasLtMatrixLayout_t layout;
};

struct bench {
    cudaStream_t stream;
    cublasLtHandle_t handle;
    cublasLtMatmulDesc_t desc;
    cublasLtMatmulPreference_t preference;
    cublasLtMatmulHeuristicResult_t chosen;
    struct operand x[4];
    char *workspace, *bias;
    float bias_host[64];
};

#define LT(call)            assert_int_equal(call, CUBLAS_STATUS_SUCCESS)
#define LT_FAILS(call, how) assert_int_equal(call, how)
#define SET(what, o, a, v)  LT(cublasLt##what##SetAttribute(o, a, &(v), sizeof(v)))

static enum tr_dtype dtype_of(cudaDataType t)
{
    return t == CUDA_R_16BF ? TR_BF16 : t == CUDA_R_16F ? TR_F16 : TR_F32;
}

static uint32_t seed;

static float random_value(void)
{
    seed = seed * 1664525u + 1013904223u;
    return static_cast<float>(static_cast<int>(seed >> 8 & 0xffff) - 0x8000) / 0x4000;
}

static size_t at(const struct operand *x, int batch, int row, int col)
{
    size_t lines = static_cast<size_t>(x->order == CUBLASLT_ORDER_COL ? x->cols : x->rows);

    return static_cast<size_t>(batch) * lines * static_cast<size_t>(x->ld) +
           (x->order == CUBLASLT_ORDER_COL ? static_cast<size_t>(col) * x->ld + row
                                           : static_cast<size_t>(row) * x->ld + col);
}

static double value(const struct operand *x, int batch, int row, int col)
{
    return tr_load_f32(x->host, x->dtype, at(x, batch, row, col));
}

static void make_operand(struct operand *x, const struct product *p, int i)
{
    int64_t stride;
    int32_t order = p->order[i], batches = p->batches;
    bool turned = (i == 0 && p->ta != CUBLAS_OP_N) || (i == 1 && p->tb != CUBLAS_OP_N);
    int rows = i == 1 ? p->k : p->m, cols = i == 0 ? p->k : p->n;

    x->rows = turned ? cols : rows;
    x->cols = turned ? rows : cols;
    x->order = p->order[i];
    x->batches = p->batches;
    x->dtype = dtype_of(i < 2 ? p->in : p->out);
    x->ld = (x->order == CUBLASLT_ORDER_COL ? x->rows : x->cols) + (i + 1) * 4;
    stride = static_cast<int64_t>(at(x, 1, 0, 0));
    x->elements = at(x, p->batches, 0, 0);
    x->host = static_cast<char *>(calloc(x->elements, 4));
    for (size_t e = 0; e < x->elements; e++)
        tr_store_f32(x->host, x->dtype, e, random_value());
    x->device = static_cast<char *>(device_bytes(x->elements * 4));
    OK(cudaMemcpy(x->device, x->host, x->elements * tr_dtype_size(x->dtype),
                  cudaMemcpyHostToDevice));
    LT(cublasLtMatrixLayoutCreate(&x->layout, i < 2 ? p->in : p->out, x->rows, x->cols, x->ld));
    SET(MatrixLayout, x->layout, CUBLASLT_MATRIX_LAYOUT_ORDER, order);
    SET(MatrixLayout, x->layout, CUBLASLT_MATRIX_LAYOUT_BATCH_COUNT, batches);
    SET(MatrixLayout, x->layout, CUBLASLT_MATRIX_LAYOUT_STRIDED_BATCH_OFFSET, stride);
}

static void make_bias(struct bench *b, const struct product *p)
{
    uint32_t epilogue = CUBLASLT_EPILOGUE_BIAS;
    int32_t type = p->out;
    enum tr_dtype dtype = dtype_of(p->out);
    char host[sizeof(b->bias_host)];

    b->bias = static_cast<char *>(device_bytes(sizeof(host)));
    for (int i = 0; i < p->m; i++) {
        tr_store_f32(host, dtype, i, random_value());
        b->bias_host[i] = tr_load_f32(host, dtype, i);
    }
    OK(cudaMemcpy(b->bias, host, sizeof(host), cudaMemcpyHostToDevice));
    SET(MatmulDesc, b->desc, CUBLASLT_MATMUL_DESC_EPILOGUE, epilogue);
    SET(MatmulDesc, b->desc, CUBLASLT_MATMUL_DESC_BIAS_POINTER, b->bias);
    SET(MatmulDesc, b->desc, CUBLASLT_MATMUL_DESC_BIAS_DATA_TYPE, type);
}

/* In place means D's layout too. */
static const struct operand *c_of(const struct bench *b, const struct product *p)
{
    return p->in_place ? &b->x[3] : &b->x[2];
}

static cublasStatus_t choose(struct bench *b, const struct product *p)
{
    int count = -1;
    cublasStatus_t e = cublasLtMatmulAlgoGetHeuristic(
        b->handle, b->desc, b->x[0].layout, b->x[1].layout, c_of(b, p)->layout, b->x[3].layout,
        b->preference, 1, &b->chosen, &count);

    assert_int_equal(count, e == CUBLAS_STATUS_SUCCESS);
    return e;
}

static void make(struct bench *b, const struct product *p)
{
    int32_t ta = p->ta, tb = p->tb;
    uint64_t workspace = p->workspace;

    *b = bench{};
    b->stream = new_stream();
    LT(cublasLtCreate(&b->handle));
    LT(cublasLtMatmulDescCreate(&b->desc, CUBLAS_COMPUTE_32F, CUDA_R_32F));
    SET(MatmulDesc, b->desc, CUBLASLT_MATMUL_DESC_TRANSA, ta);
    SET(MatmulDesc, b->desc, CUBLASLT_MATMUL_DESC_TRANSB, tb);
    LT(cublasLtMatmulPreferenceCreate(&b->preference));
    SET(MatmulPreference, b->preference, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, workspace);
    for (int i = 0; p->align && i < 4; i++)
        SET(MatmulPreference, b->preference,
            static_cast<cublasLtMatmulPreferenceAttributes_t>(
                CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES + i),
            p->align);
    for (int i = 0; i < 4; i++)
        make_operand(&b->x[i], p, i);
    if (p->workspace)
        b->workspace = static_cast<char *>(device_bytes(p->workspace));
    if (p->bias)
        make_bias(b, p);
}

static cublasStatus_t multiply(struct bench *b, const struct product *p)
{
    float alpha = p->alpha, beta = p->beta;
    cublasStatus_t e = cublasLtMatmul(b->handle, b->desc, &alpha, b->x[0].device, b->x[0].layout,
                                      b->x[1].device, b->x[1].layout, &beta, c_of(b, p)->device,
                                      c_of(b, p)->layout, b->x[3].device, b->x[3].layout,
                                      &b->chosen.algo, b->workspace, p->workspace, b->stream);

    alpha = beta = NAN; /* they are read in the call */
    return e;
}

static void unmake(struct bench *b)
{
    OK(cudaStreamSynchronize(b->stream));
    for (int i = 0; i < 4; i++) {
        LT(cublasLtMatrixLayoutDestroy(b->x[i].layout));
        OK(cudaFree(b->x[i].device));
        free(b->x[i].host);
    }
    OK(cudaFree(b->workspace));
    OK(cudaFree(b->bias));
    LT(cublasLtMatmulPreferenceDestroy(b->preference));
    LT(cublasLtMatmulDescDestroy(b->desc));
    LT(cublasLtDestroy(b->handle));
    OK(cudaStreamDestroy(b->stream));
    assert_int_equal(fake_leaks(), 0);
}

/* D back on the host; what lies between its lines must be as it was. */
static char *fetch(struct bench *b)
{
    struct operand *d = &b->x[3];
    char *result = static_cast<char *>(calloc(d->elements, 4));

    OK(cudaMemcpyAsync(result, d->device, d->elements * tr_dtype_size(d->dtype),
                       cudaMemcpyDeviceToHost, b->stream));
    for (size_t e = 0; e < d->elements; e++) {
        size_t lines = static_cast<size_t>(d->ld);
        int inside = d->order == CUBLASLT_ORDER_COL ? d->rows : d->cols;

        if (static_cast<int>(e % lines) >= inside)
            assert_true(tr_load_f32(result, d->dtype, e) == tr_load_f32(d->host, d->dtype, e));
    }
    return result;
}

static void compare(struct bench *b, const struct product *p, const char *got, int batch)
{
    static const double round_off[] = {0x1p-24, 0x1p-8, 0x1p-11};
    const struct operand *c = c_of(b, p);

    for (int i = 0; i < p->m; i++)
        for (int j = 0; j < p->n; j++) {
            double sum = 0, size = 0, want, allowed;
            float y = tr_load_f32(got, b->x[3].dtype, at(&b->x[3], batch, i, j));

            for (int l = 0; l < p->k; l++) {
                double t = (p->ta ? value(&b->x[0], batch, l, i) : value(&b->x[0], batch, i, l)) *
                           (p->tb ? value(&b->x[1], batch, j, l) : value(&b->x[1], batch, l, j));

                sum += t;
                size += fabs(t);
            }
            want = p->alpha * sum + (p->beta != 0 ? p->beta * value(c, batch, i, j) : 0) +
                   (p->bias ? b->bias_host[i] : 0);
            allowed =
                (p->k + 4) * 0x1p-24 * (size + 4) + round_off[b->x[3].dtype] * fabs(want) + 0x1p-24;
            if (!(fabs(y - want) <= allowed))
                fail_msg("(%d, %d) of batch %d: %g, not %g (%d x %d x %d, types %d %d, transposed "
                         "%d %d)",
                         i, j, batch, y, want, p->m, p->n, p->k, p->in, p->out, p->ta, p->tb);
        }
}

static void check(const struct product *p)
{
    struct bench b;
    char *got;

    make(&b, p);
    LT(choose(&b, p));
    assert_true(b.chosen.workspaceSize <= p->workspace);
    LT(multiply(&b, p));
    got = fetch(&b);
    for (int batch = 0; batch < p->batches; batch++)
        compare(&b, p, got, batch);
    free(got);
    unmake(&b);
}

static struct product plain(int m, int n, int k)
{
    struct product p = {};

    p.m = m;
    p.n = n;
    p.k = k;
    p.batches = 1;
    p.alpha = 1;
    return p;
}

static void agrees_with_double(void **)
{
    static const cudaDataType types[][2] = {{CUDA_R_32F, CUDA_R_32F},
                                            {CUDA_R_16BF, CUDA_R_16BF},
                                            {CUDA_R_16BF, CUDA_R_32F},
                                            {CUDA_R_16F, CUDA_R_16F},
                                            {CUDA_R_16F, CUDA_R_32F}};
    static const int shapes[][3] = {{1, 1, 1}, {17, 5, 33}, {64, 3, 130}, {16, 4, 16}, {3, 41, 7}};

    fake_configure("");
    for (unsigned t = 0; t < 5; t++)
        for (unsigned s = 0; s < 5; s++)
            for (int way = 0; way < 32; way++) {
                struct product p = plain(shapes[s][0], shapes[s][1], shapes[s][2]);

                p.in = types[t][0];
                p.out = types[t][1];
                p.ta = way & 1 ? CUBLAS_OP_T : CUBLAS_OP_N;
                p.tb = way & 2 ? CUBLAS_OP_T : CUBLAS_OP_N;
                p.alpha = way & 4 ? 0.5f : 1;
                p.beta = way & 8 ? 2 : 0;
                p.in_place = way & 4;
                p.bias = way & 16;
                p.workspace = way & 2 ? 1 << 16 : 0;
                for (int i = 0; i < 4; i++)
                    p.order[i] = (way + static_cast<int>(s)) >> i & 1 ? CUBLASLT_ORDER_ROW
                                                                      : CUBLASLT_ORDER_COL;
                p.order[2] = p.order[3];
                p.batches = s == 1 ? 3 : 1;
                check(&p);
            }
}

/* The sums lie in the workspace on the way, all of which is overwritten. */
static void workspace_is_used(void **)
{
    struct product p = plain(8, 8, 256);
    struct bench b;

    fake_configure("");
    p.workspace = 1024;
    make(&b, &p);
    LT(choose(&b, &p));
    assert_int_equal(b.chosen.workspaceSize, 256);
    OK(cudaMemsetAsync(b.workspace, 0, 1024, b.stream));
    LT(multiply(&b, &p));
    OK(cudaStreamSynchronize(b.stream));
    assert_int_not_equal(peek(b.workspace), 0);
    assert_int_equal(peek(b.workspace + 256), 0);
    p.workspace = 255;
    LT_FAILS(multiply(&b, &p), CUBLAS_STATUS_INVALID_VALUE);
    unmake(&b);
}

/* The product of the same rows and columns within another shape has the same bits, but with
 * blas=shape, where it need not. */
static int same_bits(const char *words)
{
    struct product big = plain(37, 23, 301), small = plain(19, 2, 301);
    struct bench a, b;
    char *x, *y;
    int same = 1;

    fake_configure(words);
    seed = 5;
    make(&a, &big);
    make(&b, &small);
    for (int l = 0; l < 301; l++) {
        for (int i = 0; i < 19; i++)
            memcpy(b.x[0].host + 4 * at(&b.x[0], 0, i, l),
                   a.x[0].host + 4 * at(&a.x[0], 0, i + 18, l), 4);
        for (int j = 0; j < 2; j++)
            memcpy(b.x[1].host + 4 * at(&b.x[1], 0, l, j),
                   a.x[1].host + 4 * at(&a.x[1], 0, l, j + 21), 4);
    }
    for (int i = 0; i < 2; i++)
        OK(cudaMemcpy(b.x[i].device, b.x[i].host, 4 * b.x[i].elements, cudaMemcpyHostToDevice));
    LT(choose(&a, &big));
    LT(choose(&b, &small));
    LT(multiply(&a, &big));
    LT(multiply(&b, &small));
    x = fetch(&a);
    y = fetch(&b);
    for (int i = 0; i < 19; i++)
        for (int j = 0; j < 2; j++)
            same &=
                !memcmp(x + 4 * at(&a.x[3], 0, i + 18, j + 21), y + 4 * at(&b.x[3], 0, i, j), 4);
    compare(&a, &big, x, 0);
    compare(&b, &small, y, 0);
    free(x);
    free(y);
    OK(cudaDeviceSynchronize());
    for (int i = 0; i < 4; i++) {
        LT(cublasLtMatrixLayoutDestroy(b.x[i].layout));
        OK(cudaFree(b.x[i].device));
        free(b.x[i].host);
    }
    LT(cublasLtMatmulPreferenceDestroy(b.preference));
    LT(cublasLtMatmulDescDestroy(b.desc));
    LT(cublasLtDestroy(b.handle));
    OK(cudaStreamDestroy(b.stream));
    unmake(&a);
    return same;
}

static void bits_are_of_row_and_column(void **)
{
    assert_true(same_bits(""));
    assert_false(same_bits("blas=shape"));
}

static void combinations_are_refused(void **)
{
    static const cudaDataType bad[][4] = {{CUDA_R_16BF, CUDA_R_16F, CUDA_R_32F, CUDA_R_32F},
                                          {CUDA_R_16BF, CUDA_R_32F, CUDA_R_32F, CUDA_R_32F},
                                          {CUDA_R_32F, CUDA_R_32F, CUDA_R_16BF, CUDA_R_16BF},
                                          {CUDA_R_16F, CUDA_R_16F, CUDA_R_16BF, CUDA_R_16BF},
                                          {CUDA_R_16BF, CUDA_R_16BF, CUDA_R_32F, CUDA_R_16BF},
                                          {CUDA_R_64F, CUDA_R_64F, CUDA_R_64F, CUDA_R_64F}};
    struct product p = plain(8, 8, 8);
    int32_t compute = CUBLAS_COMPUTE_32F_FAST_TF32, twice = 2;
    int64_t ld = 7;
    struct bench b;

    fake_configure("");
    make(&b, &p);
    LT(choose(&b, &p));
    for (unsigned i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        for (int k = 0; k < 4; k++) {
            int32_t type = bad[i][k];

            SET(MatrixLayout, b.x[k].layout, CUBLASLT_MATRIX_LAYOUT_TYPE, type);
        }
        LT_FAILS(choose(&b, &p), CUBLAS_STATUS_NOT_SUPPORTED);
        LT_FAILS(multiply(&b, &p), CUBLAS_STATUS_NOT_SUPPORTED);
    }
    unmake(&b);

    make(&b, &p);
    SET(MatmulDesc, b.desc, CUBLASLT_MATMUL_DESC_COMPUTE_TYPE, compute);
    LT_FAILS(choose(&b, &p), CUBLAS_STATUS_NOT_SUPPORTED);
    compute = CUBLAS_COMPUTE_32F;
    SET(MatmulDesc, b.desc, CUBLASLT_MATMUL_DESC_COMPUTE_TYPE, compute);
    SET(MatrixLayout, b.x[3].layout, CUBLASLT_MATRIX_LAYOUT_BATCH_COUNT, twice);
    LT_FAILS(choose(&b, &p), CUBLAS_STATUS_INVALID_VALUE);
    twice = 1;
    SET(MatrixLayout, b.x[3].layout, CUBLASLT_MATRIX_LAYOUT_BATCH_COUNT, twice);
    SET(MatrixLayout, b.x[0].layout, CUBLASLT_MATRIX_LAYOUT_LD, ld);
    LT_FAILS(choose(&b, &p), CUBLAS_STATUS_INVALID_VALUE);
    LT_FAILS(cublasLtMatrixLayoutSetAttribute(b.x[0].layout, CUBLASLT_MATRIX_LAYOUT_LD, &ld, 4),
             CUBLAS_STATUS_INVALID_VALUE);
    unmake(&b);
}

static void operands_are_checked(void **)
{
    struct product p = plain(8, 8, 8), other = plain(8, 9, 8);
    struct bench b, c;
    char *device, *c_device, pageable[4096];

    fake_configure("");
    p.in = p.out = CUDA_R_16BF;
    p.align = 4;
    other.in = other.out = CUDA_R_16BF;
    make(&b, &p);
    LT(choose(&b, &p));
    device = b.x[0].device;
    b.x[0].device = device + 4; /* aligned as promised */
    LT(multiply(&b, &p));
    b.x[0].device = device + 2;
    LT_FAILS(multiply(&b, &p), CUBLAS_STATUS_INVALID_VALUE);
    b.x[0].device = pageable;
    LT_FAILS(multiply(&b, &p), CUBLAS_STATUS_INVALID_VALUE);
    b.x[0].device = b.x[3].device + 16;
    LT_FAILS(multiply(&b, &p), CUBLAS_STATUS_INVALID_VALUE);
    b.x[0].device = device;
    p.workspace = 16; /* at NULL */
    LT_FAILS(multiply(&b, &p), CUBLAS_STATUS_INVALID_VALUE);
    p.workspace = 512;
    b.workspace = static_cast<char *>(device_bytes(1024)) + 256;
    LT(multiply(&b, &p));
    b.workspace -= 128; /* the real library wants 256 bytes */
    LT_FAILS(multiply(&b, &p), CUBLAS_STATUS_INVALID_VALUE);
    b.workspace -= 128;
    p.workspace = 0;
    OK(cudaStreamSynchronize(b.stream));

    make(&c, &other);
    c_device = b.x[2].device;
    b.x[2].device = b.x[3].device; /* in place, in another layout */
    p.beta = 1;
    LT_FAILS(multiply(&b, &p), CUBLAS_STATUS_INVALID_VALUE);
    p.beta = 0;
    b.x[2].device = c_device;
    LT(choose(&c, &other));
    b.chosen = c.chosen; /* chosen for another shape */
    LT_FAILS(multiply(&b, &p), CUBLAS_STATUS_INVALID_VALUE);
    LT_FAILS(cublasLtMatrixLayoutDestroy(nullptr), CUBLAS_STATUS_INVALID_VALUE);
    OK(cudaStreamSynchronize(c.stream));
    for (int i = 0; i < 4; i++) {
        LT(cublasLtMatrixLayoutDestroy(c.x[i].layout));
        OK(cudaFree(c.x[i].device));
        free(c.x[i].host);
    }
    LT(cublasLtMatmulPreferenceDestroy(c.preference));
    LT(cublasLtMatmulDescDestroy(c.desc));
    LT_FAILS(cublasLtMatmulDescDestroy(c.desc), CUBLAS_STATUS_INVALID_VALUE);
    LT(cublasLtDestroy(c.handle));
    LT_FAILS(cublasLtDestroy(c.handle), CUBLAS_STATUS_NOT_INITIALIZED);
    OK(cudaStreamDestroy(c.stream));
    unmake(&b);
}

/* A NaN in C or in D's old bytes does not reach D where beta is 0: memory is poison. */
static void beta_zero_reads_nothing(void **)
{
    struct product p = plain(5, 5, 5);
    struct bench b;
    char *got;

    fake_configure("");
    make(&b, &p);
    LT(choose(&b, &p));
    for (int i = 2; i < 4; i++)
        OK(cudaMemsetAsync(b.x[i].device, 0xff, b.x[i].elements * 4, b.stream));
    LT(multiply(&b, &p));
    OK(cudaStreamSynchronize(b.stream));
    got = static_cast<char *>(calloc(b.x[3].elements, 4));
    OK(cudaMemcpy(got, b.x[3].device, b.x[3].elements * 4, cudaMemcpyDeviceToHost));
    compare(&b, &p, got, 0);
    free(got);
    unmake(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(agrees_with_double),       cmocka_unit_test(beta_zero_reads_nothing),
        cmocka_unit_test(workspace_is_used),        cmocka_unit_test(bits_are_of_row_and_column),
        cmocka_unit_test(combinations_are_refused), cmocka_unit_test(operands_are_checked),
    };

    return cmocka_run_group_tests(tests, nullptr, nullptr);
}
