/* SPDX-License-Identifier: Apache-2.0
 *
 * Store to GGUF: the one file that llama.cpp reads, for the Llama, Mistral, Qwen2 and Qwen3
 * families in f32, bf16 or f16. Names, the order of the rows of Q and K, and what else its
 * architectures mean are translated here; vectors are f32, as its readers want them. The file
 * appears whole or not at all; memory does not depend on the size of the model.
 */
#ifndef TR_SRC_CHECKPOINT_GGUF_H
#define TR_SRC_CHECKPOINT_GGUF_H

#include <stdio.h>

#include "src/checkpoint/export.h"
#include "src/text/tokenizer_table.h"

#define GGUF_ALIGN 32

enum gguf_type { GGUF_F32 = 0, GGUF_F16 = 1, GGUF_BF16 = 30 };

int tr_gguf(const struct tr_export_params *p); /* out: the file, which must not be there */

/* What the metadata tells; `arch` as llama.cpp calls it. */
struct gguf_told {
    const struct tr_model_config *config;
    const char *arch, *name, *chat_template; /* chat_template: or NULL */
    const struct tr_token_table *tokens;
    enum tr_dtype type; /* of the matrices */
};

/* gguf_keys.c: appends all keys; their number in *n. */
int gguf_put_keys(FILE *f, const struct gguf_told *told, uint64_t *n);
/* A text as the format has it: its length, then its bytes. */
void gguf_put_text(FILE *f, const char *text);
/* gguf_template.c: the chat template of a tokenizer's folder, TR_MEM_TEXT; NULL: it has none. */
int gguf_read_template(const char *folder, char **out);

#endif
