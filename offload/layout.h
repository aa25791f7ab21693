/* SPDX-License-Identifier: Apache-2.0
 *
 * The layout as it stands in store.json: checked as a whole wherever it comes from (a file is not
 * trusted, and a caller's mistake must not reach the disk), copied, written and read.
 */
#ifndef TR_OFFLOAD_LAYOUT_H
#define TR_OFFLOAD_LAYOUT_H

#include <jansson.h>

#include "offload/store.h"

/* Sizes, order, alignment, overlap; -EINVAL with the place. `where` names the file. */
int tr_layout_check(const struct tr_layout *l, const char *where);
int tr_layout_copy(struct tr_layout *to, const struct tr_layout *from);

/* Adds "segments" and "spans" to the object. */
int tr_layout_to_json(const struct tr_layout *l, json_t **object);
/* Reads and checks them. *out is empty after an error. */
int tr_layout_from_json(struct tr_layout *out, const json_t *object, const char *where);

/* The span that a piece belongs to. */
uint32_t tr_layout_span_of(const struct tr_layout *l, uint32_t piece);

/* "record block 3, params, tensor model.layers.3... (bytes N to M)", for messages. */
void tr_layout_describe(const struct tr_layout *l, uint32_t piece, char *text, size_t room);

#endif
