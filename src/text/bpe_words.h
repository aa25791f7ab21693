/* SPDX-License-Identifier: Apache-2.0
 *
 * The words of a text and how often they occur: what a BPE is learnt from. A word is a run of
 * characters with the one "▁" (space) before it; further spaces, and runs of one other white-space
 * character, are words of their own. Words are at most BPE_WORD_MOST characters, longer ones are
 * cut, so that a text without spaces cannot make learning quadratic.
 */
#ifndef TR_SRC_TEXT_BPE_WORDS_H
#define TR_SRC_TEXT_BPE_WORDS_H

#include "src/text/tokenizer_parts.h"

#define BPE_WORD_MOST 64

struct bpe_word {
    size_t at;
    uint32_t bytes;
    uint64_t count;
};

struct bpe_words {
    struct bpe_names names;
    struct tok_buf text;
    struct bpe_word *v;
    size_t n, room;
};

void bpe_words_init(struct bpe_words *w);
void bpe_words_free(struct bpe_words *w);
/* Counts the words of a text; `begins`: it is the beginning of a document, which gets a "▁". */
int bpe_words_add(struct bpe_words *w, const char *text, size_t bytes, int begins);
/* Counts the words of a file, or of the one to learn in a folder, that training takes: the text, or
 * what the strings and messages of its records say. */
int bpe_words_read(struct bpe_words *w, const char *path);

#endif
