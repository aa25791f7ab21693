/* SPDX-License-Identifier: Apache-2.0
 *
 * Prefetch walks ahead in the schedule. Which span goes into which slot is settled there; here is
 * only when: as soon as the slot's last use before has passed and what it held is on disk, or in
 * its home on the way there. Loads begin in the order of need; one whose slot is not free yet is
 * passed over for the time being, for the drive would otherwise stand still.
 */
#include "offload/engine.h"

/* `after` speaks of this step's visits; one of the step before that is not over yet still pins.
 * What is made afresh moves no bytes and gains nothing by an early place; when its visit is wanted,
 * all loads before have begun, and what there was of it has been dropped. */
static int may_begin(const struct tr_offload *o, const struct tr_load *l)
{
    int used = l->after && o->passed < o->base + l->after;

    return !used && (!l->fresh || l->visit < o->wanted) && tr_slot_may_load(&o->slots, l->slot);
}

void tr_prefetch_advance(struct tr_offload *o)
{
    uint32_t ahead = 0;

    while (o->first_load < o->schedule.n_loads && o->started[o->first_load] &&
           o->schedule.loads[o->first_load].visit < o->wanted)
        o->first_load++;
    for (uint32_t i = o->first_load; i < o->schedule.n_loads; i++) {
        const struct tr_load *l = &o->schedule.loads[i];

        ahead += l->visit >= o->wanted && !l->fresh;
        if (ahead > o->prefetch)
            break;
        if (o->started[i] || !may_begin(o, l))
            continue;
        tr_slot_load(&o->slots, l->slot, l->span);
        o->started[i] = 1;
        if (l->fresh) {
            tr_slot_loaded(&o->slots, l->slot);
            pthread_cond_broadcast(&o->changed);
            continue;
        }
        tr_move_start(o, TR_IO_READ, l->slot);
    }
}
