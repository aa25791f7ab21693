/* SPDX-License-Identifier: Apache-2.0
 *
 * Tokens become samples: checked against the vocabulary, cut to seq_len, counted. Knows no files.
 */
#include "src/text/data_set.h"

#include "src/base/err.h"
#include "src/base/mem.h"
#include "src/base/philox.h"

#define ASK_TOKENS (1u << 16) /* between two questions: less than a second */

int data_may_grow(const struct tr_data *d, uint64_t bytes)
{
    uint64_t now = tr_mem_host_peak();

    if (!d->p.host_bytes || now + bytes <= d->p.host_bytes)
        return 0;
    return tr_error(-ENOMEM,
                    "%s: takes more than the budget of %llu bytes of host memory (after %zu "
                    "tokens); use a part of it, or raise train's --host-memory",
                    d->path, (unsigned long long)d->p.host_bytes, d->tokens.n);
}

static int is_stopped(struct tr_data *d)
{
    return ++d->pushed % ASK_TOKENS == 0 && d->p.stop && d->p.stop(d->p.stop_arg);
}

int data_push(struct tr_data *d, const char *where, int32_t id, int masked)
{
    const char *piece = d->p.tokenizer ? tr_tokenizer_piece(d->p.tokenizer, id) : NULL;

    if (id < 0 || id >= d->p.vocab)
        return tr_error(-ERANGE, "%s: token %d%s%.64s is past the model's vocabulary of %d", where,
                        id, piece ? ", " : "", piece ? piece : "", d->p.vocab);
    if (is_stopped(d))
        return tr_error(-EINTR, "%s: reading it was interrupted", d->path);
    if (d->tokens.n == d->tokens.room && data_may_grow(d, d->tokens.room * 2) < 0)
        return -ENOMEM;
    return tr_ids_push(&d->tokens, masked ? id | DATA_MASKED : id);
}

int data_push_text(struct tr_data *d, const char *where, const struct tr_ids *ids, int masked)
{
    int r = 0;

    for (size_t i = 0; r == 0 && i < ids->n; i++)
        r = data_push(d, where, ids->v[i], masked);
    return r;
}

static int grow_scale(struct tr_data *d)
{
    float *v;

    if (d->scale_room >= d->tokens.n)
        return 0;
    if (data_may_grow(d, d->tokens.room * sizeof(*v)) < 0)
        return -ENOMEM;
    v = tr_realloc(TR_MEM_TEXT, d->scale, d->tokens.room * sizeof(*v));
    if (!v)
        return -ENOMEM;
    d->scale = v;
    d->scale_room = d->tokens.room;
    return 0;
}

/* Nothing is kept as long as all weights are 1. */
int data_weigh(struct tr_data *d, uint64_t from, float weight)
{
    if (weight == 1 && !d->scale)
        return 0;
    if (grow_scale(d) < 0)
        return -ENOMEM;
    for (uint64_t i = d->n_scaled; i < from; i++)
        d->scale[i] = 1;
    for (uint64_t i = from; i < d->tokens.n; i++)
        d->scale[i] = weight;
    d->n_scaled = d->tokens.n;
    return 0;
}

/* start has one entry more than there are samples: where the next one begins. */
static int grow(struct tr_data *d)
{
    size_t room = d->room ? d->room * 2 : 1024;
    uint64_t *start;
    uint32_t *length;

    if (data_may_grow(d, d->room * (sizeof(*start) + sizeof(*length))) < 0)
        return -ENOMEM;
    start = tr_realloc(TR_MEM_TEXT, d->start, (room + 1) * sizeof(*start));
    if (!start)
        return -ENOMEM;
    if (!d->start)
        start[0] = 0;
    d->start = start;
    length = tr_realloc(TR_MEM_TEXT, d->length, room * sizeof(*length));
    if (!length)
        return -ENOMEM;
    d->length = length;
    d->room = room;
    return 0;
}

/* Tokens from..to are a sample. Its targets are counted where they are predicted from. */
static int add_sample(struct tr_data *d, uint64_t from, uint64_t to)
{
    uint64_t targets = 0;

    if (d->n_samples == d->room && grow(d) < 0)
        return -ENOMEM;
    if (d->n_samples >= INT32_MAX)
        return tr_error(-EFBIG, "%s: more than %d samples", d->path, INT32_MAX);
    for (uint64_t i = from; i < to; i++)
        targets += (uint64_t)data_is_target(d, i + 1);
    d->start[d->n_samples + 1] = to;
    d->length[d->n_samples] = targets ? (uint32_t)(to - from) : 0;
    d->n_samples++;
    d->info.samples++;
    d->info.without_target += targets == 0;
    d->info.tokens += targets ? to - from : 0;
    d->info.targets += targets;
    return 0;
}

/* The cut is made before the first token is masked and the targets are counted, so that a
 * completion that was cut off altogether makes a sample without targets. */
int data_sample_end(struct tr_data *d)
{
    uint64_t from = d->n_samples ? d->start[d->n_samples] : 0, n = d->tokens.n - from;

    if (n > (uint64_t)d->p.seq_len) {
        d->info.truncated++;
        d->info.dropped_tokens += n - (uint64_t)d->p.seq_len;
        d->tokens.n = from + (uint64_t)d->p.seq_len;
        d->n_scaled = d->n_scaled < d->tokens.n ? d->n_scaled : d->tokens.n;
    }
    if (n)
        d->tokens.v[from] |= DATA_MASKED;
    return add_sample(d, from, d->tokens.n);
}

static void leave_out(struct tr_data *d, size_t sample)
{
    for (uint64_t i = d->start[sample]; i < d->start[sample + 1] && d->length[sample]; i++)
        d->info.targets -= (uint64_t)data_is_target(d, i + 1);
    d->info.tokens -= d->length[sample];
    d->info.samples--;
    d->length[sample] = 0;
}

/* Every set of that many samples is equally likely. */
void data_draw(struct tr_data *d)
{
    uint64_t want = (uint64_t)d->p.samples;

    for (size_t i = 0; d->p.samples > 0 && i < d->n_samples; i++) {
        if (tr_philox_below(i, d->p.seed, d->n_samples - i) < want)
            want--;
        else
            leave_out(d, i);
    }
}

/* Windows share the mask of the one document: only its very first token is no target. */
int data_cut_windows(struct tr_data *d)
{
    uint64_t n = d->tokens.n, step = (uint64_t)d->p.seq_len;
    int r = 0;

    if (n)
        d->tokens.v[0] |= DATA_MASKED;
    for (uint64_t at = 0; r == 0 && at < n; at += step)
        r = add_sample(d, at, at + step < n ? at + step : n);
    return r;
}
