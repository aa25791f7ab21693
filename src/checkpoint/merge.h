/* SPDX-License-Identifier: Apache-2.0
 *
 * A run with adapters as a model without: where a matrix W has one, what is read is
 * W + alpha / rank * B A, made in f32 and rounded once. A row at a time, beside the two matrices of
 * one adapter.
 */
#ifndef TR_SRC_CHECKPOINT_MERGE_H
#define TR_SRC_CHECKPOINT_MERGE_H

#include "src/checkpoint/export.h"
#include "src/checkpoint/keep.h"

struct tr_merge {
    struct tr_export_reader *reader; /* of the store; the caller's */
    const struct tr_model *model;
    const struct tr_tensor *at; /* whose adapter is in a and b */
    float *a, *b, *row, *sum;
    size_t room[4]; /* floats of each */
};

void tr_merge_open(struct tr_merge *m, const struct tr_kept *k, struct tr_export_reader *reader);
void tr_merge_close(struct tr_merge *m);
/* A tr_fill_fn: arg is a struct tr_merge. */
int tr_merge_fill(void *arg, const struct tr_tensor *t, uint64_t from, size_t n, enum tr_dtype type,
                  void *buf);

#endif
