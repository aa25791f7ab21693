/* SPDX-License-Identifier: Apache-2.0
 *
 * The files of a run folder that name its store.
 */
#ifndef TR_SRC_RUN_PAPERS_H
#define TR_SRC_RUN_PAPERS_H

#include "offload/store.h"

/* -EINVAL: this is the store of another run than the one in folder `run`. */
int run_check_store(const char *run, const struct tr_store *store);

#endif
