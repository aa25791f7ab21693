/* SPDX-License-Identifier: Apache-2.0
 *
 * The families are rows of a table: what they share is read by one list of keys, what differs is a
 * column. Where a key may be missing, the fallback is what transformers' own configuration class
 * takes. Keys that change the arithmetic in a way this program does not know are refused by name;
 * keys that do not (token ids, use_cache, pretraining_tp ...) are not looked at.
 *
 * config_rope.c reads the rotary part, config_keys.c the single values, rope.c computes the tables.
 */
#include "src/model/config.h"

#include <stdio.h>
#include <string.h>

#include "src/base/err.h"
#include "src/base/json.h"
#include "src/model/config_keys.h"
#include "src/model/config_parts.h"

#define CONFIG_BYTES (1u << 20)

enum window_kind { WINDOW_NONE, WINDOW_ALL, WINDOW_SWITCHED };

struct family {
    const char *architecture, *model_type;
    int qkv_bias;     /* always; otherwise attention_bias says so where has_bias_key */
    int has_bias_key; /* attention_bias: q, k, v and o */
    int qk_norm;
    enum window_kind window;
    int64_t head_dim; /* where the key is missing; 0: hidden_size / num_attention_heads */
    int64_t kv_heads; /* where the key is missing; 0: num_attention_heads */
    int64_t max_position;
};

static const struct family families[] = {
    {"LlamaForCausalLM", "llama", 0, 1, 0, WINDOW_NONE, 0, 0, 2048},
    {"MistralForCausalLM", "mistral", 0, 0, 0, WINDOW_ALL, 0, 8, 131072},
    {"Qwen2ForCausalLM", "qwen2", 1, 0, 0, WINDOW_SWITCHED, 0, 32, 32768},
    {"Qwen3ForCausalLM", "qwen3", 0, 1, 1, WINDOW_SWITCHED, 128, 32, 32768},
};

#define N_FAMILIES (sizeof(families) / sizeof(families[0]))

/* Each of these would change what the model computes; what is there and not empty is refused. */
static const char *const refused_keys[] = {
    "quantization_config",
    "num_local_experts",
    "num_experts",
    "n_routed_experts",
    "num_experts_per_tok",
    "text_config",
    "vision_config",
    "attn_logit_softcapping",
    "final_logit_softcapping",
    "query_pre_attn_scalar",
    "clip_qkv",
    "no_rope_layers",
    "embedding_multiplier",
    "logits_scaling",
    "residual_multiplier",
    "attention_multiplier",
};

static const char *first_architecture(struct tr_keys *k)
{
    const json_t *list = tr_keys_get(k, "architectures");
    const char *name;

    if (!list)
        return NULL;
    name = json_string_value(json_array_get(list, 0));
    if (!name || json_array_size(list) != 1)
        tr_keys_refuse(k, "architectures", "a list of one name is needed");
    return name;
}

/* "architectures" decides, as it does for the reference; "model_type" serves files without it, and
 * must not say otherwise. */
static const struct family *find_family(struct tr_keys *k)
{
    const char *architecture = first_architecture(k), *type = tr_keys_text(k, "model_type", NULL);
    const char *key = architecture ? "architectures" : "model_type";

    for (size_t i = 0; k->r == 0 && i < N_FAMILIES; i++) {
        const struct family *f = &families[i];

        if (architecture ? strcmp(architecture, f->architecture)
                         : !type || strcmp(type, f->model_type))
            continue;
        if (type && strcmp(type, f->model_type))
            tr_keys_refuse(k, "model_type", "it contradicts \"architectures\"");
        return f;
    }
    tr_keys_refuse(k, key,
                   "supported are LlamaForCausalLM, MistralForCausalLM, Qwen2ForCausalLM "
                   "and Qwen3ForCausalLM");
    return NULL;
}

static void refuse_unknown(struct tr_keys *k, const struct family *f)
{
    const char *act = tr_keys_text(k, "hidden_act", "silu");

    for (size_t i = 0; i < sizeof(refused_keys) / sizeof(refused_keys[0]); i++)
        if (tr_keys_says(k, refused_keys[i]))
            tr_keys_refuse(k, refused_keys[i], "this is not supported");
    if (strcmp(act, "silu") && strcmp(act, "swish"))
        tr_keys_refuse(k, "hidden_act", "only silu is supported");
    if (tr_keys_bool(k, "mlp_bias", 0))
        tr_keys_refuse(k, "mlp_bias", "biases in the MLP are not supported");
    if (!f->has_bias_key && tr_keys_bool(k, "attention_bias", f->qkv_bias) != f->qkv_bias)
        tr_keys_refuse(k, "attention_bias", "this architecture does not have the choice");
    if (tr_keys_real(k, "attention_dropout", 0, 1, 0) != 0)
        tr_keys_refuse(k, "attention_dropout", "only 0 is supported");
}

/* The bounds are far above any model there is, and low enough that products of any three stay
 * within 64 bits: all sizes are computed from these without further checks. */
static void read_shape(struct tr_keys *k, const struct family *f, struct tr_model_config *c)
{
    int64_t head_dim, kv;

    c->hidden = (int32_t)tr_keys_int(k, "hidden_size", 1, 1 << 16, TR_KEY_REQUIRED);
    c->ffn = (int32_t)tr_keys_int(k, "intermediate_size", 1, 1 << 19, TR_KEY_REQUIRED);
    c->layers = (int32_t)tr_keys_int(k, "num_hidden_layers", 1, TR_MAX_LAYERS, TR_KEY_REQUIRED);
    c->heads = (int32_t)tr_keys_int(k, "num_attention_heads", 1, 4096, TR_KEY_REQUIRED);
    c->vocab = (int32_t)tr_keys_int(k, "vocab_size", 1, 1 << 22, TR_KEY_REQUIRED);
    kv = !f->kv_heads || json_object_get(k->object, "num_key_value_heads") ? c->heads : f->kv_heads;
    c->kv_heads = (int32_t)tr_keys_int(k, "num_key_value_heads", 1, c->heads, kv);
    if (c->kv_heads > c->heads || c->heads % c->kv_heads)
        tr_keys_refuse(k, "num_key_value_heads", "it must divide num_attention_heads");
    head_dim =
        f->head_dim && !json_object_get(k->object, "head_dim") ? f->head_dim : c->hidden / c->heads;
    c->head_dim = (int32_t)tr_keys_int(k, "head_dim", 1, 1024, head_dim);
    if (!tr_keys_get(k, "head_dim") && !f->head_dim && c->hidden % c->heads)
        tr_keys_refuse(k, "hidden_size",
                       "num_attention_heads must divide it where there is no "
                       "\"head_dim\"");
    if (c->head_dim < 2 || c->head_dim % 2 || c->head_dim > 1024)
        tr_keys_refuse(k, tr_keys_get(k, "head_dim") ? "head_dim" : "hidden_size",
                       "a head needs an even number of dimensions, at most 1024");
}

/* Whether the layer at hand uses the window, by max_window_layers or by its name in layer_types. */
static int layer_has_window(struct tr_keys *k, int32_t layer, int by_number)
{
    const json_t *types = tr_keys_get(k, "layer_types");
    const char *name = json_string_value(json_array_get(types, (size_t)layer));

    if (!types)
        return by_number;
    if (name && !strcmp(name, "sliding_attention"))
        return 1;
    if (!name || strcmp(name, "full_attention"))
        tr_keys_refuse(k, "layer_types",
                       "one of full_attention and sliding_attention is needed for "
                       "each layer");
    return 0;
}

/* Two ways to say which layers have the window: a number from which on, and a name for each layer.
 * A folder may have both; where they differ the names win, as they do in the reference. */
static void read_windows(struct tr_keys *k, const struct family *f, struct tr_model_config *c)
{
    /* transformers takes 4096 only where the key is missing: null means no window. */
    int64_t fallback = json_object_get(k->object, "sliding_window") ? 0 : 4096;
    int64_t window = tr_keys_int(k, "sliding_window", 1, INT64_C(1) << 40, fallback);
    int64_t first = 0;
    const json_t *types = tr_keys_get(k, "layer_types");

    if (f->window == WINDOW_NONE && tr_keys_get(k, "sliding_window"))
        tr_keys_refuse(k, "sliding_window", "this architecture has no window");
    if (f->window == WINDOW_NONE)
        window = 0;
    if (f->window == WINDOW_SWITCHED) {
        if (!tr_keys_bool(k, "use_sliding_window", 0))
            window = 0;
        first = tr_keys_int(k, "max_window_layers", 0, INT64_C(1) << 31, 28);
    }
    if (types && json_array_size(types) != (size_t)c->layers)
        tr_keys_refuse(k, "layer_types", "a list with one name for each layer is needed");
    for (int32_t i = 0; i < c->layers && k->r == 0; i++) {
        int has = layer_has_window(k, i, window && i >= first);

        if (has && !window)
            tr_keys_refuse(k, "layer_types", "a layer has a window and the configuration has none");
        if (f->window == WINDOW_ALL && has != (window > 0))
            tr_keys_refuse(k, "layer_types", "this architecture has one window for all layers");
        c->window[i] = has ? window : 0;
    }
}

/* What the file says of its own weights. Nothing is converted for it: the type of each tensor
 * stands in the safetensors header, this one is for `init` and is rewritten on export. */
static int read_dtype(struct tr_keys *k)
{
    const char *old = tr_keys_text(k, "torch_dtype", NULL), *name = tr_keys_text(k, "dtype", old);
    enum tr_dtype t, other;

    if (!name)
        return -1;
    name = strncmp(name, "torch.", 6) ? name : name + 6;
    if (tr_dtype_parse(name, &t) < 0) {
        tr_keys_refuse(k, tr_keys_get(k, "dtype") ? "dtype" : "torch_dtype",
                       "float32, bfloat16 or float16 is needed");
        return -1;
    }
    old = old && !strncmp(old, "torch.", 6) ? old + 6 : old;
    if (old && (tr_dtype_parse(old, &other) < 0 || other != t))
        tr_keys_refuse(k, "torch_dtype", "it contradicts \"dtype\"");
    return t;
}

int tr_config_parse(const json_t *root, const char *where, struct tr_model_config *out)
{
    struct tr_keys k = {root, where, "", 0};
    const struct family *f;
    int bias;

    memset(out, 0, sizeof(*out));
    if (!json_is_object(root))
        return tr_error(-EINVAL, "%s: a JSON object is needed", where);
    f = find_family(&k);
    if (k.r < 0)
        return k.r;
    snprintf(out->architecture, sizeof(out->architecture), "%s", f->architecture);
    refuse_unknown(&k, f);
    read_shape(&k, f, out);
    bias = f->has_bias_key && tr_keys_bool(&k, "attention_bias", 0);
    out->qkv_bias = f->qkv_bias || bias;
    out->o_bias = bias;
    out->qk_norm = f->qk_norm;
    out->max_position =
        tr_keys_int(&k, "max_position_embeddings", 1, INT64_C(1) << 31, f->max_position);
    out->rms_eps = (float)tr_keys_real(&k, "rms_norm_eps", 0, 1, 1e-6);
    out->tied = tr_keys_bool(&k, "tie_word_embeddings", 0);
    out->init_std = tr_keys_real(&k, "initializer_range", 0, 1, 0.02);
    out->dtype = read_dtype(&k);
    if (k.r == 0)
        read_windows(&k, f, out);
    if (k.r == 0)
        tr_config_rope(&k, out);
    return k.r;
}

int tr_config_check_tokens(const struct tr_model_config *c, const char *tokenizer, int32_t tokens)
{
    return tokens <= c->vocab
               ? 0
               : tr_error(-EINVAL, "%s: the tokenizer has %d tokens, the model %d (\"vocab_size\")",
                          tokenizer, tokens, c->vocab);
}

int tr_config_read(const char *path, struct tr_model_config *out)
{
    json_t *root;
    int r = tr_json_read(path, CONFIG_BYTES, &root);

    if (r < 0)
        return r;
    r = tr_config_parse(root, path, out);
    json_decref(root);
    return r;
}
