/* SPDX-License-Identifier: Apache-2.0
 *
 * Into the store: from a Hugging Face folder, or from a shape and a seed. Everything is validated
 * before anything is written; the source is only read (invariant 7); memory use does not depend on
 * the model; whatever fails leaves nothing behind.
 */
#ifndef TR_SRC_CHECKPOINT_IMPORT_H
#define TR_SRC_CHECKPOINT_IMPORT_H

#include "src/checkpoint/keep.h"
#include "src/model/master.h"

struct tr_import_params {
    const char *model;     /* Hugging Face folder, or NULL for: */
    const char *arch;      /* a name or a path to a config.json */
    uint64_t seed;         /* with arch, and of adapters */
    const char *tokenizer; /* folder whose tokenizer files are kept; NULL: model's, or none */
    const char *store;     /* folder, absent or empty */
    const double *speed; /* of each of several folders, by which they are filled; NULL: measured */
    const char *keep;    /* folder, absent or empty: the source's other files (keep.h); NULL: they
                          * are not kept, and there is no export */
    int dtype;           /* enum tr_dtype of every tensor, or -1: as the source */
    enum tr_state_kind state; /* room for it, zeros */
    enum tr_master master;    /* of the source's values, all their bits */
    const char *freeze;       /* patterns of tensors that need none; or NULL */
    struct tr_lora lora;      /* adapters beside it, that begin from seed, or: */
    const char *adapter;      /* folder of PEFT that they are taken from; NULL: none */
    int generations;
    const void *payload; /* of the first commit */
    size_t payload_bytes;
    int threads; /* with arch; 0: all cores of this process */
    int (*progress)(void *arg, uint64_t done, uint64_t total); /* non-zero stops; may be NULL */
    void *progress_arg;
};

/* A source that has been opened and checked in full, nothing written yet. The params stay the
 * caller's: they and what they point to live until close, and store, keep, generations and payload
 * may be filled in before run. */
struct tr_import;

int tr_import_open(struct tr_import **out, const struct tr_import_params *p);
void tr_import_close(struct tr_import *i); /* NULL is allowed */
const struct tr_model *tr_import_model(const struct tr_import *i);
/* The same, with places for gradients of this type; the table before it is gone. */
int tr_import_park(struct tr_import *i, enum tr_parked parked);
const char *tr_import_note(const struct tr_import *i); /* odd but no error; "" mostly */
int tr_import_run(struct tr_import *i);

/* All of it: open, run, close. */
int tr_import(const struct tr_import_params *p);

#endif
