/* SPDX-License-Identifier: Apache-2.0
 *
 * A data set's life: read once, asked for batches, closed. Reading is data_read.c's, samples are
 * data_add.c's, rows rows.c's, batches data_batch.c's. Not thread-safe.
 */
#include "src/text/data_set.h"

#include <string.h>

#include "src/base/err.h"
#include "src/base/hash.h"
#include "src/base/mem.h"
#include "src/text/data_file.h"

void tr_data_close(struct tr_data *d)
{
    if (!d)
        return;
    tr_free(TR_MEM_BATCH, d->ids);
    tr_free(TR_MEM_BATCH, d->targets);
    tr_free(TR_MEM_BATCH, d->position);
    tr_free(TR_MEM_BATCH, d->weight);
    tr_free(TR_MEM_BATCH, d->doc_start);
    tr_free(TR_MEM_BATCH, d->row_start);
    tr_free(TR_MEM_BATCH, d->grain_start);
    rows_free(&d->rows);
    tr_ids_free(&d->tokens);
    tr_free(TR_MEM_TEXT, d->scale);
    chat_close(&d->chat);
    tr_free(TR_MEM_TEXT, d->start);
    tr_free(TR_MEM_TEXT, d->length);
    tr_free(TR_MEM_TEXT, d->path);
    tr_free(TR_MEM_TEXT, d);
}

static int check(const struct tr_data_params *p)
{
    if (p->seq_len < 1 || p->batch_size < 1 || p->grain_tokens < 1 || p->vocab < 1)
        return tr_error(-EINVAL,
                        "%s: sequence length %d, batch size %d, grain %d and vocabulary %d must "
                        "be at least 1",
                        p->path, p->seq_len, p->batch_size, p->grain_tokens, p->vocab);
    return 0;
}

/* Gives back what doubling has left over. Failing to shrink is no failure. */
static void trim(struct tr_data *d)
{
    int32_t *v = tr_realloc(TR_MEM_TEXT, d->tokens.v, d->tokens.n * sizeof(*v));
    uint64_t *start = tr_realloc(TR_MEM_TEXT, d->start, (d->n_samples + 1) * sizeof(*start));
    uint32_t *length = tr_realloc(TR_MEM_TEXT, d->length, d->n_samples * sizeof(*length));

    d->tokens.v = v ? v : d->tokens.v;
    d->tokens.room = d->tokens.n;
    d->start = start ? start : d->start;
    d->length = length ? length : d->length;
    d->room = d->n_samples;
}

/* The first epoch's rows are made at once: their number, the same in every epoch, sizes the
 * batches. */
int tr_data_open(struct tr_data **out, const struct tr_data_params *p)
{
    struct tr_data *d;
    int r = check(p);

    if (r < 0)
        return r;
    d = tr_alloc(TR_MEM_TEXT, sizeof(*d));
    if (!d)
        return -ENOMEM;
    d->p = *p;
    d->epoch = -1;
    r = data_file_find(p->path, p->held_out, &d->path);
    d->p.path = d->path;
    if (r == 0)
        r = data_read(d);
    d->pack = p->packing && (d->info.format != TR_DATA_IDS || p->packing_asked);
    if (r == 0) {
        trim(d);
        r = data_batch_init(d);
    }
    if (r < 0) {
        tr_data_close(d);
        return r;
    }
    *out = d;
    return 0;
}

void tr_data_info(const struct tr_data *d, struct tr_data_info *info)
{
    *info = d->info;
}

uint64_t tr_data_hash(const struct tr_data *d)
{
    const uint64_t parts[] = {
        XXH3_64bits(d->tokens.v, d->tokens.n * sizeof(*d->tokens.v)),
        XXH3_64bits(d->start, (d->n_samples + 1) * sizeof(*d->start)),
        XXH3_64bits(d->length, d->n_samples * sizeof(*d->length)),
        d->n_scaled ? XXH3_64bits(d->scale, d->n_scaled * sizeof(*d->scale)) : 0,
    };

    return XXH3_64bits(parts, sizeof(parts));
}

const char *tr_data_format_name(enum tr_data_format format)
{
    static const char *const names[] = {
        [TR_DATA_TEXT] = "text",
        [TR_DATA_JSONL_TEXT] = "JSONL with \"text\"",
        [TR_DATA_PROMPT] = "JSONL with \"prompt\" and \"completion\"",
        [TR_DATA_QUESTION] = "JSONL with \"question\" and \"answer\"",
        [TR_DATA_IDS] = "JSONL with \"input_ids\"",
        [TR_DATA_MESSAGES] = "conversations, \"messages\"",
        [TR_DATA_CONVERSATIONS] = "conversations, \"conversations\"",
        [TR_DATA_ALPACA] = "instructions, \"instruction\" and \"output\"",
    };

    return names[format];
}

int tr_data_has_held_out(const char *folder)
{
    char *path = NULL;
    int r = data_file_find(folder, 1, &path), is = r == 0 && strcmp(path, folder) != 0;

    tr_free(TR_MEM_TEXT, path);
    return is;
}
