/* SPDX-License-Identifier: Apache-2.0
 *
 * Exact match: the questions of a file are answered greedily, each answer compared with the
 * expected one, white space at both ends apart.
 *
 * A question is the prompt of a prompt/completion record as it stands, or, where a chat template is
 * named or the run was trained with one, a turn of the user. Of a conversation it is all that
 * stands before the last turn of the assistant, by the template that is named, the run's, or the
 * model's. A question of a question/answer record is laid out where no template is (data_pair.h).
 */
#ifndef TR_SRC_INFER_MATCH_H
#define TR_SRC_INFER_MATCH_H

#include "src/infer/infer.h"
#include "src/text/data.h"

/* Adds to report's samples and matched. */
int tr_match(struct infer *f, const struct tr_eval_params *p, struct tr_eval_report *report);
/* Of a question/answer record whose answer has a result behind "####", only that number counts, as
 * GSM8K has it; any other is judged by its text. */
int match_is_right(enum tr_data_format format, const char *answer, const char *expected);

#endif
