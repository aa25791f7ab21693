/* SPDX-License-Identifier: Apache-2.0
 *
 * A tokenizer as a table, for formats that keep it beside the weights: every id with its piece and
 * kind, and what says how pieces join, in the two ways that other programs know. Byte-fallback BPE
 * is told as sentencepiece would (of two neighbours whose join is a piece, the one with the highest
 * score joins first), byte-level BPE as a list of merges and the name of its pre-tokenizer.
 */
#ifndef TR_SRC_TEXT_TOKENIZER_TABLE_H
#define TR_SRC_TEXT_TOKENIZER_TABLE_H

#include <stddef.h>
#include <stdint.h>

#include "src/text/tokenizer.h"

/* The numbers are sentencepiece's. */
enum tr_token_kind {
    TR_TOKEN_NORMAL = 1,
    TR_TOKEN_UNKNOWN,
    TR_TOKEN_CONTROL,
    TR_TOKEN_USER,
    TR_TOKEN_UNUSED,
    TR_TOKEN_BYTE
};

struct tr_token_table {
    const struct tr_tokenizer *tokenizer;
    int32_t n;
    int32_t *kind;  /* (n) enum tr_token_kind */
    float *score;   /* (n); NULL: byte-level */
    int64_t *merge; /* (n_merges) left << 32 | right, in their order; NULL: byte fallback */
    uint32_t n_merges;
    const char *pre; /* "llama-bpe", "qwen2", "tekken", "gpt-2"; "default": byte fallback */
    int adds_space;  /* in front of a text */
    int32_t bos, eos, unk;
    int adds_bos, adds_eos;
};

/* For a model of n ids: those that the tokenizer has not are unused. -ENOTSUP: it is of a kind that
 * cannot be told so. Ends before the tokenizer does. */
int tr_token_table_open(struct tr_token_table *out, const struct tr_tokenizer *t, int32_t n);
void tr_token_table_close(struct tr_token_table *table);

#endif
