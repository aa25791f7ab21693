/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/model/make.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

const struct make_shape make_small = {.family = "llama",
                                      .layers = 2,
                                      .hidden = 24,
                                      .ffn = 40,
                                      .heads = 3,
                                      .kv_heads = 1,
                                      .head_dim = 8,
                                      .vocab = 600,
                                      .shards = 3};

static void die(const char *what)
{
    perror(what);
    abort();
}

static int width(const char *dtype)
{
    return !strcmp(dtype, "F32") ? 4 : !strcmp(dtype, "F64") || !strcmp(dtype, "I64") ? 8 : 2;
}

struct make_tensor *make_add(struct make_folder *f, const char *name, int64_t rows, int64_t cols)
{
    struct make_tensor *t = &f->t[f->n++];

    memset(t, 0, sizeof(*t));
    snprintf(t->name, sizeof(t->name), "%s", name);
    strcpy(t->dtype, "F32");
    t->dims = rows ? 2 : 1;
    t->shape[0] = rows ? rows : cols;
    t->shape[1] = rows ? cols : 0;
    return t;
}

static void add_block(struct make_folder *f, const struct make_shape *s, int layer)
{
    int q = s->heads * s->head_dim, kv = s->kv_heads * s->head_dim;
    const struct {
        const char *name;
        int rows, cols;
        const char *only; /* family, or NULL: all */
    } list[] = {
        {"input_layernorm.weight", 0, s->hidden, NULL},
        {"mlp.down_proj.weight", s->hidden, s->ffn, NULL},
        {"mlp.gate_proj.weight", s->ffn, s->hidden, NULL},
        {"mlp.up_proj.weight", s->ffn, s->hidden, NULL},
        {"post_attention_layernorm.weight", 0, s->hidden, NULL},
        {"self_attn.k_norm.weight", 0, s->head_dim, "qwen3"},
        {"self_attn.k_proj.bias", 0, kv, "qwen2"},
        {"self_attn.k_proj.weight", kv, s->hidden, NULL},
        {"self_attn.o_proj.weight", s->hidden, q, NULL},
        {"self_attn.q_norm.weight", 0, s->head_dim, "qwen3"},
        {"self_attn.q_proj.bias", 0, q, "qwen2"},
        {"self_attn.q_proj.weight", q, s->hidden, NULL},
        {"self_attn.v_proj.bias", 0, kv, "qwen2"},
        {"self_attn.v_proj.weight", kv, s->hidden, NULL},
    };

    for (size_t i = 0; i < sizeof(list) / sizeof(list[0]); i++) {
        char name[96];

        snprintf(name, sizeof(name), "model.layers.%d.%s", layer, list[i].name);
        if (!list[i].only || !strcmp(list[i].only, s->family))
            make_add(f, name, list[i].rows, list[i].cols);
    }
}

static void make_config(struct make_folder *f, const struct make_shape *s)
{
    const char *arch = !strcmp(s->family, "llama")   ? "LlamaForCausalLM"
                       : !strcmp(s->family, "qwen2") ? "Qwen2ForCausalLM"
                                                     : "Qwen3ForCausalLM";
    const char *dtype = !s->dtype || !strcmp(s->dtype, "F32") ? "float32"
                        : !strcmp(s->dtype, "BF16")           ? "bfloat16"
                                                              : "float16";

    snprintf(
        f->config, sizeof(f->config),
        "{\n  \"architectures\": [\"%s\"],\n  \"model_type\": \"%s\",\n"
        "  \"hidden_size\": %d,\n  \"intermediate_size\": %d,\n  \"num_hidden_layers\": %d,\n"
        "  \"num_attention_heads\": %d,\n  \"num_key_value_heads\": %d,\n  \"head_dim\": %d,\n"
        "  \"vocab_size\": %d,\n  \"max_position_embeddings\": 64,\n  \"rms_norm_eps\": 1e-06,\n"
        "  \"tie_word_embeddings\": %s,\n  \"torch_dtype\": \"%s\"\n}\n",
        arch, s->family, s->hidden, s->ffn, s->layers, s->heads, s->kv_heads, s->head_dim, s->vocab,
        s->tied ? "true" : "false", dtype);
}

void make_table(struct make_folder *f, const struct make_shape *s)
{
    memset(f, 0, sizeof(*f));
    f->shards = s->shards ? s->shards : 1;
    f->metadata = "{\"format\":\"pt\"}";
    make_config(f, s);
    if (!s->tied)
        make_add(f, "lm_head.weight", s->vocab, s->hidden);
    make_add(f, "model.embed_tokens.weight", s->vocab, s->hidden);
    for (int i = 0; i < s->layers; i++)
        add_block(f, s, i);
    make_add(f, "model.norm.weight", 0, s->hidden);
    for (int i = 0; i < f->n; i++) {
        int norm = strstr(f->t[i].name, "norm") != NULL;
        const char *dtype = norm && s->norms ? s->norms : s->dtype ? s->dtype : "F32";

        strcpy(f->t[i].dtype, dtype);
        f->t[i].shard = i * f->shards / f->n;
    }
}

struct make_tensor *make_find(struct make_folder *f, const char *name)
{
    for (int i = 0; i < f->n; i++)
        if (!strcmp(f->t[i].name, name))
            return &f->t[i];
    die(name);
    return NULL;
}

void make_drop(struct make_folder *f, const char *name)
{
    struct make_tensor *t = make_find(f, name);

    memmove(t, t + 1, (size_t)(&f->t[--f->n] - t) * sizeof(*t));
}

const char *make_path(const char *folder, const char *name)
{
    static char paths[64][512];
    static int next;
    char *p = paths[next++ % 64];

    snprintf(p, sizeof(paths[0]), "%s/%s", folder, name);
    return p;
}

void make_file(const char *folder, const char *name, const char *text)
{
    FILE *out = fopen(make_path(folder, name), "wb");

    if (!out || fputs(text, out) < 0 || fclose(out))
        die(name);
}

/* Moderate numbers in any of the three types; they differ from tensor to tensor. */
static void write_data(FILE *out, const struct make_tensor *t, uint64_t seed)
{
    int w = width(t->dtype);

    for (uint64_t i = 0; i < t->bytes / (uint64_t)w; i++) {
        uint64_t x = (i + 1) * 0x9E3779B97F4A7C15u + seed * 0xBF58476D1CE4E5B9u;
        float v = (float)((int64_t)((x ^ x >> 29) >> 40) - (1 << 23)) / (1 << 23);
        uint32_t u;

        memcpy(&u, &v, 4);
        if (!strcmp(t->dtype, "F16")) /* any bits below infinity */
            u = (uint32_t)(x >> 33 & 0xbbff) << 16;
        if (w == 8)
            fwrite("\0\0\0\0", 1, 4, out);
        fwrite((char *)&u + (w == 2 ? 2 : 0), 1, w == 2 ? 2 : 4, out);
    }
}

static void put_size(FILE *out, uint64_t n)
{
    for (int i = 0; i < 8; i++)
        fputc((int)(n >> (8 * i) & 255), out);
}

static char *header_of(const struct make_folder *f, int shard, uint64_t *data)
{
    char *text = malloc(1 << 17), *p = text;
    const char *comma = "";

    *data = 0;
    p += sprintf(p, "{");
    if (f->metadata) {
        p += sprintf(p, "\"__metadata__\":%s", f->metadata);
        comma = ",";
    }
    for (int i = 0; i < f->n; i++) {
        struct make_tensor *t = (struct make_tensor *)(uintptr_t)&f->t[i];

        if (t->shard != shard)
            continue;
        t->bytes = (uint64_t)t->shape[0] * (uint64_t)(t->dims == 2 ? t->shape[1] : 1) *
                   (uint64_t)width(t->dtype);
        p += sprintf(p, "%s\"%s\":{\"dtype\":\"%s\",\"shape\":[%lld", comma, t->name, t->dtype,
                     (long long)t->shape[0]);
        if (t->dims == 2)
            p += sprintf(p, ",%lld", (long long)t->shape[1]);
        p += sprintf(p, "],\"data_offsets\":[%llu,%llu]}", (unsigned long long)*data,
                     (unsigned long long)(*data + t->bytes));
        *data += t->bytes;
        comma = ",";
    }
    p += sprintf(p, "}");
    while ((p - text) % 8)
        p += sprintf(p, " ");
    return text;
}

static const char *shard_name(const struct make_folder *f, int shard)
{
    static char name[64];

    if (f->shards == 1)
        return "model.safetensors";
    snprintf(name, sizeof(name), "model-%05d-of-%05d.safetensors", shard + 1, f->shards);
    return name;
}

static void write_shard(const struct make_folder *f, const char *folder, int shard)
{
    FILE *out = fopen(make_path(folder, shard_name(f, shard)), "wb");
    uint64_t data;
    char *header = header_of(f, shard, &data);

    if (!out)
        die(folder);
    put_size(out, strlen(header));
    fputs(header, out);
    for (int i = 0; i < f->n && !f->sparse; i++)
        if (f->t[i].shard == shard)
            write_data(out, &f->t[i], (uint64_t)i);
    fflush(out);
    if (f->sparse && ftruncate(fileno(out), (off_t)(8 + strlen(header) + data)))
        die(folder);
    fclose(out);
    free(header);
}

static int by_name(const void *a, const void *b)
{
    return strcmp((*(const struct make_tensor *const *)a)->name,
                  (*(const struct make_tensor *const *)b)->name);
}

static void write_index(const struct make_folder *f, const char *folder)
{
    FILE *out = fopen(make_path(folder, "model.safetensors.index.json"), "wb");
    const struct make_tensor *sorted[MAKE_TENSORS];
    uint64_t total = 0;

    if (!out)
        die(folder);
    for (int i = 0; i < f->n; i++) {
        sorted[i] = &f->t[i];
        total += f->t[i].bytes;
    }
    qsort(sorted, (size_t)f->n, sizeof(sorted[0]), by_name);
    fprintf(out, "{\n  \"metadata\": {\n    \"total_size\": %llu\n  },\n  \"weight_map\": {\n",
            (unsigned long long)total);
    for (int i = 0; i < f->n; i++)
        fprintf(out, "    \"%s\": \"%s\"%s\n", sorted[i]->name, shard_name(f, sorted[i]->shard),
                i + 1 < f->n ? "," : "");
    fprintf(out, "  }\n}\n");
    fclose(out);
}

void make_one_shard(struct make_folder *f)
{
    f->shards = 1;
    for (int i = 0; i < f->n; i++)
        f->t[i].shard = 0;
}

void make_write(const struct make_folder *f, const char *folder)
{
    if (mkdir(folder, 0755) < 0 || mkdir(make_path(folder, "original"), 0755) < 0)
        die(folder);
    for (int i = 0; i < f->shards; i++)
        write_shard(f, folder, i);
    if (f->shards > 1)
        write_index(f, folder);
    make_file(folder, "config.json", f->config);
    make_file(folder, "tokenizer.json", "{\"model\": {\"type\": \"BPE\"}}\n");
    make_file(folder, ".gitattributes", "*.safetensors filter=lfs\n");
    make_file(folder, "pytorch_model.bin", "pickled");
    make_file(folder, "original/params.json", "{}");
}

void make_safetensors(const char *path, const char *header, size_t bytes, size_t n)
{
    FILE *out = fopen(path, "wb");

    if (!out)
        die(path);
    put_size(out, bytes);
    fputs(header, out);
    while (n--)
        fputc(1, out);
    fclose(out);
}

void make_temp(char folder[64])
{
    const char *base = getenv("TMPDIR");

    snprintf(folder, 64, "%s/tr-model-XXXXXX", base && strlen(base) < 40 ? base : "/tmp");
    if (!mkdtemp(folder))
        die(folder);
}

void make_changed(const char *path)
{
    int fd = open(path, O_WRONLY);

    if (fd < 0 || pwrite(fd, "x", 1, 4000) != 1 ||
        futimens(fd, (struct timespec[2]){{0, UTIME_OMIT}, {1, 0}}) < 0)
        abort();
    close(fd);
}

void make_clean(const char *folder)
{
    DIR *d = opendir(folder);
    struct dirent *e;

    if (!d)
        return;
    while ((e = readdir(d))) {
        char path[600];
        struct stat st;

        if (!strcmp(e->d_name, ".") || !strcmp(e->d_name, ".."))
            continue;
        snprintf(path, sizeof(path), "%s/%s", folder, e->d_name);
        if (lstat(path, &st) == 0 && S_ISDIR(st.st_mode))
            make_clean(path);
        else
            unlink(path);
    }
    closedir(d);
    rmdir(folder);
}

static int same_file(const char *a, const char *b)
{
    FILE *x = fopen(a, "rb"), *y = fopen(b, "rb");
    int c = 0, same = x && y;

    while (same && c != EOF) {
        c = getc_unlocked(x);
        same = c == getc_unlocked(y);
    }
    if (x)
        fclose(x);
    if (y)
        fclose(y);
    if (!same)
        printf("%s and %s differ\n", a, b);
    return same;
}

/* Files of a that b has not, or not so; weights in other formats and sub-folders stay behind. */
static int compare(const char *a, const char *b)
{
    DIR *d = opendir(a);
    struct dirent *e;
    int same = d != NULL;

    while (d && (e = readdir(d))) {
        char x[600], y[600];
        struct stat st;

        snprintf(x, sizeof(x), "%s/%s", a, e->d_name);
        snprintf(y, sizeof(y), "%s/%s", b, e->d_name);
        if (stat(x, &st) == 0 && S_ISREG(st.st_mode) && strcmp(e->d_name, "pytorch_model.bin"))
            same &= same_file(x, y);
    }
    if (d)
        closedir(d);
    return same;
}

int make_same(const char *a, const char *b)
{
    return compare(a, b) && compare(b, a);
}

static uint64_t print_text(uint64_t h, const char *s)
{
    for (; *s; s++)
        h = (h ^ (unsigned char)*s) * 1099511628211u;
    return h;
}

static uint64_t print_file(uint64_t h, const char *path)
{
    FILE *in = fopen(path, "rb");
    int c;

    if (!in)
        abort();
    while ((c = getc_unlocked(in)) != EOF)
        h = (h ^ (uint64_t)c) * 1099511628211u;
    fclose(in);
    return h;
}

uint64_t make_print(const char *folder)
{
    DIR *d = opendir(folder);
    struct dirent *e;
    uint64_t sum = 0;

    if (!d)
        abort();
    while ((e = readdir(d))) {
        uint64_t h = print_text(14695981039346656037u, e->d_name);
        char path[600];
        struct stat st;

        if (!strcmp(e->d_name, ".") || !strcmp(e->d_name, ".."))
            continue;
        snprintf(path, sizeof(path), "%s/%s", folder, e->d_name);
        if (stat(path, &st) < 0)
            abort();
        h = S_ISDIR(st.st_mode) ? h ^ make_print(path) * 31 : print_file(h, path);
        sum += h ^ (uint64_t)st.st_mtim.tv_nsec ^ (uint64_t)st.st_mtim.tv_sec << 30 ^ st.st_mode;
    }
    closedir(d);
    return sum;
}

int make_exists(const char *folder, const char *name)
{
    struct stat st;

    return lstat(make_path(folder, name), &st) == 0;
}
