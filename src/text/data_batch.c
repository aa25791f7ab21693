/* SPDX-License-Identifier: Apache-2.0
 *
 * Rows become batches. The arrays are made once, at their largest, so that memory does not move
 * while training; the rows of one epoch are kept, another epoch's are made when it is asked for.
 */
#include "src/text/data_set.h"

#include <string.h>

#include "src/base/err.h"
#include "src/base/mem.h"

static int use_epoch(struct tr_data *d, int64_t epoch)
{
    struct rows_params p = {
        .length = d->length,
        .n = d->n_samples,
        .row_tokens = (uint32_t)d->p.seq_len,
        .pack = d->pack,
        .shuffle = d->p.shuffle,
        .seed = d->p.seed,
        .epoch = epoch,
    };
    int r;

    if (epoch == d->epoch)
        return 0;
    rows_free(&d->rows);
    d->epoch = -1;
    r = rows_make(&d->rows, &p);
    if (r == 0)
        d->epoch = epoch;
    return r;
}

/* From the shapes alone, so that memory can be planned before any batch is made. */
static int32_t longest_row(const struct tr_data *d)
{
    uint32_t most = 0;

    if (d->pack)
        return d->info.tokens < (uint64_t)d->p.seq_len ? (int32_t)d->info.tokens : d->p.seq_len;
    for (size_t i = 0; i < d->n_samples; i++)
        most = d->length[i] > most ? d->length[i] : most;
    return (int32_t)most;
}

/* A file of fewer rows than a batch holds makes one short batch; memory is planned for that. */
static int32_t batch_rows(const struct tr_data *d)
{
    return d->rows.n_rows < (size_t)d->p.batch_size ? (int32_t)d->rows.n_rows : d->p.batch_size;
}

/* Half of INT32_MAX: offsets in a batch are 32-bit, and so are sums of two of them. */
int data_batch_init(struct tr_data *d)
{
    size_t tokens, rows;
    int r = use_epoch(d, 0);

    if (r < 0)
        return r;
    d->steps = ((int64_t)d->rows.n_rows + d->p.batch_size - 1) / d->p.batch_size;
    d->row_tokens = longest_row(d);
    rows = (size_t)batch_rows(d);
    tokens = rows * (size_t)d->row_tokens;
    if (tokens > INT32_MAX / 2)
        return tr_error(-EFBIG, "a batch of %zu rows of %d tokens is too large", rows,
                        d->row_tokens);
    d->ids = tr_alloc_array(TR_MEM_BATCH, tokens, sizeof(*d->ids));
    d->targets = tr_alloc_array(TR_MEM_BATCH, tokens, sizeof(*d->targets));
    d->position = tr_alloc_array(TR_MEM_BATCH, tokens, sizeof(*d->position));
    d->weight = tr_alloc_array(TR_MEM_BATCH, tokens, sizeof(*d->weight));
    d->doc_start = tr_alloc_array(TR_MEM_BATCH, tokens + 1, sizeof(*d->doc_start));
    d->row_start = tr_alloc_array(TR_MEM_BATCH, rows + 1, sizeof(*d->row_start));
    d->grain_start = tr_alloc_array(TR_MEM_BATCH, rows + 1, sizeof(*d->grain_start));
    return d->ids && d->targets && d->position && d->weight && d->doc_start && d->row_start &&
                   d->grain_start
               ? 0
               : -ENOMEM;
}

int32_t tr_data_batch_tokens(const struct tr_data *d)
{
    return batch_rows(d) * d->row_tokens;
}

/* A grain is full as soon as it reaches grain_tokens: it was one short, and the longest row came.
 */
int32_t tr_data_grain_tokens(const struct tr_data *d)
{
    int64_t most = (int64_t)d->p.grain_tokens - 1 + d->row_tokens, all = tr_data_batch_tokens(d);

    return (int32_t)(most < all ? most : all);
}

int64_t tr_data_steps(const struct tr_data *d)
{
    return d->steps;
}

/* The last token of a window has a target in the next window; of a sample, never: what follows it
 * is the masked first token of another. */
static void add_document(struct tr_data *d, struct tr_batch *b, uint32_t sample)
{
    uint64_t from = d->start[sample];
    int32_t at = b->n_tokens;

    for (uint32_t i = 0; i < d->length[sample]; i++, at++) {
        int target = data_is_target(d, from + i + 1);

        d->ids[at] = d->tokens.v[from + i] & ~DATA_MASKED;
        d->targets[at] = target ? d->tokens.v[from + i + 1] : -1;
        d->weight[at] = target ? data_weight(d, from + i + 1) : 0;
        d->position[at] = (int32_t)i;
        b->weight_sum += d->weight[at];
    }
    b->n_tokens = at;
    d->doc_start[++b->n_docs] = at;
}

static void add_row(struct tr_data *d, struct tr_batch *b, size_t row)
{
    for (uint32_t k = d->rows.start[row]; k < d->rows.start[row + 1]; k++)
        add_document(d, b, d->rows.sample[k]);
    d->row_start[++b->n_rows] = b->n_tokens;
    if (b->n_tokens - d->grain_start[b->n_grains] >= d->p.grain_tokens)
        d->grain_start[++b->n_grains] = b->n_tokens;
}

/* Rows behind one another; the grain is closed by the row that fills it, or by the end. */
int tr_data_batch(struct tr_data *d, int64_t epoch, int64_t step, struct tr_batch *out)
{
    struct tr_batch b = {0};
    int r;

    if (epoch < 0 || step < 0 || step >= d->steps)
        return tr_error(-EINVAL, "%s: there is no step %lld in epoch %lld", d->path,
                        (long long)step, (long long)epoch);
    if ((r = use_epoch(d, epoch)) < 0)
        return r;
    d->row_start[0] = d->doc_start[0] = d->grain_start[0] = 0;
    for (int64_t row = step * d->p.batch_size;
         row < (step + 1) * d->p.batch_size && row < (int64_t)d->rows.n_rows; row++)
        add_row(d, &b, (size_t)row);
    if (d->grain_start[b.n_grains] < b.n_tokens)
        d->grain_start[++b.n_grains] = b.n_tokens;
    b.ids = d->ids;
    b.targets = d->targets;
    b.weight = d->weight;
    b.position = d->position;
    b.row_start = d->row_start;
    b.doc_start = d->doc_start;
    b.grain_start = d->grain_start;
    *out = b;
    return 0;
}
