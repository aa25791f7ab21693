/* SPDX-License-Identifier: Apache-2.0
 *
 * config.json of a model folder: one block with switches, for the Llama, Mistral, Qwen2 and Qwen3
 * families. Both spellings of the newer keys are read (rope_scaling / rope_parameters, torch_dtype
 * / dtype). What is not known is refused by name, never guessed (invariant 9: the file is hostile).
 */
#ifndef TR_SRC_MODEL_CONFIG_H
#define TR_SRC_MODEL_CONFIG_H

#include <jansson.h>
#include <stdint.h>

#include "src/base/dtype.h"

#define TR_MAX_LAYERS 1024

enum tr_rope_type {
    TR_ROPE_DEFAULT,
    TR_ROPE_LINEAR,
    TR_ROPE_DYNAMIC,
    TR_ROPE_LLAMA3,
    TR_ROPE_YARN
};

struct tr_rope {
    enum tr_rope_type type;
    double theta, factor;
    double low_freq, high_freq;    /* llama3 */
    double beta_fast, beta_slow;   /* yarn */
    double attention_factor;       /* yarn: cos and sin are multiplied by it */
    int64_t original_max_position; /* llama3, yarn */
    int truncate;                  /* yarn: correction range rounded to whole dimensions */
};

struct tr_model_config {
    char architecture[64]; /* "LlamaForCausalLM" */
    int32_t hidden, ffn, layers, heads, kv_heads, head_dim, vocab;
    int64_t max_position;
    float rms_eps;
    int tied; /* tie_word_embeddings; import checks it against the tensors */
    int qkv_bias, o_bias, qk_norm;
    int64_t window[TR_MAX_LAYERS]; /* keys seen in that layer, the query's own included; 0: all */
    struct tr_rope rope;
    int dtype;       /* enum tr_dtype of torch_dtype, or -1 where it is not named */
    double init_std; /* initializer_range */
};

/* `where` names the text in messages. */
int tr_config_parse(const json_t *root, const char *where, struct tr_model_config *out);
int tr_config_read(const char *path, struct tr_model_config *out);
/* A shape by name (llama-7b, llama-13b, llama-30b, llama-65b, llama-2-70b, llama-3-8b, llama-3-70b,
 * llama-3.1-405b, llama-3.2-1b, mistral-7b, qwen2.5-7b, qwen3-8b, tinyllama-1.1b ...) as the JSON
 * of a config.json; a path to a file is read instead. New reference. */
int tr_config_arch(const char *name_or_path, json_t **out);
int tr_config_is_shape(const char *name); /* rather than a path */

/* A token that the model has no row for would only be met by the first text that has it: -EINVAL
 * where the tokenizer of that folder has more than the model. */
int tr_config_check_tokens(const struct tr_model_config *c, const char *tokenizer, int32_t tokens);

/* The longest sequence: max_position, or what linear and yarn scaling stretch a model to, beside
 * which max_position_embeddings stays as it was. */
int64_t tr_config_positions(const struct tr_model_config *c);
/* Tokens of a row where nobody says: so many, or max_position. */
#define TR_ROW_TOKENS 2048
int64_t tr_config_row_tokens(const struct tr_model_config *c);

/* Radians per position of the pair of dimensions i and i + head_dim / 2. */
double tr_rope_frequency(const struct tr_rope *r, int head_dim, int i);
/* Tables of rotary angles for positions 0..n-1: cos and sin (n, head_dim / 2), attention factor
 * applied. Computed in double, rounded to f32. -ENOTSUP: dynamic scaling past its trained length.
 */
int tr_rope_tables(const struct tr_model_config *c, int64_t n, float *cos, float *sin);

#endif
