/* SPDX-License-Identifier: Apache-2.0
 *
 * One pass over the pieces of the store in disk order; each is filled by the source and written,
 * or left as it is where it begins as zeros. The commit comes last: a store without one is an
 * import that was cut off.
 */
#include "src/checkpoint/import.h"

#include <string.h>
#include <unistd.h>

#include "src/base/err.h"
#include "src/base/file.h"
#include "src/checkpoint/peft.h"
#include "src/checkpoint/source.h"
#include "src/model/freeze.h"

struct tr_import {
    const struct tr_import_params *p;
    struct tr_source *source;
    struct tr_model *model;
    float *values; /* of masters, TR_SOURCE_CHUNK */
    struct tr_peft *peft;
    json_t *kept;  /* names of the files in `keep` that this import has made */
    int keep_made; /* and the folder is, too */
};

/* What the folder says of its adapters holds; the caller says how they are trained. */
static int add_adapters(struct tr_import *i)
{
    struct tr_lora lora = i->p->lora;
    struct tr_model *m;
    int r = i->p->adapter ? tr_peft_open(&i->peft, i->p->adapter) : 0;

    if (r == 0 && i->peft) {
        lora.rank = i->peft->lora.rank;
        lora.alpha = i->peft->lora.alpha;
        lora.targets = i->peft->lora.targets;
        if (lora.dropout < 0)
            lora.dropout = i->peft->lora.dropout;
    }
    if (r < 0 || !lora.rank || (r = tr_model_adapt(&m, i->model, &lora)) < 0)
        return r;
    tr_model_close(i->model);
    i->model = m;
    return i->peft ? tr_peft_check(i->peft, m) : 0;
}

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
    if (r == 0)
        r = add_adapters(i);
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
    tr_peft_close(i->peft);
    tr_source_close(i->source);
    json_decref(i->kept);
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

/* Elements of a tensor, from where it comes. */
static int fill(struct tr_import *i, int32_t tensor, uint64_t from, size_t n, void *buf)
{
    const struct tr_tensor *t = &i->model->tensors[tensor];

    if (tensor < i->model->n_base)
        return tr_source_fill(i->source, &i->source->table->tensors[tensor], from, n, t->dtype,
                              buf);
    if (i->peft)
        return tr_peft_fill(i->peft, t, from, n, buf);
    tr_lora_fill(i->p->seed, t, from, n, buf);
    return 0;
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

/* Optimizer state and gradients begin as zeros, which the store's new files are. */
static int write_piece(struct tr_import *i, struct tr_store *s, uint32_t piece, int32_t tensor,
                       void *buf)
{
    const struct tr_piece *p = &i->model->layout.pieces[piece];
    size_t padded = tr_round_up(p->bytes, TR_STORE_ALIGN), size;
    int r;

    if (tensor < 0) {
        memset(buf, 0, p->bytes);
        return tr_store_leave_piece(s, piece, buf);
    }
    if (tr_master_has(i->model, &i->model->tensors[tensor])) {
        r = fill_mastered(i, piece, tensor, buf);
    } else {
        size = tr_dtype_size(i->model->tensors[tensor].dtype);
        r = fill(i, tensor, p->tensor_offset / size, p->bytes / size, buf);
    }
    memset((char *)buf + p->bytes, 0, padded - p->bytes);
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
    if (r == 0)
        r = tr_safetensors_unchanged(i->source->weights);
    if (r == 0 && i->peft)
        r = tr_safetensors_unchanged(i->peft->weights);
    tr_free(TR_MEM_MISC, of);
    if (i->values)
        tr_free_pages(TR_MEM_IO, i->values, TR_SOURCE_CHUNK);
    i->values = NULL;
    if (buf)
        tr_free_pages(TR_MEM_IO, buf, room);
    return r;
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

static int add_name(void *names, const char *name)
{
    const char *slash = strrchr(name, '/'), *last = slash ? slash + 1 : name;

    if (strcmp(last, ".") && strcmp(last, ".."))
        json_array_append_new(names, json_string(name));
    return 0;
}

/* Empty before, and written in a moment: then all that is in it is of this import. Later, while the
 * store is filled, others may put something there. */
static int keep_files(struct tr_import *i, const char *uuid)
{
    const char *keep = i->p->keep;
    int there = keep ? check_free_folder(keep) : 0, r;

    if (!keep || there < 0)
        return there;
    if ((r = tr_make_folder(keep)) < 0)
        return r;
    i->keep_made = !there;
    r = tr_source_keep(i->source, i->model, keep, uuid);
    i->kept = json_array();
    tr_keep_names(keep, add_name, i->kept);
    return r;
}

/* Backwards: what is in a sub-folder stands behind it, and one that is not empty stays. */
static void remove_kept(const struct tr_import *i)
{
    for (size_t k = json_array_size(i->kept); k-- > 0;) {
        char *path = tr_path(i->p->keep, json_string_value(json_array_get(i->kept, k)));

        if (path && unlink(path) < 0)
            rmdir(path);
        tr_free(TR_MEM_MISC, path);
    }
}

/* What others have put into the folders stays, and so does a folder that was there before. */
static void undo(struct tr_import *i, struct tr_store *s)
{
    char *message = tr_strdup(TR_MEM_MISC, tr_error_message());

    tr_store_undo(s);
    remove_kept(i);
    if (i->keep_made)
        rmdir(i->p->keep);
    if (message) /* the reason of the failure, not of the tidying */
        tr_error(0, "%s", message);
    tr_free(TR_MEM_MISC, message);
}

/* The store comes first: it knows whether the disk is large enough. */
static int fill_store(struct tr_import *i)
{
    struct tr_store *s;
    int r =
        tr_store_create_dealt(&s, i->p->store, &i->model->layout, i->p->generations, i->p->speed);

    if (r < 0)
        return r;
    r = keep_files(i, tr_store_uuid(s));
    if (r == 0)
        r = write_pieces(i, s);
    if (r == 0)
        r = tr_store_commit(s, i->p->payload, i->p->payload_bytes);
    if (r < 0)
        undo(i, s);
    else
        tr_store_close(s);
    return r;
}

static int check_store_folders(const char *list)
{
    struct tr_folders f;
    int r = tr_folders_parse(&f, list);

    for (uint32_t k = 0; k < f.n && r >= 0; k++)
        r = check_free_folder(f.path[k]);
    tr_folders_free(&f);
    return r;
}

int tr_import_run(struct tr_import *i)
{
    int r = i->p->keep ? check_free_folder(i->p->keep) : 0;

    if (r >= 0)
        r = check_store_folders(i->p->store);
    if (r < 0)
        return r;
    r = fill_store(i);
    tr_source_close(i->source); /* its buffers are not to lie beside those of the run */
    i->source = NULL;
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
