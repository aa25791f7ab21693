/* SPDX-License-Identifier: Apache-2.0
 *
 * tokenizer.model of sentencepiece, for folders without a tokenizer.json: it is turned into one, in
 * the form of the ecosystem's own converter, and read as one. Where the converter's way gives other
 * ids than sentencepiece, a field that only this reader knows asks for sentencepiece's.
 */
#ifndef TR_SRC_TEXT_SENTENCEPIECE_H
#define TR_SRC_TEXT_SENTENCEPIECE_H

#include <jansson.h>

/* config is tokenizer_config.json or NULL: added tokens, and whether BOS stands before a text.
 * Models of kind BPE and Unigram are read; another kind is refused by name. */
int tr_sentencepiece_convert(const char *model, size_t bytes, json_t *config, const char *where,
                             json_t **out);

#endif
