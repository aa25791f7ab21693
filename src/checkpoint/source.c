/* SPDX-License-Identifier: Apache-2.0
 *
 * Where a model's first values come from: a folder of safetensors, or a shape and a seed.
 */
#include "src/checkpoint/source.h"

#include <stdio.h>
#include <string.h>

#include "src/base/err.h"
#include "src/base/file.h"
#include "src/base/mem.h"
#include "src/checkpoint/init.h"
#include "src/checkpoint/keep.h"

/* All that can be wrong with a folder is found here, by headers and config.json alone. */
static int open_folder(struct tr_source *s, int dtype)
{
    struct tr_model_config *config = tr_alloc(TR_MEM_MISC, sizeof(*config));
    char *path = tr_path(s->folder, "config.json");
    int r = config && path ? tr_config_read(path, config) : -ENOMEM;

    if (r == 0)
        r = tr_safetensors_open_folder(&s->weights, s->folder);
    if (r == 0) {
        snprintf(s->note, sizeof(s->note), "%s", s->weights->note);
        s->scratch = tr_alloc_pages(TR_MEM_IO, TR_SOURCE_CHUNK);
        r = s->scratch ? tr_source_check(s, config, dtype) : -ENOMEM;
    }
    if (r == 0 && !s->note[0])
        r = tr_keep_note(s->folder, s->note, sizeof(s->note));
    if (r == 0)
        r = tr_shards_from_source(&s->shards, s->weights, s->table);
    tr_free(TR_MEM_MISC, path);
    tr_free(TR_MEM_MISC, config);
    return r;
}

static int open_arch(struct tr_source *s, const struct tr_source_params *p)
{
    int r = tr_init_model_table(p->arch, p->dtype, &s->table, &s->config);

    if (r == 0)
        r = tr_shards_plan(&s->shards, s->table);
    if (r == 0)
        r = tr_random_init_open(&s->random, &s->table->config, p->seed, p->threads);
    return r;
}

int tr_source_open(struct tr_source **out, const struct tr_source_params *p)
{
    struct tr_source *s = tr_alloc(TR_MEM_MISC, sizeof(*s));
    int r = 0;

    *out = NULL;
    if (!s)
        return -ENOMEM;
    s->folder = p->folder ? tr_strdup(TR_MEM_MISC, p->folder) : NULL;
    s->tokenizer = p->tokenizer ? tr_strdup(TR_MEM_MISC, p->tokenizer) : NULL;
    if ((p->folder && !s->folder) || (p->tokenizer && !s->tokenizer))
        r = -ENOMEM;
    if (r == 0)
        r = p->folder ? open_folder(s, p->dtype) : open_arch(s, p);
    if (r < 0) {
        tr_source_close(s);
        return r;
    }
    *out = s;
    return 0;
}

void tr_source_close(struct tr_source *s)
{
    if (!s)
        return;
    tr_safetensors_close(s->weights);
    tr_random_init_close(&s->random);
    tr_shards_free(&s->shards);
    tr_model_close(s->table);
    json_decref(s->config);
    tr_free(TR_MEM_MISC, s->tensor);
    tr_free(TR_MEM_MISC, s->folder);
    tr_free(TR_MEM_MISC, s->tokenizer);
    if (s->scratch)
        tr_free_pages(TR_MEM_IO, s->scratch, TR_SOURCE_CHUNK);
    tr_free(TR_MEM_MISC, s);
}

/* Values that keep their type are read straight into the caller's buffer; the others go through the
 * scratch, a chunk at a time, so that memory does not depend on the tensor. */
static int fill_from_folder(struct tr_source *s, const struct tr_tensor *t, uint64_t from, size_t n,
                            enum tr_dtype type, void *buf)
{
    const struct tr_st_tensor *in = s->tensor[t - s->table->tensors];
    size_t size = tr_dtype_size((enum tr_dtype)in->dtype), out = tr_dtype_size(type), done = 0;
    int r = 0;

    if (in->dtype == (int)type)
        return tr_safetensors_read(s->weights, in, from * size, buf, n * size);
    while (r == 0 && done < n) {
        size_t now = n - done < TR_SOURCE_CHUNK / size ? n - done : TR_SOURCE_CHUNK / size;

        r = tr_safetensors_read(s->weights, in, (from + done) * size, s->scratch, now * size);
        if (r == 0 && tr_convert((char *)buf + done * out, type, s->scratch,
                                 (enum tr_dtype)in->dtype, now) < 0)
            r = tr_error(-ERANGE, "%s: tensor %s: a value is too large for %s",
                         tr_safetensors_path(s->weights, in), in->name, tr_dtype_name(type));
        done += now;
    }
    return r;
}

int tr_source_fill(void *arg, const struct tr_tensor *t, uint64_t from, size_t n,
                   enum tr_dtype type, void *buf)
{
    struct tr_source *s = arg;

    if (s->folder)
        return fill_from_folder(s, t, from, n, type, buf);
    return tr_random_init_fill(&s->random, t, from, n, type, buf);
}

/* What is trained with a tokenizer is of no use with another. */
static int keep_folder(const struct tr_source *s, const char *folder)
{
    int r = tr_keep_copy(s->folder, folder, 0);

    return r < 0 || !s->tokenizer ? r : tr_keep_change_tokenizer(s->tokenizer, folder);
}

int tr_source_keep(struct tr_source *s, const struct tr_model *m, const char *folder,
                   const char *uuid)
{
    int r =
        s->folder ? keep_folder(s, folder) : tr_init_write_files(folder, s->config, s->tokenizer);

    if (r == 0)
        r = tr_keep_write(folder, m, &s->shards, s->folder, uuid);
    return r < 0 ? r : tr_sync_folder(folder);
}
