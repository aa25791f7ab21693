/* SPDX-License-Identifier: Apache-2.0
 *
 * Store to Hugging Face folder: same tensor names, order, shapes and files as the source had, all
 * its other files byte for byte. The folder appears whole or not at all; the store is only read.
 *
 * Of a run with adapters it is a folder of PEFT (src/checkpoint/peft.h), beside the model where
 * that was trained as well; merged, one model like any other.
 */
#ifndef TR_SRC_CHECKPOINT_EXPORT_H
#define TR_SRC_CHECKPOINT_EXPORT_H

#include <stdint.h>

#include "offload/store.h"
#include "src/model/master.h"

/* What a folder takes beside its weights: headers, small files, what rounding up takes. */
#define TR_EXPORT_SPARE (16u << 20)

struct tr_export_params {
    struct tr_store *store;
    const char *keep;      /* RUN/source */
    const char *tokenizer; /* GGUF: the folder it is in */
    const char *out;       /* absent or an empty folder */
    int dtype;             /* enum tr_dtype of every tensor, or -1: as stored */
    int merge;             /* adapters are added to the matrices that they belong to */
    void (*progress)(void *arg, uint64_t done, uint64_t total); /* may be NULL */
    void *progress_arg;
};

int tr_export(const struct tr_export_params *p);
/* 0 where p->out holds what that would write, as it is stored and not merged; -EEXIST: it holds
 * something else (export_same.c). */
int tr_export_same(const struct tr_export_params *p);

/* Reads tensors out of a store, one piece in memory at a time (and one of its master): a tr_fill_fn
 * for whoever writes weights. of the model's type are the weights themselves, of another the values
 * of their masters, where the run's model has such. */
struct tr_export_reader {
    struct tr_store *store;
    const struct tr_model *model;
    struct tr_export_piece {
        void *buf;
        int64_t loaded;
    } weights, master;
    float *values; /* of a master, before they are made another type */
};
/* Close takes what open has left half-made. */
int tr_export_reader_open(struct tr_export_reader *r, struct tr_store *s, const struct tr_model *m);
void tr_export_reader_close(struct tr_export_reader *r);
int tr_export_fill(void *reader, const struct tr_tensor *t, uint64_t from, size_t n,
                   enum tr_dtype type, void *buf);
/* -ENOSPC where the disk of a folder has less than that. */
int tr_export_check_space(const char *folder, uint64_t need);

#endif
