/* SPDX-License-Identifier: Apache-2.0
 *
 * Tensors are written in the order of the files; their bytes are taken from the store piece by
 * piece, one piece in memory at a time (a checksum belongs to each), or one of weights and one of
 * their master.
 */
#include "src/checkpoint/export.h"

#include <string.h>

#include "src/base/err.h"
#include "src/base/file.h"
#include "src/checkpoint/merge.h"
#include "src/checkpoint/out_folder.h"
#include "src/checkpoint/peft.h"

#define VALUES (1u << 20) /* of masters at a time */

struct bytes {
    char *at;
    uint64_t bytes;
};

struct values {
    void *at;
    enum tr_dtype type;
};

int tr_export_reader_open(struct tr_export_reader *r, struct tr_store *s, const struct tr_model *m)
{
    size_t room = tr_layout_piece_room(&m->layout);

    *r = (struct tr_export_reader){.store = s, .model = m};
    r->weights.loaded = r->master.loaded = -1;
    r->weights.buf = tr_alloc_pages(TR_MEM_IO, room);
    return r->weights.buf ? 0 : -ENOMEM;
}

/* Only for who asks for their values: the end of a run does not. */
static int open_masters(struct tr_export_reader *r)
{
    if (r->values)
        return 0;
    if (!r->master.buf)
        r->master.buf = tr_alloc_pages(TR_MEM_IO, tr_layout_piece_room(&r->model->layout));
    r->values = r->master.buf ? tr_alloc_array(TR_MEM_IO, VALUES, sizeof(*r->values)) : NULL;
    return r->values ? 0 : -ENOMEM;
}

void tr_export_reader_close(struct tr_export_reader *r)
{
    size_t room = r->model ? tr_layout_piece_room(&r->model->layout) : 0;

    if (r->weights.buf)
        tr_free_pages(TR_MEM_IO, r->weights.buf, room);
    if (r->master.buf)
        tr_free_pages(TR_MEM_IO, r->master.buf, room);
    tr_free(TR_MEM_IO, r->values);
    *r = (struct tr_export_reader){0};
}

/* Reads the piece that has this byte; *out is what of it begins there. */
static int load(struct tr_export_reader *r, struct tr_export_piece *held, uint32_t piece,
                uint64_t byte, struct bytes *out)
{
    const struct tr_piece *p = &tr_store_layout(r->store)->pieces[piece];
    uint64_t at = byte - p->tensor_offset;
    int e = 0;

    if (held->loaded != (int64_t)piece) {
        held->loaded = -1;
        e = tr_store_read_piece(r->store, piece, held->buf);
        held->loaded = e == 0 ? (int64_t)piece : -1;
    }
    *out = (struct bytes){(char *)held->buf + at, p->bytes - at};
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

static int too_large(const struct tr_tensor *t, enum tr_dtype type)
{
    return tr_error(-ERANGE, "tensor %s: a value is too large for %s", t->name,
                    tr_dtype_name(type));
}

/* Some of n weights from element `from` on, as they are stored; returns how many. */
static int64_t fill_weights(struct tr_export_reader *r, const struct tr_tensor *t, uint64_t from,
                            size_t n, struct values *to)
{
    size_t size = tr_dtype_size(t->dtype), now;
    struct bytes in;
    int e = load(r, &r->weights, find_piece(tr_store_layout(r->store), t, from * size), from * size,
                 &in);

    if (e < 0)
        return e;
    now = in.bytes / size < n ? in.bytes / size : n;
    if (tr_convert(to->at, to->type, in.at, t->dtype, now) < 0)
        return too_large(t, to->type);
    return (int64_t)now;
}

/* The same of their masters. */
static int64_t fill_masters(struct tr_export_reader *r, const struct tr_tensor *t, uint64_t from,
                            size_t n, struct values *to)
{
    size_t size = tr_master_size(r->model->master), now = n < VALUES ? n : VALUES;
    struct bytes w = {0}, master = {0};
    int e = open_masters(r);

    if (e == 0)
        e = load(r, &r->weights, find_piece(tr_store_layout(r->store), t, from * 2), from * 2, &w);
    if (e == 0)
        e = load(r, &r->master, tr_master_piece(r->model, t, from * size), from * size, &master);
    if (e < 0)
        return e;
    now = w.bytes / 2 < now ? w.bytes / 2 : now;
    now = master.bytes / size < now ? master.bytes / size : now;
    tr_master_whole(r->model->master, r->values, (uint16_t *)w.at, master.at, now);
    if (tr_convert(to->at, to->type, r->values, TR_F32, now) < 0)
        return too_large(t, to->type);
    return (int64_t)now;
}

int tr_export_fill(void *arg, const struct tr_tensor *t, uint64_t from, size_t n,
                   enum tr_dtype type, void *buf)
{
    struct tr_export_reader *r = arg;
    int exact = tr_master_has(r->model, t) && type != t->dtype;
    size_t done = 0;

    while (done < n) {
        struct values to = {(char *)buf + done * tr_dtype_size(type), type};
        int64_t now = exact ? fill_masters(r, t, from + done, n - done, &to)
                            : fill_weights(r, t, from + done, n - done, &to);

        if (now < 0)
            return (int)now;
        done += (size_t)now;
    }
    return 0;
}

static uint64_t folder_bytes(const struct tr_kept *k, int dtype)
{
    return tr_shards_bytes(&k->shards, k->model, dtype) + TR_EXPORT_SPARE;
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
    struct tr_export_reader reader;
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
    int r = tr_export_check_space(folder, folder_bytes(k, p->dtype));

    if (r < 0 || (r = tr_export_reader_open(&reader, p->store, k->model)) < 0)
        return r;
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
    tr_export_reader_close(&reader);
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
    if (r == 0)
        r = tr_sync_folder(adapter);
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
