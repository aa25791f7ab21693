/* SPDX-License-Identifier: Apache-2.0
 *
 * Records of two texts, of which the second is learnt: "prompt" and "completion", or "question" and
 * "answer". A template makes two turns of them. Without one a prompt is as it stands, and a
 * question is laid out as the evaluation harness asks those of GSM8K: "Question: Q\nAnswer:", then
 * " A".
 */
#ifndef TR_SRC_TEXT_DATA_PAIR_H
#define TR_SRC_TEXT_DATA_PAIR_H

#include <jansson.h>

#include "src/text/data.h"

struct data_pair {
    json_t *first, *second;
};

static inline int data_is_pair(enum tr_data_format format)
{
    return format == TR_DATA_PROMPT || format == TR_DATA_QUESTION;
}

/* The texts as they stand, borrowed from the record; an error where one is no text. */
int data_pair_find(struct data_pair *p, const char *where, enum tr_data_format format, json_t *o);
/* The same as they are learnt without a template; both are the caller's to let go of. */
int data_pair_plain(struct data_pair *p, const char *where, enum tr_data_format format, json_t *o);
void data_pair_free(struct data_pair *p);

#endif
