/* SPDX-License-Identifier: Apache-2.0
 *
 * cuBLASLt's handle, layouts, descriptors and preferences. An attribute's size must be the real
 * one, as in the real library.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/cuda/runtime/blaslt.h"
#include "tests/cuda/runtime/runtime.h"

struct cublasLtContext {
    size_t charged;
};

struct attribute {
    int name;
    size_t offset, size;
};

#define FIELD(name, type, field)                                                                   \
    {                                                                                              \
        name, offsetof(type, field), sizeof(((type *)0)->field)                                    \
    }
#define COUNT(a) (sizeof(a) / sizeof((a)[0]))

cublasStatus_t fake_blas_enter(const char *name, int flags)
{
    cudaError_t e = fake_enter(name, flags);

    if (e == cudaSuccess)
        return CUBLAS_STATUS_SUCCESS;
    if (e == cudaErrorMemoryAllocation)
        return CUBLAS_STATUS_ALLOC_FAILED;
    if (e == cudaErrorNoDevice || e == cudaErrorInsufficientDriver)
        return CUBLAS_STATUS_NOT_INITIALIZED;
    return e == cudaErrorNotSupported ? CUBLAS_STATUS_NOT_SUPPORTED
                                      : CUBLAS_STATUS_EXECUTION_FAILED;
}

static void *make(enum fake_kind kind, size_t size)
{
    void *p = calloc(1, size);

    if (!p)
        abort();
    fake_object_add(kind, p, 0);
    return p;
}

static cublasStatus_t destroy(const char *name, enum fake_kind kind, void *p)
{
    cublasStatus_t e = fake_blas_enter(name, 0);

    if (!p || !fake_object_remove(kind, p, NULL))
        return e ? e : CUBLAS_STATUS_INVALID_VALUE;
    free(p);
    return e;
}

static cublasStatus_t set(void *object, const struct attribute *attributes, size_t n, int name,
                          const void *buf, size_t size)
{
    for (size_t i = 0; i < n; i++)
        if (attributes[i].name == name) {
            if (!buf || size != attributes[i].size)
                return CUBLAS_STATUS_INVALID_VALUE;
            memcpy((char *)object + attributes[i].offset, buf, size);
            return CUBLAS_STATUS_SUCCESS;
        }
    fake_say("cublasLt attribute %d is not supported", name);
    return CUBLAS_STATUS_INVALID_VALUE;
}

cublasStatus_t cublasLtCreate(cublasLtHandle_t *lightHandle)
{
    cublasStatus_t e = fake_blas_enter("cublasLtCreate", 0);
    struct cublasLtContext *h;

    if (e)
        return e;
    if (!lightHandle)
        return CUBLAS_STATUS_INVALID_VALUE;
    if (fake_charge(fake_state.options.cublas))
        return CUBLAS_STATUS_NOT_INITIALIZED; /* so the real one, out of device memory */
    h = make(FAKE_BLAS_HANDLE, sizeof(*h));
    h->charged = fake_state.options.cublas;
    *lightHandle = h;
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtDestroy(cublasLtHandle_t lightHandle)
{
    cublasStatus_t e = fake_blas_enter("cublasLtDestroy", 0);

    if (!fake_blas_handle_live(lightHandle))
        return e ? e : CUBLAS_STATUS_NOT_INITIALIZED;
    fake_object_remove(FAKE_BLAS_HANDLE, lightHandle, NULL);
    fake_refund(lightHandle->charged);
    free(lightHandle);
    return e;
}

int fake_blas_handle_live(cublasLtHandle_t h)
{
    return fake_object_live(FAKE_BLAS_HANDLE, h);
}

size_t cublasLtGetVersion(void)
{
    return CUBLAS_VERSION;
}

const char *cublasLtGetStatusName(cublasStatus_t status)
{
#define NAME(s)                                                                                    \
    case s:                                                                                        \
        return #s
    switch (status) {
        NAME(CUBLAS_STATUS_SUCCESS);
        NAME(CUBLAS_STATUS_NOT_INITIALIZED);
        NAME(CUBLAS_STATUS_ALLOC_FAILED);
        NAME(CUBLAS_STATUS_INVALID_VALUE);
        NAME(CUBLAS_STATUS_ARCH_MISMATCH);
        NAME(CUBLAS_STATUS_MAPPING_ERROR);
        NAME(CUBLAS_STATUS_EXECUTION_FAILED);
        NAME(CUBLAS_STATUS_INTERNAL_ERROR);
        NAME(CUBLAS_STATUS_NOT_SUPPORTED);
        NAME(CUBLAS_STATUS_LICENSE_ERROR);
    }
#undef NAME
    return "unknown status";
}

const struct fake_layout *fake_layout_of(cublasLtMatrixLayout_t l)
{
    return fake_object_live(FAKE_BLAS_LAYOUT, l) ? (void *)l : NULL;
}

cublasStatus_t cublasLtMatrixLayoutCreate(cublasLtMatrixLayout_t *matLayout, cudaDataType type,
                                          uint64_t rows, uint64_t cols, int64_t ld)
{
    cublasStatus_t e = fake_blas_enter("cublasLtMatrixLayoutCreate", 0);
    struct fake_layout *l;

    if (e)
        return e;
    if (!matLayout)
        return CUBLAS_STATUS_INVALID_VALUE;
    l = make(FAKE_BLAS_LAYOUT, sizeof(*l));
    l->type = type;
    l->order = CUBLASLT_ORDER_COL;
    l->batch_count = 1;
    l->rows = rows;
    l->cols = cols;
    l->ld = ld;
    *matLayout = (void *)l;
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatrixLayoutDestroy(cublasLtMatrixLayout_t matLayout)
{
    return destroy("cublasLtMatrixLayoutDestroy", FAKE_BLAS_LAYOUT, matLayout);
}

cublasStatus_t cublasLtMatrixLayoutSetAttribute(cublasLtMatrixLayout_t matLayout,
                                                cublasLtMatrixLayoutAttribute_t attr,
                                                const void *buf, size_t sizeInBytes)
{
    static const struct attribute table[] = {
        FIELD(CUBLASLT_MATRIX_LAYOUT_TYPE, struct fake_layout, type),
        FIELD(CUBLASLT_MATRIX_LAYOUT_ORDER, struct fake_layout, order),
        FIELD(CUBLASLT_MATRIX_LAYOUT_ROWS, struct fake_layout, rows),
        FIELD(CUBLASLT_MATRIX_LAYOUT_COLS, struct fake_layout, cols),
        FIELD(CUBLASLT_MATRIX_LAYOUT_LD, struct fake_layout, ld),
        FIELD(CUBLASLT_MATRIX_LAYOUT_BATCH_COUNT, struct fake_layout, batch_count),
        FIELD(CUBLASLT_MATRIX_LAYOUT_STRIDED_BATCH_OFFSET, struct fake_layout, batch_stride),
    };
    cublasStatus_t e = fake_blas_enter("cublasLtMatrixLayoutSetAttribute", 0);

    if (!e && !fake_layout_of(matLayout))
        e = CUBLAS_STATUS_INVALID_VALUE;
    return e ? e : set(matLayout, table, COUNT(table), attr, buf, sizeInBytes);
}

const struct fake_desc *fake_desc_of(cublasLtMatmulDesc_t d)
{
    return fake_object_live(FAKE_BLAS_DESC, d) ? (void *)d : NULL;
}

cublasStatus_t cublasLtMatmulDescCreate(cublasLtMatmulDesc_t *matmulDesc,
                                        cublasComputeType_t computeType, cudaDataType_t scaleType)
{
    cublasStatus_t e = fake_blas_enter("cublasLtMatmulDescCreate", 0);
    struct fake_desc *d;

    if (e)
        return e;
    if (!matmulDesc)
        return CUBLAS_STATUS_INVALID_VALUE;
    d = make(FAKE_BLAS_DESC, sizeof(*d));
    d->compute = computeType;
    d->scale = scaleType;
    d->epilogue = CUBLASLT_EPILOGUE_DEFAULT;
    d->bias_type = -1; /* as D's */
    *matmulDesc = (void *)d;
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmulDescDestroy(cublasLtMatmulDesc_t matmulDesc)
{
    return destroy("cublasLtMatmulDescDestroy", FAKE_BLAS_DESC, matmulDesc);
}

cublasStatus_t cublasLtMatmulDescSetAttribute(cublasLtMatmulDesc_t matmulDesc,
                                              cublasLtMatmulDescAttributes_t attr, const void *buf,
                                              size_t sizeInBytes)
{
    static const struct attribute table[] = {
        FIELD(CUBLASLT_MATMUL_DESC_COMPUTE_TYPE, struct fake_desc, compute),
        FIELD(CUBLASLT_MATMUL_DESC_SCALE_TYPE, struct fake_desc, scale),
        FIELD(CUBLASLT_MATMUL_DESC_POINTER_MODE, struct fake_desc, pointer_mode),
        FIELD(CUBLASLT_MATMUL_DESC_TRANSA, struct fake_desc, transpose[0]),
        FIELD(CUBLASLT_MATMUL_DESC_TRANSB, struct fake_desc, transpose[1]),
        FIELD(CUBLASLT_MATMUL_DESC_EPILOGUE, struct fake_desc, epilogue),
        FIELD(CUBLASLT_MATMUL_DESC_BIAS_POINTER, struct fake_desc, bias),
        FIELD(CUBLASLT_MATMUL_DESC_BIAS_DATA_TYPE, struct fake_desc, bias_type),
    };
    cublasStatus_t e = fake_blas_enter("cublasLtMatmulDescSetAttribute", 0);

    if (!e && !fake_desc_of(matmulDesc))
        e = CUBLAS_STATUS_INVALID_VALUE;
    return e ? e : set(matmulDesc, table, COUNT(table), attr, buf, sizeInBytes);
}

const struct fake_preference *fake_preference_of(cublasLtMatmulPreference_t p)
{
    return fake_object_live(FAKE_BLAS_PREFERENCE, p) ? (void *)p : NULL;
}

cublasStatus_t cublasLtMatmulPreferenceCreate(cublasLtMatmulPreference_t *pref)
{
    cublasStatus_t e = fake_blas_enter("cublasLtMatmulPreferenceCreate", 0);
    struct fake_preference *p;

    if (e)
        return e;
    if (!pref)
        return CUBLAS_STATUS_INVALID_VALUE;
    p = make(FAKE_BLAS_PREFERENCE, sizeof(*p));
    *p = (struct fake_preference){.reductions = CUBLASLT_REDUCTION_SCHEME_MASK,
                                  .align = {256, 256, 256, 256}};
    *pref = (void *)p;
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmulPreferenceDestroy(cublasLtMatmulPreference_t pref)
{
    return destroy("cublasLtMatmulPreferenceDestroy", FAKE_BLAS_PREFERENCE, pref);
}

cublasStatus_t cublasLtMatmulPreferenceSetAttribute(cublasLtMatmulPreference_t pref,
                                                    cublasLtMatmulPreferenceAttributes_t attr,
                                                    const void *buf, size_t sizeInBytes)
{
    static const struct attribute table[] = {
        FIELD(CUBLASLT_MATMUL_PREF_SEARCH_MODE, struct fake_preference, search_mode),
        FIELD(CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, struct fake_preference, workspace),
        FIELD(CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK, struct fake_preference, reductions),
        FIELD(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, struct fake_preference, align[0]),
        FIELD(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES, struct fake_preference, align[1]),
        FIELD(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, struct fake_preference, align[2]),
        FIELD(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES, struct fake_preference, align[3]),
    };
    cublasStatus_t e = fake_blas_enter("cublasLtMatmulPreferenceSetAttribute", 0);

    if (!e && !fake_preference_of(pref))
        e = CUBLAS_STATUS_INVALID_VALUE;
    return e ? e : set(pref, table, COUNT(table), attr, buf, sizeInBytes);
}
