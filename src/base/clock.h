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

/* A condition whose waits this clock ends; freed with pthread_cond_destroy. */
static inline void tr_cond_init(pthread_cond_t *cond)
{
    pthread_condattr_t attr;

    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_cond_init(cond, &attr);
    pthread_condattr_destroy(&attr);
}

/* pthread_cond_timedwait for at most so long; `cond` comes from tr_cond_init. */
static inline int tr_cond_wait_for(pthread_cond_t *cond, pthread_mutex_t *lock, uint64_t ns)
{
    uint64_t until = tr_now_ns() + ns;
    struct timespec t = {(time_t)(until / TR_SECOND_NS), (long)(until % TR_SECOND_NS)};

    return pthread_cond_timedwait(cond, lock, &t);
}

/* How long a thread that hangs on a callback of the device waits before it asks how the device is,
 * which may have lost it. */
#define TR_PATIENCE_NS (TR_SECOND_NS / 10)

#endif
