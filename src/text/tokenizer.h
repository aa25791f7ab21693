/* SPDX-License-Identifier: Apache-2.0
 *
 * tokenizer.json, natively: BPE with byte fallback (Llama-2, Mistral, Phi-3), byte-level BPE
 * (GPT-2, Llama-3, Qwen, Tekken, Falcon) and Unigram. Exact (same ids as the reference
 * implementation), O(n log n) over whole documents, hostile input gives one error. An unsupported
 * component is refused by name.
 */
#ifndef TR_SRC_TEXT_TOKENIZER_H
#define TR_SRC_TEXT_TOKENIZER_H

#include <stddef.h>
#include <stdint.h>

struct tr_tokenizer;

struct tr_ids {
    int32_t *v; /* TR_MEM_TEXT */
    size_t n, room;
};

/* Reads FOLDER/tokenizer.json, or tokenizer.model where there is none (and tokenizer_config.json
 * for the names of BOS and EOS). */
int tr_tokenizer_open(struct tr_tokenizer **out, const char *folder);
int tr_tokenizer_is_in(const char *folder); /* 1 where there is either */
/* The same from memory; config and map (special_tokens_map.json: the names that the config does not
 * say) may be NULL. `where` names the texts in messages. */
struct tr_tokenizer_text {
    const char *json, *config, *map;
    size_t json_bytes, config_bytes, map_bytes;
    int is_model; /* `json` is a tokenizer.model of sentencepiece */
    const char *where;
};
int tr_tokenizer_parse(struct tr_tokenizer **out, const struct tr_tokenizer_text *text);
void tr_tokenizer_close(struct tr_tokenizer *t); /* NULL is allowed */

/* Where it was opened from: a chat template may stand there. NULL for one from memory. */
const char *tr_tokenizer_folder(const struct tr_tokenizer *t);
/* One past the largest id. */
int32_t tr_tokenizer_vocab(const struct tr_tokenizer *t);
/* -1 where the tokenizer names none. */
int32_t tr_tokenizer_bos(const struct tr_tokenizer *t);
int32_t tr_tokenizer_eos(const struct tr_tokenizer *t);
/* 1 where its post-processor puts BOS before a text (and `eos`: EOS behind it). */
int tr_tokenizer_adds_bos(const struct tr_tokenizer *t);

/* 1 for a token that is no text, but marks something. */
int tr_tokenizer_is_special(const struct tr_tokenizer *t, int32_t id);

/* Appends the ids of text[0..bytes) to *ids; no BOS or EOS is added, added tokens in the text are
 * recognised. The text need not be valid UTF-8: bad bytes go the way of the reference (U+FFFD). */
int tr_tokenizer_encode(const struct tr_tokenizer *t, const char *text, size_t bytes,
                        struct tr_ids *ids);

/* The same for a text that comes in parts: *place says what stands before the part, and is updated.
 * Inside a text no "▁" is put before the part, so that `completion` follows `prompt` as written. */
enum tr_text_place { TR_TEXT_START, TR_TEXT_AFTER_ADDED, TR_TEXT_INSIDE };
int tr_tokenizer_encode_more(const struct tr_tokenizer *t, const char *text, size_t bytes,
                             enum tr_text_place *place, struct tr_ids *ids);
/* The last place in text[0..bytes) where a longer text may be cut without changing one id of
 * encode_more(before) followed by encode_more(behind); 0 where there is none. */
size_t tr_tokenizer_cut(const struct tr_tokenizer *t, const char *text, size_t bytes);

/* Where the added token of text[0..bytes) begins that `at` is inside of; `at` where it is in none.
 */
size_t tr_tokenizer_whole(const struct tr_tokenizer *t, const char *text, size_t bytes, size_t at);

/* NUL-terminated UTF-8 in a TR_MEM_TEXT buffer; special tokens are left out, and a NUL of the text
 * itself is U+FFFD. */
int tr_tokenizer_decode(const struct tr_tokenizer *t, const int32_t *ids, size_t n, char **out);

/* The same with its length: a byte-level text may hold NUL. */
int tr_tokenizer_decode_bytes(const struct tr_tokenizer *t, const int32_t *ids, size_t n,
                              char **out, size_t *bytes);

/* The piece of one id as it stands in the vocabulary (for preview); NULL for an unknown id. */
const char *tr_tokenizer_piece(const struct tr_tokenizer *t, int32_t id);

void tr_ids_free(struct tr_ids *ids);
int tr_ids_push(struct tr_ids *ids, int32_t id);

/* Learns a byte-fallback BPE of `vocab` pieces (3 specials and 256 bytes included) from a text or
 * JSONL file and writes OUT/tokenizer.json and OUT/tokenizer_config.json, loadable by the
 * reference. Deterministic. OUT must be absent or empty. */
struct tr_tokenizer_train_params {
    const char *data, *out;
    int64_t vocab;
};
int tr_tokenizer_train(const struct tr_tokenizer_train_params *p);

#endif
