/* SPDX-License-Identifier: Apache-2.0
 *
 * Tensors are written in the order of the files; their bytes are taken from the store piece by
 * piece, one piece in memory at a time (a checksum belongs to each).
 */
#include "src/export.h"

#include <string.h>

#include "src/base/err.h"
#include "src/base/file.h"
#include "src/merge.h"
#include "src/out_folder.h"
#include "src/peft.h"

#define SPARE_BYTES (16u << 20) /* headers, the folder, what rounding up takes */

static int load(struct tr_export_reader *r, uint32_t piece)
{
    int e;

    if (r->loaded == (int64_t)piece)
        return 0;
    r->loaded = -1;
    e = tr_store_read_piece(r->store, piece, r->buf);
    if (e == 0)
        r->loaded = piece;
    return e;
}

/* The piece of the tensor that has this byte. */
static uint32_t find_piece(const struct tr_layout *l, const struct tr_tensor *t, uint64_t byte)
{
    uint32_t low = t->first_piece, high = low + t->n_pieces;

    while (high - low > 1) {
        uint32_t middle = low + (high - low) / 2;

        if (l->pieces[middle].tensor_offset <= byte)
            low = middle;
        else
            high = middle;
    }
    return low;
}

int tr_export_fill(void *arg, const struct tr_tensor *t, uint64_t from, size_t n,
                   enum tr_dtype type, void *buf)
{
    struct tr_export_reader *r = arg;
    const struct tr_layout *l = tr_store_layout(r->store);
    size_t in = tr_dtype_size(t->dtype), out = tr_dtype_size(type), done = 0;

    while (done < n) {
        uint64_t byte = (from + done) * in;
        uint32_t i = find_piece(l, t, byte);
        const struct tr_piece *p = &l->pieces[i];
        uint64_t at = byte - p->tensor_offset, have = (p->bytes - at) / in;
        size_t now = have < n - done ? (size_t)have : n - done;
        int e = load(r, i);

        if (e < 0)
            return e;
        if (tr_convert((char *)buf + done * out, type, (char *)r->buf + at, t->dtype, now) < 0)
            return tr_error(-ERANGE, "tensor %s: a value is too large for %s", t->name,
                            tr_dtype_name(type));
        done += now;
    }
    return 0;
}

static uint64_t folder_bytes(const struct tr_kept *k, int dtype)
{
    return tr_shards_bytes(&k->shards, k->model, dtype) + SPARE_BYTES;
}

int tr_export_check_space(const char *folder, uint64_t need)
{
    uint64_t room;
    int r = tr_free_bytes(folder, &room);

    if (r == 0 && room < need)
        r = tr_error(-ENOSPC, "%s: the export needs %llu bytes, %llu are free on that disk", folder,
                     (unsigned long long)need, (unsigned long long)room);
    return r;
}

/* The type of the embedding before import: config.json was written for it. */
static enum tr_dtype source_type(const struct tr_kept *k)
{
    int32_t embed = k->model->embed.tensor;

    for (uint32_t i = 0; i < k->shards.n_files; i++)
        for (uint32_t t = 0; t < k->shards.files[i].n_tensors; t++)
            if (k->shards.files[i].tensors[t].tensor == embed)
                return k->shards.files[i].tensors[t].source;
    return k->model->dtype;
}

static int write_model(const struct tr_export_params *p, const struct tr_kept *k,
                       const char *folder)
{
    struct tr_export_reader reader = {.store = p->store, .loaded = -1};
    struct tr_merge merge;
    struct tr_shards_write_params w = {.folder = folder,
                                       .shards = &k->shards,
                                       .model = k->model,
                                       .dtype = p->dtype,
                                       .fill = tr_export_fill,
                                       .arg = &reader,
                                       .progress = p->progress,
                                       .progress_arg = p->progress_arg};
    enum tr_dtype type = p->dtype < 0 ? k->model->dtype : (enum tr_dtype)p->dtype;
    size_t room = tr_layout_piece_room(&k->model->layout);
    int r = tr_export_check_space(folder, folder_bytes(k, p->dtype));

    if (r < 0)
        return r;
    reader.buf = tr_alloc_pages(TR_MEM_IO, room);
    if (!reader.buf)
        return -ENOMEM;
    tr_merge_open(&merge, k, &reader);
    if (p->merge) {
        w.fill = tr_merge_fill;
        w.arg = &merge;
    }
    r = tr_keep_copy(p->keep, folder, 1);
    if (r == 0 && type != source_type(k))
        r = tr_keep_set_type(folder, type);
    if (r == 0)
        r = tr_shards_write(&w);
    tr_merge_close(&merge);
    tr_free_pages(TR_MEM_IO, reader.buf, room);
    return r;
}

/* Adapters are worth little without the model that was trained beside them. */
static int write_both(const struct tr_export_params *p, const struct tr_kept *k, const char *folder)
{
    char *adapter = tr_path(folder, "adapter");
    int r = adapter ? write_model(p, k, folder) : -ENOMEM;

    if (r == 0)
        r = tr_make_folder(adapter);
    if (r == 0)
        r = tr_peft_write(p, k, adapter);
    tr_free(TR_MEM_MISC, adapter);
    return r;
}

static int write_folder(const struct tr_export_params *p, const struct tr_kept *k,
                        const char *folder)
{
    const struct tr_lora *lora = &k->model->lora;

    if (p->merge && !lora->rank)
        return tr_error(-EINVAL, "--merge: the run has no adapters");
    if (lora->rank && !p->merge)
        return tr_lora_freezes(lora) ? tr_peft_write(p, k, folder) : write_both(p, k, folder);
    return write_model(p, k, folder);
}

int tr_export(const struct tr_export_params *p)
{
    struct tr_out_folder out;
    struct tr_kept *k;
    int r = tr_keep_open(&k, p->keep);

    if (r < 0)
        return r;
    r = tr_keep_check_store(k, p->store);
    if (r == 0)
        r = tr_out_folder_begin(&out, p->out);
    if (r == 0)
        r = tr_out_folder_end(&out, write_folder(p, k, out.tmp));
    tr_keep_close(k);
    return r;
}

int tr_export_bytes(const char *keep, int dtype, uint64_t *bytes)
{
    struct tr_kept *k;
    int r = tr_keep_open(&k, keep);

    if (r == 0)
        *bytes = folder_bytes(k, dtype);
    tr_keep_close(k);
    return r;
}
