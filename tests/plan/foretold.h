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

#endif
