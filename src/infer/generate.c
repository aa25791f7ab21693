/* SPDX-License-Identifier: Apache-2.0
 *
 * Continuation of several sequences together: every new token is one pass over the layers for all
 * of them, each sequence a document of its own, so that a model that is read from disk for each
 * pass serves them all. Where the plan has room for keys and values a pass computes the new tokens
 * alone; else it computes the sequences again, whole.
 */
#include "src/infer/infer.h"

#include <string.h>

#include "src/base/err.h"
#include "src/base/mem.h"
#include "src/infer/score.h"

/* Tokens of a pass, and what the cache is told of them: (n_tokens) each. */
struct sequence_batch {
    struct tr_batch batch;
    int32_t *storage;
    float *weight;
    int32_t *last; /* (sequences) the last token of each */
    struct tr_pass_cache cache;
};

struct work {
    struct infer *f;
    const struct infer_generation *how;
    struct tr_ids *s; /* all sequences */
    int32_t *which;   /* those of the group at hand that go on */
    int32_t *base;    /* (sequences) where each begins in the cache */
    int32_t active;
    float *logits; /* (logit_rows, vocab) */
    struct sample_entry *sorted;
};

static void batch_free(struct sequence_batch *b)
{
    tr_free(TR_MEM_BATCH, b->storage);
    tr_free(TR_MEM_BATCH, b->weight);
    memset(b, 0, sizeof(*b));
}

static size_t first_token(const struct tr_ids *s, enum tr_pass_cache_use use)
{
    return use == TR_CACHE_GROW ? s->n - 1 : 0;
}

static int batch_make(struct sequence_batch *b, const struct work *w, enum tr_pass_cache_use use)
{
    size_t tokens = 0;
    int32_t *ids, *position, *targets, *first, *row, *rows, *grains, at = 0, n = w->active;

    memset(b, 0, sizeof(*b));
    for (int32_t i = 0; i < n; i++)
        tokens += w->s[w->which[i]].n - first_token(&w->s[w->which[i]], use);
    b->storage = tr_alloc_array(TR_MEM_BATCH, 5 * tokens + 3 * (size_t)n + 2, sizeof(int32_t));
    b->weight = tr_alloc_array(TR_MEM_BATCH, tokens, sizeof(float));
    if (!b->storage || !b->weight)
        return -ENOMEM;
    ids = b->storage;
    position = ids + tokens;
    targets = position + tokens;
    first = targets + tokens;
    row = first + tokens;
    rows = row + tokens;
    grains = rows + n + 1;
    b->last = grains + n + 1;
    for (int32_t i = 0; i < n; i++) {
        const struct tr_ids *q = &w->s[w->which[i]];

        rows[i] = at;
        for (size_t k = first_token(q, use); k < q->n; k++, at++) {
            ids[at] = q->v[k];
            position[at] = (int32_t)k;
            targets[at] = -1;
            first[at] = w->base[w->which[i]];
            row[at] = first[at] + (int32_t)k;
        }
        b->last[i] = at - 1;
    }
    rows[n] = at;
    b->cache = (struct tr_pass_cache){use, first, row};
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
    b->batch.n_grains = run_cut_grains(rows, n, w->f->run.plan.in.grain_tokens, grains);
    return 0;
}

int infer_stops(const struct infer *f, int32_t id)
{
    for (int i = 0; i < f->n_stops; i++)
        if (f->stops[i] == id)
            return 1;
    return 0;
}

/* The token that follows, pushed; 1 where the sequence goes on, 0 where it has come to its end. */
static int extend(const struct work *w, int32_t sequence, const float *logits)
{
    struct tr_ids *s = &w->s[sequence];
    struct sample_params p = w->how->sample;
    int32_t id;
    int r;

    p.sequence = (uint64_t)sequence;
    p.position = s->n;
    id = sample_token(&p, logits, w->f->run.model->config.vocab, w->sorted);
    if (id < 0)
        return tr_error(-EDOM,
                        "prompt %d: no logit of token %zu is a number: a parameter is not finite, "
                        "or an activation overflows %s",
                        sequence + 1, s->n, tr_dtype_name(w->f->run.model->dtype));
    if (infer_stops(w->f, id))
        return 0;
    if ((r = tr_ids_push(s, id)) < 0)
        return r;
    if (w->how->token && (r = w->how->token(w->how->arg, sequence, s)) < 0)
        return r;
    return (int64_t)s->n < w->f->run.plan.in.positions;
}

/* One more token for each of the active sequences; those that end are taken out of the list. */
static int step(struct work *w, int first)
{
    struct tr_run *run = &w->f->run;
    enum tr_pass_cache_use use = !run->plan.in.cache_tokens ? TR_CACHE_NONE
                                 : first                    ? TR_CACHE_FILL
                                                            : TR_CACHE_GROW;
    struct sequence_batch b;
    int32_t kept = 0;
    int r = batch_make(&b, w, use);

    run->pass.cache = b.cache;
    if (r == 0)
        r = infer_logits(run, &b.batch, b.last, w->active, w->logits);
    run->pass.cache = (struct tr_pass_cache){.use = TR_CACHE_NONE};
    for (int32_t i = 0; i < w->active && r >= 0; i++) {
        r = extend(w, w->which[i], w->logits + (int64_t)i * run->model->config.vocab);
        if (r > 0)
            w->which[kept++] = w->which[i];
    }
    w->active = kept;
    batch_free(&b);
    return r < 0 ? r : 0;
}

/* What a sequence may grow to: by `more`, and never past the positions there are. */
static int64_t longest(const struct infer_shape *shape, const struct tr_ids *s, int64_t more)
{
    int64_t left = shape->positions - (int64_t)s->n;

    return (int64_t)s->n + (more < left ? more : left);
}

/* How many sequences from `first` on fit into one pass with max_tokens more each. */
static int32_t group_size(const struct work *w, int32_t first, int32_t n)
{
    const struct tr_plan_params *in = &w->f->run.plan.in;
    struct infer_shape shape = {.positions = in->positions};
    int64_t room = in->cache_tokens ? in->cache_tokens : in->batch_tokens;
    int64_t tokens = in->batch_tokens, at = 0;
    int32_t i = 0;

    while (i < n && i < in->logit_rows) {
        const struct tr_ids *s = &w->s[first + i];
        int64_t most = longest(&shape, s, w->how->max_tokens);

        if ((room -= most) < 0 || (tokens -= (int64_t)s->n) < 0)
            break;
        w->base[first + i++] = (int32_t)at;
        at += most;
    }
    return i;
}

void infer_shape_of(struct infer_shape *shape, const struct tr_ids *s, int32_t n, int32_t group,
                    int64_t max_tokens)
{
    int cached = shape->cache_tokens > 0;

    shape->batch_tokens = shape->logit_rows = group < n ? group : n;
    shape->cache_tokens = cached;
    for (int32_t first = 0; first < n; first += group) {
        int64_t now = 0, then = 0;

        for (int32_t i = first; i < n && i < first + group; i++) {
            now += (int64_t)s[i].n;
            then += longest(shape, &s[i], max_tokens);
        }
        now = cached ? now : then;
        shape->batch_tokens = now > shape->batch_tokens ? now : shape->batch_tokens;
        if (cached && then > shape->cache_tokens)
            shape->cache_tokens = then;
    }
}

static int check_ids(const struct tr_ids *s, int32_t vocab, int32_t prompt, int32_t n)
{
    for (size_t k = 0; k < s->n; k++)
        if (s->v[k] < 0 || s->v[k] >= vocab)
            return tr_error(-ERANGE,
                            "prompt %d of %d: token %d is past the model's vocabulary of %d",
                            prompt, n, s->v[k], vocab);
    return 0;
}

/* Each needs a token to go on from, and a position for the next. */
int infer_check_prompts(const struct tr_ids *s, int32_t n, int64_t positions, int32_t vocab)
{
    for (int32_t i = 0; i < n; i++) {
        int r = check_ids(&s[i], vocab, i + 1, n);

        if (r < 0)
            return r;
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

static int generate_all(struct work *w, int32_t n)
{
    int r =
        infer_check_prompts(w->s, n, w->f->run.plan.in.positions, w->f->run.model->config.vocab);

    for (int32_t first = 0; first < n && r == 0;) {
        int32_t group = w->active = group_size(w, first, n - first);

        if (group == 0)
            return tr_error(-E2BIG, "prompt %d of %d: grows past the %d tokens of a batch",
                            first + 1, n, w->f->run.plan.in.batch_tokens);
        for (int32_t i = 0; i < group; i++)
            w->which[i] = first + i;
        for (int64_t t = 0; t < w->how->max_tokens && w->active && r == 0; t++)
            r = step(w, t == 0);
        first += group;
    }
    return r;
}

int infer_generate(struct infer *f, struct tr_ids *sequences, int32_t n,
                   const struct infer_generation *how)
{
    size_t vocab = (size_t)f->run.model->config.vocab, rows = (size_t)f->run.plan.in.logit_rows;
    struct work w = {.f = f, .how = how, .s = sequences};
    int r;

    w.logits = tr_alloc_array(TR_MEM_BATCH, rows, vocab * sizeof(float));
    w.sorted = tr_alloc_array(TR_MEM_BATCH, vocab, sizeof(*w.sorted));
    w.which = tr_alloc_array(TR_MEM_BATCH, (size_t)n, sizeof(*w.which));
    w.base = tr_alloc_array(TR_MEM_BATCH, (size_t)n, sizeof(*w.base));
    r = w.logits && w.sorted && w.which && w.base ? generate_all(&w, n) : -ENOMEM;
    tr_free(TR_MEM_BATCH, w.base);
    tr_free(TR_MEM_BATCH, w.which);
    tr_free(TR_MEM_BATCH, w.sorted);
    tr_free(TR_MEM_BATCH, w.logits);
    return r;
}

int infer_greedy(struct infer *f, struct tr_ids *sequences, int32_t n, int64_t max_tokens)
{
    return infer_generate(f, sequences, n, &(struct infer_generation){.max_tokens = max_tokens});
}
