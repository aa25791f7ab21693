/* SPDX-License-Identifier: Apache-2.0
 *
 * Plain greedy continuation of several sequences together: every new token is one pass over the
 * layers for all of them, each sequence a document of its own. No key/value cache: what is read
 * from the store, not the arithmetic, is what such a pass costs beyond memory.
 */
#include "src/infer.h"

#include <string.h>

#include "src/base/err.h"
#include "src/base/mem.h"

/* A batch made of whole sequences, and the index of each one's last token. */
struct sequence_batch {
    struct tr_batch batch;
    int32_t *storage;
    float *weight;
    int32_t *last;
};

static void batch_free(struct sequence_batch *b)
{
    tr_free(TR_MEM_BATCH, b->storage);
    tr_free(TR_MEM_BATCH, b->weight);
    memset(b, 0, sizeof(*b));
}

/* Cuts rows into grains as the training data does: the fewest that reach grain_tokens. */
static int32_t cut_grains(const int32_t *row_start, int32_t rows, int32_t grain, int32_t *out)
{
    int32_t n = 0;

    out[0] = 0;
    for (int32_t i = 1; i <= rows; i++)
        if (row_start[i] - out[n] >= grain || i == rows)
            out[++n] = row_start[i];
    return n;
}

static int batch_make(struct sequence_batch *b, const struct tr_ids *s, const int32_t *which,
                      int32_t n, int32_t grain)
{
    size_t tokens = 0;
    int32_t *ids, *position, *targets, *rows, *grains, at = 0;

    memset(b, 0, sizeof(*b));
    for (int32_t i = 0; i < n; i++)
        tokens += s[which[i]].n;
    b->storage = tr_alloc_array(TR_MEM_BATCH, 3 * tokens + 3 * (size_t)n + 2, sizeof(int32_t));
    b->weight = tr_alloc_array(TR_MEM_BATCH, tokens, sizeof(float));
    if (!b->storage || !b->weight)
        return -ENOMEM;
    ids = b->storage;
    position = ids + tokens;
    targets = position + tokens;
    rows = targets + tokens;
    grains = rows + n + 1;
    b->last = grains + n + 1;
    for (int32_t i = 0; i < n; i++) {
        const struct tr_ids *q = &s[which[i]];

        rows[i] = at;
        for (size_t k = 0; k < q->n; k++, at++) {
            ids[at] = q->v[k];
            position[at] = (int32_t)k;
            targets[at] = -1;
        }
        b->last[i] = at - 1;
    }
    rows[n] = at;
    b->batch = (struct tr_batch){.n_tokens = at,
                                 .n_rows = n,
                                 .n_docs = n,
                                 .ids = ids,
                                 .targets = targets,
                                 .weight = b->weight,
                                 .position = position,
                                 .row_start = rows,
                                 .doc_start = rows,
                                 .grain_start = grains};
    b->batch.n_grains = cut_grains(rows, n, grain, grains);
    return 0;
}

static int32_t argmax(const float *x, int32_t n)
{
    int32_t best = 0;

    for (int32_t i = 1; i < n; i++)
        if (x[i] > x[best])
            best = i;
    return best;
}

/* One more token for each of the sequences `which`; those that end are taken out of the list. */
static int step(struct infer *f, struct tr_ids *s, int32_t *which, int32_t *n, float *logits)
{
    int32_t vocab = f->run.model->config.vocab, kept = 0;
    int32_t eos = f->run.tokenizer ? tr_tokenizer_eos(f->run.tokenizer) : -1;
    struct sequence_batch b;
    int r = batch_make(&b, s, which, *n, f->run.device_info.grain_tokens);

    if (r == 0)
        r = infer_logits(&f->run, &b.batch, b.last, *n, logits);
    for (int32_t i = 0; i < *n && r == 0; i++) {
        int32_t id = argmax(logits + (int64_t)i * vocab, vocab);

        if (id == eos)
            continue;
        r = tr_ids_push(&s[which[i]], id);
        if ((int64_t)s[which[i]].n < f->run.plan.in.positions)
            which[kept++] = which[i];
    }
    *n = kept;
    batch_free(&b);
    return r;
}

/* What a sequence may grow to: by `more`, and never past the positions there are. */
static int64_t longest(const struct infer *f, const struct tr_ids *s, int64_t more)
{
    int64_t left = f->run.plan.in.positions - (int64_t)s->n;

    return (int64_t)s->n + (more < left ? more : left);
}

/* How many sequences from `first` on fit into one pass with max_tokens more each. */
static int32_t group_size(const struct infer *f, const struct tr_ids *s, int32_t n, int64_t more)
{
    int64_t room = f->run.plan.in.batch_tokens, rows = f->run.plan.in.logit_rows;
    int32_t i = 0;

    while (i < n && i < rows && (room -= longest(f, &s[i], more)) >= 0)
        i++;
    return i;
}

/* Each needs a token to go on from, and a position for the next. */
static int check_prompts(const struct infer *f, const struct tr_ids *s, int32_t n)
{
    int64_t positions = f->run.plan.in.positions;

    for (int32_t i = 0; i < n; i++) {
        if (s[i].n == 0)
            return tr_error(-EINVAL,
                            "prompt %d of %d: is empty, and the tokenizer puts nothing in front",
                            i + 1, n);
        if ((int64_t)s[i].n >= positions)
            return tr_error(-E2BIG,
                            "prompt %d of %d: %zu tokens, which leaves no room in %lld positions",
                            i + 1, n, s[i].n, (long long)positions);
    }
    return 0;
}

int infer_greedy(struct infer *f, struct tr_ids *sequences, int32_t n, int64_t max_tokens)
{
    int32_t vocab = f->run.model->config.vocab, most = (int32_t)f->run.plan.in.logit_rows;
    float *logits = tr_alloc_array(TR_MEM_BATCH, (size_t)most, (size_t)vocab * sizeof(float));
    int32_t *which = tr_alloc_array(TR_MEM_BATCH, (size_t)n, sizeof(*which));
    int r = logits && which ? check_prompts(f, sequences, n) : -ENOMEM;

    for (int32_t first = 0; first < n && r == 0;) {
        int32_t group = group_size(f, sequences + first, n - first, max_tokens), active = group;

        if (group == 0) {
            r = tr_error(-E2BIG, "prompt %d of %d: grows past the %d tokens of a batch", first + 1,
                         n, f->run.plan.in.batch_tokens);
            break;
        }
        for (int32_t i = 0; i < group; i++)
            which[i] = first + i;
        for (int64_t t = 0; t < max_tokens && active && r == 0; t++)
            r = step(f, sequences, which, &active, logits);
        first += group;
    }
    tr_free(TR_MEM_BATCH, which);
    tr_free(TR_MEM_BATCH, logits);
    return r;
}
