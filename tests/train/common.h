/* SPDX-License-Identifier: Apache-2.0
 *
 * What the training tests share: a scratch folder, tiny model folders of every family with random
 * weights, token data, one training run from start to end, and exported bytes to compare.
 */
#ifndef TR_TESTS_TRAIN_COMMON_H
#define TR_TESTS_TRAIN_COMMON_H

#include <stddef.h>
#include <stdint.h>

#include "src/tailrace.h"
#include "tests/support/entries.h"

/* Is the default device a GPU, or the fake one? That takes long for every token, so that its tests
 * take rows that are shorter and some of all cases. */
int on_cuda(void);

/* A new folder under TMPDIR, removed with all that is in it at exit. */
const char *scratch(void);
/* It is that of another process, which removes it. Before the first use. */
void scratch_borrow(const char *of);
/* "SCRATCH/NAME" in a ring of static buffers. */
const char *scratch_path(const char *fmt, ...) __attribute__((format(printf, 1, 2)));

/* A config.json of a family ("llama", "llama-tied", "mistral", "qwen2", "qwen3"), and a model
 * folder with random weights made from it. `extra` is JSON members put into the config ("" for
 * none). */
struct tiny {
    const char *family;
    int hidden, ffn, layers, heads, kv_heads, head_dim, vocab, positions;
    const char *extra;
};
void tiny_config(const char *path, const struct tiny *t);
void tiny_model(const char *folder, const struct tiny *t, enum tr_type dtype, uint64_t seed);
/* All parameters of such a model are no numbers from now on. */
void break_model(const char *folder);

/* SCRATCH/text.txt, a line of text, and SCRATCH/tokenizer, which has learnt 262 pieces of it. */
void tiny_tokenizer(char text[4352], char tokenizer[4352]);

/* JSONL of `rows` samples with random ids below vocab, lengths from `shortest` to `longest`. */
void token_data(const char *path, int rows, int shortest, int longest, int vocab);

/* A job on SCRATCH/model and SCRATCH/data.jsonl in 32 MiB, a commit every third step where not
 * every step has one. Its paths live until the next call. */
struct tr_train_params tiny_job(const char *out, enum tr_optimizer optimizer, enum tr_keep keep,
                                int64_t steps);

/* Four durable steps of a model with data of its own, made here: SCRATCH/NAME-model, NAME.jsonl,
 * NAME-run. Its paths live until the next call. */
struct tr_train_params own_job(const char *name);
/* Lines of RUN/metrics.jsonl, and those with a validation loss. */
int metrics_lines(const char *run, int *validated);

/* Opens, trains to the end, finishes, closes; last step's report. Returns the first error. */
int train(const struct tr_train_params *p, struct tr_step_report *last);
/* The same of a run that is open; it is closed. */
int train_rest(tr_run *run, struct tr_step_report *last);
/* The same into SCRATCH/NAME, whatever was there; a failure fails the test. */
void train_anew(struct tr_train_params p, const char *name, struct tr_step_report *last);
/* tr_train_open fails, and its message has these words. */
void expect_refused(const struct tr_train_params *p, const char *words);
/* Only `steps` steps, then closes as an interrupted program would after a clean step. */
int train_part(const struct tr_train_params *p, int steps);
/* The smallest device budget for a new run, wherever; a page less is refused. */
uint64_t smallest_budget(struct tr_train_params p);
/* The same of the run in p.out, or a new one there; it is not touched. */
uint64_t smallest_budget_of(struct tr_train_params p);
/* The same of the host, beside p's device budget. */
uint64_t smallest_host_budget(struct tr_train_params p);

/* XXH3 of a file. */
uint64_t file_hash(const char *path);
/* All f32 values of a tensor in FOLDER/model.safetensors; count in *n. Freed with free. */
float *read_tensor(const char *folder, const char *name, size_t *n);

/* A tr_log_fn: what a run says, a line each, until notices[0] = 0. */
extern char notices[4096];
void take_notice(void *arg, const char *line);

#endif
