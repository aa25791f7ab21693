/* SPDX-License-Identifier: Apache-2.0
 *
 * Which token comes next, given its logits: the likeliest, or one drawn. A draw is a function of
 * (seed, sequence, position) alone, so it depends neither on what else is in the batch nor on how
 * prompts are grouped.
 */
#ifndef TR_SRC_INFER_SAMPLE_H
#define TR_SRC_INFER_SAMPLE_H

#include <stdint.h>

struct sample_params {
    double temperature; /* 0: the likeliest token */
    double top_p;       /* of the likeliest tokens whose probabilities reach this; 0 or 1: all */
    uint64_t seed;
    uint64_t sequence, position; /* of the new token */
};

/* A token and its share, for sorting. */
struct sample_entry {
    double p;
    int32_t id;
};

/* The first of the likeliest; logits that are not numbers are passed over. */
int32_t sample_likeliest(const float *logits, int32_t n);
/* -1 where no logit is a number. work: (n), scratch. */
int32_t sample_token(const struct sample_params *s, const float *logits, int32_t n,
                     struct sample_entry *work);

#endif
