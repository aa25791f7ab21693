/* SPDX-License-Identifier: Apache-2.0
 *
 * Records of conversations, of every shape that is in use, become one: messages with a role, the
 * tools, and how much each message counts in the loss.
 */
#ifndef TR_SRC_TEXT_DATA_TALK_H
#define TR_SRC_TEXT_DATA_TALK_H

#include <jansson.h>

#include "src/text/data_pair.h"

struct data_talk {
    json_t *messages; /* objects as the template sees them; nothing in them is null */
    json_t *weights;  /* a number each; 0: not learnt */
    json_t *tools;    /* or NULL */
};

/* What the keys of a record say. (data_read.c) */
int data_format_of(const char *where, json_t *o, enum tr_data_format *out);
/* A record as one of TR_DATA_MESSAGES, _CONVERSATIONS, _ALPACA, _PROMPT or _QUESTION. */
int data_talk_read(struct data_talk *t, const char *where, enum tr_data_format format, json_t *o);
void data_talk_free(struct data_talk *t);

#endif
