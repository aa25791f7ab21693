/* SPDX-License-Identifier: Apache-2.0
 *
 * Reading safetensors: one file, or a folder with one file or shards and their index. Everything is
 * checked before the first tensor is read, more strictly than the reference does: no duplicate
 * keys, no unknown members, no holes, overlaps or trailing bytes, plain file names in the index,
 * every tensor in exactly one shard. Files may be links (model caches are made of them), names may
 * not leave the folder. Data are read with pread only; a file that changes meanwhile is an error.
 *
 * Knows no model. Not thread-safe.
 */
#ifndef TR_SRC_CHECKPOINT_SAFETENSORS_H
#define TR_SRC_CHECKPOINT_SAFETENSORS_H

#include <jansson.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>
#include <time.h>

#include "src/base/dtype.h"

#define TR_SAFETENSORS_DIMS 8

struct tr_st_tensor {
    char *name;
    char dtype_name[16]; /* as in the file: "BF16", "I64" */
    int dtype;           /* enum tr_dtype, or -1 for one that is only skipped over */
    int dims;
    int64_t shape[TR_SAFETENSORS_DIMS];
    uint64_t offset, bytes; /* in the data of its file */
    uint32_t shard;
};

struct tr_st_shard {
    char *name; /* "model-00001-of-00003.safetensors" */
    char *path;
    json_t *metadata; /* __metadata__, NULL where there is none */
    uint64_t data;    /* where the data begin in the file */
    uint64_t file_bytes;
    uint32_t first, n_tensors; /* its tensors, in the order of their data */
    dev_t device;              /* what was checked is what is read */
    ino_t inode;
    struct timespec changed;
};

struct tr_safetensors {
    struct tr_st_shard *shards;
    uint32_t n_shards;
    struct tr_st_tensor *tensors; /* shard by shard */
    uint32_t n_tensors;
    uint32_t *by_name;      /* sorted */
    json_t *index_metadata; /* of the index; NULL where there is none */
    int indexed;            /* made of shards with an index */
    char note[256];         /* something odd that is no error; "" mostly */
    int fd;                 /* of open_shard, -1: none */
    uint32_t open_shard;
};

int tr_safetensors_open_folder(struct tr_safetensors **out, const char *folder);
int tr_safetensors_open_file(struct tr_safetensors **out, const char *path);
void tr_safetensors_close(struct tr_safetensors *s); /* NULL is allowed */

/* NULL: there is none. */
const struct tr_st_tensor *tr_safetensors_find(const struct tr_safetensors *s, const char *name);

/* Bytes [from, from + n) of the tensor. */
int tr_safetensors_read(struct tr_safetensors *s, const struct tr_st_tensor *t, uint64_t from,
                        void *buf, size_t n);

/* The file that was read last is still the one that was checked: to be asked behind the last read.
 * NULL is allowed. */
int tr_safetensors_unchanged(const struct tr_safetensors *s);

/* The file that a tensor is in. */
const char *tr_safetensors_path(const struct tr_safetensors *s, const struct tr_st_tensor *t);

/* --- parts, for tests and fuzzing ------------------------------------------------------------ */

struct tr_st_header {
    json_t *metadata;
    struct tr_st_tensor *tensors; /* in the order of their data */
    uint32_t n_tensors;
};

/* The header's text of a file that has data_bytes of data. *out is empty after an error. */
int tr_safetensors_parse(const char *text, size_t bytes, uint64_t data_bytes, const char *where,
                         struct tr_st_header *out);
void tr_st_header_free(struct tr_st_header *h);

/* The index: checks weight_map. New reference in *out. */
int tr_safetensors_parse_index(const char *text, size_t bytes, const char *where, json_t **out);

#endif
