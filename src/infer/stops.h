/* SPDX-License-Identifier: Apache-2.0
 *
 * The tokens that end a text, as generation_config.json names them: "eos_token_id", a number or a
 * list.
 */
#ifndef TR_SRC_INFER_STOPS_H
#define TR_SRC_INFER_STOPS_H

#include <stddef.h>
#include <stdint.h>

#define INFER_STOPS 16

/* How many there are, the first INFER_STOPS of them; errors name `where`. */
int infer_parse_stops(const char *text, size_t bytes, const char *where, int64_t ids[INFER_STOPS]);

#endif
