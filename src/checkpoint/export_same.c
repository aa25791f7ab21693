/* SPDX-License-Identifier: Apache-2.0
 *
 * Is what lies where an export would go that export? Names, shapes and types are compared of all
 * tensors, values of the last ones alone: a step changes those of the last block like any other's,
 * and a model that is larger than memory is not to be read for this.
 */
#include "src/checkpoint/export.h"

#include <string.h>

#include "src/base/err.h"
#include "src/base/file.h"
#include "src/base/mem.h"
#include "src/checkpoint/peft.h"
#include "src/checkpoint/source.h"

#define TENSORS 16 /* from the last on: those of a block and what is behind it */
#define VALUES  1024

/* Tensors of a folder as the model has them. */
struct there {
    const struct tr_tensor *tensors;
    tr_fill_fn *fill;
    void *arg;
};

static int differs(const struct tr_tensor *t)
{
    return tr_error(-EEXIST, "tensor %s differs", t->name);
}

/* What cannot be read as a model is something else; only memory may be lacking for one that is. An
 * error of the run's own store is told as such. */
static int unread(int r)
{
    return r == 0 || r == -ENOMEM ? r : -EEXIST;
}

static int compare(struct tr_export_reader *reader, const struct tr_tensor *t,
                   const struct there *there, int32_t i)
{
    float ours[VALUES], theirs[VALUES]; /* or less of each: of any type */
    uint64_t all = (uint64_t)(t->rows * t->cols);
    size_t n = all < VALUES ? (size_t)all : VALUES;
    int r = tr_export_fill(reader, t, 0, n, t->dtype, ours);

    if (r == 0)
        r = unread(there->fill(there->arg, &there->tensors[i], 0, n, t->dtype, theirs));
    if (r < 0)
        return r;
    return memcmp(ours, theirs, n * tr_dtype_size(t->dtype)) ? differs(t) : 0;
}

/* Of the tensors [first, end). */
static int compare_values(const struct tr_export_params *p, const struct tr_model *m,
                          const struct there *there, int32_t first, int32_t end)
{
    struct tr_export_reader reader;
    int r = tr_export_reader_open(&reader, p->store, m);

    if (first < end - TENSORS)
        first = end - TENSORS;
    for (int32_t i = end; r == 0 && i-- > first;)
        r = compare(&reader, &m->tensors[i], there, i);
    tr_export_reader_close(&reader);
    return r;
}

static int compare_tables(const struct tr_model *m, const struct tr_model *theirs)
{
    if (theirs->n_tensors != m->n_base)
        return tr_error(-EEXIST, "it has %d tensors, not %d", theirs->n_tensors, m->n_base);
    for (int32_t i = 0; i < m->n_base; i++) {
        const struct tr_tensor *a = &m->tensors[i], *b = &theirs->tensors[i];

        if (strcmp(a->name, b->name) || a->rows != b->rows || a->cols != b->cols ||
            a->dtype != b->dtype)
            return differs(a);
    }
    return 0;
}

static int compare_model(const struct tr_export_params *p, const struct tr_model *m)
{
    struct tr_source *s;
    int r = unread(tr_source_open(&s, &(struct tr_source_params){.folder = p->out, .dtype = -1}));

    if (r < 0)
        return r;
    r = compare_tables(m, s->table);
    if (r == 0)
        r = compare_values(p, m, &(struct there){s->table->tensors, tr_source_fill, s}, 0,
                           m->n_base);
    tr_source_close(s);
    return r;
}

/* A tr_fill_fn: adapters are f32. */
static int fill_adapter(void *arg, const struct tr_tensor *t, uint64_t from, size_t n,
                        enum tr_dtype type, void *buf)
{
    (void)type;
    return tr_peft_fill(arg, t, from, n, buf);
}

static int compare_adapters(const struct tr_export_params *p, const struct tr_model *m,
                            const char *folder)
{
    struct tr_peft *peft;
    int r = unread(tr_peft_open(&peft, folder));

    if (r < 0)
        return r;
    r = unread(tr_peft_check(peft, m));
    if (r == 0)
        r = compare_values(p, m, &(struct there){m->tensors, fill_adapter, peft}, m->n_base,
                           m->n_tensors);
    tr_peft_close(peft);
    return r;
}

/* As tr_export does: adapters alone, or beside the model that was trained with them. */
static int compare_all(const struct tr_export_params *p, const struct tr_model *m)
{
    char *adapter;
    int r;

    if (m->lora.rank && tr_lora_freezes(&m->lora))
        return compare_adapters(p, m, p->out);
    r = compare_model(p, m);
    if (r < 0 || !m->lora.rank)
        return r;
    adapter = tr_path(p->out, "adapter");
    r = adapter ? compare_adapters(p, m, adapter) : -ENOMEM;
    tr_free(TR_MEM_MISC, adapter);
    return r;
}

int tr_export_same(const struct tr_export_params *p)
{
    struct tr_kept *k;
    int r = tr_keep_open(&k, p->keep);

    if (r < 0)
        return r;
    r = compare_all(p, k->model);
    tr_keep_close(k);
    if (r != -EEXIST)
        return r;
    return tr_error_prefix(-EEXIST,
                           "%s: exists and is not what this run exports now, nothing is "
                           "overwritten",
                           p->out);
}
