/* SPDX-License-Identifier: Apache-2.0
 *
 * A device before the run's own, one of whose streams is as late as its order allows: what the
 * caller queues there is held until something has to come after it. What lacks an order is thereby
 * seen each time, where random delays would show it now and then.
 */
#ifndef TR_TESTS_TRAIN_LATE_H
#define TR_TESTS_TRAIN_LATE_H

#include "src/run/run.h"

struct late {
    /* Compute: copies out are made in the call meanwhile. Out: compute goes on meanwhile. */
    enum tr_stream stream;
    int deaf;  /* the defect: the other stream does not wait for it */
    int hasty; /* the defect: a call in it comes in the call */
    int slow;  /* compute copies in again and again, as if it took long */
    int rash;  /* the defect: nobody waits for such a copy */
};

/* Until the run is closed; what it queues comes from this thread. */
void late_open(struct tr_run *run, const struct late *late);

#endif
