/* SPDX-License-Identifier: Apache-2.0
 *
 * The data set in memory, shared by data*.c and preview.c: four bytes a token and a few a sample. A
 * token's sign bit says that it is never a target (the first of a document, a prompt, a label
 * -100); so the target of token i is token i + 1, if that is not masked.
 */
#ifndef TR_SRC_TEXT_DATA_SET_H
#define TR_SRC_TEXT_DATA_SET_H

#include <jansson.h>

#include "src/text/chat.h"
#include "src/text/data.h"
#include "src/text/rows.h"

#define DATA_MASKED INT32_MIN

struct tr_data {
    struct tr_data_params p;
    char *path;
    int pack;
    struct tr_ids tokens; /* ids, DATA_MASKED set where a token is no target */
    uint64_t *start;      /* (n_samples + 1) first token of each sample */
    uint32_t *length;     /* (n_samples) its tokens, 0 where it is kept out of the rows */
    size_t n_samples, room;
    uint64_t pushed; /* tokens so far, with those of samples that were cut */
    float *scale;    /* (n_scaled) weights of tokens; those behind have 1. NULL: all have */
    size_t n_scaled, scale_room;
    struct chat chat;
    struct tr_data_info info;

    struct rows rows; /* of `epoch`, -1 where there are none yet */
    int64_t epoch;
    int64_t steps; /* of every epoch */
    int32_t row_tokens; /* of the longest row */
    int32_t *ids, *targets, *position, *row_start, *doc_start, *grain_start;
    float *weight;
};

static inline int data_is_target(const struct tr_data *d, uint64_t i)
{
    return i < d->tokens.n && d->tokens.v[i] >= 0;
}

static inline float data_weight(const struct tr_data *d, uint64_t i)
{
    return i < d->n_scaled ? d->scale[i] : 1.0f;
}

/* data_read.c: the file's tokens and samples. */
int data_read(struct tr_data *d);
/* One record (an object); `where` names it in messages. The first one decides the format. */
int data_read_record(struct tr_data *d, const char *where, json_t *o);
/* data_add.c: tokens and samples; sample_end cuts, counts, and masks the first token. Whatever
 * grows with the file asks data_may_grow first: a file may be larger than memory, or have no end.
 */
int data_may_grow(const struct tr_data *d, uint64_t bytes);
int data_push(struct tr_data *d, const char *where, int32_t id, int masked);
int data_push_text(struct tr_data *d, const char *where, const struct tr_ids *ids, int masked);
/* Tokens from `from` to the last one count so much in the loss. */
int data_weigh(struct tr_data *d, uint64_t from, float weight);
int data_sample_end(struct tr_data *d);
int data_cut_windows(struct tr_data *d);
/* data_chat.c */
int data_chat_open(struct tr_data *d);
int data_read_talk(struct tr_data *d, const char *where, json_t *o);
/* Leaves as many samples as were asked for, drawn by seed; the others get no row. */
void data_draw(struct tr_data *d);
/* data_batch.c */
int data_batch_init(struct tr_data *d);

#endif
