/* SPDX-License-Identifier: Apache-2.0
 *
 * What a tokenizer is made of, shared by the tokenizer_*.c files and by nobody else.
 *
 * A text goes: added tokens cut out of the raw text -> each segment between them normalised ->
 * added tokens cut out of the normalised text -> pre-tokenizers cut it into words -> characters of
 * a word become first symbols (byte fallback, unk) -> BPE; or a word falls into the pieces of the
 * best sum of scores (Unigram). Ids go back through a list of decoder steps. Everything but the
 * cache is read-only once loaded, so that threads may share it.
 */
#ifndef TR_SRC_TEXT_TOKENIZER_PARTS_H
#define TR_SRC_TEXT_TOKENIZER_PARTS_H

#include <jansson.h>

#include "src/text/bpe.h"
#include "src/text/buf.h"
#include "src/text/tokenizer.h"
#include "src/text/tokenizer_cache.h"
#include "src/text/tokenizer_pre.h"

#define TOK_ID_LIMIT    (1 << 22) /* ids at or past it are refused */
#define TOK_STRING_MOST 1024      /* bytes of an added token or of a normalizer's string */
#define TOK_STEPS       16        /* steps of a normalizer or a decoder */
#define TOK_PAGE        256
#define TOK_PAGES       (0x110000 / TOK_PAGE)

/* Where `what` first stands in the text; n where it does not. */
size_t tok_find(const char *text, size_t n, const char *what, size_t bytes);

enum tok_form { TOK_NFC, TOK_NFD, TOK_NFKC, TOK_NFKD };

enum tok_step_kind {
    TOK_PREPEND,
    TOK_REPLACE,
    TOK_FORM,
    TOK_BYTES,
    TOK_FUSE,
    TOK_STRIP,
    TOK_METASPACE,
    TOK_BYTE_LEVEL,
    TOK_CHARSMAP,
    TOK_TRIM,
    TOK_NMT,
    TOK_LOWER,
    TOK_NO_MARKS
};

/* A table of replacements as sentencepiece compiles it: a double array over the bytes of what is
 * replaced, and the strings that take its place, each ended by NUL. */
struct tok_charsmap {
    uint32_t *unit; /* (n_units) */
    char *text;     /* (bytes), valid UTF-8 */
    size_t n_units, bytes;
    int longest; /* asked as sentencepiece does */
};

struct tok_step {
    enum tok_step_kind kind;
    char *a, *b; /* prepend: a; replace: a by b; strip and metaspace: the character a */
    size_t a_bytes, b_bytes;
    size_t start, stop;     /* strip; trim: whether the spaces there go */
    int keep_first;         /* metaspace decoder: a leading one stays */
    struct tr_regex *regex; /* replace: this by b */
    struct tok_charsmap map;
    enum tok_form form;
};

struct tok_steps {
    struct tok_step v[TOK_STEPS];
    int n;
};

struct tok_added {
    int32_t id;
    int single_word, lstrip, rstrip, normalized, special;
    const char *text; /* its piece's */
    char *normal;     /* its own, where `normalized` */
};

/* Trie of added tokens: node 0 is the root. */
struct tok_trie {
    struct bpe_map edges; /* node << 8 | byte -> node */
    int32_t *leaf;        /* node -> index of the added token or -1 */
    size_t n, room;
    uint8_t first[256];
};

/* Pieces with scores: see tokenizer_unigram.c. */
struct tok_unigram {
    int on;
    double *score; /* (vocab) */
    double unk_score;
    struct tok_trie trie; /* leaf: the id */
};

/* A piece of text: an added token (index >= 0) or ordinary text (-1). */
struct tok_span {
    int32_t added;
    size_t start, stop;
};

struct tok_scan {
    const struct tok_trie *trie;
    const struct tok_added *added;
    const char *text;
    size_t n, at, done, run_start, run_stop;
    struct tok_span held;
    int holding;
};

enum { TOK_SPECIAL = 1, TOK_OUTSIDE = 2 }; /* outside: an added token the model does not have */

struct tr_tokenizer {
    char *folder;   /* NULL where it was parsed from memory */
    char **piece;   /* (vocab) NULL where no piece has that id */
    uint8_t *flags; /* (vocab) TOK_SPECIAL, TOK_OUTSIDE */
    int32_t vocab, unk, bos, eos;
    int adds_bos, adds_eos;
    int byte_fallback, fuse_unk, ignore_merges;
    int32_t byte_id[256];
    int32_t *page[TOK_PAGES]; /* code point -> id + 1 of its one-character piece */
    struct bpe_names names;
    struct bpe bpe;
    struct tok_unigram unigram;
    struct tok_added *added;
    size_t n_added;
    struct bpe_map normal_of; /* id -> index of its normalised added token */
    struct tok_trie raw, normal;
    struct tok_steps norm, decode;
    struct tok_pres pre;
    struct tok_cache *cache;
    int has_decoder;
    uint8_t cut[128][128]; /* ASCII pairs between which a text may be cut */
    int cut_words;         /* and only where the second is a space before a letter */
};

static inline int32_t tok_char_id(const struct tr_tokenizer *t, uint32_t cp)
{
    const int32_t *page = t->page[cp / TOK_PAGE];

    return page ? page[cp % TOK_PAGE] - 1 : -1;
}

/* The id of a piece, or -1. */
int32_t tok_piece_id(const struct tr_tokenizer *t, const char *text, size_t bytes);

/* tokenizer_load.c: the model; tokenizer_steps.c: what stands around it. */
int tok_load_model(struct tr_tokenizer *t, const char *where, json_t *root);
int tok_load_steps(struct tr_tokenizer *t, const char *where, json_t *root);
int tok_load_template(struct tr_tokenizer *t, const char *where, json_t *root);
void tok_steps_free(struct tok_steps *s);
/* tokenizer_vocab.c: the tables by id, for `pieces` of the model and the added tokens; each piece's
 * name; flags and bytes. */
int tok_check_id(const char *where, const char *piece, json_t *v);
int tok_open_vocab(struct tr_tokenizer *t, const char *where, json_int_t pieces, json_t *added);
int tok_add_piece(struct tr_tokenizer *t, const char *text, size_t bytes, int32_t id);
int tok_load_flags(struct tr_tokenizer *t, const char *where, json_t *model);

/* tokenizer_unigram.c. Memory of one encoding grows with the longest stretch of a word that no
 * boundary of pieces must cut. */
struct tok_node {
    double score;   /* of the best way here */
    uint32_t bytes; /* of its last piece; 0: no way leads here */
    uint32_t next;  /* where the piece behind ends, once the way is chosen */
    int32_t id;     /* of its last piece */
};

struct tok_unigram_work {
    struct tok_node *v; /* (room) by place behind `from` */
    size_t n, room;
    size_t from, reach, run, run_end; /* in the word; run: of characters without a piece */
};

int tok_load_unigram(struct tr_tokenizer *t, const char *where, json_t *model, json_t *added);
int tok_unigram_encode(const struct tr_tokenizer *t, struct tok_unigram_work *w, const char *text,
                       size_t n, struct tr_ids *ids);
void tok_unigram_work_free(struct tok_unigram_work *w);

/* tokenizer_json.c: fields with their types checked. Absent and null give the default. */
int tok_get_flag(json_t *o, const char *key, int absent, const char *where, int *out);
int tok_get_text(json_t *o, const char *key, const char *where, const char **text, size_t *bytes);
int tok_get_count(json_t *o, const char *key, size_t most, const char *where, size_t *out);
/* What Metaspace says about a first replacement; `what` is the component, for messages. */
int tok_get_prefix(json_t *o, const char *where, const char *what, enum tok_prefix *out);
/* "type" of a component, "" where it has none. */
const char *tok_type(json_t *o);

/* tokenizer_added.c */
int tok_load_added(struct tr_tokenizer *t, const char *where, json_t *root);
int tok_build_tries(struct tr_tokenizer *t);
/* The first index given to a text stays. */
int tok_trie_add(struct tok_trie *t, const char *text, size_t n, int32_t index);
void tok_trie_free(struct tok_trie *t);
void tok_scan_start(struct tok_scan *s, const struct tr_tokenizer *t, const struct tok_trie *trie,
                    const char *text, size_t n);
int tok_scan_next(struct tok_scan *s, struct tok_span *span); /* 1, or 0 at the end */

/* tokenizer_norm.c: runs the normalizer's steps, at the beginning of a text or (!prefix) inside
 * one, where nothing is put before it and no space there goes. */
int tok_normalise(const struct tr_tokenizer *t, const struct tok_span *span, const char *text,
                  int prefix, struct tok_buf *out);

/* Appends the text with U+FFFD where it is no UTF-8. */
int tok_make_valid(struct tok_buf *out, const char *text, size_t bytes);

/* tokenizer_form.c: replaces *b by its normal form. */
int tok_normal_form(enum tok_form form, struct tok_buf *b);

/* tokenizer_charsmap.c: base64 to a table, and a text through it; the text it makes must not pass
 * `most` bytes. */
int tok_charsmap_load(struct tok_charsmap *m, const char *where, const char *base64, size_t n);
void tok_charsmap_free(struct tok_charsmap *m);
int tok_charsmap_run(const struct tok_charsmap *m, struct tok_buf *b, size_t most);

/* tokenizer_cut.c: fills t->cut. */
int tok_build_cuts(struct tr_tokenizer *t);

#endif
