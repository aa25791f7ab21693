/* SPDX-License-Identifier: Apache-2.0
 *
 * RUN/plan.json, as far as the program reads it again: the store that it names, what the bits of
 * the run so far depend on, how many steps there are to be, and what has been exported.
 */
#ifndef TR_SRC_PLAN_PLAN_FILE_H
#define TR_SRC_PLAN_PLAN_FILE_H

#include <stddef.h>
#include <stdint.h>

struct tr_plan_file {
    char store_uuid[40]; /* empty texts and 0: it does not say */
    char bits[96];
    int64_t steps;
    char data_hash[24]; /* of the data so far */
    int64_t model_step; /* of RUN/model; -1: it does not say */
};

/* Of a run folder; one without the file says nothing. */
int tr_plan_file_read(const char *run, struct tr_plan_file *p);
/* -EINVAL: not such a file; `where` names it. */
int tr_plan_file_parse(const char *text, size_t bytes, const char *where, struct tr_plan_file *p);
/* 1 where RUN/model holds the model of another step than this one, which is then RUN/model-STEP's;
 * known: the step that plan.json names for it, or -1. */
int tr_plan_model_is_other(const char *run, int64_t known, int64_t step);

#endif
