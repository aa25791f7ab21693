/* SPDX-License-Identifier: Apache-2.0
 *
 * What tr_foretell says, as JSON; one that fails, or is not JSON, fails the test.
 */
#ifndef TR_TESTS_PLAN_FORETOLD_H
#define TR_TESTS_PLAN_FORETOLD_H

#include <jansson.h>

#include "src/tailrace.h"

/* p->json is set. Freed with json_decref. */
json_t *foretold(const struct tr_foretell_params *p);
/* An integer of the object, or the test fails. */
uint64_t told_number(const json_t *o, const char *key);
/* The table of device memory is all of the peak, or the test fails. */
void told_table_sums(const json_t *plan);

#endif
