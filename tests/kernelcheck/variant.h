/* SPDX-License-Identifier: Apache-2.0
 *
 * Where an op must give the very same bits: over other thread counts and on tier C; on a device,
 * elsewhere in its memory.
 *
 *     do {
 *         check_run(c, ...);       first as usual, then in every other variant
 *     } while (check_variant(c));
 */
#ifndef TR_TESTS_KERNELCHECK_VARIANT_H
#define TR_TESTS_KERNELCHECK_VARIANT_H

#include "tests/kernelcheck/check.h"

/* Makes check_run run the next variant; 0: there are no more, and it runs as usual again. None
 * under --bench. */
int check_variant(struct check *c);

#endif
