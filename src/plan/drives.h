/* SPDX-License-Identifier: Apache-2.0
 *
 * What the drives of a store give, as predictions see them: each by itself, and each while all the
 * others are at work, for two of them may share a bus, or be parts of one. In between (some of the
 * others) lies what is in between.
 */
#ifndef TR_SRC_PLAN_DRIVES_H
#define TR_SRC_PLAN_DRIVES_H

/* Bytes per second; mixed: both directions together, where both wait. 0: takes no time. */
struct tr_drive_ways {
    double read, write, mixed;
};

struct tr_drive_rates {
    struct tr_drive_ways alone;
    struct tr_drive_ways beside; /* all others being at work; 0: as alone */
    double flush;                /* seconds of a sync of data just written */
};

#endif
