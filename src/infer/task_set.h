/* SPDX-License-Identifier: Apache-2.0
 *
 * A file of a task as questions with their choices in tokens, and what the answers of a model are
 * worth: accuracy, and F1 and exact match where the benchmark asks for them.
 */
#ifndef TR_SRC_INFER_TASK_SET_H
#define TR_SRC_INFER_TASK_SET_H

#include "src/infer/score.h"
#include "src/text/task.h"

struct task_question {
    int64_t first; /* of its requests */
    int64_t group; /* one number for the answers to one question; those of a record differ in the
                      low 16 bits alone */
    int n, gold;
    int answer[3]; /* by the sum, per token, per byte; -1: none */
};

struct task_set {
    enum tr_task task;
    struct task_question *question;
    struct score_request *request; /* ids point into `ids` once all is read */
    int64_t *start;                /* (requests) in ids */
    int32_t *bytes;                /* (requests) of the choice as it is written */
    int64_t n_questions, n_requests, room_questions, room_requests;
    struct tr_ids ids;
    int32_t longest; /* tokens of a request's input */
    int64_t record;
    int drawn; /* some were left out, each by itself */
};

struct task_set_params {
    enum tr_task task;
    const char *path;
    const struct tr_tokenizer *tokenizer;
    int32_t vocab;
    int64_t samples; /* questions, drawn by seed; 0: all */
    uint64_t seed;
    int (*stop)(void *arg); /* asked at each record; non-zero: -EINTR. NULL: nobody is */
    void *stop_arg;
};

int task_set_open(struct task_set **out, const struct task_set_params *p);
void task_set_close(struct task_set *s); /* NULL is allowed */

/* Answers all questions, and counts. `most`: tokens of a row. */
int task_set_answer(struct tr_run *run, struct task_set *s, int32_t most);
/* Questions that lose the beginning of a context by that. */
int64_t task_set_cut(const struct task_set *s, int32_t most);

struct task_metrics {
    double accuracy[3]; /* by the sum, per token, per byte */
    double majority;    /* of always the most frequent answer */
    double interval[2]; /* 95 %, by Wilson: lower and upper end of accuracy[0]; what belongs
                           together (MultiRC) counts for less than as many answers alone */
    double f1;          /* CB: macro-F1, MultiRC: F1 of all answers; else NaN */
    double exact; /* MultiRC, all of it: questions whose answers are all judged right; else NaN */
};
/* Of the first way of answering, where nothing else is said. */
void task_set_metrics(const struct task_set *s, struct task_metrics *m);

#endif
