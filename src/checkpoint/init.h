/* SPDX-License-Identifier: Apache-2.0
 *
 * A random model as a Hugging Face folder (the command `init`), and the parts of it that a run
 * started from a shape shares: its configuration and its files.
 */
#ifndef TR_SRC_CHECKPOINT_INIT_H
#define TR_SRC_CHECKPOINT_INIT_H

#include "src/checkpoint/shards.h"

struct tr_init_folder_params {
    const char *arch;      /* a name, or a path to a config.json */
    const char *tokenizer; /* folder whose tokenizer files are copied; NULL: none */
    int32_t tokens;        /* that it has, at most the model's; 0: not known */
    const char *out;       /* absent or an empty folder */
    uint64_t seed;
    int dtype;   /* enum tr_dtype, or -1: as the configuration says, else f32 */
    int threads; /* 0: all cores of this process */
};

int tr_init_folder(const struct tr_init_folder_params *p);

/* The model that an arch describes, all tensors of one dtype (-1 as above), and its config.json
 * with that dtype in it. */
int tr_init_model_table(const char *arch, int dtype, struct tr_model **model, json_t **config);
/* Writes config.json, generation_config.json and, with a tokenizer folder, the tokenizer's files.
 */
int tr_init_write_files(const char *folder, const json_t *config, const char *tokenizer);

#endif
