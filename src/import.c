/* SPDX-License-Identifier: Apache-2.0
 *
 * One pass over the pieces of the store in disk order; each is filled by the source and written.
 * The commit comes last: a store without one is an import that was cut off.
 */
#include "src/import.h"

#include <string.h>

#include "src/base/err.h"
#include "src/base/file.h"
#include "src/base/mem.h"
#include "src/freeze.h"
#include "src/source.h"

struct tr_import {
    const struct tr_import_params *p;
    struct tr_source *source;
    struct tr_model *model;
    float *values; /* of masters, TR_SOURCE_CHUNK */
};

int tr_import_open(struct tr_import **out, const struct tr_import_params *p)
{
    struct tr_import *i = tr_alloc(TR_MEM_MISC, sizeof(*i));
    int r;

    *out = NULL;
    if (!i)
        return -ENOMEM;
    i->p = p;
    r = tr_source_open(&i->source, &(struct tr_source_params){.folder = p->model,
                                                              .arch = p->arch,
                                                              .seed = p->seed,
                                                              .tokenizer = p->tokenizer,
                                                              .dtype = p->dtype,
                                                              .threads = p->threads});
    if (r == 0)
        r = tr_freeze_check(i->source->table, p->freeze);
    if (r == 0)
        r = tr_model_like(
            &i->model, i->source->table,
            &(struct tr_model_params){.state = p->state, .freeze = p->freeze, .master = p->master});
    if (r < 0) {
        tr_import_close(i);
        return r;
    }
    *out = i;
    return 0;
}

void tr_import_close(struct tr_import *i)
{
    if (!i)
        return;
    tr_model_close(i->model);
    tr_source_close(i->source);
    tr_free(TR_MEM_MISC, i);
}

const struct tr_model *tr_import_model(const struct tr_import *i)
{
    return i->model;
}

int tr_import_park(struct tr_import *i, enum tr_parked parked)
{
    struct tr_model *m;
    int r = tr_model_park(&m, i->model, parked);

    if (r < 0)
        return r;
    tr_model_close(i->model);
    i->model = m;
    return 0;
}

const char *tr_import_note(const struct tr_import *i)
{
    return i->source->note;
}

static void map_master(const struct tr_model *m, int32_t tensor, int32_t *of)
{
    const struct tr_tensor *t = &m->tensors[tensor];
    uint64_t bytes = (uint64_t)(t->rows * t->cols) * tr_master_size(m->master), at = 0;

    while (tr_master_has(m, t) && at < bytes) {
        uint32_t piece = tr_master_piece(m, t, at);

        of[piece] = tensor;
        at += m->layout.pieces[piece].bytes;
    }
}

/* The tensor that each piece is of, or of whose master it is; -1 for optimizer state and gradients.
 */
static int32_t *map_pieces(const struct tr_model *m)
{
    int32_t *of = tr_alloc_array(TR_MEM_MISC, m->layout.n_pieces, sizeof(*of));

    for (uint32_t p = 0; of && p < m->layout.n_pieces; p++)
        of[p] = -1;
    for (int32_t t = 0; of && t < m->n_tensors; t++)
        for (uint32_t p = 0; p < m->tensors[t].n_pieces; p++)
            of[m->tensors[t].first_piece + p] = t;
    for (int32_t t = 0; of && t < m->n_tensors; t++)
        map_master(m, t, of);
    return of;
}

/* Weights, or what stands beside them, of the source's values in f32, a chunk at a time. */
static int fill_mastered(struct tr_import *i, uint32_t piece, int32_t tensor, char *buf)
{
    const struct tr_piece *p = &i->model->layout.pieces[piece];
    const struct tr_tensor *t = &i->source->table->tensors[tensor];
    const struct tr_tensor *to = &i->model->tensors[tensor];
    int weights = piece - to->first_piece < to->n_pieces, r = 0;
    size_t size = weights ? 2 : tr_master_size(i->model->master), n = p->bytes / size, now;

    for (size_t done = 0; r == 0 && done < n; done += now) {
        void *out = buf + done * size;
        struct tr_master_parts parts = {weights ? out : NULL, weights ? NULL : out};

        now = n - done < TR_SOURCE_CHUNK / 4 ? n - done : TR_SOURCE_CHUNK / 4;
        r = tr_source_fill(i->source, t, p->tensor_offset / size + done, now, TR_F32, i->values);
        if (r == 0 && tr_master_part(i->model->master, t->dtype, &parts, i->values, now) < 0)
            r = tr_error(-ERANGE, "tensor %s: a value is too large for %s", t->name,
                         tr_dtype_name(t->dtype));
    }
    return r;
}

static int write_piece(struct tr_import *i, struct tr_store *s, uint32_t piece, int32_t tensor,
                       void *buf)
{
    const struct tr_piece *p = &i->model->layout.pieces[piece];
    size_t padded = tr_round_up(p->bytes, TR_STORE_ALIGN), filled = 0;
    int r = 0;

    if (tensor >= 0 && tr_master_has(i->model, &i->model->tensors[tensor])) {
        r = fill_mastered(i, piece, tensor, buf);
        filled = p->bytes;
    } else if (tensor >= 0) {
        const struct tr_tensor *t = &i->source->table->tensors[tensor];
        size_t size = tr_dtype_size(t->dtype);

        r = tr_source_fill(i->source, t, p->tensor_offset / size, p->bytes / size, t->dtype, buf);
        filled = p->bytes;
    }
    memset((char *)buf + filled, 0, padded - filled);
    return r < 0 ? r : tr_store_write_piece(s, piece, buf);
}

static int write_pieces(struct tr_import *i, struct tr_store *s)
{
    const struct tr_layout *l = &i->model->layout;
    int32_t *of = map_pieces(i->model);
    size_t room = tr_layout_piece_room(l);
    void *buf = tr_alloc_pages(TR_MEM_IO, room);
    uint64_t done = 0, total = tr_layout_bytes(l);
    int r = of && buf ? 0 : -ENOMEM;

    if (i->model->master && !(i->values = tr_alloc_pages(TR_MEM_IO, TR_SOURCE_CHUNK)))
        r = -ENOMEM;
    for (uint32_t p = 0; r == 0 && p < l->n_pieces; p++) {
        r = write_piece(i, s, p, of[p], buf);
        done += tr_round_up(l->pieces[p].bytes, TR_STORE_ALIGN);
        if (r == 0 && i->p->progress && i->p->progress(i->p->progress_arg, done, total))
            r = tr_error(-EINTR, "the import was interrupted; nothing is left of it");
    }
    tr_free(TR_MEM_MISC, of);
    if (i->values)
        tr_free_pages(TR_MEM_IO, i->values, TR_SOURCE_CHUNK);
    i->values = NULL;
    if (buf)
        tr_free_pages(TR_MEM_IO, buf, room);
    return r;
}

/* The store comes first: it knows whether the disk is large enough. */
static int fill_store(struct tr_import *i)
{
    struct tr_store *s;
    int r = tr_store_create(&s, i->p->store, &i->model->layout, i->p->generations);

    if (r < 0)
        return r;
    if (i->p->keep)
        r = tr_make_folder(i->p->keep);
    if (r == 0 && i->p->keep)
        r = tr_source_keep(i->source, i->model, i->p->keep);
    if (r == 0)
        r = write_pieces(i, s);
    if (r == 0)
        r = tr_store_commit(s, i->p->payload, i->p->payload_bytes);
    tr_store_close(s);
    return r;
}

/* Takes back what this call made: the folder itself only where it was not there before. */
static void undo(const char *folder, int was_there)
{
    char *message = tr_strdup(TR_MEM_MISC, tr_error_message());

    if (tr_folder_is_empty(folder) != -ENOENT)
        tr_remove_tree(folder);
    if (was_there)
        tr_make_folder(folder);
    if (message)
        tr_error(0, "%s", message);
    tr_free(TR_MEM_MISC, message);
}

/* 1: it is there and empty; 0: it is not there. */
static int check_free_folder(const char *folder)
{
    int empty = tr_folder_is_empty(folder);

    if (!empty)
        return tr_error(-EEXIST, "%s: exists and is not an empty folder; nothing is overwritten",
                        folder);
    return empty > 0;
}

/* The folders of the store, and whether each of them is there, empty. */
static int check_store_folders(const char *list, struct tr_folders *f, int there[TR_STORE_FOLDERS])
{
    int r = tr_folders_parse(f, list);

    for (uint32_t k = 0; k < f->n && r >= 0; k++)
        r = there[k] = check_free_folder(f->path[k]);
    return r;
}

int tr_import_run(struct tr_import *i)
{
    int keep_there = i->p->keep ? check_free_folder(i->p->keep) : 0, r;
    int store_there[TR_STORE_FOLDERS];
    struct tr_folders folders = {.n = 0};

    r = keep_there < 0 ? keep_there : check_store_folders(i->p->store, &folders, store_there);
    if (r < 0)
        goto out;
    r = fill_store(i);
    tr_source_close(i->source); /* its buffers are not to lie beside those of the run */
    i->source = NULL;
    for (uint32_t k = 0; r < 0 && k < folders.n; k++)
        undo(folders.path[k], store_there[k]);
    if (r < 0 && i->p->keep)
        undo(i->p->keep, keep_there);
out:
    tr_folders_free(&folders);
    return r;
}

int tr_import(const struct tr_import_params *p)
{
    struct tr_import *i;
    int r = tr_import_open(&i, p);

    if (r == 0)
        r = tr_import_run(i);
    tr_import_close(i);
    return r;
}
