/* SPDX-License-Identifier: Apache-2.0
 *
 * The simulator with one write-back less: its source once more, with the start of moves changed.
 */
#include "src/plan/simulate_parts.h"
#include "tests/plan/mutant.h"

static void lose(struct sim *s, enum sim_way way, uint32_t slot, uint32_t step)
{
    if (way == SIM_READ || slot) {
        sim_move_start(s, way, slot, step);
        return;
    }
    tr_slot_written(&s->slots, slot);
    s->pending[sim_epoch(s, step) & 1]--;
    s->kicked = 1;
}

#define sim_move_start lose
#define tr_simulate    mutant_simulate
#include "src/plan/simulate.c"
