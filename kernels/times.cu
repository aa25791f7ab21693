/* SPDX-License-Identifier: Apache-2.0
 *
 * Where the time of the compute stream goes, where TAILRACE_CUDA_TIMES is set: two events around
 * every op, added up by kind, of products and attention by shape too. Between two ops the stream
 * waited: for parameters on their way, for the host, or for nothing but the next launch. Events are
 * read a batch at a time, when its last op is done; what the stream waits between batches is that,
 * and is not counted.
 */
#include "kernels/device.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define BATCH 512 /* ops */
#define ROWS  96  /* of ops that differ; all others are one more */
#define LONG  10  /* milliseconds: a wait that no launch explains */

struct row {
    enum tr_op_kind kind;
    int64_t n, m, k;
    int32_t grains;
    uint64_t count;
    double ms, waited, flops;
};

struct tr_cuda_times {
    cudaEvent_t begin[BATCH], end[BATCH];
    int row_of[BATCH], n; /* of the ops of this batch */
    int failed;           /* what stands here is not all */
    struct row rows[ROWS + 1];
    int n_rows;
    double waited_long;
    uint64_t n_long;
};

/* Queries see half of their document's keys; the gradient makes five products for two. */
static double attention_flops(const struct tr_op_attention *op, double products)
{
    double pairs = 0;

    for (int32_t i = 0; i < op->docs.n; i++) {
        double length = op->docs.start[i + 1] - op->docs.start[i];
        double window = op->window > 0 && op->window < length ? (double)op->window : length;

        pairs += window * (length - window / 2);
    }
    return 2 * products * pairs * (double)(op->heads * op->head_dim);
}

static struct row describe(const struct tr_op *op)
{
    struct row r;

    memset(&r, 0, sizeof(r));
    r.kind = op->kind;
    if (op->kind >= TR_OP_MATMUL && op->kind <= TR_OP_MATMUL_DW) {
        r.n = op->matmul.n;
        r.m = op->matmul.m;
        r.k = op->matmul.k;
        r.grains = op->matmul.grains.n;
        r.flops = 2.0 * (double)r.n * (double)r.m * (double)r.k;
    } else if (op->kind == TR_OP_ATTENTION || op->kind == TR_OP_ATTENTION_GRAD) {
        r.n = op->attention.n;
        r.m = op->attention.heads;
        r.k = op->attention.head_dim;
        r.grains = op->attention.docs.n;
        r.flops = attention_flops(&op->attention, op->kind == TR_OP_ATTENTION ? 2 : 5);
    }
    return r;
}

static bool is_same(const struct row *a, const struct row *b)
{
    return a->kind == b->kind && a->n == b->n && a->m == b->m && a->k == b->k &&
           a->grains == b->grains;
}

static int find(struct tr_cuda_times *t, const struct tr_op *op)
{
    struct row r = describe(op);
    int i = 0;

    while (i < t->n_rows && !is_same(&t->rows[i], &r))
        i++;
    if (i == t->n_rows && i == ROWS)
        return ROWS;
    if (i == t->n_rows) {
        t->rows[t->n_rows++] = r;
        t->rows[i].flops = 0;
    }
    t->rows[i].flops += r.flops;
    return i;
}

static double between(struct tr_cuda_times *t, cudaEvent_t a, cudaEvent_t b)
{
    float ms = 0;

    if (cudaEventElapsedTime(&ms, a, b) != cudaSuccess) {
        cudaGetLastError();
        t->failed = 1;
    }
    return (double)ms;
}

static void collect(struct tr_cuda_times *t)
{
    if (t->n && cudaEventSynchronize(t->end[t->n - 1]) != cudaSuccess) {
        cudaGetLastError();
        t->failed = 1;
        t->n = 0;
    }
    for (int i = 0; i < t->n; i++) {
        struct row *r = &t->rows[t->row_of[i]];
        double waited = i ? between(t, t->end[i - 1], t->begin[i]) : 0;

        r->count++;
        r->ms += between(t, t->begin[i], t->end[i]);
        if (waited > LONG) {
            t->waited_long += waited;
            t->n_long++;
        } else {
            r->waited += waited;
        }
    }
    t->n = 0;
}

int tr_cuda_times_open(struct tr_cuda_times **out)
{
    struct tr_cuda_times *t;
    cudaError_t e = cudaSuccess;

    if (!getenv("TAILRACE_CUDA_TIMES"))
        return 0;
    t = (struct tr_cuda_times *)tr_cuda_host->alloc(sizeof(*t));
    if (!t)
        return -ENOMEM;
    *out = t;
    for (int i = 0; i < BATCH && e == cudaSuccess; i++) {
        e = cudaEventCreateWithFlags(&t->begin[i], cudaEventDefault);
        if (e == cudaSuccess)
            e = cudaEventCreateWithFlags(&t->end[i], cudaEventDefault);
    }
    return e == cudaSuccess ? 0 : tr_cuda_error(e, "an event for TAILRACE_CUDA_TIMES");
}

static void record(struct tr_cuda_times *t, cudaEvent_t event, cudaStream_t stream)
{
    if (cudaEventRecord(event, stream) != cudaSuccess) {
        cudaGetLastError();
        t->failed = 1;
    }
}

void tr_cuda_times_begin(struct tr_cuda_times *t, const struct tr_op *op, cudaStream_t stream)
{
    if (!t)
        return;
    if (t->n == BATCH)
        collect(t);
    t->row_of[t->n] = find(t, op);
    record(t, t->begin[t->n], stream);
}

void tr_cuda_times_end(struct tr_cuda_times *t, cudaStream_t stream)
{
    if (t)
        record(t, t->end[t->n++], stream);
}

static int row_text(const struct row *r, int is_rest, char *line, size_t room)
{
    char what[96];

    if (is_rest)
        snprintf(what, sizeof(what), "other shapes");
    else if (r->k)
        snprintf(what, sizeof(what), "%s %lld x %lld x %lld in %d", tr_op_name(r->kind),
                 (long long)r->n, (long long)r->m, (long long)r->k, (int)r->grains);
    else
        snprintf(what, sizeof(what), "%s", tr_op_name(r->kind));
    return snprintf(line, room, "%s | %llu times | %.6f s | %.1f TFLOP/s | waited %.6f s\n", what,
                    (unsigned long long)r->count, r->ms * 1e-3,
                    r->ms > 0 ? r->flops / r->ms * 1e-9 : 0, r->waited * 1e-3);
}

size_t tr_cuda_times_describe(struct tr_cuda_times *t, char *text, size_t room)
{
    size_t length = 0;
    char line[256];

    if (!t)
        return 0;
    collect(t);
    for (int i = 0; i <= ROWS + 1; i++) {
        int n = 0;

        if (i <= ROWS && t->rows[i].count)
            n = row_text(&t->rows[i], i == ROWS, line, sizeof(line));
        else if (i > ROWS)
            n = snprintf(line, sizeof(line), "waits above %d ms | %llu times | %.6f s%s\n", LONG,
                         (unsigned long long)t->n_long, t->waited_long * 1e-3,
                         t->failed ? " (not all: there were errors)" : "");
        if (n > 0 && length < room)
            snprintf(text + length, room - length, "%s", line);
        length += (size_t)n;
    }
    return length;
}

void tr_cuda_times_close(struct tr_cuda_times *t)
{
    if (!t)
        return;
    for (int i = 0; i < BATCH; i++) {
        if (t->begin[i])
            cudaEventDestroy(t->begin[i]);
        if (t->end[i])
            cudaEventDestroy(t->end[i]);
    }
    tr_cuda_host->free(t);
}
