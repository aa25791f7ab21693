/* SPDX-License-Identifier: Apache-2.0
 *
 * Samples as tokens, with the loss mask shown: what `tailrace preview` prints. The library prints
 * nothing itself: every line goes to the caller's function.
 */
#ifndef TR_SRC_TEXT_PREVIEW_H
#define TR_SRC_TEXT_PREVIEW_H

#include "src/text/data.h"

struct tr_preview_sample_params {
    const struct tr_data *data;
    const struct tr_tokenizer *tokenizer; /* may be NULL: ids are shown */
    int64_t samples;                      /* at most so many, in the order of the file */
    int json; /* one object a sample: input_ids, and labels aligned with them, -100 without loss */
    int (*line)(void *arg, const char *text, size_t bytes); /* without newline; < 0 stops */
    void *arg;
};

/* Text form: a heading a sample, then its tokens, runs with loss in [brackets]. What the last
 * token of a text's window learns is the first of the next window: aligned labels cannot show it.
 */
int tr_preview(const struct tr_preview_sample_params *p);

#endif
