/* SPDX-License-Identifier: Apache-2.0
 *
 * The ids of words met before: most of a text is a few thousand words. One table belongs to a
 * tokenizer, and one encoding at a time may use it; another that runs meanwhile goes without. What
 * is in it changes the speed and nothing else.
 */
#ifndef TR_SRC_TEXT_TOKENIZER_CACHE_H
#define TR_SRC_TEXT_TOKENIZER_CACHE_H

#include <stddef.h>
#include <stdint.h>

#define TOK_CACHE_KEY 30 /* bytes of the longest word kept */
#define TOK_CACHE_IDS 8

struct tok_cache;

struct tok_cache_line {
    uint8_t n_ids, bytes;
    char key[TOK_CACHE_KEY];
    int32_t id[TOK_CACHE_IDS];
};

int tok_cache_open(struct tok_cache **out);
void tok_cache_close(struct tok_cache *c); /* NULL is allowed */
/* The table, or NULL while another has it. */
struct tok_cache *tok_cache_take(struct tok_cache *c);
void tok_cache_give_back(struct tok_cache *c); /* NULL is allowed */
/* Where the word stands or would stand; NULL for a word that is too long. *found says which. */
struct tok_cache_line *tok_cache_line(struct tok_cache *c, const char *text, size_t n, int *found);
void tok_cache_put(struct tok_cache_line *line, const char *text, size_t n, const int32_t *ids,
                   size_t n_ids);

#endif
