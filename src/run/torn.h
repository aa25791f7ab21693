/* SPDX-License-Identifier: Apache-2.0
 *
 * A commit record that has been passed over, and what the lines of metrics.jsonl say about it.
 */
#ifndef TR_SRC_RUN_TORN_H
#define TR_SRC_RUN_TORN_H

#include <stddef.h>
#include <stdint.h>

#include "offload/store.h"

/* What is to be said of it. 0: nothing, there is none; 1: a crash may have torn it; -1: it was
 * durable once, and is damaged. run: whose store it is, or NULL; step: at which it stands. */
int run_torn(const char *run, const struct tr_store *s, uint64_t step, char *text, size_t room);

#endif
