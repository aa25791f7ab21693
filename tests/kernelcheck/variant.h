/* SPDX-License-Identifier: Apache-2.0
 *
 * Where an op must give the very same bits: over other thread counts, and on tier C.
 */
#ifndef TR_TESTS_KERNELCHECK_VARIANT_H
#define TR_TESTS_KERNELCHECK_VARIANT_H

#include "tests/kernelcheck/check.h"

/* Variant i = 0, 1, ...; NULL at the end. None under --bench. */
const struct tr_cpu *check_variant(struct check *c, int i);

#endif
