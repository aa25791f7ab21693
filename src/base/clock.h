/* SPDX-License-Identifier: Apache-2.0
 *
 * The steady clock, which no setting of the time moves.
 */
#ifndef TR_BASE_CLOCK_H
#define TR_BASE_CLOCK_H

#include <pthread.h>
#include <stdint.h>
#include <time.h>

#define TR_SECOND_NS 1000000000u

static inline uint64_t tr_now_ns(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * TR_SECOND_NS + (uint64_t)t.tv_nsec;
}

static inline double tr_now(void)
{
    return 1e-9 * (double)tr_now_ns();
}

/* pthread_cond_timedwait for at most so long; `cond` was made for this clock. */
static inline int tr_cond_wait_for(pthread_cond_t *cond, pthread_mutex_t *lock, uint64_t ns)
{
    uint64_t until = tr_now_ns() + ns;
    struct timespec t = {(time_t)(until / TR_SECOND_NS), (long)(until % TR_SECOND_NS)};

    return pthread_cond_timedwait(cond, lock, &t);
}

#endif
