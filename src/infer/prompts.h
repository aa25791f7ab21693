/* SPDX-License-Identifier: Apache-2.0
 *
 * Prompts of `generate`, and the file that they come from: a text a line, or an object that has
 * one.
 */
#ifndef TR_SRC_INFER_PROMPTS_H
#define TR_SRC_INFER_PROMPTS_H

#include "src/text/tokenizer.h"

struct prompts {
    char **text;
    struct tr_ids *ids;
    size_t *length; /* of each prompt in tokens */
    int32_t n, room;
};

void prompts_free(struct prompts *p);
int prompts_add(struct prompts *p, const char *text, size_t n);
/* -EINVAL names the line; -ENODATA: the file has none. */
int prompts_read(struct prompts *p, const char *path);

#endif
