/* SPDX-License-Identifier: Apache-2.0
 *
 * Folders of PEFT: adapter_config.json and adapter_model.safetensors. What they may say and this
 * program does not do (other ranks for some layers, DoRA, trained biases ...) is refused by name,
 * for an adapter that is used in part is another adapter. The folder is only read (invariant 7),
 * and hostile (invariant 9).
 */
#ifndef TR_SRC_CHECKPOINT_PEFT_H
#define TR_SRC_CHECKPOINT_PEFT_H

#include "src/base/mem.h"
#include "src/checkpoint/export.h"
#include "src/checkpoint/keep.h"
#include "src/checkpoint/safetensors.h"

struct tr_peft {
    struct tr_lora lora; /* state and trains_base are the caller's */
    struct tr_safetensors *weights;
    char *folder;
};

int tr_peft_open(struct tr_peft **out, const char *folder);
void tr_peft_close(struct tr_peft *p); /* NULL is allowed */
/* Every adapter of the model there, of its shape, and none too many. */
int tr_peft_check(const struct tr_peft *p, const struct tr_model *m);
/* Elements [from, from + n) of an adapter's tensor as f32. */
int tr_peft_fill(struct tr_peft *p, const struct tr_tensor *t, uint64_t from, size_t n, float *buf);

/* What a config says, but for the targets; for fuzzing, too; `where` names it. */
int tr_peft_parse(const json_t *root, const char *where, struct tr_lora *lora);

/* The adapters of a run into a folder that is there, and empty. */
int tr_peft_write(const struct tr_export_params *p, const struct tr_kept *k, const char *folder);

#endif
