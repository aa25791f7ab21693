/* SPDX-License-Identifier: Apache-2.0
 *
 * GGUF read back by a reader of its own: every tensor equal to the Hugging Face export after the
 * order of Q's and K's rows is undone, keys as the model's, the vocabulary piece by piece. And what
 * the format cannot say is refused by name, with nothing left behind.
 */
#include <errno.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "src/base/file.h"
#include "src/base/json.h"
#include "src/checkpoint/keep.h"
#include "src/text/tokenizer.h"
#include "tests/device/budget.h"
#include "tests/train/common.h"

#define LAYERS 2
#define MOST   64

enum { U8, I8, U16, I16, U32, I32, F32, BOOL, TEXT, ARRAY };

/* Paths of what is made, and of a tokenizer that has been learnt. */
static char folder[4352], gguf[4352], tokenizer[4352];

struct value {
    char key[64];
    uint32_t type, of; /* of: of an array's elements */
    uint64_t n;        /* bytes of a text, elements of an array */
    const char *at;    /* the value; of an array its first element */
};

struct tensor {
    char name[65];
    uint32_t dims, type;
    uint64_t dim[2];
    const char *at;
};

struct file {
    char *text;
    size_t bytes, place;
    struct value value[MOST];
    struct tensor tensor[MOST];
    uint64_t n_values, n_tensors;
};

static const char *take(struct file *f, uint64_t n)
{
    const char *p = f->text + f->place;

    assert_true(n <= f->bytes - f->place);
    f->place += n;
    return p;
}

static uint64_t number(struct file *f, size_t size)
{
    uint64_t v = 0;

    memcpy(&v, take(f, size), size);
    return v;
}

static void name(struct file *f, char *out, size_t room)
{
    uint64_t n = number(f, 8);

    assert_true(n < room);
    memcpy(out, take(f, n), n);
    out[n] = 0;
}

static void pass_over(struct file *f, uint32_t type)
{
    static const size_t size[] = {1, 1, 2, 2, 4, 4, 4, 1};

    if (type == TEXT)
        take(f, number(f, 8));
    else
        take(f, size[type]);
}

static void read_value(struct file *f, struct value *v)
{
    name(f, v->key, sizeof(v->key));
    v->type = (uint32_t)number(f, 4);
    if (v->type == ARRAY) {
        v->of = (uint32_t)number(f, 4);
        v->n = number(f, 8);
    }
    if (v->type == TEXT)
        v->n = number(f, 8);
    v->at = f->text + f->place;
    if (v->type == TEXT)
        take(f, v->n);
    else if (v->type == ARRAY)
        for (uint64_t i = 0; i < v->n; i++)
            pass_over(f, v->of);
    else
        pass_over(f, v->type);
}

static void read_gguf(struct file *f, const char *path)
{
    uint64_t offset[MOST], data;

    memset(f, 0, sizeof(*f));
    assert_int_equal(tr_file_read(path, 64 << 20, &f->text, &f->bytes), 0);
    assert_memory_equal(take(f, 4), "GGUF", 4);
    assert_int_equal(number(f, 4), 3);
    f->n_tensors = number(f, 8);
    f->n_values = number(f, 8);
    assert_true(f->n_tensors <= MOST && f->n_values <= MOST);
    for (uint64_t i = 0; i < f->n_values; i++)
        read_value(f, &f->value[i]);
    for (uint64_t i = 0; i < f->n_tensors; i++) {
        struct tensor *t = &f->tensor[i];

        name(f, t->name, sizeof(t->name));
        t->dims = (uint32_t)number(f, 4);
        assert_true(t->dims == 1 || t->dims == 2);
        t->dim[0] = number(f, 8);
        t->dim[1] = t->dims == 2 ? number(f, 8) : 1;
        t->type = (uint32_t)number(f, 4);
        offset[i] = number(f, 8);
        assert_int_equal(offset[i] % 32, 0);
    }
    data = (f->place + 31) / 32 * 32;
    for (uint64_t i = 0; i < f->n_tensors; i++) {
        uint64_t bytes = f->tensor[i].dim[0] * f->tensor[i].dim[1] * (f->tensor[i].type ? 2 : 4);

        f->tensor[i].at = f->text + data + offset[i];
        assert_true(data + offset[i] + bytes <= f->bytes);
    }
}

static void close_gguf(struct file *f)
{
    tr_free(TR_MEM_TEXT, f->text);
}

static const struct value *value(const struct file *f, const char *key)
{
    for (uint64_t i = 0; i < f->n_values; i++)
        if (!strcmp(f->value[i].key, key))
            return &f->value[i];
    return NULL;
}

static void expect_u32(const struct file *f, const char *key, uint32_t want)
{
    const struct value *v = value(f, key);

    if (!v || v->type != U32 || memcmp(v->at, &want, 4) != 0)
        fail_msg("%s is not %u", key, want);
}

static void expect_f32(const struct file *f, const char *key, float want)
{
    const struct value *v = value(f, key);

    if (!v || v->type != F32 || memcmp(v->at, &want, 4) != 0)
        fail_msg("%s is not %g", key, (double)want);
}

static void expect_text(const struct file *f, const char *key, const char *want)
{
    const struct value *v = value(f, key);

    if (!v || v->type != TEXT || v->n != strlen(want) || memcmp(v->at, want, v->n) != 0)
        fail_msg("%s is not \"%s\"", key, want);
}

static float element(const struct tensor *t, size_t i)
{
    return tr_load_f32(t->at, t->type == 0 ? TR_F32 : t->type == 1 ? TR_F16 : TR_BF16, i);
}

/* Where row `row` of a turned head-wise tensor stands in Hugging Face's order. */
static uint64_t untwist(uint64_t row, uint64_t head_dim)
{
    uint64_t head = row / head_dim, in = row % head_dim;

    return head * head_dim + in / 2 + in % 2 * (head_dim / 2);
}

/* The folder with the same export in f32: vectors are that in every file. */
static const char *vectors(void)
{
    static char path[4400];

    snprintf(path, sizeof(path), "%s.f32", folder);
    return path;
}

static void same_tensor(const struct file *f, const char *gguf_name, const char *hf_name,
                        uint64_t head_dim)
{
    const struct tensor *t = NULL;
    size_t n = 0;
    float *want;

    for (uint64_t i = 0; i < f->n_tensors; i++)
        if (!strcmp(f->tensor[i].name, gguf_name))
            t = &f->tensor[i];
    want = t ? read_tensor(t->dims == 1 ? vectors() : folder, hf_name, &n) : NULL;
    if (!t || !want || t->dim[0] * t->dim[1] != n)
        fail_msg("%s: is not there, or of another size", gguf_name);
    if (t->dims == 1)
        assert_int_equal(t->type, 0);
    for (size_t i = 0; i < n; i++) {
        uint64_t cols = t->dims == 1 ? 1 : t->dim[0], row = i / cols;
        uint64_t from = (head_dim ? untwist(row, head_dim) : row) * cols + i % cols;

        if (element(t, i) != want[from])
            fail_msg("%s: element %zu is %g, not %g", gguf_name, i, (double)element(t, i),
                     (double)want[from]);
    }
    free(want);
}

static const struct {
    const char *gguf, *hf;
    int turned;       /* in the Llama architecture */
    const char *only; /* family */
} names[] = {{"attn_q.weight", "self_attn.q_proj.weight", 1, NULL},
             {"attn_k.weight", "self_attn.k_proj.weight", 1, NULL},
             {"attn_v.weight", "self_attn.v_proj.weight", 0, NULL},
             {"attn_output.weight", "self_attn.o_proj.weight", 0, NULL},
             {"attn_q.bias", "self_attn.q_proj.bias", 1, "qwen2"},
             {"attn_k.bias", "self_attn.k_proj.bias", 1, "qwen2"},
             {"attn_v.bias", "self_attn.v_proj.bias", 0, "qwen2"},
             {"attn_q_norm.weight", "self_attn.q_norm.weight", 0, "qwen3"},
             {"attn_k_norm.weight", "self_attn.k_norm.weight", 0, "qwen3"},
             {"attn_norm.weight", "input_layernorm.weight", 0, NULL},
             {"ffn_norm.weight", "post_attention_layernorm.weight", 0, NULL},
             {"ffn_gate.weight", "mlp.gate_proj.weight", 0, NULL},
             {"ffn_up.weight", "mlp.up_proj.weight", 0, NULL},
             {"ffn_down.weight", "mlp.down_proj.weight", 0, NULL}};

struct example {
    struct tiny tiny;
    const char *arch;
    int biases; /* all of attention's, as Llama may have them */
    enum tr_type type;
    int64_t rank; /* of adapters, which are merged; or 0 */
};

static uint64_t same_block(const struct file *f, const struct example *e, int layer)
{
    int turned = !strcmp(e->arch, "llama");
    uint64_t found = 0;

    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        char name_of[96], hf[128];

        if (names[i].only && strcmp(names[i].only, e->tiny.family) != 0 &&
            !(e->biases && strstr(names[i].gguf, "bias")))
            continue;
        snprintf(name_of, sizeof(name_of), "blk.%d.%s", layer, names[i].gguf);
        snprintf(hf, sizeof(hf), "model.layers.%d.%s", layer, names[i].hf);
        same_tensor(f, name_of, hf, turned && names[i].turned ? (uint64_t)e->tiny.head_dim : 0);
        found++;
    }
    if (e->biases) {
        char name_of[96], hf[128];

        snprintf(name_of, sizeof(name_of), "blk.%d.attn_output.bias", layer);
        snprintf(hf, sizeof(hf), "model.layers.%d.self_attn.o_proj.bias", layer);
        same_tensor(f, name_of, hf, 0);
    }
    return found + (uint64_t)e->biases;
}

static void same_keys(const struct file *f, const struct example *e)
{
    static const struct {
        const char *key;
        size_t at;
    } numbers[] = {{"embedding_length", offsetof(struct tiny, hidden)},
                   {"feed_forward_length", offsetof(struct tiny, ffn)},
                   {"block_count", offsetof(struct tiny, layers)},
                   {"attention.head_count", offsetof(struct tiny, heads)},
                   {"attention.head_count_kv", offsetof(struct tiny, kv_heads)},
                   {"attention.key_length", offsetof(struct tiny, head_dim)},
                   {"attention.value_length", offsetof(struct tiny, head_dim)},
                   {"rope.dimension_count", offsetof(struct tiny, head_dim)},
                   {"vocab_size", offsetof(struct tiny, vocab)}};
    char key[96];

    expect_text(f, "general.architecture", e->arch);
    expect_u32(f, "general.alignment", 32);
    expect_u32(f, "general.file_type",
               e->type == TR_TYPE_F32   ? 0
               : e->type == TR_TYPE_F16 ? 1
                                        : 32);
    for (size_t i = 0; i < sizeof(numbers) / sizeof(numbers[0]); i++) {
        int want;

        memcpy(&want, (const char *)&e->tiny + numbers[i].at, sizeof(want));
        snprintf(key, sizeof(key), "%s.%s", e->arch, numbers[i].key);
        expect_u32(f, key, (uint32_t)want);
    }
}

/* A run of one step on the example's model; its path. */
static const char *make_run(const struct example *e, const char *with)
{
    const char *model = scratch_path("model"), *data = scratch_path("data.jsonl");
    const char *run = scratch_path("run");
    struct tr_train_params p = {.model = model,
                                .data = data,
                                .out = run,
                                .steps = 1,
                                .batch_size = 2,
                                .seq_len = 16,
                                .dtype = e->type == TR_TYPE_BF16 ? TR_TYPE_BF16 : TR_TYPE_SOURCE,
                                .export_model = TR_NO,
                                .lora_rank = e->rank,
                                .lora_targets = e->rank ? "all-linear" : NULL,
                                .threads = 1,
                                .device_memory = test_budget(NULL, 32 << 20)};
    struct tr_step_report last;

    tiny_model(model, &e->tiny, TR_TYPE_F32, 3);
    if (with && tr_keep_copy_tokenizer(with, model) < 0)
        fail_msg("%s", tr_message());
    token_data(data, 8, 8, 16, e->tiny.vocab);
    if (train(&p, &last) < 0)
        fail_msg("%s", tr_message());
    return run;
}

static void export_as(const char *run, enum tr_type type, int merge)
{
    struct tr_export_run_params p = {.run = run, .gguf = gguf, .dtype = type};

    if (tr_export_run(&p, NULL) < 0)
        fail_msg("%s", tr_message());
    assert_int_equal(tr_export_run(&p, NULL), -EEXIST);
    p.out = folder;
    assert_int_equal(tr_export_run(&p, NULL), -EINVAL); /* one of them */
    p.gguf = NULL;
    p.merge = merge;
    if (tr_export_run(&p, NULL) < 0)
        fail_msg("%s", tr_message());
    p.out = vectors();
    p.dtype = TR_TYPE_F32;
    assert_int_equal(tr_export_run(&p, NULL), 0);
}

static void export_both(const char *run, enum tr_type type)
{
    export_as(run, type, 0);
}

static void clear(void)
{
    tr_remove_tree(scratch_path("run"));
    tr_remove_tree(scratch_path("model"));
    tr_remove_tree(folder);
    tr_remove_tree(vectors());
    unlink(gguf);
}

#define LLAMA3                                                                                     \
    "\"rope_scaling\": {\"rope_type\": \"llama3\", \"factor\": 8.0, \"low_freq_factor\": 1.0, "    \
    "\"high_freq_factor\": 4.0, \"original_max_position_embeddings\": 32}"
#define YARN                                                                                       \
    "\"rope_scaling\": {\"rope_type\": \"yarn\", \"factor\": 4.0, "                                \
    "\"original_max_position_embeddings\": 16}"
#define BIASES "\"attention_bias\": true"

static const struct example examples[] = {
    {{"llama", 32, 48, LAYERS, 4, 2, 8, 300, 64, LLAMA3}, "llama", 0, TR_TYPE_F32},
    {{"llama-tied", 32, 48, LAYERS, 4, 4, 16, 300, 64, BIASES}, "llama", 1, TR_TYPE_BF16},
    {{"mistral", 32, 48, LAYERS, 4, 1, 8, 300, 64, "\"sliding_window\": 24"},
     "llama",
     0,
     TR_TYPE_F16},
    {{"qwen2", 48, 64, LAYERS, 6, 2, 8, 300, 64, YARN}, "qwen2", 0, TR_TYPE_F32},
    {{"qwen3", 32, 48, LAYERS, 4, 2, 16, 300, 64, ""}, "qwen3", 0, TR_TYPE_BF16},
    {{"mistral", 32, 48, LAYERS, 4, 2, 8, 300, 64, ""}, "llama", 0, TR_TYPE_F32, 3},
};

static void test_tensors(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof(examples) / sizeof(examples[0]); i++) {
        const struct example *e = &examples[i];
        int tied = !strcmp(e->tiny.family, "llama-tied");
        int factors = strstr(e->tiny.extra, "llama3") != NULL;
        uint64_t found = 0;
        struct file f;

        export_as(make_run(e, tokenizer), e->type, e->rank > 0);
        read_gguf(&f, gguf);
        same_keys(&f, e);
        expect_text(&f, "general.name", "model");
        for (int layer = 0; layer < LAYERS; layer++)
            found += same_block(&f, e, layer);
        same_tensor(&f, "token_embd.weight", "model.embed_tokens.weight", 0);
        same_tensor(&f, "output_norm.weight", "model.norm.weight", 0);
        if (!tied)
            same_tensor(&f, "output.weight", "lm_head.weight", 0);
        assert_int_equal(f.n_tensors, found + 3 - (uint64_t)tied + (uint64_t)factors);
        close_gguf(&f);
        clear();
    }
}

/* Long waves are divided by the factor, short ones by 1; and other scalings are keys. */
static void test_rope(void **state)
{
    const struct tensor *t = NULL;
    struct file f;

    (void)state;
    export_both(make_run(&examples[0], tokenizer), TR_TYPE_F32);
    read_gguf(&f, gguf);
    for (uint64_t i = 0; i < f.n_tensors; i++)
        if (!strcmp(f.tensor[i].name, "rope_freqs.weight"))
            t = &f.tensor[i];
    assert_non_null(t);
    assert_int_equal(t->dim[0], 4);
    assert_true(element(t, 0) == 1 && element(t, 1) == 8);
    assert_true(element(t, 2) == 8 && element(t, 3) == 8);
    assert_null(value(&f, "llama.rope.scaling.type"));
    expect_u32(&f, "llama.context_length", 64);
    close_gguf(&f);
    clear();
    export_both(make_run(&examples[3], tokenizer), TR_TYPE_F32);
    read_gguf(&f, gguf);
    expect_text(&f, "qwen2.rope.scaling.type", "yarn");
    expect_f32(&f, "qwen2.rope.scaling.factor", 4);
    expect_u32(&f, "qwen2.rope.scaling.original_context_length", 16);
    expect_f32(&f, "qwen2.rope.scaling.attn_factor", 1);
    close_gguf(&f);
    clear();
    export_both(make_run(&examples[2], tokenizer), TR_TYPE_F16);
    read_gguf(&f, gguf);
    expect_u32(&f, "llama.context_length", 24);
    close_gguf(&f);
    clear();
}

/* The elements of an array of texts, one after the other. */
static const char *next_text(const char **at, uint64_t *n)
{
    const char *text;

    memcpy(n, *at, 8);
    text = *at + 8;
    *at = text + *n;
    return text;
}

static void test_vocabulary(void **state)
{
    const char *at;
    const struct value *tokens, *kinds, *scores;
    struct tr_tokenizer *t;
    struct file f;

    (void)state;
    export_both(make_run(&examples[4], tokenizer), TR_TYPE_BF16);
    read_gguf(&f, gguf);
    assert_int_equal(tr_tokenizer_open(&t, tokenizer), 0);
    expect_text(&f, "tokenizer.ggml.model", "llama");
    expect_text(&f, "tokenizer.ggml.pre", "default");
    expect_u32(&f, "tokenizer.ggml.bos_token_id", (uint32_t)tr_tokenizer_bos(t));
    expect_u32(&f, "tokenizer.ggml.eos_token_id", (uint32_t)tr_tokenizer_eos(t));
    assert_non_null(tokens = value(&f, "tokenizer.ggml.tokens"));
    assert_non_null(kinds = value(&f, "tokenizer.ggml.token_type"));
    assert_non_null(scores = value(&f, "tokenizer.ggml.scores"));
    assert_null(value(&f, "tokenizer.ggml.merges"));
    assert_true(tokens->n == 300 && kinds->n == 300 && scores->n == 300);
    at = tokens->at;
    for (int32_t i = 0; i < 300; i++) {
        const char *piece = tr_tokenizer_piece(t, i), *got;
        int32_t kind;
        uint64_t n;

        memcpy(&kind, kinds->at + 4 * i, 4);
        got = next_text(&at, &n);
        if (!piece) {
            assert_int_equal(kind, 5);
            assert_memory_equal(got, "[PAD", 4);
            continue;
        }
        assert_int_equal(n, strlen(piece));
        assert_memory_equal(got, piece, n);
        assert_int_equal(kind, !strncmp(piece, "<0x", 3)                              ? 6
                               : i == tr_tokenizer_bos(t) || i == tr_tokenizer_eos(t) ? 3
                               : !strcmp(piece, "<unk>")                              ? 2
                                                                                      : 1);
    }
    tr_tokenizer_close(t);
    close_gguf(&f);
    clear();
}

struct vocabulary {
    char piece[300][32];
    float score[300];
};

static void read_vocabulary(const struct file *f, struct vocabulary *v)
{
    const char *at = value(f, "tokenizer.ggml.tokens")->at;

    memcpy(v->score, value(f, "tokenizer.ggml.scores")->at, sizeof(v->score));
    for (int i = 0; i < 300; i++) {
        uint64_t bytes;
        const char *p = next_text(&at, &bytes);

        assert_true(bytes < 32);
        memcpy(v->piece[i], p, bytes);
        v->piece[i][bytes] = 0;
    }
}

static int piece_id(const struct vocabulary *v, const char *text)
{
    for (int i = 0; i < 300; i++)
        if (!strcmp(v->piece[i], text))
            return i;
    return -1;
}

/* Of two neighbours whose join is a piece those with the highest score join, the first of equal
 * ones, until none do. Characters are the first symbols. Returns how many are left. */
static int join(const struct vocabulary *v, char symbol[][32], int n)
{
    for (;;) {
        int best = -1, id = -1;

        for (int i = 0; i + 1 < n; i++) {
            char both[64];
            int found;

            snprintf(both, sizeof(both), "%s%s", symbol[i], symbol[i + 1]);
            found = piece_id(v, both);
            if (found >= 0 && (best < 0 || v->score[found] > v->score[id])) {
                best = i;
                id = found;
            }
        }
        if (best < 0)
            return n;
        snprintf(symbol[best], 32, "%s", v->piece[id]);
        memmove(symbol[best + 1], symbol[best + 2], (size_t)(n - best - 2) * sizeof(*symbol));
        n--;
    }
}

/* Joined by the scores alone a text has the tokenizer's ids. */
static void test_scores(void **state)
{
    static const char text[] = "the cat sat on the mat, and then the others sat on that cat";
    struct vocabulary v;
    struct tr_ids want = {0};
    struct tr_tokenizer *t;
    char symbol[80][32];
    struct file f;
    int n = 0;

    (void)state;
    export_both(make_run(&examples[4], tokenizer), TR_TYPE_BF16);
    read_gguf(&f, gguf);
    read_vocabulary(&f, &v);
    assert_int_equal(*value(&f, "tokenizer.ggml.add_space_prefix")->at, 1);
    snprintf(symbol[n++], 32, "\xE2\x96\x81");
    for (const char *p = text; *p; p++)
        snprintf(symbol[n++], 32, "%.*s", 1 + 2 * (*p == ' '), *p == ' ' ? "\xE2\x96\x81" : p);
    n = join(&v, symbol, n);
    assert_int_equal(tr_tokenizer_open(&t, tokenizer), 0);
    assert_int_equal(tr_tokenizer_encode(t, text, strlen(text), &want), 0);
    assert_int_equal(want.n, n);
    assert_true(n < 50); /* some do join */
    for (int i = 0; i < n; i++)
        assert_int_equal(want.v[i], piece_id(&v, symbol[i]));
    tr_ids_free(&want);
    tr_tokenizer_close(t);
    close_gguf(&f);
    clear();
}

#define QWEN2                                                                                      \
    "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}| "                          \
    "?[^\\s\\p{L}\\p{N}]+[\\r\\n]*"                                                                \
    "|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"

/* A byte-level tokenizer of a few letters with two merges, which cuts by `first` and then, by its
 * own expression or not at all, as bytes. */
static const char *byte_level(json_t *first, int own)
{
    static char made[4352], path[4400];
    json_t *root = json_pack(
        "{s:{s:s, s:{s:i, s:i, s:i, s:i, s:i, s:i}, s:[s, s]}, s:{s:s, s:[o, {s:s, s:b, s:b}]},"
        " s:{s:s}, s:[{s:i, s:s, s:b, s:b}]}",
        "model", "type", "BPE", "vocab", "t", 0, "h", 1, "e", 2, "th", 3, "the", 4, "\xC4\xA0", 5,
        "merges", "t h", "th e", "pre_tokenizer", "type", "Sequence", "pretokenizers", first,
        "type", "ByteLevel", "add_prefix_space", 0, "use_regex", own, "decoder", "type",
        "ByteLevel", "added_tokens", "id", 6, "content", "<|end|>", "special", 1, "normalized", 0);

    assert_non_null(root);
    snprintf(made, sizeof(made), "%s", scratch_path("bytes"));
    snprintf(path, sizeof(path), "%s/tokenizer.json", made);
    assert_int_equal(tr_make_folder(made), 0);
    assert_int_equal(json_dump_file(root, path, 0), 0);
    json_decref(root);
    return made;
}

static json_t *split(const char *pattern)
{
    return json_pack("{s:s, s:{s:s}, s:s, s:b}", "type", "Split", "pattern", "Regex", pattern,
                     "behavior", "Isolated", "invert", 0);
}

static json_t *digits(int alone)
{
    return json_pack("{s:s, s:b}", "type", "Digits", "individual_digits", alone);
}

/* SmolLM2's: each digit is a word, and then GPT-2's expression. */
static void test_digits(void **state)
{
    struct file f;

    (void)state;
    export_both(make_run(&examples[3], byte_level(digits(1), 1)), TR_TYPE_F32);
    read_gguf(&f, gguf);
    expect_text(&f, "tokenizer.ggml.pre", "smollm");
    close_gguf(&f);
    clear();
}

static void test_byte_level(void **state)
{
    const char *bytes = byte_level(split(QWEN2), 0), *at;
    const struct value *merges;
    struct file f;
    uint64_t n;

    (void)state;
    export_both(make_run(&examples[3], bytes), TR_TYPE_F32);
    read_gguf(&f, gguf);
    expect_text(&f, "tokenizer.ggml.model", "gpt2");
    expect_text(&f, "tokenizer.ggml.pre", "qwen2");
    assert_null(value(&f, "tokenizer.ggml.scores"));
    merges = value(&f, "tokenizer.ggml.merges");
    assert_true(merges && merges->n == 2);
    at = merges->at;
    assert_memory_equal(next_text(&at, &n), "t h", 3);
    assert_memory_equal(next_text(&at, &n), "th e", 4);
    at = value(&f, "tokenizer.ggml.token_type")->at;
    assert_memory_equal(at + 16, ((int32_t[]){1, 1, 3, 5}), 16);
    close_gguf(&f);
    clear();
}

/* Longer than most, and none of its characters is cut in two. */
static void test_long_name(void **state)
{
    char title[301] = "", path[4352];
    struct tr_export_run_params p = {.run = make_run(&examples[3], tokenizer), .gguf = path};
    struct file f;

    (void)state;
    for (int i = 0; i < 60; i++)
        strcat(title, "\xE5\xB1\xB1"); /* a mountain */
    snprintf(path, sizeof(path), "%s.gguf", scratch_path("%s", title));
    if (tr_export_run(&p, NULL) < 0)
        fail_msg("%s", tr_message());
    read_gguf(&f, path);
    expect_text(&f, "general.name", title);
    close_gguf(&f);
    unlink(path);
    clear();
}

static void refused(const struct example *e, const char *with, int code, const char *words)
{
    const char *run = make_run(e, with);
    struct tr_export_run_params p = {.run = run, .gguf = gguf};

    assert_int_equal(tr_export_run(&p, NULL), code);
    if (!strstr(tr_message(), words))
        fail_msg("%s", tr_message());
    assert_int_equal(access(gguf, F_OK), -1);
    clear();
}

static void test_refused(void **state)
{
    static const struct example factors = {
        {"qwen2", 48, 64, LAYERS, 6, 2, 8, 300, 64, LLAMA3}, "", 0, TR_TYPE_F32};
    static const struct example small = {
        {"llama", 32, 48, LAYERS, 4, 2, 8, 100, 64, ""}, "", 0, TR_TYPE_F32};

    (void)state;
    refused(&factors, tokenizer, -ENOTSUP, "llama3");
    refused(&examples[0], NULL, -ENOENT, "tokenizer");
    refused(&small, tokenizer, -EINVAL, "290 tokens, the model 100");
    refused(&examples[3], byte_level(split("[^ ]+| +"), 0), -ENOTSUP, "pre_tokenizer");
    refused(&examples[3], byte_level(digits(0), 1), -ENOTSUP, "pre_tokenizer");
    refused(&examples[3], byte_level(digits(1), 0), -ENOTSUP, "pre_tokenizer");
}

static int learn(void **state)
{
    const char *text = scratch_path("text.txt");
    FILE *f = fopen(text, "w");

    (void)state;
    fputs("the cat sat on the mat, and then the others sat on that cat; the mat and the hat", f);
    fclose(f);
    snprintf(folder, sizeof(folder), "%s", scratch_path("folder"));
    snprintf(gguf, sizeof(gguf), "%s", scratch_path("model.gguf"));
    snprintf(tokenizer, sizeof(tokenizer), "%s", scratch_path("tokenizer"));
    return tr_learn_tokenizer(
        &(struct tr_learn_params){.data = text, .out = tokenizer, .vocab = 290});
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_tensors),    cmocka_unit_test(test_rope),
        cmocka_unit_test(test_vocabulary), cmocka_unit_test(test_scores),
        cmocka_unit_test(test_byte_level), cmocka_unit_test(test_digits),
        cmocka_unit_test(test_refused),    cmocka_unit_test(test_long_name),
    };

    scratch();
    return cmocka_run_group_tests_name("gguf", tests, learn, NULL);
}
