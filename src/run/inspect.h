/* SPDX-License-Identifier: Apache-2.0
 *
 * What is in a path: a model folder, a safetensors file, a store, or a run. Read-only.
 */
#ifndef TR_SRC_RUN_INSPECT_H
#define TR_SRC_RUN_INSPECT_H

#include "src/base/json.h"

/* New reference. `store`: where the store of a run is; NULL: beside it, RUN/store. */
int tr_inspect(const char *path, const char *store, json_t **out);
/* The same for people, lines of text; freed with free(). NULL without memory. */
char *tr_inspect_text(const json_t *found);

/* Adds "store", and of a run's "steps_done" and "stands". `folders`: the store's; run: whose it has
 * to be, or NULL for any. What is added to is NULL without memory (src/base/json.h). */
int tr_inspect_store(json_t **o, const char *folders, const char *run);

struct tr_store;
struct tr_cursor;
/* Of a run: its cursor, an update that waits, the commit before. New references, NULL without
 * memory. */
json_t *tr_inspect_stands(struct tr_store *s, const struct tr_cursor *c);
/* What the run's command would do now, in words; `o` describes its store by now. */
json_t *tr_inspect_resume(const json_t *o, const char *folder);
/* Adds "told", how far metrics.jsonl says that a run is, and "resume", for one whose store cannot
 * be read because a process trains it: the message of the last error. */
void tr_inspect_busy(json_t **o, const char *folder);

#endif
