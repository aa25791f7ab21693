/* SPDX-License-Identifier: Apache-2.0
 *
 * The metadata of a GGUF file. Names and meanings are llama.cpp's; what it would ignore or read
 * otherwise is refused in gguf.c, before anything is written.
 */
#include "src/checkpoint/gguf.h"

#include <math.h>
#include <string.h>

enum value { U32 = 4, I32 = 5, F32 = 6, BOOL = 7, TEXT = 8, ARRAY = 9 };

struct keys {
    FILE *f;
    const char *arch;
    uint64_t n;
};

void gguf_put_text(FILE *f, const char *text)
{
    uint64_t n = strlen(text);

    fwrite(&n, sizeof(n), 1, f);
    fwrite(text, 1, n, f);
}

/* A name that begins with a point belongs to the architecture. */
static void put_key(struct keys *k, const char *name, uint32_t type)
{
    char whole[128];

    snprintf(whole, sizeof(whole), "%s%s", *name == '.' ? k->arch : "", name);
    gguf_put_text(k->f, whole);
    fwrite(&type, sizeof(type), 1, k->f);
    k->n++;
}

static void put_u32(struct keys *k, const char *name, int64_t value)
{
    uint32_t v = (uint32_t)value;

    put_key(k, name, U32);
    fwrite(&v, sizeof(v), 1, k->f);
}

static void put_f32(struct keys *k, const char *name, double value)
{
    float v = (float)value;

    put_key(k, name, F32);
    fwrite(&v, sizeof(v), 1, k->f);
}

static void put_bool(struct keys *k, const char *name, int value)
{
    put_key(k, name, BOOL);
    fputc(value != 0, k->f);
}

static void put_string(struct keys *k, const char *name, const char *value)
{
    put_key(k, name, TEXT);
    gguf_put_text(k->f, value);
}

static void put_array(struct keys *k, const char *name, uint32_t type, uint64_t n)
{
    put_key(k, name, ARRAY);
    fwrite(&type, sizeof(type), 1, k->f);
    fwrite(&n, sizeof(n), 1, k->f);
}

/* yarn's factor on cos and sin is implied by its reader; only what differs from it is told. */
static void put_rope(struct keys *k, const struct tr_model_config *c)
{
    const struct tr_rope *r = &c->rope;

    put_u32(k, ".rope.dimension_count", c->head_dim);
    put_f32(k, ".rope.freq_base", r->theta);
    if (r->type == TR_ROPE_LINEAR || r->type == TR_ROPE_YARN) {
        put_string(k, ".rope.scaling.type", r->type == TR_ROPE_YARN ? "yarn" : "linear");
        put_f32(k, ".rope.scaling.factor", r->factor);
    }
    if (r->type == TR_ROPE_YARN) {
        put_u32(k, ".rope.scaling.original_context_length", r->original_max_position);
        put_f32(k, ".rope.scaling.attn_factor",
                r->attention_factor / (1 + 0.1 * log(r->factor > 1 ? r->factor : 1)));
        put_f32(k, ".rope.scaling.yarn_beta_fast", r->beta_fast);
        put_f32(k, ".rope.scaling.yarn_beta_slow", r->beta_slow);
    }
}

/* Its readers see all of the context in these architectures: within a window that is the same. */
static int64_t context(const struct tr_model_config *c)
{
    int64_t n = c->max_position;

    for (int32_t i = 0; i < c->layers; i++)
        n = c->window[i] && c->window[i] < n ? c->window[i] : n;
    return n;
}

static void put_shape(struct keys *k, const struct tr_model_config *c)
{
    put_u32(k, ".vocab_size", c->vocab);
    put_u32(k, ".context_length", context(c));
    put_u32(k, ".embedding_length", c->hidden);
    put_u32(k, ".block_count", c->layers);
    put_u32(k, ".feed_forward_length", c->ffn);
    put_u32(k, ".attention.head_count", c->heads);
    put_u32(k, ".attention.head_count_kv", c->kv_heads);
    put_u32(k, ".attention.key_length", c->head_dim);
    put_u32(k, ".attention.value_length", c->head_dim);
    put_f32(k, ".attention.layer_norm_rms_epsilon", (double)c->rms_eps);
    put_rope(k, c);
}

static void put_token(const struct keys *k, const struct tr_token_table *t, int32_t id)
{
    const char *piece =
        t->kind[id] == TR_TOKEN_UNUSED ? NULL : tr_tokenizer_piece(t->tokenizer, id);
    char made[32];

    snprintf(made, sizeof(made), "[PAD%d]", id);
    gguf_put_text(k->f, piece ? piece : made);
}

static void put_merge(const struct keys *k, const struct tr_token_table *t, int64_t merge)
{
    const char *left = tr_tokenizer_piece(t->tokenizer, (int32_t)(merge >> 32));
    const char *right = tr_tokenizer_piece(t->tokenizer, (int32_t)(merge & 0xffffffff));
    uint64_t n = strlen(left) + 1 + strlen(right);

    fwrite(&n, sizeof(n), 1, k->f);
    fprintf(k->f, "%s %s", left, right);
}

static void put_tokens(struct keys *k, const struct tr_token_table *t)
{
    put_string(k, "tokenizer.ggml.model", t->merge ? "gpt2" : "llama");
    put_string(k, "tokenizer.ggml.pre", t->pre);
    put_array(k, "tokenizer.ggml.tokens", TEXT, (uint64_t)t->n);
    for (int32_t i = 0; i < t->n; i++)
        put_token(k, t, i);
    put_array(k, "tokenizer.ggml.token_type", I32, (uint64_t)t->n);
    fwrite(t->kind, sizeof(*t->kind), (size_t)t->n, k->f);
    if (t->score) {
        put_array(k, "tokenizer.ggml.scores", F32, (uint64_t)t->n);
        fwrite(t->score, sizeof(*t->score), (size_t)t->n, k->f);
        put_bool(k, "tokenizer.ggml.add_space_prefix", t->adds_space);
    }
    if (t->merge) {
        put_array(k, "tokenizer.ggml.merges", TEXT, t->n_merges);
        for (uint32_t i = 0; i < t->n_merges; i++)
            put_merge(k, t, t->merge[i]);
    }
}

static void put_specials(struct keys *k, const struct tr_token_table *t)
{
    if (t->bos >= 0)
        put_u32(k, "tokenizer.ggml.bos_token_id", t->bos);
    if (t->eos >= 0)
        put_u32(k, "tokenizer.ggml.eos_token_id", t->eos);
    if (t->unk >= 0)
        put_u32(k, "tokenizer.ggml.unknown_token_id", t->unk);
    put_bool(k, "tokenizer.ggml.add_bos_token", t->adds_bos);
    put_bool(k, "tokenizer.ggml.add_eos_token", t->adds_eos);
}

/* general.file_type, by the type of the matrices. */
static int64_t file_type(enum tr_dtype type)
{
    return type == TR_F32 ? 0 : type == TR_F16 ? 1 : 32;
}

int gguf_put_keys(FILE *f, const struct gguf_told *told, uint64_t *n)
{
    struct keys k = {f, told->arch, 0};

    put_string(&k, "general.architecture", told->arch);
    put_string(&k, "general.type", "model");
    put_string(&k, "general.name", told->name);
    put_u32(&k, "general.file_type", file_type(told->type));
    put_u32(&k, "general.alignment", GGUF_ALIGN);
    put_shape(&k, told->config);
    put_tokens(&k, told->tokens);
    put_specials(&k, told->tokens);
    if (told->chat_template)
        put_string(&k, "tokenizer.chat_template", told->chat_template);
    *n = k.n;
    return ferror(f) ? -1 : 0;
}
