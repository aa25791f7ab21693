/* SPDX-License-Identifier: Apache-2.0
 *
 * Writing safetensors files and their index. Headers are formatted as the reference writer does
 * (compact, padded with spaces to a multiple of 8), so that a folder that it wrote comes out with
 * the same bytes.
 */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "src/base/err.h"
#include "src/base/file.h"
#include "src/base/json.h"
#include "src/base/mem.h"
#include "src/checkpoint/shards.h"

#define CHUNK_BYTES (4u << 20)

/* One file that is being written. */
struct out_file {
    int fd;
    char *path;
    uint64_t at, flushed;
    uint64_t total, *done; /* of all files, for progress */
};

static enum tr_dtype type_of(const struct tr_tensor *t, int dtype)
{
    return dtype < 0 ? t->dtype : (enum tr_dtype)dtype;
}

static uint64_t bytes_of(const struct tr_tensor *t, int dtype)
{
    return (uint64_t)t->rows * (uint64_t)t->cols * tr_dtype_size(type_of(t, dtype));
}

uint64_t tr_shards_bytes(const struct tr_shards *s, const struct tr_model *m, int dtype)
{
    uint64_t n = 0;

    for (uint32_t i = 0; i < s->n_files; i++)
        for (uint32_t k = 0; k < s->files[i].n_tensors; k++)
            n += bytes_of(&m->tensors[s->files[i].tensors[k].tensor], dtype);
    return n;
}

/* dtype, shape, data_offsets: the order in which the reference's writer has them. */
static json_t *entry_json(const struct tr_tensor *t, int dtype, uint64_t at)
{
    json_t *shape = t->dims == 1 ? json_pack("[I]", (json_int_t)t->cols)
                                 : json_pack("[I, I]", (json_int_t)t->rows, (json_int_t)t->cols);

    return json_pack("{s:s, s:o, s:[I, I]}", "dtype", tr_dtype_hf(type_of(t, dtype)), "shape",
                     shape, "data_offsets", (json_int_t)at, (json_int_t)(at + bytes_of(t, dtype)));
}

/* {"__metadata__":{...},"NAME":{...},...}; freed with free(). */
static char *header_text(const struct tr_shard_file *f, const struct tr_model *m, int dtype)
{
    json_t *o = json_object();
    char *text;
    uint64_t at = 0;

    tr_json_add(&o, "__metadata__",
                f->metadata ? json_incref(f->metadata) : json_pack("{s:s}", "format", "pt"));
    for (uint32_t i = 0; i < f->n_tensors; i++) {
        const struct tr_tensor *t = &m->tensors[f->tensors[i].tensor];

        tr_json_add(&o, f->tensors[i].name, entry_json(t, dtype, at));
        at += bytes_of(t, dtype);
    }
    text = o ? tr_json_text(o, JSON_COMPACT) : NULL;
    json_decref(o);
    return text;
}

static int write_header(struct out_file *o, const struct tr_shard_file *f, const struct tr_model *m,
                        int dtype)
{
    char *text = header_text(f, m, dtype), spaces[8];
    unsigned char le[8];
    uint64_t n, padded;
    int r;

    if (!text)
        return tr_error(-ENOMEM, "%s: cannot format the header", o->path);
    n = strlen(text);
    padded = tr_round_up(n, 8);
    for (int i = 0; i < 8; i++)
        le[i] = (unsigned char)(padded >> (8 * i));
    memset(spaces, ' ', sizeof(spaces));
    r = tr_pwrite(o->fd, o->path, le, 8, 0);
    if (r == 0)
        r = tr_pwrite(o->fd, o->path, text, n, 8);
    if (r == 0)
        r = tr_pwrite(o->fd, o->path, spaces, padded - n, 8 + n);
    o->at = 8 + padded;
    free(text);
    return r;
}

static int write_chunk(struct out_file *o, const void *buf, size_t n)
{
    int r = tr_pwrite(o->fd, o->path, buf, n, o->at);

    o->at += n;
    *o->done += n;
    return r < 0 ? r : tr_file_flush(o->fd, o->path, o->at, &o->flushed);
}

static int write_tensor(struct out_file *o, const struct tr_shards_write_params *p,
                        const struct tr_tensor *t, void *buf)
{
    enum tr_dtype type = type_of(t, p->dtype);
    uint64_t n = (uint64_t)t->rows * (uint64_t)t->cols, chunk = CHUNK_BYTES / tr_dtype_size(type);

    for (uint64_t from = 0; from < n; from += chunk) {
        size_t now = n - from < chunk ? n - from : chunk;
        int r = p->fill(p->arg, t, from, now, type, buf);

        if (r == 0)
            r = write_chunk(o, buf, now * tr_dtype_size(type));
        if (r < 0)
            return r;
        if (p->progress)
            p->progress(p->progress_arg, *o->done, o->total);
    }
    return 0;
}

/* O_EXCL: the folder is ours and new; whatever has that name already was put there meanwhile. */
static int write_file(struct out_file *o, const struct tr_shards_write_params *p,
                      const struct tr_shard_file *f, void *buf)
{
    int r;

    o->path = tr_path(p->folder, f->name);
    if (!o->path)
        return -ENOMEM;
    o->flushed = 0;
    o->fd = open(o->path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
    if (o->fd < 0) {
        r = tr_error(-errno, "%s: cannot create: %s", o->path, strerror(errno));
        goto out;
    }
    r = write_header(o, f, p->model, p->dtype);
    for (uint32_t i = 0; r == 0 && i < f->n_tensors; i++)
        r = write_tensor(o, p, &p->model->tensors[f->tensors[i].tensor], buf);
    if (r == 0 && fsync(o->fd) < 0)
        r = tr_error(-errno, "%s: cannot sync: %s", o->path, strerror(errno));
    if (close(o->fd) < 0 && r == 0)
        r = tr_error(-errno, "%s: cannot close: %s", o->path, strerror(errno));
out:
    tr_free(TR_MEM_MISC, o->path);
    return r;
}

struct entry {
    const char *tensor, *file;
};

static int by_tensor(const void *a, const void *b)
{
    return strcmp(((const struct entry *)a)->tensor, ((const struct entry *)b)->tensor);
}

/* Sorted by name, as the usual writers do. */
static json_t *weight_map(const struct tr_shards *s)
{
    struct entry *list;
    json_t *map = json_object();
    size_t n = 0, at = 0;

    for (uint32_t i = 0; i < s->n_files; i++)
        n += s->files[i].n_tensors;
    list = tr_alloc_array(TR_MEM_MISC, n, sizeof(*list));
    if (!list) {
        json_decref(map);
        return NULL;
    }
    for (uint32_t i = 0; i < s->n_files; i++)
        for (uint32_t k = 0; k < s->files[i].n_tensors; k++)
            list[at++] = (struct entry){s->files[i].tensors[k].name, s->files[i].name};
    qsort(list, n, sizeof(*list), by_tensor);
    for (size_t i = 0; i < n; i++)
        tr_json_add(&map, list[i].tensor, json_string(list[i].file));
    tr_free(TR_MEM_MISC, list);
    return map;
}

/* total_size is made anew, since the dtype may be another one; the rest of the metadata stays. */
static int write_index(const struct tr_shards_write_params *p)
{
    const struct tr_shards *s = p->shards;
    json_t *metadata = s->index_metadata ? tr_json_copy(s->index_metadata) : json_object();
    char *path = tr_path(p->folder, "model.safetensors.index.json");
    json_t *index;
    int r = path ? 0 : -ENOMEM;

    tr_json_add(&metadata, "total_size",
                json_integer((json_int_t)tr_shards_bytes(s, p->model, p->dtype)));
    index = json_pack("{s:o, s:o}", "metadata", metadata, "weight_map", weight_map(s));
    if (r == 0 && !index)
        r = tr_error(-ENOMEM, "%s: cannot format the index", path);
    if (r == 0)
        r = tr_json_write(path, index);
    json_decref(index);
    tr_free(TR_MEM_MISC, path);
    return r;
}

int tr_shards_write(const struct tr_shards_write_params *p)
{
    uint64_t done = 0;
    struct out_file o = {.total = tr_shards_bytes(p->shards, p->model, p->dtype), .done = &done};
    void *buf = tr_alloc_pages(TR_MEM_IO, CHUNK_BYTES);
    int r = buf ? 0 : -ENOMEM;

    for (uint32_t i = 0; r == 0 && i < p->shards->n_files; i++)
        r = write_file(&o, p, &p->shards->files[i], buf);
    if (r == 0 && p->shards->indexed)
        r = write_index(p);
    if (buf)
        tr_free_pages(TR_MEM_IO, buf, CHUNK_BYTES);
    return r;
}
