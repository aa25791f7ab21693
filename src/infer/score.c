/* SPDX-License-Identifier: Apache-2.0 */
#include "src/infer/score.h"

#include <string.h>

#include "src/base/err.h"
#include "src/base/mem.h"

/* A batch of whole requests. The last id of each is only predicted. */
struct rows {
    struct tr_batch batch;
    int32_t *storage, *start;
    float *weight;
};

int32_t run_cut_grains(const int32_t *row_start, int32_t rows, int32_t most, int32_t *out)
{
    int32_t n = 0;

    out[0] = 0;
    for (int32_t i = 0; i < rows; i++) {
        if (row_start[i + 1] - out[n] > most)
            out[++n] = row_start[i];
    }
    out[++n] = row_start[rows];
    return n;
}

static int32_t inputs(const struct score_request *q, int32_t most)
{
    return q->n - 1 < most ? q->n - 1 : most;
}

static void rows_free(struct rows *b)
{
    tr_free(TR_MEM_BATCH, b->storage);
    tr_free(TR_MEM_BATCH, b->weight);
}

static int rows_alloc(struct rows *b, int32_t tokens, int32_t n)
{
    memset(b, 0, sizeof(*b));
    b->storage = tr_alloc_array(TR_MEM_BATCH, 3 * (size_t)tokens + 2 * (size_t)n + 2, 4);
    b->weight = tr_alloc_array(TR_MEM_BATCH, (size_t)tokens, sizeof(*b->weight));
    return b->storage && b->weight ? 0 : -ENOMEM;
}

/* One request's tokens from `at` on. */
static void put_row(struct rows *b, const struct score_request *q, int32_t at, int32_t n,
                    int32_t tokens)
{
    int32_t *ids = b->storage, *position = ids + tokens, *targets = position + tokens;

    for (int32_t i = 0; i < n; i++) {
        int32_t k = q->n - 1 - n + i;

        ids[at + i] = q->ids[k];
        position[at + i] = i;
        targets[at + i] = k + 1 >= q->first ? q->ids[k + 1] : -1;
        b->weight[at + i] = k + 1 >= q->first;
        b->batch.weight_sum += (double)b->weight[at + i];
    }
}

/* As many requests as fit; returns how many. */
static int64_t rows_make(struct rows *b, const struct tr_run *run, const struct score_request *q,
                         int64_t n, int32_t most)
{
    int32_t tokens = 0, count = 0, at = 0, *grains, room = run->plan.in.batch_tokens;
    int r;

    while (count < n && inputs(&q[count], most) <= room - tokens)
        tokens += inputs(&q[count++], most);
    if (count == 0)
        return tr_error(-E2BIG, "%d tokens to score: a batch has %d", inputs(q, most), room);
    if ((r = rows_alloc(b, tokens, count)) < 0)
        return r;
    b->start = b->storage + 3 * (int64_t)tokens;
    grains = b->start + count + 1;
    for (int32_t i = 0; i < count; i++) {
        b->start[i] = at;
        put_row(b, &q[i], at, inputs(&q[i], most), tokens);
        at += inputs(&q[i], most);
    }
    b->start[count] = at;
    b->batch.n_tokens = at;
    b->batch.n_rows = b->batch.n_docs = count;
    b->batch.ids = b->storage;
    b->batch.position = b->storage + tokens;
    b->batch.targets = b->storage + 2 * (int64_t)tokens;
    b->batch.weight = b->weight;
    b->batch.row_start = b->batch.doc_start = b->start;
    b->batch.grain_start = grains;
    b->batch.n_grains = run_cut_grains(b->start, count, run->plan.in.grain_tokens, grains);
    return count;
}

static int score_rows(struct tr_run *run, const struct rows *b, struct score_request *q)
{
    int r = tr_pass_batch(&run->pass, &b->batch, 1);

    if (r == 0)
        r = run_forward(run);
    for (int32_t i = 0; i < b->batch.n_rows && r == 0; i++) {
        q[i].sum = 0;
        for (int32_t t = b->start[i]; t < b->start[i + 1]; t++)
            if (b->batch.targets[t] >= 0)
                q[i].sum -= (double)run->step.nll[t];
    }
    return r;
}

int score_requests(struct tr_run *run, struct score_request *requests, int64_t n, int32_t most)
{
    for (int64_t done = 0; done < n;) {
        struct rows b = {0};
        int64_t count = rows_make(&b, run, requests + done, n - done, most);
        int r = count < 0 ? (int)count : score_rows(run, &b, requests + done);

        rows_free(&b);
        if (r < 0)
            return r;
        done += count;
        if (done < n && run_stop_asked(run))
            return -EINTR;
    }
    return 0;
}
