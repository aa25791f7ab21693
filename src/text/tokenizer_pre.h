/* SPDX-License-Identifier: Apache-2.0
 *
 * Pre-tokenizers: what cuts a normalised segment into words, across whose ends nothing merges.
 *
 * They run one behind the other, each on every piece that the one before it made, without lists: a
 * piece is handed on as soon as it is known, and what comes out at the end is a word. Two kinds
 * change the text too: Metaspace and ByteLevel.
 */
#ifndef TR_SRC_TEXT_TOKENIZER_PRE_H
#define TR_SRC_TEXT_TOKENIZER_PRE_H

#include <jansson.h>

#include "src/text/buf.h"
#include "src/text/regex.h"
#include "src/text/tokenizer.h"

#define TOK_PRE_MOST 8

enum tok_pre_kind {
    TOK_PRE_SPLIT,
    TOK_PRE_DIGITS,
    TOK_PRE_PUNCTUATION,
    TOK_PRE_SPACES,
    TOK_PRE_METASPACE,
    TOK_PRE_BYTE_LEVEL
};

/* What becomes of a match. */
enum tok_behaviour { TOK_ISOLATED, TOK_REMOVED, TOK_CONTIGUOUS, TOK_PREVIOUS, TOK_NEXT };

/* When a replacement or a space is put before a text. */
enum tok_prefix { TOK_PREFIX_NEVER, TOK_PREFIX_FIRST, TOK_PREFIX_ALWAYS };

struct tok_pre {
    enum tok_pre_kind kind;
    enum tok_behaviour how;
    enum tok_prefix prefix;
    int invert, split; /* !split: Metaspace and ByteLevel only change the text */
    char *text;        /* the pattern or the replacement, where it is a string */
    size_t bytes;
    struct tr_regex *regex; /* or an expression */
    int safe;               /* known to cut before a space between two letters, see tok_cut */
    int elsewhere;          /* never matches a space or a letter of ASCII */
    const char *name;       /* of an expression that other programs know by name; or NULL */
};

struct tok_pres {
    struct tok_pre v[TOK_PRE_MOST];
    int n;
};

/* 1 where every match of the expression becomes a word of its own. */
static inline int tok_pre_isolates(const struct tok_pre *p)
{
    return p->invert ? p->how == TOK_REMOVED : p->how == TOK_ISOLATED;
}

/* A message names `where`. */
int tok_pre_load(struct tok_pres *p, const char *where, json_t *o);
void tok_pre_free(struct tok_pres *p);

typedef int tok_word_fn(void *owner, const char *text, size_t n);

/* Work space of one encoding; belongs to one thread. */
struct tok_cutter {
    const struct tok_pres *pres;
    tok_word_fn *word;
    void *owner;
    enum tr_text_place place;
    struct tr_regex_find find;
    struct tok_buf whole[TOK_PRE_MOST], part[TOK_PRE_MOST];
};

/* Calls word() for every word of the segment; stops at its first error. */
int tok_pre_run(struct tok_cutter *c, const char *text, size_t n);
void tok_cutter_free(struct tok_cutter *c);

/* The character that stands for a byte in a byte-level vocabulary, and back (-1: for none). */
static inline uint32_t tok_byte_char(unsigned char b)
{
    if (b <= 32)
        return 256u + b;
    if (b >= 127 && b <= 160)
        return 162u + b;
    return b == 173 ? 323 : b;
}

static inline int tok_char_byte(uint32_t cp)
{
    if (cp >= 256 && cp <= 288)
        return (int)cp - 256;
    if (cp >= 289 && cp <= 322)
        return (int)cp - 162;
    if (cp == 323)
        return 173;
    return (cp > 32 && cp < 127) || (cp > 160 && cp < 256 && cp != 173) ? (int)cp : -1;
}

#endif
