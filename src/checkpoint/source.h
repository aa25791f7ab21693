/* SPDX-License-Identifier: Apache-2.0
 *
 * Inside a source: source.c opens either kind, source_check.c holds a folder against its
 * config.json, import.c takes the values out.
 */
#ifndef TR_SRC_CHECKPOINT_SOURCE_H
#define TR_SRC_CHECKPOINT_SOURCE_H

#include "src/checkpoint/shards.h"
#include "src/model/random_init.h"

#define TR_SOURCE_CHUNK (4u << 20)

struct tr_source_params {
    const char *folder;    /* Hugging Face folder, or NULL for: */
    const char *arch;      /* a name or a path to a config.json */
    uint64_t seed;         /* with arch */
    const char *tokenizer; /* folder whose tokenizer files are kept; NULL: folder's, or none */
    int dtype;             /* enum tr_dtype of every tensor, or -1: as the source */
    int threads;           /* with arch; 0: all cores of this process */
};

struct tr_source {
    char *folder, *tokenizer;           /* NULL where there is none */
    struct tr_model *table;             /* without state: names, shapes, types */
    struct tr_safetensors *weights;     /* with a folder */
    const struct tr_st_tensor **tensor; /* (table->n_tensors) where each comes from */
    void *scratch;                      /* of conversions, TR_SOURCE_CHUNK */
    struct tr_random_init random;       /* with an arch */
    json_t *config;
    struct tr_shards shards;
    char note[1024];
};

/* Every tensor there, of the right shape and a known type, none too many. Strings are copied. */
int tr_source_open(struct tr_source **out, const struct tr_source_params *p);
void tr_source_close(struct tr_source *s); /* NULL is allowed */

/* Fills in table and tensor from folder, weights and scratch. */
int tr_source_check(struct tr_source *s, const struct tr_model_config *config, int dtype);
/* A tr_fill_fn: arg is the source, t a tensor of its table. */
int tr_source_fill(void *arg, const struct tr_tensor *t, uint64_t from, size_t n,
                   enum tr_dtype type, void *buf);
/* Writes the kept folder's files (src/checkpoint/keep.h); the folder is there and empty. m: as it
 * is stored.
 */
int tr_source_keep(struct tr_source *s, const struct tr_model *m, const char *folder,
                   const char *uuid);

#endif
