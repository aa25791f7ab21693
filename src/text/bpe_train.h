/* SPDX-License-Identifier: Apache-2.0
 *
 * Learns a byte-fallback BPE from counted words: 3 specials, 256 bytes, the characters that cover
 * 99.99 % of the text (most frequent first), then merges, most frequent pair first, ties by the
 * smaller ids, inside words only. One result for one text, whatever the machine.
 */
#ifndef TR_SRC_TEXT_BPE_TRAIN_H
#define TR_SRC_TEXT_BPE_TRAIN_H

#include "src/text/bpe_words.h"

#define BPE_TRAIN_FIRST 259 /* specials and bytes */
#define BPE_TRAIN_LEAST (BPE_TRAIN_FIRST + 2)

struct bpe_piece {
    size_t at; /* in text */
    uint32_t bytes, chars;
    int32_t left, right; /* the merge that made it, or -1 */
};

struct bpe_learnt {
    struct bpe_names names;
    struct tok_buf text;
    struct bpe_piece *v; /* (n) by id */
    int32_t n, vocab;
};

int bpe_train(struct bpe_learnt *out, const struct bpe_words *words, int32_t vocab);
void bpe_learnt_free(struct bpe_learnt *l);

#endif
