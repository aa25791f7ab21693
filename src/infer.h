/* SPDX-License-Identifier: Apache-2.0
 *
 * A model opened for forward passes alone: evaluation and generation, streamed layer by layer with
 * the trainer's own visits, so that a model beyond memory is served too. A run's store is read in
 * place (shared lock); a model folder is imported into a temporary store first.
 */
#ifndef TR_SRC_INFER_H
#define TR_SRC_INFER_H

#include "src/run.h"

struct infer_params {
    const char *model;     /* HF folder or run */
    const char *tokenizer; /* folder, or NULL: the model's */
    const char *device;    /* NULL: the default */
    int32_t batch_tokens;  /* of one pass at most */
    int64_t positions;     /* of one sequence at most */
    int32_t logit_rows;    /* rows of one infer_logits at most; 0: losses only */
    int64_t threads;
    uint64_t device_memory;
};

struct infer {
    struct tr_run run;
    char *temporary; /* folder of a temporary store; gone once the store is open */
};

/* The folder's tokenizer is optional: run.tokenizer is NULL where there is none. */
int infer_open(struct infer **out, const struct infer_params *p);
void infer_close(struct infer *f); /* NULL is allowed */
int infer_is_run(const char *folder); /* rather than a model folder */

/* Where run.yaml says that the store is; freed with tr_free(TR_MEM_MISC, ...). */
int run_store_path(const char *run, char **out);
/* The store of a run folder (`store`: where it is, NULL: where run.yaml says), and
 * what was kept of its source, checked to fit it. */
int run_store_open(const char *run, const char *store, enum tr_store_mode mode,
                   struct tr_store **out);
/* Where a run was cut off between a step and its update, makes that update, for good: the store is
 * written. Before a run's parameters are read. (settle.c) */
int run_settle_folder(const char *run, const char *store);
int run_keep_open(const char *run, const struct tr_store *store, struct tr_kept **out);

/* Logits (n, vocab) of the tokens rows[0..n) of the batch, into host memory. */
int infer_logits(struct tr_run *run, const struct tr_batch *batch, const int32_t *rows, int32_t n,
                 float *logits);

/* Greedy continuation of several sequences at once (each a document of its own): appends at most
 * max_tokens to each, stopping at EOS, which is not appended. */
int infer_greedy(struct infer *f, struct tr_ids *sequences, int32_t n, int64_t max_tokens);

#endif
