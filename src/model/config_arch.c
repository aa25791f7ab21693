/* SPDX-License-Identifier: Apache-2.0
 *
 * Published shapes by name, as the config.json that their folders have. Shapes alone: no weights,
 * no tokenizer. Anything else is a path to a config.json (or to a folder that has one).
 */
#include <stdio.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>

#include "src/base/err.h"
#include "src/base/file.h"
#include "src/base/json.h"
#include "src/base/mem.h"
#include "src/model/config.h"

struct shape {
    const char *name, *family;
    int layers, hidden, ffn, heads, kv_heads, vocab, max_position;
    double theta, eps;
    int tied;
    double llama3_factor; /* 0: no scaling */
    int head_dim;         /* 0: not written */
    int window;           /* 0: null, where the family has the key */
};

static const struct shape shapes[] = {
    {"llama-7b", "llama", 32, 4096, 11008, 32, 32, 32000, 2048, 1e4, 1e-6, 0, 0, 0, 0},
    {"llama-13b", "llama", 40, 5120, 13824, 40, 40, 32000, 2048, 1e4, 1e-6, 0, 0, 0, 0},
    {"llama-30b", "llama", 60, 6656, 17920, 52, 52, 32000, 2048, 1e4, 1e-6, 0, 0, 0, 0},
    {"llama-65b", "llama", 80, 8192, 22016, 64, 64, 32000, 2048, 1e4, 1e-5, 0, 0, 0, 0},
    {"llama-2-7b", "llama", 32, 4096, 11008, 32, 32, 32000, 4096, 1e4, 1e-5, 0, 0, 0, 0},
    {"llama-2-13b", "llama", 40, 5120, 13824, 40, 40, 32000, 4096, 1e4, 1e-5, 0, 0, 0, 0},
    {"llama-2-70b", "llama", 80, 8192, 28672, 64, 8, 32000, 4096, 1e4, 1e-5, 0, 0, 0, 0},
    {"llama-3-8b", "llama", 32, 4096, 14336, 32, 8, 128256, 8192, 5e5, 1e-5, 0, 0, 0, 0},
    {"llama-3-70b", "llama", 80, 8192, 28672, 64, 8, 128256, 8192, 5e5, 1e-5, 0, 0, 0, 0},
    {"llama-3.1-8b", "llama", 32, 4096, 14336, 32, 8, 128256, 131072, 5e5, 1e-5, 0, 8, 0, 0},
    {"llama-3.1-70b", "llama", 80, 8192, 28672, 64, 8, 128256, 131072, 5e5, 1e-5, 0, 8, 0, 0},
    {"llama-3.1-405b", "llama", 126, 16384, 53248, 128, 8, 128256, 131072, 5e5, 1e-5, 0, 8, 0, 0},
    {"llama-3.2-1b", "llama", 16, 2048, 8192, 32, 8, 128256, 131072, 5e5, 1e-5, 1, 32, 64, 0},
    {"llama-3.2-3b", "llama", 28, 3072, 8192, 24, 8, 128256, 131072, 5e5, 1e-5, 1, 32, 128, 0},
    {"tinyllama-1.1b", "llama", 22, 2048, 5632, 32, 4, 32000, 2048, 1e4, 1e-5, 0, 0, 0, 0},
    {"mistral-7b", "mistral", 32, 4096, 14336, 32, 8, 32000, 32768, 1e4, 1e-5, 0, 0, 0, 4096},
    {"mistral-7b-v0.3", "mistral", 32, 4096, 14336, 32, 8, 32768, 32768, 1e6, 1e-5, 0, 0, 0, 0},
    {"qwen2.5-0.5b", "qwen2", 24, 896, 4864, 14, 2, 151936, 32768, 1e6, 1e-6, 1, 0, 0, 0},
    {"qwen2.5-1.5b", "qwen2", 28, 1536, 8960, 12, 2, 151936, 131072, 1e6, 1e-6, 1, 0, 0, 0},
    {"qwen2.5-7b", "qwen2", 28, 3584, 18944, 28, 4, 152064, 131072, 1e6, 1e-6, 0, 0, 0, 0},
    {"qwen2.5-14b", "qwen2", 48, 5120, 13824, 40, 8, 152064, 131072, 1e6, 1e-5, 0, 0, 0, 0},
    {"qwen2.5-32b", "qwen2", 64, 5120, 27648, 40, 8, 152064, 131072, 1e6, 1e-5, 0, 0, 0, 0},
    {"qwen2.5-72b", "qwen2", 80, 8192, 29568, 64, 8, 152064, 131072, 1e6, 1e-5, 0, 0, 0, 0},
    {"qwen3-0.6b", "qwen3", 28, 1024, 3072, 16, 8, 151936, 40960, 1e6, 1e-6, 1, 0, 128, 0},
    {"qwen3-1.7b", "qwen3", 28, 2048, 6144, 16, 8, 151936, 40960, 1e6, 1e-6, 1, 0, 128, 0},
    {"qwen3-4b", "qwen3", 36, 2560, 9728, 32, 8, 151936, 40960, 1e6, 1e-6, 1, 0, 128, 0},
    {"qwen3-8b", "qwen3", 36, 4096, 12288, 32, 8, 151936, 40960, 1e6, 1e-6, 0, 0, 128, 0},
    {"qwen3-14b", "qwen3", 40, 5120, 17408, 40, 8, 151936, 40960, 1e6, 1e-6, 0, 0, 128, 0},
    {"qwen3-32b", "qwen3", 64, 5120, 25600, 64, 8, 151936, 40960, 1e6, 1e-6, 0, 0, 128, 0},
};

static const char *architecture(const char *family)
{
    if (!strcmp(family, "llama"))
        return "LlamaForCausalLM";
    if (!strcmp(family, "mistral"))
        return "MistralForCausalLM";
    return strcmp(family, "qwen2") ? "Qwen3ForCausalLM" : "Qwen2ForCausalLM";
}

/* What some shapes have and others do not. */
static void add_choices(json_t **o, const struct shape *s)
{
    if (s->head_dim)
        tr_json_add(o, "head_dim", json_integer(s->head_dim));
    if (!strcmp(s->family, "mistral"))
        tr_json_add(o, "sliding_window", s->window ? json_integer(s->window) : json_null());
    if (strcmp(s->family, "mistral") && strcmp(s->family, "qwen2"))
        tr_json_add(o, "attention_bias", json_false());
    if (s->llama3_factor > 0)
        tr_json_add(o, "rope_scaling",
                    json_pack("{s:s, s:f, s:f, s:f, s:i}", "rope_type", "llama3", "factor",
                              s->llama3_factor, "low_freq_factor", 1.0, "high_freq_factor", 4.0,
                              "original_max_position_embeddings", 8192));
}

static json_t *shape_json(const struct shape *s)
{
    json_t *o = json_pack(
        "{s:[s], s:s, s:s, s:i, s:f, s:i, s:i, s:i, s:i, s:i, s:f, s:f, s:b, s:i}", "architectures",
        architecture(s->family), "model_type", s->family, "hidden_act", "silu", "hidden_size",
        s->hidden, "initializer_range", 0.02, "intermediate_size", s->ffn,
        "max_position_embeddings", s->max_position, "num_attention_heads", s->heads,
        "num_hidden_layers", s->layers, "num_key_value_heads", s->kv_heads, "rms_norm_eps", s->eps,
        "rope_theta", s->theta, "tie_word_embeddings", s->tied, "vocab_size", s->vocab);

    add_choices(&o, s);
    return o;
}

static int read_file(const char *path, json_t **out)
{
    struct stat st;
    char *inner = NULL;
    int r;

    if (stat(path, &st) < 0)
        return tr_error(-ENOENT,
                        "%s: neither a known shape (like llama-7b, tinyllama-1.1b, "
                        "qwen2.5-7b) nor a config.json",
                        path);
    if (S_ISDIR(st.st_mode)) {
        inner = tr_path(path, "config.json");
        if (!inner)
            return -ENOMEM;
    }
    r = tr_json_read(inner ? inner : path, 1u << 20, out);
    tr_free(TR_MEM_MISC, inner);
    return r;
}

static const struct shape *find_shape(const char *name)
{
    for (size_t i = 0; i < sizeof(shapes) / sizeof(shapes[0]); i++)
        if (strcasecmp(name, shapes[i].name) == 0)
            return &shapes[i];
    return NULL;
}

int tr_config_is_shape(const char *name)
{
    return find_shape(name) != NULL;
}

int tr_config_arch(const char *name_or_path, json_t **out)
{
    const struct shape *s = find_shape(name_or_path);

    if (!s)
        return read_file(name_or_path, out);
    *out = shape_json(s);
    return *out ? 0 : tr_error(-ENOMEM, "%s: no memory for its configuration", name_or_path);
}
