/* SPDX-License-Identifier: Apache-2.0
 *
 * Has a drive become slow? Its rate is taken second by second, of the time in which it had plenty
 * to do; where it stays below half of its own earlier median for a while, that is worth a remark,
 * once. Nothing is done about it: drives slow down when they are hot, full or shared.
 *
 * Pure: time comes from outside. Reading, writing and both at once have rates of their own, so each
 * has its own watch.
 */
#ifndef TR_OFFLOAD_WATCH_H
#define TR_OFFLOAD_WATCH_H

#include <stdint.h>

#define TR_WATCH_NS      1000000000ull /* of a sample */
#define TR_WATCH_EARLIER 16u           /* samples before anything is said */
#define TR_WATCH_SLOW    8u            /* slow ones in a row until it is said */
#define TR_WATCH_KEPT    64u           /* the newest that are not slow */

struct tr_watch {
    double rate[TR_WATCH_KEPT]; /* bytes per second, a ring */
    uint32_t n;                 /* entered so far */
    uint32_t slow;              /* in a row, not entered */
    int told;
    uint64_t ns, bytes; /* of the sample that is being taken */
};

/* So many more bytes in so much more time. 1: it is to be said now; *usual and *now are the rates.
 */
int tr_watch_add(struct tr_watch *w, uint64_t ns, uint64_t bytes, double *usual, double *now);

#endif
