/* SPDX-License-Identifier: Apache-2.0
 *
 * The table of shard files: made from a source or planned, kept as JSON beside the run.
 */
#include "src/checkpoint/shards.h"

#include <stdio.h>
#include <string.h>

#include "src/base/err.h"
#include "src/base/json.h"
#include "src/base/mem.h"

#define SHARD_BYTES (4ull << 30)

int tr_shards_ignored(const char *name)
{
    static const char end[] = "rotary_emb.inv_freq";
    size_t n = strlen(name), e = sizeof(end) - 1;

    return n >= e && !strcmp(name + n - e, end);
}

int32_t tr_shards_tensor(const struct tr_model *m, const char *name)
{
    const struct tr_tensor *t = tr_model_find(m, name);

    if (!t && m->config.tied &&
        (!strcmp(name, "lm_head.weight") || !strcmp(name, "model.embed_tokens.weight")))
        t = &m->tensors[m->embed.tensor];
    return t ? (int32_t)(t - m->tensors) : -1;
}

void tr_shards_free(struct tr_shards *s)
{
    for (uint32_t i = 0; s->files && i < s->n_files; i++) {
        struct tr_shard_file *f = &s->files[i];

        for (uint32_t k = 0; f->tensors && k < f->n_tensors; k++)
            tr_free(TR_MEM_MISC, f->tensors[k].name);
        tr_free(TR_MEM_MISC, f->tensors);
        tr_free(TR_MEM_MISC, f->name);
        json_decref(f->metadata);
    }
    tr_free(TR_MEM_MISC, s->files);
    json_decref(s->index_metadata);
    memset(s, 0, sizeof(*s));
}

/* n_files is only set once there is an array, so that tr_shards_free takes a half-made table. */
static int alloc_files(struct tr_shards *s, uint32_t n)
{
    s->files = tr_alloc_array(TR_MEM_MISC, n, sizeof(*s->files));
    s->n_files = s->files ? n : 0;
    return s->files ? 0 : -ENOMEM;
}

/* A file with room for n tensors; n_tensors counts those that are there. */
static int start_file(struct tr_shard_file *f, const char *name, size_t n)
{
    f->name = tr_strdup(TR_MEM_MISC, name);
    f->tensors = tr_alloc_array(TR_MEM_MISC, n, sizeof(*f->tensors));
    return f->name && f->tensors ? 0 : -ENOMEM;
}

static int add_tensor(struct tr_shard_file *f, const char *name, int32_t tensor,
                      enum tr_dtype source)
{
    struct tr_shard_tensor *t = &f->tensors[f->n_tensors];

    t->name = tr_strdup(TR_MEM_MISC, name);
    t->tensor = tensor;
    t->source = source;
    f->n_tensors += t->name != NULL;
    return t->name ? 0 : -ENOMEM;
}

/* In the order of the data, not of the header: so they were written, and so they are read. */
static int copy_shard(struct tr_shard_file *f, const struct tr_safetensors *source, uint32_t shard,
                      const struct tr_model *m)
{
    const struct tr_st_shard *from = &source->shards[shard];
    int r = start_file(f, from->name, from->n_tensors);

    f->metadata = json_incref(from->metadata);
    for (uint32_t i = 0; r == 0 && i < from->n_tensors; i++) {
        const struct tr_st_tensor *t = &source->tensors[from->first + i];

        if (!tr_shards_ignored(t->name))
            r = add_tensor(f, t->name, tr_shards_tensor(m, t->name), (enum tr_dtype)t->dtype);
    }
    return r;
}

int tr_shards_from_source(struct tr_shards *s, const struct tr_safetensors *source,
                          const struct tr_model *m)
{
    int r;

    memset(s, 0, sizeof(*s));
    r = alloc_files(s, source->n_shards);
    s->indexed = source->indexed;
    s->index_metadata = json_incref(source->index_metadata);
    for (uint32_t i = 0; r == 0 && i < s->n_files; i++)
        r = copy_shard(&s->files[i], source, i, m);
    if (r < 0)
        tr_shards_free(s);
    return r;
}

/* The file of each tensor when files are filled one after the other; returns how many. */
/* A tensor is never cut, as no reader could join it: one above 4 GiB has a file to itself. */
static uint32_t split(const struct tr_model *m, uint32_t *file_of)
{
    uint64_t bytes = 0;
    uint32_t n = 0;

    for (int32_t i = 0; i < m->n_tensors; i++) {
        if (i == 0 || bytes + m->tensors[i].bytes > SHARD_BYTES) {
            n++;
            bytes = 0;
        }
        bytes += m->tensors[i].bytes;
        file_of[i] = n - 1;
    }
    return n;
}

static int plan_files(struct tr_shards *s, const struct tr_model *m, const uint32_t *file_of)
{
    char name[64] = "model.safetensors";
    int r = 0;

    for (uint32_t f = 0; r == 0 && f < s->n_files; f++) {
        if (s->n_files > 1)
            snprintf(name, sizeof(name), "model-%05u-of-%05u.safetensors", f + 1, s->n_files);
        r = start_file(&s->files[f], name, (size_t)m->n_tensors);
        for (int32_t i = 0; r == 0 && i < m->n_tensors; i++)
            if (file_of[i] == f)
                r = add_tensor(&s->files[f], m->tensors[i].name, i, m->tensors[i].dtype);
    }
    return r;
}

int tr_shards_plan(struct tr_shards *s, const struct tr_model *m)
{
    uint32_t *file_of = tr_alloc_array(TR_MEM_MISC, (size_t)m->n_tensors, sizeof(*file_of));
    int r = file_of ? 0 : -ENOMEM;

    memset(s, 0, sizeof(*s));
    if (r == 0)
        r = alloc_files(s, split(m, file_of));
    s->indexed = s->n_files > 1;
    if (r == 0)
        r = plan_files(s, m, file_of);
    tr_free(TR_MEM_MISC, file_of);
    if (r < 0)
        tr_shards_free(s);
    return r;
}

static json_t *file_to_json(const struct tr_shard_file *f)
{
    json_t *o = json_pack("{s:s}", "name", f->name), *list = json_array();

    for (uint32_t i = 0; i < f->n_tensors; i++)
        tr_json_append(
            &list, json_pack("[s, s]", f->tensors[i].name, tr_dtype_name(f->tensors[i].source)));
    tr_json_add(&o, "tensors", list);
    if (f->metadata)
        tr_json_add(&o, "metadata", json_incref(f->metadata));
    return o;
}

json_t *tr_shards_to_json(const struct tr_shards *s)
{
    json_t *o = json_pack("{s:b}", "indexed", s->indexed), *files = json_array();

    for (uint32_t i = 0; i < s->n_files; i++)
        tr_json_append(&files, file_to_json(&s->files[i]));
    tr_json_add(&o, "files", files);
    if (s->index_metadata)
        tr_json_add(&o, "index_metadata", json_incref(s->index_metadata));
    return o;
}

/* The file is ours and still not trusted: it lies in a folder where anyone may edit it, and its
 * names become paths. */
static int file_from_json(struct tr_shard_file *f, const json_t *o, const struct tr_model *m,
                          const char *where)
{
    const json_t *list = json_object_get(o, "tensors"), *metadata = json_object_get(o, "metadata");
    const char *name = json_string_value(json_object_get(o, "name"));
    int r;

    if (!name || !name[0] || name[0] == '.' || strchr(name, '/') || !json_is_array(list) ||
        (metadata && !json_is_object(metadata)))
        return tr_error(-EINVAL, "%s: a file's entry is damaged", where);
    r = start_file(f, name, json_array_size(list));
    f->metadata = json_incref((json_t *)(uintptr_t)metadata);
    for (size_t i = 0; r == 0 && i < json_array_size(list); i++) {
        const json_t *pair = json_array_get(list, i);
        const char *tensor = json_string_value(json_array_get(pair, 0));
        const char *type = json_string_value(json_array_get(pair, 1));
        int32_t index = tensor ? tr_shards_tensor(m, tensor) : -1;
        enum tr_dtype source;

        if (index < 0 || !type || tr_dtype_parse(type, &source) < 0)
            return tr_error(-EINVAL, "%s: %s: tensor %s is not the model's", where, name,
                            tensor ? tensor : "without a name");
        r = add_tensor(f, tensor, index, source);
    }
    return r;
}

/* Every tensor of the model itself is in a file, or an export would lack it; a tied one may be in
 * two, under two names. And no file is there twice. */
static int check_complete(const struct tr_shards *s, const struct tr_model *m, const char *where)
{
    int32_t missing = -1;
    unsigned char *seen = tr_alloc(TR_MEM_MISC, (size_t)m->n_tensors);

    if (!seen)
        return -ENOMEM;
    for (uint32_t i = 0; i < s->n_files; i++)
        for (uint32_t k = 0; k < s->files[i].n_tensors; k++)
            seen[s->files[i].tensors[k].tensor] = 1;
    for (int32_t t = 0; t < m->n_base && missing < 0; t++)
        missing = seen[t] ? -1 : t;
    tr_free(TR_MEM_MISC, seen);
    if (missing >= 0)
        return tr_error(-EINVAL, "%s: tensor %s is in no file", where, m->tensors[missing].name);
    for (uint32_t i = 0; i < s->n_files; i++)
        for (uint32_t k = 0; k < i; k++)
            if (!strcmp(s->files[i].name, s->files[k].name))
                return tr_error(-EINVAL, "%s: %s is there twice", where, s->files[i].name);
    return 0;
}

int tr_shards_from_json(struct tr_shards *s, const json_t *root, const struct tr_model *m,
                        const char *where)
{
    const json_t *files = json_object_get(root, "files");
    json_t *metadata;
    int r;

    memset(s, 0, sizeof(*s));
    if (!json_is_array(files) || !json_array_size(files))
        return tr_error(-EINVAL, "%s: \"files\" is missing", where);
    r = alloc_files(s, (uint32_t)json_array_size(files));
    s->indexed = json_is_true(json_object_get(root, "indexed"));
    metadata = json_object_get(root, "index_metadata");
    s->index_metadata = json_is_object(metadata) ? json_incref(metadata) : NULL;
    for (uint32_t i = 0; r == 0 && i < s->n_files; i++)
        r = file_from_json(&s->files[i], json_array_get(files, i), m, where);
    if (r == 0)
        r = check_complete(s, m, where);
    if (r < 0)
        tr_shards_free(s);
    return r;
}
