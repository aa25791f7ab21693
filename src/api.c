/* SPDX-License-Identifier: Apache-2.0
 *
 * The public calls that are not training: each checks what is missing and hands on. No logic.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "build_config.h"
#include "src/base/err.h"
#include "src/base/file.h"
#include "src/base/mem.h"
#include "src/export.h"
#include "src/infer.h"
#include "src/init.h"
#include "src/inspect.h"
#include "src/preview.h"

const char *tr_version(void)
{
    return TR_VERSION;
}

const char *tr_message(void)
{
    return tr_error_message();
}

void tr_free_text(char *text)
{
    free(text);
}

static int need(const char *value, const char *name)
{
    return value && *value ? 0 : tr_error(-EINVAL, "--%s is missing", name);
}

int tr_export_run(const struct tr_export_run_params *p)
{
    struct tr_store *store = NULL;
    char *keep;
    int r;

    if ((r = need(p->run, "run")) < 0 || (r = need(p->out, "out")) < 0 ||
        (r = run_store_open(p->run, p->store, &store)) < 0)
        return r;
    keep = tr_path(p->run, "source");
    r = keep ? tr_export(&(struct tr_export_params){
                   .store = store, .keep = keep, .out = p->out, .dtype = (int)p->dtype - 1})
             : -ENOMEM;
    tr_free(TR_MEM_MISC, keep);
    tr_store_close(store);
    return r;
}

int tr_learn_tokenizer(const struct tr_learn_params *p)
{
    int r;

    if ((r = need(p->data, "data")) < 0 || (r = need(p->out, "out")) < 0)
        return r;
    if (p->vocab < 1 || p->vocab > 1 << 20)
        return tr_error(-EINVAL, "--vocab %lld: from 259 to %d", (long long)p->vocab, 1 << 20);
    return tr_tokenizer_train(&(struct tr_tokenizer_train_params){
        .data = p->data, .out = p->out, .vocab = (int32_t)p->vocab});
}

/* Lines gathered into one text. */
static int add_line(void *arg, const char *text, size_t bytes)
{
    FILE *f = arg;

    if (fwrite(text, 1, bytes, f) != bytes || fputc('\n', f) == EOF)
        return tr_error(-ENOMEM, "out of memory");
    return 0;
}

static void found_damage(void *arg, const char *text)
{
    add_line(arg, text, strlen(text));
}

int64_t tr_verify_run(const char *run, const char *folder, char **out)
{
    struct tr_store *store = NULL;
    uint64_t damaged = 0;
    size_t bytes;
    FILE *f;
    int r;

    *out = NULL;
    if ((r = need(run, "run")) < 0 || (r = run_store_open(run, folder, &store)) < 0)
        return r;
    f = open_memstream(out, &bytes);
    r = f ? tr_store_verify(store, found_damage, f, &damaged) : tr_error(-ENOMEM, "out of memory");
    if (f)
        fclose(f);
    tr_store_close(store);
    return r < 0 ? r : (int64_t)damaged;
}

static int preview_text(const struct tr_preview_data_params *p, const struct tr_tokenizer *t,
                        char **out)
{
    struct tr_data *data = NULL;
    size_t bytes;
    FILE *f = open_memstream(out, &bytes);
    int r;

    if (!f)
        return tr_error(-ENOMEM, "out of memory");
    r = tr_data_open(&data, &(struct tr_data_params){
                                .path = p->data,
                                .tokenizer = t,
                                .vocab = t ? tr_tokenizer_vocab(t) : INT32_MAX,
                                .seq_len = p->seq_len ? (int)p->seq_len : 2048,
                                .batch_size = 1,
                                .grain_tokens = 512,
                            });
    if (r == 0)
        r = tr_preview(&(struct tr_preview_sample_params){.data = data,
                                                   .tokenizer = t,
                                                   .samples = p->samples ? p->samples : 3,
                                                   .json = p->json,
                                                   .line = add_line,
                                                   .arg = f});
    tr_data_close(data);
    fclose(f);
    return r;
}

int tr_preview_data(const struct tr_preview_data_params *p, char **out)
{
    struct tr_tokenizer *t = NULL;
    const char *folder = p->tokenizer ? p->tokenizer : p->model;
    int r;

    *out = NULL;
    if ((r = need(p->data, "data")) < 0 ||
        (folder && (r = tr_tokenizer_open(&t, folder)) < 0))
        return r;
    r = preview_text(p, t, out);
    tr_tokenizer_close(t);
    return r;
}

int tr_init_model(const struct tr_init_params *p)
{
    int r;

    if ((r = need(p->arch, "arch")) < 0 || (r = need(p->out, "out")) < 0)
        return r;
    return tr_init_folder(&(struct tr_init_folder_params){
        .arch = p->arch,
        .out = p->out,
        .tokenizer = p->tokenizer,
        .seed = p->seed,
        .dtype = p->dtype == TR_TYPE_SOURCE ? TR_F32 : (enum tr_dtype)(p->dtype - 1)});
}

int tr_inspect_path(const char *path, int json, char **out)
{
    json_t *found;
    int r;

    *out = NULL;
    if ((r = need(path, "PATH")) < 0 || (r = tr_inspect(path, &found)) < 0)
        return r;
    if (json) {
        *out = json_dumps(found, JSON_INDENT(2));
    } else {
        char *text = tr_inspect_text(found);

        *out = text ? strdup(text) : NULL;
        tr_free(TR_MEM_TEXT, text);
    }
    json_decref(found);
    return *out ? 0 : tr_error(-ENOMEM, "out of memory");
}
