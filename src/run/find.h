/* SPDX-License-Identifier: Apache-2.0
 *
 * What a run folder leads to: its store, and what was kept of its source.
 */
#ifndef TR_SRC_RUN_FIND_H
#define TR_SRC_RUN_FIND_H

#include "offload/store.h"
#include "src/checkpoint/keep.h"

int run_is_folder(const char *folder); /* of a run, rather than of a model */
/* For who needs a model: -EINVAL and what leads to one, where it is a folder of adapters; or a run,
 * too (NULL: 0). */
int run_refuse_adapters(const char *model);
int run_refuse_folder(const char *model);
/* Where run.yaml says that the store is; freed with tr_free(TR_MEM_MISC, ...). */
int run_store_path(const char *run, char **out);
/* The store of a run folder (`store`: where it is, NULL: where run.yaml says), and what was kept of
 * its source, checked to fit it. */
int run_store_open(const char *run, const char *store, enum tr_store_mode mode,
                   struct tr_store **out);
int run_keep_open(const char *run, const struct tr_store *store, struct tr_kept **out);
/* Where a run was cut off between a step and its update, makes that update, for good: the store is
 * written. Before a run's parameters are read. (settle.c) */
int run_settle_folder(const char *run, const char *store);

#endif
