/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TR_TESTS_PLAN_MUTANT_H
#define TR_TESTS_PLAN_MUTANT_H

#include "src/plan/simulate.h"

/* tr_simulate, but what the first slot holds is never written back. */
int mutant_simulate(const struct tr_sim_params *p, struct tr_sim_result *out);

#endif
