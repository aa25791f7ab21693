/* SPDX-License-Identifier: Apache-2.0
 *
 * Data: a text or JSONL file becomes tokens once, then rows (packed sequences or single samples)
 * per epoch, then batches. Everything is a function of (file, tokenizer, options, seed, epoch), so
 * that a data cursor of two numbers resumes exactly.
 *
 * A document is BOS (where the tokenizer's post-processor adds it), the text, EOS (where the
 * tokenizer has one); pre-tokenised rows get nothing. Its first token is never a target. `prompt`
 * and `completion` are encoded one after the other, the completion as the continuation of the text:
 * the ids of the prompt are those that `generate` sees, and no token straddles the border. The
 * completion and its EOS are learnt, the prompt is not. A sample longer than seq_len loses its end
 * (counted), a plain text file is cut into windows instead: the last token of a window learns the
 * first of the next. Pre-tokenised rows are never packed or cut unless packing_asked; too long ones
 * are an error. Conversations are written by a chat template (chat.h), which alone says what stands
 * around them; prompt and completion are a conversation where they are messages, or where a
 * template is named; so are question and answer, which are else laid out by data_pair.h. "weight"
 * in a message scales the loss of its tokens.
 */
#ifndef TR_SRC_TEXT_DATA_H
#define TR_SRC_TEXT_DATA_H

#include <stddef.h>
#include <stdint.h>

#include "src/text/tokenizer.h"

enum tr_data_format {
    TR_DATA_TEXT,
    TR_DATA_JSONL_TEXT,
    TR_DATA_PROMPT,
    TR_DATA_QUESTION,
    TR_DATA_IDS,
    TR_DATA_MESSAGES,
    TR_DATA_CONVERSATIONS,
    TR_DATA_ALPACA,
};

struct tr_data_params {
    /* .jsonl, .json, or a file that begins so: one JSON object a line, or one list of objects; any
     * other: text; or a folder with train.* and, for held_out, valid.* (or validation, val, dev,
     * test). */
    const char *path;
    int held_out;
    const char *template_name; /* of conversations: built in, or a file; NULL: the folder's */
    const char *folder;        /* of that template; NULL: the tokenizer's */
    const struct tr_tokenizer *tokenizer; /* may be NULL for pre-tokenised data */
    int32_t vocab;                        /* ids at or past it are refused, with file and line */
    int seq_len;                          /* tokens of a row at most */
    int packing;                          /* 1: best fit into rows of seq_len; 0: a sample a row */
    int packing_asked; /* packing was asked for by name (pre-tokenised rows too) */
    int batch_size;    /* rows of a step */
    int task;          /* enum tr_task: a record is a question of it, the answer is learnt */
    int64_t samples;   /* of the file, drawn by seed; 0: all */
    int shuffle;       /* 0 for evaluation: file order */
    uint64_t seed;
    int grain_tokens; /* the device's */
    /* What all host memory of this process may take (tr_mem_host_peak); 0: no bound. */
    uint64_t host_bytes;
    int (*stop)(void *arg); /* asked on the way; non-zero: -EINTR. NULL: nobody is */
    void *stop_arg;
};

struct tr_data;

/* Counters for the report of what was done to the data. */
struct tr_data_info {
    enum tr_data_format format;
    uint64_t samples;         /* read from the file; a text file's are its windows */
    uint64_t tokens, targets; /* of one epoch */
    uint64_t truncated, dropped_tokens;
    uint64_t bytes;          /* of text that has targets; 0: pre-tokenised */
    uint64_t without_target; /* samples kept out, because nothing could be learnt from them */
    uint64_t rewritten;      /* turns learnt as the template shows them in hindsight (chat.h) */
    uint64_t endless;        /* turns learnt whose last token is no special one */
    char template_from[256]; /* "" where no conversation was read */
};

/* One step's rows, tightly concatenated; arrays belong to the data set and live until the next call
 * of tr_data_batch on it. A grain is the fewest whole rows that reach grain_tokens. */
struct tr_batch {
    int32_t n_tokens, n_rows, n_docs, n_grains;
    const int32_t *ids;         /* (n_tokens) */
    const int32_t *targets;     /* (n_tokens) next token's id, -1 where nothing is learnt */
    const float *weight;        /* (n_tokens) loss weight, 0 where targets is -1 */
    const int32_t *position;    /* (n_tokens) restarts at 0 in every document */
    const int32_t *row_start;   /* (n_rows + 1) offsets of rows in tokens */
    const int32_t *doc_start;   /* (n_docs + 1) offsets of documents; attention stays inside one */
    const int32_t *grain_start; /* (n_grains + 1) offsets of grains; every one is a row start */
    double weight_sum;
};

/* Reads and tokenises the whole file. Errors name the file and the line. */
int tr_data_open(struct tr_data **out, const struct tr_data_params *p);
void tr_data_close(struct tr_data *d); /* NULL is allowed */
void tr_data_info(const struct tr_data *d, struct tr_data_info *info);
/* Of what was read, as tokens: the same for the same samples, in whatever order epochs take them.
 */
uint64_t tr_data_hash(const struct tr_data *d);
/* A format in words: "JSONL with \"text\"". */
const char *tr_data_format_name(enum tr_data_format format);
/* 1 where the folder holds a file that held_out would read. */
int tr_data_has_held_out(const char *folder);

/* Steps (batches) of one epoch; a short last batch is a batch. The same number in every epoch: rows
 * are made of the samples' lengths alone (rows.h). */
int64_t tr_data_steps(const struct tr_data *d);
/* Batch `step` (0-based) of an epoch. */
int tr_data_batch(struct tr_data *d, int64_t epoch, int64_t step, struct tr_batch *out);
/* The most tokens that any batch / any grain of this data set may have (a bound from shapes). */
int32_t tr_data_batch_tokens(const struct tr_data *d);
int32_t tr_data_grain_tokens(const struct tr_data *d);

#endif
