/* SPDX-License-Identifier: Apache-2.0
 *
 * A defect of an order, for tests that must see it.
 */
#ifndef TR_TESTS_TRAIN_VISITS_H
#define TR_TESTS_TRAIN_VISITS_H

#include "src/plan/visits.h"

/* Visit i changes places with the one behind it. */
static inline void exchange_visits(struct tr_visits *v, uint32_t i)
{
    struct tr_unit_visit unit = v->units[i];
    struct tr_visit spans = v->spans[i];

    v->units[i] = v->units[i + 1];
    v->spans[i] = v->spans[i + 1];
    v->units[i + 1] = unit;
    v->spans[i + 1] = spans;
}

#endif
