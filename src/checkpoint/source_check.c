/* SPDX-License-Identifier: Apache-2.0
 *
 * A source folder against its own config.json: the names and shapes that the configuration asks for
 * must be exactly those that are there. Types are taken by role, one for all layers.
 */
#include <stdio.h>
#include <string.h>

#include "src/base/err.h"
#include "src/base/mem.h"
#include "src/checkpoint/source.h"

static const char embed_name[] = "model.embed_tokens.weight", head_name[] = "lm_head.weight";

static void shape_text(const struct tr_st_tensor *t, char *text, size_t room)
{
    size_t at = (size_t)snprintf(text, room, "[");

    for (int i = 0; i < t->dims && at < room; i++)
        at += (size_t)snprintf(text + at, room - at, i ? ", %lld" : "%lld", (long long)t->shape[i]);
    if (at < room)
        snprintf(text + at, room - at, "]");
}

static int check_shape(const struct tr_source *s, const struct tr_st_tensor *t,
                       const struct tr_tensor *want)
{
    const char *path = tr_safetensors_path(s->weights, t);
    int same = t->dims == want->dims && t->shape[t->dims - 1] == want->cols;
    char text[200];

    if (same && want->dims == 2)
        same = t->shape[0] == want->rows;
    shape_text(t, text, sizeof(text));
    if (!same && want->dims == 1)
        return tr_error(-EINVAL, "%s: tensor %s: shape %s, config.json makes it [%lld]", path,
                        t->name, text, (long long)want->cols);
    if (!same)
        return tr_error(-EINVAL, "%s: tensor %s: shape %s, config.json makes it [%lld, %lld]", path,
                        t->name, text, (long long)want->rows, (long long)want->cols);
    if (t->dtype < 0)
        return tr_error(-EINVAL, "%s: tensor %s: dtype %s is not supported; F32, BF16 and F16 are",
                        path, t->name, t->dtype_name);
    return 0;
}

/* Points each tensor of the model at its source; both tables of a tied model may be there. */
static int match_tensors(struct tr_source *s)
{
    const struct tr_safetensors *w = s->weights;
    struct tr_model *m = s->table;

    for (uint32_t i = 0; i < w->n_tensors; i++) {
        const struct tr_st_tensor *t = &w->tensors[i];
        int32_t n = tr_shards_tensor(m, t->name);
        int r;

        if (tr_shards_ignored(t->name)) {
            snprintf(s->note, sizeof(s->note), "%s: %s and the like are only caches: left out",
                     s->folder, t->name);
            continue;
        }
        if (n < 0)
            return tr_error(-EINVAL, "%s: tensor %s: not part of a %s as config.json describes it",
                            tr_safetensors_path(w, t), t->name, m->config.architecture);
        r = check_shape(s, t, &m->tensors[n]);
        if (r < 0)
            return r;
        if (!s->tensor[n] || !strcmp(t->name, m->tensors[n].name))
            s->tensor[n] = t;
    }
    for (int32_t i = 0; i < m->n_tensors; i++)
        if (!s->tensor[i])
            return tr_error(-EINVAL, "%s: tensor %s is missing%s", s->folder, m->tensors[i].name,
                            m->tensors[i].role == TR_ROLE_HEAD
                                ? ": is the model tied? Then config.json must say so "
                                  "(\"tie_word_embeddings\": true)"
                                : "");
    return 0;
}

/* The first layer decides for its role, and the others must agree: a slot is sized for any block,
 * and the plan has one type for activations at the borders between them. */
static int take_types(struct tr_source *s, int dtype, enum tr_dtype types[TR_ROLES])
{
    const struct tr_st_tensor *first[TR_ROLES] = {NULL};

    for (int i = 0; i < TR_ROLES; i++)
        types[i] = dtype < 0 ? TR_F32 : (enum tr_dtype)dtype;
    for (int32_t i = 0; dtype < 0 && i < s->table->n_tensors; i++) {
        const struct tr_st_tensor *t = s->tensor[i];
        enum tr_role role = s->table->tensors[i].role;

        if (!first[role])
            first[role] = t;
        types[role] = (enum tr_dtype)first[role]->dtype;
        if (t->dtype != first[role]->dtype)
            return tr_error(-EINVAL,
                            "%s: tensor %s: dtype %s, but %s is %s: layers of different "
                            "types are not supported; --dtype makes them equal",
                            tr_safetensors_path(s->weights, t), t->name, t->dtype_name,
                            first[role]->name, first[role]->dtype_name);
    }
    return 0;
}

/* A table stored under both names must be one table. */
static int check_tied(struct tr_source *s)
{
    const struct tr_st_tensor *a = tr_safetensors_find(s->weights, embed_name);
    const struct tr_st_tensor *b = tr_safetensors_find(s->weights, head_name);
    char *x = s->scratch, *y = x + TR_SOURCE_CHUNK / 2;
    int r = 0, same = 1;

    if (!s->table->config.tied || !a || !b)
        return 0;
    same = a->bytes == b->bytes && a->dtype == b->dtype;
    for (uint64_t at = 0; r == 0 && same && at < a->bytes; at += TR_SOURCE_CHUNK / 2) {
        size_t n = a->bytes - at < TR_SOURCE_CHUNK / 2 ? a->bytes - at : TR_SOURCE_CHUNK / 2;

        r = tr_safetensors_read(s->weights, a, at, x, n);
        if (r == 0)
            r = tr_safetensors_read(s->weights, b, at, y, n);
        same = r < 0 || memcmp(x, y, n) == 0;
    }
    if (r == 0 && !same)
        return tr_error(-EINVAL,
                        "%s: config.json ties %s and %s, but their values differ: set "
                        "\"tie_word_embeddings\" to false, or remove one of them",
                        tr_safetensors_path(s->weights, b), embed_name, head_name);
    return r;
}

/* The table is made twice: first for names and shapes alone, as types are known only when every
 * tensor has been found, and offsets in the store follow from the types. */
int tr_source_check(struct tr_source *s, const struct tr_model_config *config, int dtype)
{
    enum tr_dtype types[TR_ROLES] = {TR_F32};
    struct tr_model_params p = {config, types, 0, 0, NULL};
    int r;

    p.tied_as_head = config->tied && !tr_safetensors_find(s->weights, embed_name) &&
                     tr_safetensors_find(s->weights, head_name);
    r = tr_model_open(&s->table, &p); /* for its names and shapes */
    if (r < 0)
        return r;
    s->tensor = tr_alloc_array(TR_MEM_MISC, (size_t)s->table->n_tensors, sizeof(*s->tensor));
    if (!s->tensor)
        return -ENOMEM;
    r = match_tensors(s);
    if (r == 0)
        r = check_tied(s);
    if (r == 0)
        r = take_types(s, dtype, types);
    if (r < 0)
        return r;
    tr_model_close(s->table);
    return tr_model_open(&s->table, &p);
}
