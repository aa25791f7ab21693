/* SPDX-License-Identifier: Apache-2.0
 *
 * Tasks: records of a benchmark as a context and the texts that may follow it, one of which is
 * right. SuperGLUE's RTE, CB, BoolQ, COPA, WiC, WSC and MultiRC are read from their official JSONL
 * and asked with the questions of the work on fine-tuning in little memory (MeZO, LOMO); "choice"
 * is anybody's own: {"context", "choices", "answer"}. Training and evaluation take their texts and
 * their tokens from here, so that what is asked is what has been learnt.
 */
#ifndef TR_SRC_TEXT_TASK_H
#define TR_SRC_TEXT_TASK_H

#include <jansson.h>
#include <stddef.h>
#include <stdint.h>

#include "src/tailrace.h"
#include "src/text/tokenizer.h"

#define TR_TASK_CHOICES 64 /* of one question at most */

/* Texts live during the call. */
struct tr_task_item {
    const char *context;
    const char *choices[TR_TASK_CHOICES];
    const char *delimiter; /* between the context and each of them */
    int n, gold;
    int64_t group; /* MultiRC: the question, counted in the record; else 0 */
};

/* -EINVAL: a number that names none, or a chat template beside one (NULL: none). */
int tr_task_check(enum tr_task task, const char *template);
/* -1: no such task. */
int tr_task_find(const char *name);

/* Calls fn for each item of a record; stops at its first error. `where` names the record. */
typedef int tr_task_fn(void *arg, const struct tr_task_item *item);
int tr_task_read(enum tr_task task, const json_t *record, const char *where, tr_task_fn *fn,
                 void *arg);

/* The ids of a context and what follows it, by the rules of the lm-evaluation-harness: white space
 * at the context's end belongs to what follows, both are encoded as one text, and what lies behind
 * the context's own ids is the continuation: ids from *first on. BOS stands in front where the
 * tokenizer puts it; an empty context is BOS, or else EOS. */
int tr_task_encode(const struct tr_tokenizer *t, const char *context, const char *continuation,
                   struct tr_ids *ids, size_t *first);

#endif
