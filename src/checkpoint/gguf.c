/* SPDX-License-Identifier: Apache-2.0
 *
 * A GGUF file is a header (keys, then a table of tensors with their places) and the tensors' data.
 * The header is made in memory, as it is as large as the vocabulary; the data is taken from the
 * store piece by piece. llama.cpp turns neighbouring elements of a head together where Hugging Face
 * turns element i and i + head_dim / 2: its Llama architecture wants the rows of Q and K in that
 * order, so these are written head by head.
 */
#include "src/checkpoint/gguf.h"

#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "src/base/err.h"
#include "src/base/file.h"
#include "src/base/mem.h"
#include "src/checkpoint/merge.h"
#include "src/checkpoint/out_file.h"

#define CHUNK_BYTES (4u << 20)
#define MAGIC       "GGUF"
#define VERSION     3
#define NAME_CHARS  256 /* no file has a longer name, so none is cut within a character */

struct gguf {
    const struct tr_export_params *params;
    const struct tr_kept *kept;
    struct gguf_told told;
    struct tr_export_reader reader;
    struct tr_merge merge; /* a file of this format has adapters merged */
    struct tr_out_file out;
    char head[TR_OUT_FILE_HEAD]; /* of the file, which is written last */
    void *chunk, *turned;        /* read, and in the order in which they are written */
    size_t chunk_bytes;
    uint64_t at, flushed, total; /* of the file */
};

static const struct {
    const char *architecture, *arch;
} families[] = {{"LlamaForCausalLM", "llama"},
                {"MistralForCausalLM", "llama"},
                {"Qwen2ForCausalLM", "qwen2"},
                {"Qwen3ForCausalLM", "qwen3"}};

static const char *const role_names[TR_ROLES] = {
    [TR_ROLE_EMBED] = "token_embd.weight",
    [TR_ROLE_NORM1] = "attn_norm.weight",
    [TR_ROLE_Q] = "attn_q.weight",
    [TR_ROLE_Q_BIAS] = "attn_q.bias",
    [TR_ROLE_Q_NORM] = "attn_q_norm.weight",
    [TR_ROLE_K] = "attn_k.weight",
    [TR_ROLE_K_BIAS] = "attn_k.bias",
    [TR_ROLE_K_NORM] = "attn_k_norm.weight",
    [TR_ROLE_V] = "attn_v.weight",
    [TR_ROLE_V_BIAS] = "attn_v.bias",
    [TR_ROLE_O] = "attn_output.weight",
    [TR_ROLE_O_BIAS] = "attn_output.bias",
    [TR_ROLE_NORM2] = "ffn_norm.weight",
    [TR_ROLE_GATE] = "ffn_gate.weight",
    [TR_ROLE_UP] = "ffn_up.weight",
    [TR_ROLE_DOWN] = "ffn_down.weight",
    [TR_ROLE_FINAL_NORM] = "output_norm.weight",
    [TR_ROLE_HEAD] = "output.weight",
};

static int is_llama(const struct gguf *g)
{
    return !strcmp(g->told.arch, "llama");
}

static int has_factors(const struct gguf *g)
{
    return g->told.config->rope.type == TR_ROPE_LLAMA3;
}

/* What llama.cpp's reader of this architecture does not know would be lost without a word. */
static int check_family(struct gguf *g)
{
    const struct tr_model_config *c = &g->kept->model->config;

    for (size_t i = 0; i < sizeof(families) / sizeof(families[0]); i++)
        if (!strcmp(c->architecture, families[i].architecture))
            g->told.arch = families[i].arch;
    if (!g->told.arch)
        return tr_error(-ENOTSUP, "%s: there is no GGUF architecture for it here", c->architecture);
    if (!is_llama(g) && (c->o_bias || has_factors(g)))
        return tr_error(-ENOTSUP, "%s: GGUF's \"%s\" has no %s", c->architecture, g->told.arch,
                        c->o_bias ? "bias of o_proj" : "rope scaling \"llama3\"");
    if (c->rope.type == TR_ROPE_YARN && !c->rope.truncate)
        return tr_error(-ENOTSUP, "%s: GGUF has no yarn whose range is not truncated",
                        c->architecture);
    if (!strcmp(g->told.arch, "qwen3") && c->qkv_bias)
        return tr_error(-ENOTSUP, "%s: GGUF's \"qwen3\" has no biases", c->architecture);
    return 0;
}

static enum tr_dtype type_of(const struct gguf *g, const struct tr_tensor *t)
{
    if (t->dims == 1)
        return TR_F32;
    return g->params->dtype < 0 ? t->dtype : (enum tr_dtype)g->params->dtype;
}

static void put_info(FILE *f, const char *name, const uint64_t dims[2], enum tr_dtype type,
                     uint64_t *at)
{
    static const uint32_t types[] = {
        [TR_F32] = GGUF_F32, [TR_BF16] = GGUF_BF16, [TR_F16] = GGUF_F16};
    uint32_t n = dims[1] ? 2 : 1;

    gguf_put_text(f, name);
    fwrite(&n, sizeof(n), 1, f);
    fwrite(dims, sizeof(*dims), n, f);
    fwrite(&types[type], sizeof(*types), 1, f);
    fwrite(at, sizeof(*at), 1, f);
    *at += dims[0] * (dims[1] ? dims[1] : 1) * tr_dtype_size(type);
    *at = tr_round_up(*at, GGUF_ALIGN);
}

/* The table of tensors; the bytes of all of them in *bytes. */
static void put_infos(const struct gguf *g, FILE *f, uint64_t *bytes)
{
    const struct tr_model *m = g->kept->model;

    *bytes = 0;
    for (int32_t i = 0; i < m->n_base; i++) {
        const struct tr_tensor *t = &m->tensors[i];
        uint64_t dims[2] = {(uint64_t)t->cols, t->dims == 1 ? 0 : (uint64_t)t->rows};
        char name[64];

        if (t->layer < 0)
            snprintf(name, sizeof(name), "%s", role_names[t->role]);
        else
            snprintf(name, sizeof(name), "blk.%d.%s", t->layer, role_names[t->role]);
        put_info(f, name, dims, type_of(g, t), bytes);
    }
    if (has_factors(g))
        put_info(f, "rope_freqs.weight", (uint64_t[2]){(uint64_t)m->config.head_dim / 2, 0}, TR_F32,
                 bytes);
}

/* All that stands before the data, freed with free(). */
static int make_header(struct gguf *g, char **text, size_t *bytes)
{
    uint64_t count[2] = {(uint64_t)g->kept->model->n_base + has_factors(g), 0}, data;
    uint32_t version = VERSION;
    FILE *f = open_memstream(text, bytes);
    int r;

    if (!f)
        return tr_error(-ENOMEM, "out of memory");
    fwrite(MAGIC, 1, 4, f);
    fwrite(&version, sizeof(version), 1, f);
    fwrite(count, sizeof(count), 1, f);
    r = gguf_put_keys(f, &g->told, &count[1]);
    put_infos(g, f, &data);
    fflush(f);
    while (*bytes % GGUF_ALIGN) {
        fputc(0, f);
        fflush(f);
    }
    if (fclose(f) != 0 || r < 0) {
        free(*text);
        return tr_error(-ENOMEM, "out of memory");
    }
    memcpy(*text + 16, &count[1], sizeof(count[1]));
    g->total = *bytes + data;
    return 0;
}

static int put(struct gguf *g, const void *data, size_t bytes)
{
    int r = tr_pwrite(g->out.fd, g->out.tmp, data, bytes, g->at);

    g->at += bytes;
    if (r == 0)
        r = tr_file_flush(g->out.fd, g->out.tmp, g->at, &g->flushed);
    if (r == 0 && g->params->progress)
        g->params->progress(g->params->progress_arg, g->at, g->total);
    return r;
}

static int pad(struct gguf *g)
{
    static const char zeros[GGUF_ALIGN];

    return put(g, zeros, tr_round_up(g->at, GGUF_ALIGN) - g->at);
}

static int put_plain(struct gguf *g, const struct tr_tensor *t)
{
    enum tr_dtype type = type_of(g, t);
    uint64_t n = (uint64_t)t->rows * (uint64_t)t->cols, most = CHUNK_BYTES / tr_dtype_size(type);
    int r = 0;

    for (uint64_t done = 0; done < n && r == 0;) {
        size_t now = (size_t)(n - done < most ? n - done : most);

        r = tr_merge_fill(&g->merge, t, done, now, type, g->chunk);
        if (r == 0)
            r = put(g, g->chunk, now * tr_dtype_size(type));
        done += now;
    }
    return r;
}

static int is_turned(const struct gguf *g, const struct tr_tensor *t)
{
    return is_llama(g) && (t->role == TR_ROLE_Q || t->role == TR_ROLE_K ||
                           t->role == TR_ROLE_Q_BIAS || t->role == TR_ROLE_K_BIAS);
}

/* Row 2 i + j of a head is its row i + j head_dim / 2. A bias has rows of one element. */
static int put_turned(struct gguf *g, const struct tr_tensor *t)
{
    int64_t d = g->told.config->head_dim, cols = t->dims == 1 ? 1 : t->cols;
    int64_t heads = (t->dims == 1 ? t->cols : t->rows) / d;
    enum tr_dtype type = type_of(g, t);
    size_t row = (size_t)cols * tr_dtype_size(type);
    int r = 0;

    for (int64_t h = 0; h < heads && r == 0; h++) {
        r = tr_merge_fill(&g->merge, t, (uint64_t)(h * d * cols), (size_t)(d * cols), type,
                          g->chunk);
        for (int64_t i = 0; i < d && r == 0; i++)
            memcpy((char *)g->turned + (size_t)i * row,
                   (char *)g->chunk + (size_t)(i / 2 + i % 2 * (d / 2)) * row, row);
        if (r == 0)
            r = put(g, g->turned, (size_t)d * row);
    }
    return r;
}

/* What a frequency is divided by. */
static int put_factors(struct gguf *g)
{
    const struct tr_model_config *c = g->told.config;
    struct tr_rope plain = c->rope;
    float *factor = g->chunk;

    plain.type = TR_ROPE_DEFAULT;
    for (int i = 0; i < c->head_dim / 2; i++)
        factor[i] = (float)(tr_rope_frequency(&plain, c->head_dim, i) /
                            tr_rope_frequency(&c->rope, c->head_dim, i));
    return put(g, factor, (size_t)c->head_dim / 2 * sizeof(*factor));
}

static int put_all(struct gguf *g)
{
    const struct tr_model *m = g->kept->model;
    char *header;
    size_t bytes;
    int r = make_header(g, &header, &bytes);

    if (r < 0)
        return r;
    r = tr_export_check_space(g->out.tmp, g->total);
    memcpy(g->head, header, sizeof(g->head));
    g->at = sizeof(g->head);
    if (r == 0)
        r = put(g, header + g->at, bytes - g->at);
    free(header);
    for (int32_t i = 0; i < m->n_base && r == 0; i++) {
        const struct tr_tensor *t = &m->tensors[i];

        r = is_turned(g, t) ? put_turned(g, t) : put_plain(g, t);
        if (r == 0)
            r = pad(g);
    }
    if (r == 0 && has_factors(g) && (r = put_factors(g)) == 0)
        r = pad(g);
    return r;
}

/* A head at a time at most, and it need not be small. */
static int open_buffers(struct gguf *g)
{
    const struct tr_model_config *c = g->told.config;
    uint64_t head = (uint64_t)c->head_dim * (uint64_t)c->hidden * sizeof(float);

    g->chunk_bytes = head > CHUNK_BYTES ? head : CHUNK_BYTES;
    g->chunk = tr_alloc_pages(TR_MEM_IO, g->chunk_bytes);
    g->turned = tr_alloc_pages(TR_MEM_IO, g->chunk_bytes);
    if (!g->chunk || !g->turned)
        return -ENOMEM;
    return tr_export_reader_open(&g->reader, g->params->store, g->kept->model);
}

static void close_buffers(struct gguf *g)
{
    tr_export_reader_close(&g->reader);
    if (g->chunk)
        tr_free_pages(TR_MEM_IO, g->chunk, g->chunk_bytes);
    if (g->turned)
        tr_free_pages(TR_MEM_IO, g->turned, g->chunk_bytes);
}

static int write_file(struct gguf *g)
{
    int r = open_buffers(g);

    if (r < 0 || (r = tr_out_file_begin(&g->out, g->params->out)) < 0)
        return r;
    return tr_out_file_end(&g->out, g->head, put_all(g));
}

/* The file's own name without its ending. */
static void name_model(struct gguf *g, char name[NAME_CHARS])
{
    const char *slash = strrchr(g->params->out, '/');

    snprintf(name, NAME_CHARS, "%s", slash ? slash + 1 : g->params->out);
    if (strlen(name) > 5 && !strcmp(name + strlen(name) - 5, ".gguf"))
        name[strlen(name) - 5] = 0;
    g->told.name = name;
}

/* With the tokenizer open: its table, the template beside it, then the file. */
static int write_told(struct gguf *g, const struct tr_tokenizer *tokenizer)
{
    struct tr_token_table tokens = {0};
    char *template = NULL, name[NAME_CHARS];
    int r = tr_token_table_open(&tokens, tokenizer, g->told.config->vocab);

    name_model(g, name);
    g->told.tokens = &tokens;
    if (r == 0)
        r = gguf_read_template(g->params->tokenizer, &template);
    g->told.chat_template = template;
    if (r == 0)
        r = write_file(g);
    tr_free(TR_MEM_TEXT, template);
    tr_token_table_close(&tokens);
    return r;
}

static int write_model(struct gguf *g)
{
    struct tr_tokenizer *tokenizer = NULL;
    int r;

    g->told.config = &g->kept->model->config;
    g->told.type = g->params->dtype < 0 ? g->kept->model->dtype : (enum tr_dtype)g->params->dtype;
    if ((r = check_family(g)) < 0 || (r = tr_out_file_check(g->params->out)) < 0 ||
        (r = tr_tokenizer_open(&tokenizer, g->params->tokenizer)) < 0)
        return r;
    r = tr_config_check_tokens(g->told.config, g->params->tokenizer, tr_tokenizer_vocab(tokenizer));
    if (r == 0)
        r = write_told(g, tokenizer);
    tr_tokenizer_close(tokenizer);
    return r;
}

int tr_gguf(const struct tr_export_params *p)
{
    struct gguf g = {.params = p};
    struct tr_kept *kept;
    int r = tr_keep_open(&kept, p->keep);

    g.kept = kept;
    if (r == 0)
        tr_merge_open(&g.merge, kept, &g.reader);
    if (r == 0)
        r = tr_keep_check_store(kept, p->store);
    if (r == 0)
        r = write_model(&g);
    if (kept)
        close_buffers(&g);
    tr_merge_close(&g.merge);
    tr_keep_close(kept);
    return r;
}
