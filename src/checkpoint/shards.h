/* SPDX-License-Identifier: Apache-2.0
 *
 * The files that a model's weights are split over: which tensor lies in which file, in which order,
 * with which metadata. Taken from a source folder (and then written again exactly so), or planned
 * for a random model. Knows names; the values come from whoever fills them in.
 */
#ifndef TR_SRC_CHECKPOINT_SHARDS_H
#define TR_SRC_CHECKPOINT_SHARDS_H

#include <jansson.h>

#include "src/checkpoint/safetensors.h"
#include "src/model/model.h"

struct tr_shard_tensor {
    char *name;
    int32_t tensor;       /* of the model; both names of a tied table mean the same one */
    enum tr_dtype source; /* what it was before it was imported */
};

struct tr_shard_file {
    char *name;
    json_t *metadata; /* NULL: none */
    struct tr_shard_tensor *tensors;
    uint32_t n_tensors;
};

struct tr_shards {
    struct tr_shard_file *files;
    uint32_t n_files;
    json_t *index_metadata; /* NULL: there was no index */
    int indexed;
};

/* As the source has them; rotary_emb.inv_freq is left out. All tensors are the model's (import.c).
 */
int tr_shards_from_source(struct tr_shards *s, const struct tr_safetensors *source,
                          const struct tr_model *m);
/* A fresh split: files of at most 4 GiB. */
int tr_shards_plan(struct tr_shards *s, const struct tr_model *m);
void tr_shards_free(struct tr_shards *s);

/* New reference, NULL without memory. And back, checked against the model. */
json_t *tr_shards_to_json(const struct tr_shards *s);
int tr_shards_from_json(struct tr_shards *s, const json_t *root, const struct tr_model *m,
                        const char *where);

/* The tensor that a name in a file means; -1: none. */
int32_t tr_shards_tensor(const struct tr_model *m, const char *name);
/* Tensors that only caches of old versions are: left out. */
int tr_shards_ignored(const char *name);

/* Elements [from, from + n) of a tensor as `type`. */
typedef int tr_fill_fn(void *arg, const struct tr_tensor *t, uint64_t from, size_t n,
                       enum tr_dtype type, void *buf);

/* For such functions: elements of `from` at `in` become elements of `to` at `out`, rounded to
 * nearest; equal types are copied bit for bit. -ERANGE (no message): a finite value became
 * infinite. */
int tr_convert(void *out, enum tr_dtype to, const void *in, enum tr_dtype from, size_t n);

struct tr_shards_write_params {
    const char *folder;
    const struct tr_shards *shards;
    const struct tr_model *model;
    int dtype; /* of every tensor written, or -1: as in the model */
    tr_fill_fn *fill;
    void *arg;
    void (*progress)(void *arg, uint64_t done, uint64_t total); /* may be NULL */
    void *progress_arg;
};

/* All files and their index, each synced; memory use independent of the model. */
int tr_shards_write(const struct tr_shards_write_params *p);
/* Bytes that it takes. */
uint64_t tr_shards_bytes(const struct tr_shards *s, const struct tr_model *m, int dtype);

#endif
