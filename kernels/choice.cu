/* SPDX-License-Identifier: Apache-2.0
 *
 * Which algorithm of cuBLASLt a product of one shape takes: the library's first suggestion under a
 * fixed workspace and the alignments of the shape, never one chosen by timing. A bounded number of
 * answers is kept; one that has been dropped is asked for again, and is the same.
 */
#include "kernels/matmul.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "kernels/device.h"

static int shape_text(const struct tr_cuda_shape *s, char *text, size_t room)
{
    static const char *const dtypes[TR_DTYPES] = {"f32", "bf16", "f16"};

    return snprintf(text, room,
                    "%s to %s %c%c %" PRId64 "x%" PRId64 "x%" PRId64 "%s aligned %u %u %u",
                    dtypes[s->in], dtypes[s->out], s->trans_a ? 't' : 'n', s->trans_b ? 't' : 'n',
                    s->m, s->n, s->k, s->bias ? " bias" : "", s->align_a, s->align_b, s->align_out);
}

static int blas_error(const struct tr_cuda_matmul *m, cublasStatus_t status, const char *what)
{
    int code = status == CUBLAS_STATUS_ALLOC_FAILED    ? -ENOMEM
               : status == CUBLAS_STATUS_NOT_SUPPORTED ? -ENOTSUP
                                                       : -EIO;

    cudaGetLastError();
    return tr_cuda_refuse(code, "cuBLASLt: %s: %s%s", what, m->blas.GetStatusName(status),
                          status == CUBLAS_STATUS_ALLOC_FAILED ? " (out of memory)" : "");
}

int tr_cuda_blas_error(const struct tr_cuda_matmul *m, cublasStatus_t status,
                       const struct tr_cuda_shape *s)
{
    char text[160];

    shape_text(s, text, sizeof(text));
    return blas_error(m, status, text);
}

/* ---- opening ---- */

int tr_cuda_matmul_open(struct tr_cuda_matmul **out)
{
    struct tr_cuda_matmul *m = (struct tr_cuda_matmul *)tr_cuda_host->alloc(sizeof(*m));
    cublasStatus_t status;
    int error;

    if (!m)
        return -ENOMEM;
    error = tr_cublas_load(&m->blas);
    if (!error) {
        status = m->blas.Create(&m->handle);
        if (status != CUBLAS_STATUS_SUCCESS) {
            m->handle = NULL;
            error = blas_error(m, status, "it does not start");
        }
    }
    if (error) {
        tr_cuda_matmul_close(m);
        return error;
    }
    *out = m;
    return 0;
}

static void drop_choice(const struct tr_cuda_matmul *m, struct tr_cuda_choice *c)
{
    if (c->a)
        m->blas.MatrixLayoutDestroy(c->a);
    if (c->b)
        m->blas.MatrixLayoutDestroy(c->b);
    if (c->out)
        m->blas.MatrixLayoutDestroy(c->out);
    if (c->desc)
        m->blas.MatmulDescDestroy(c->desc);
    memset(c, 0, sizeof(*c));
}

void tr_cuda_matmul_close(struct tr_cuda_matmul *m)
{
    if (!m)
        return;
    for (int i = 0; i < TR_CUDA_CHOICES; i++)
        drop_choice(m, &m->choices[i]);
    if (m->handle)
        m->blas.Destroy(m->handle);
    tr_cuda_host->free(m);
}

void tr_cuda_matmul_give(struct tr_cuda_matmul *m, void *workspace)
{
    m->workspace = workspace;
}

void tr_cuda_matmul_version(const struct tr_cuda_matmul *m, char *text, size_t room)
{
    size_t v = m->blas.GetVersion();

    snprintf(text, room, "%zu.%zu.%zu", v / 10000, v / 100 % 100, v % 100);
}

/* ---- choices ---- */

static cudaDataType_t type_of(enum tr_dtype t)
{
    return t == TR_BF16 ? CUDA_R_16BF : t == TR_F16 ? CUDA_R_16F : CUDA_R_32F;
}

static cublasStatus_t make_desc(const struct tr_cuda_matmul *m, struct tr_cuda_choice *c)
{
    cublasOperation_t a = c->shape.trans_a ? CUBLAS_OP_T : CUBLAS_OP_N;
    cublasOperation_t b = c->shape.trans_b ? CUBLAS_OP_T : CUBLAS_OP_N;
    cublasLtEpilogue_t epilogue = CUBLASLT_EPILOGUE_BIAS;
    const void *aligned =
        (const void *)TR_CUDA_ALIGNED; /* looked at by the heuristic, never read */
    cublasStatus_t s = m->blas.MatmulDescCreate(&c->desc, CUBLAS_COMPUTE_32F, CUDA_R_32F);

    if (s == CUBLAS_STATUS_SUCCESS)
        s = m->blas.MatmulDescSetAttribute(c->desc, CUBLASLT_MATMUL_DESC_TRANSA, &a, sizeof(a));
    if (s == CUBLAS_STATUS_SUCCESS)
        s = m->blas.MatmulDescSetAttribute(c->desc, CUBLASLT_MATMUL_DESC_TRANSB, &b, sizeof(b));
    if (s == CUBLAS_STATUS_SUCCESS && c->shape.bias)
        s = m->blas.MatmulDescSetAttribute(c->desc, CUBLASLT_MATMUL_DESC_EPILOGUE, &epilogue,
                                           sizeof(epilogue));
    if (s == CUBLAS_STATUS_SUCCESS && c->shape.bias)
        s = m->blas.MatmulDescSetAttribute(c->desc, CUBLASLT_MATMUL_DESC_BIAS_POINTER, &aligned,
                                           sizeof(aligned));
    return s;
}

static cublasStatus_t make_layouts(const struct tr_cuda_matmul *m, struct tr_cuda_choice *c)
{
    const struct tr_cuda_shape *s = &c->shape;
    cudaDataType_t in = type_of(s->in);
    cublasStatus_t status =
        m->blas.MatrixLayoutCreate(&c->a, in, (uint64_t)(s->trans_a ? s->k : s->m),
                                   (uint64_t)(s->trans_a ? s->m : s->k), s->lda);

    if (status == CUBLAS_STATUS_SUCCESS)
        status = m->blas.MatrixLayoutCreate(&c->b, in, (uint64_t)(s->trans_b ? s->n : s->k),
                                            (uint64_t)(s->trans_b ? s->k : s->n), s->ldb);
    if (status == CUBLAS_STATUS_SUCCESS)
        status = m->blas.MatrixLayoutCreate(&c->out, type_of(s->out), (uint64_t)s->m,
                                            (uint64_t)s->n, s->m);
    return status;
}

static cublasStatus_t make_preference(const struct tr_cuda_matmul *m, const struct tr_cuda_shape *s,
                                      cublasLtMatmulPreference_t *out)
{
    uint64_t workspace = TR_CUDA_MATMUL_WORKSPACE_BYTES;
    const struct {
        cublasLtMatmulPreferenceAttributes_t name;
        uint32_t value;
    } settings[] = {
        {CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK, CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE},
        {CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, s->align_a},
        {CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES, s->align_b},
        {CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, s->align_out},
        {CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES, s->align_out},
    };
    cublasStatus_t status = m->blas.MatmulPreferenceCreate(out);

    if (status == CUBLAS_STATUS_SUCCESS)
        status = m->blas.MatmulPreferenceSetAttribute(
            *out, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, &workspace, sizeof(workspace));
    for (size_t i = 0; i < sizeof(settings) / sizeof(settings[0]); i++)
        if (status == CUBLAS_STATUS_SUCCESS)
            status = m->blas.MatmulPreferenceSetAttribute(*out, settings[i].name,
                                                          &settings[i].value, sizeof(uint32_t));
    return status;
}

static cublasStatus_t ask(const struct tr_cuda_matmul *m, struct tr_cuda_choice *c)
{
    cublasLtMatmulPreference_t preference = NULL;
    cublasLtMatmulHeuristicResult_t result;
    cublasStatus_t status = make_preference(m, &c->shape, &preference);
    int found = 0;

    memset(&result, 0, sizeof(result));
    if (status == CUBLAS_STATUS_SUCCESS)
        status = m->blas.MatmulAlgoGetHeuristic(m->handle, c->desc, c->a, c->b, c->out, c->out,
                                                preference, 1, &result, &found);
    if (status == CUBLAS_STATUS_SUCCESS)
        status = found ? result.state : CUBLAS_STATUS_NOT_SUPPORTED;
    if (preference)
        m->blas.MatmulPreferenceDestroy(preference);
    c->algo = result.algo;
    c->workspace_bytes = result.workspaceSize;
    return status;
}

/* By FNV-1a; callers clear a shape's padding. */
static int set_of(const struct tr_cuda_shape *s)
{
    const unsigned char *bytes = (const unsigned char *)s;
    uint64_t hash = 0xcbf29ce484222325u;

    for (size_t i = 0; i < sizeof(*s); i++)
        hash = (hash ^ bytes[i]) * 0x100000001b3u;
    return (int)((hash >> 32 ^ hash) % TR_CUDA_SETS);
}

int tr_cuda_choose(struct tr_cuda_matmul *m, const struct tr_cuda_shape *s,
                   const struct tr_cuda_choice **out)
{
    int set = set_of(s);
    struct tr_cuda_choice *c, *ways = &m->choices[set * TR_CUDA_WAYS];
    cublasStatus_t status;

    for (int i = 0; i < TR_CUDA_WAYS; i++) {
        c = &ways[i];
        if (c->desc && memcmp(&c->shape, s, sizeof(*s)) == 0) {
            *out = c;
            return 0;
        }
    }
    c = &ways[m->next[set]];
    drop_choice(m, c);
    memcpy(&c->shape, s, sizeof(*s));
    status = make_desc(m, c);
    if (status == CUBLAS_STATUS_SUCCESS)
        status = make_layouts(m, c);
    if (status == CUBLAS_STATUS_SUCCESS)
        status = ask(m, c);
    if (status != CUBLAS_STATUS_SUCCESS) {
        drop_choice(m, c);
        return tr_cuda_blas_error(m, status, s);
    }
    m->next[set] = (uint8_t)((m->next[set] + 1) % TR_CUDA_WAYS);
    *out = c;
    return 0;
}

size_t tr_cuda_matmul_describe(const struct tr_cuda_matmul *m, char *text, size_t room)
{
    size_t length = 0;
    char line[360], shape[160];

    for (int i = 0; i < TR_CUDA_CHOICES; i++) {
        const struct tr_cuda_choice *c = &m->choices[i];
        uint64_t word[sizeof(c->algo) / 8];
        int n;

        if (!c->desc)
            continue;
        shape_text(&c->shape, shape, sizeof(shape));
        memcpy(word, &c->algo, sizeof(word));
        n = snprintf(line, sizeof(line), "matmul %s: workspace %zu algorithm", shape,
                     c->workspace_bytes);
        for (size_t w = 0; w < sizeof(word) / sizeof(word[0]); w++)
            n += snprintf(line + n, sizeof(line) - (size_t)n, " %" PRIx64, word[w]);
        snprintf(line + n, sizeof(line) - (size_t)n, "\n");
        if (length < room)
            snprintf(text + length, room - length, "%s", line);
        length += strlen(line);
    }
    return length;
}
