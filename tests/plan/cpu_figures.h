/* SPDX-License-Identifier: Apache-2.0
 *
 * Figures that a run on this machine's cpu device takes for its own, as if it had been measured.
 */
#ifndef TR_TESTS_PLAN_CPU_FIGURES_H
#define TR_TESTS_PLAN_CPU_FIGURES_H

#include "src/plan/figures.h"

/* A named machine's, with one thread. bits: what the device says of its own. */
void figures_of_cpu(struct tr_figures *f, const char *bits);
/* Where a run looks for them. */
void keep_figures(const struct tr_figures *f);

#endif
