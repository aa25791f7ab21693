/* SPDX-License-Identifier: Apache-2.0
 *
 * A model opened for forward passes alone: evaluation and generation, streamed layer by layer with
 * the trainer's own visits, so that a model beyond memory is served too. A run's store is read in
 * place (shared lock); a model folder is imported into a temporary store first.
 */
#ifndef TR_SRC_INFER_INFER_H
#define TR_SRC_INFER_INFER_H

#include "src/infer/sample.h"
#include "src/infer/stops.h"
#include "src/run/find.h"
#include "src/run/run.h"
#include "src/run/temporary.h"
#include "src/text/chat.h"

/* What the passes must have room for. */
struct infer_shape {
    int64_t batch_tokens; /* of one pass at most */
    int64_t positions;    /* of one sequence at most */
    int64_t logit_rows;   /* rows of one infer_logits at most; 0: losses only */
    int64_t cache_tokens; /* whose keys and values stay; 0: no cache */
};

struct infer_params {
    const char *model;        /* HF folder or run */
    const char *adapter;      /* PEFT folder, or NULL */
    const char *tokenizer;    /* folder, or NULL: the model's */
    const char *device;       /* NULL: the default */
    struct infer_shape shape; /* for infer_open alone */
    int64_t threads;
    uint64_t device_memory;
};

struct infer {
    struct tr_run run;
    int32_t stops[INFER_STOPS]; /* tokens that end a text */
    int n_stops;
    struct tr_temporary temporary; /* a store's folder; gone once the store is open */
};

/* Where the tokenizer of a model folder or a run is: the one that the run was trained with, or the
 * one kept with its source; freed with tr_free(TR_MEM_MISC, ...). */
int infer_tokenizer(const char *model, char **out);
/* Store, tokenizer and device; the folder's tokenizer is optional: run.tokenizer is NULL where
 * there is none. */
int infer_open_model(struct infer **out, const struct infer_params *p);
/* 0 where there is room for this shape; else -ENOMEM with what would do. */
int infer_fits(const struct infer *f, const struct infer_shape *shape);
/* The rest of the machine, once. */
int infer_start(struct infer *f, const struct infer_shape *shape);
/* Both. */
int infer_open(struct infer **out, const struct infer_params *p);
void infer_close(struct infer *f); /* NULL is allowed */

/* -EINVAL where one of these is the empty text. */
int infer_check_texts(const char *tokenizer, const char *adapter, const char *device,
                      const char *chat_template);

/* Logits (n, vocab) of the tokens rows[0..n) of the batch, into host memory. */
int infer_logits(struct tr_run *run, const struct tr_batch *batch, const int32_t *rows, int32_t n,
                 float *logits);

struct infer_generation {
    int64_t max_tokens;
    struct sample_params sample; /* of which sequence and position are filled in */
    /* After each new token; non-zero ends it all. May be NULL. */
    int (*token)(void *arg, int32_t sequence, const struct tr_ids *ids);
    void *arg;
};

/* Continues several sequences at once (each a document of its own): appends at most max_tokens to
 * each, stopping at the tokens that end a text, which are not appended. */
int infer_generate(struct infer *f, struct tr_ids *sequences, int32_t n,
                   const struct infer_generation *how);
int infer_stops(const struct infer *f, int32_t id);
void infer_add_stop(struct infer *f, int64_t id);
/* The shape for these prompts in groups of `group`; positions are given, and cache_tokens says
 * whether there shall be a cache. */
void infer_shape_of(struct infer_shape *shape, const struct tr_ids *prompts, int32_t n,
                    int32_t group, int64_t max_tokens);
int infer_check_prompts(const struct tr_ids *prompts, int32_t n, int64_t positions, int32_t vocab);
/* The ids of a prompt as training sees them: BOS where the tokenizer adds it, then the text. */
int infer_encode_prompt(const struct tr_tokenizer *t, const char *text, struct tr_ids *ids);
/* Tokens of a row: `asked`, or by the model; a batch of `rows` of them must be countable. */
int infer_row_tokens(const char *model, int64_t asked, int64_t rows, int64_t *out);
/* Positions for sequences that may grow to `wanted` tokens: as infer_row_tokens would have them, or
 * more, as far as the model has them. */
int infer_positions(const char *model, int64_t wanted, int64_t *out);
/* The likeliest continuation. */
int infer_greedy(struct infer *f, struct tr_ids *sequences, int32_t n, int64_t max_tokens);

/* converse.c. What run.yaml says; nothing where the model is no run. Freed with tr_options_free. */
int infer_run_options(const char *model, struct tr_train_params *out);
/* The template that is asked for, or the one that a run was trained with, or NULL (the
 * tokenizer folder's own); freed with tr_free(TR_MEM_MISC, ...). */
int infer_template(const char *model, const char *asked, char **out);
/* That template; what ends a turn of the assistant ends a text from now on. */
int infer_chat_open(struct infer *f, const char *model, const char *asked, struct chat *out);
/* The ids of messages and of the beginning of an answer; of one turn of the user. */
int infer_encode_talk(const struct tr_tokenizer *t, const struct chat *c, json_t *messages,
                      json_t *tools, struct tr_ids *ids);
int infer_encode_turn(const struct tr_tokenizer *t, const struct chat *c, const char *text,
                      struct tr_ids *ids);
/* Answers what p->ask says, until it says nothing; infer_start is done here. */
int infer_converse(struct infer *f, const struct chat *c, const struct tr_generate_params *p);

/* generate_text.c. The text behind a prompt, as far as it has been handed on. */
struct infer_stream {
    const struct tr_generate_params *params;
    const struct tr_tokenizer *tokenizer;
    size_t prompt, told;
};

/* infer_generate as p says; with p->piece the first sequence's text is told as it grows. */
int infer_tell_all(struct infer *f, struct infer_stream *s, struct tr_ids *ids, int32_t n,
                   int64_t max_tokens);

#endif
