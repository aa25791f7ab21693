/* SPDX-License-Identifier: Apache-2.0 */
#include "src/base/thread.h"

#include <sched.h>
#include <signal.h>
#include <string.h>
#include <unistd.h>

#include "src/base/cgroup.h"
#include "src/base/err.h"

int tr_thread_start(pthread_t *thread, const char *name, void *(*fn)(void *arg), void *arg)
{
    sigset_t all, old;
    int error;

    /* A thread inherits the mask of its creator: blocked here, it never runs unblocked. */
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &old);
    error = pthread_create(thread, NULL, fn, arg);
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    if (error)
        return tr_error(-error, "cannot start thread %s: %s", name, strerror(error));
    pthread_setname_np(*thread, name);
    return 0;
}

/* A container may have all cores and little of their time, microseconds in every period of so many:
 * threads beyond that are put to sleep together. */
static void bound_by_quota(void *arg, int version, const char *folder)
{
    uint64_t time[2], whole;
    int *cores = arg, n;

    if (version == 2)
        n = tr_cgroup_numbers(folder, "cpu.max", time, 2);
    else
        n = tr_cgroup_numbers(folder, "cpu.cfs_quota_us", time, 1) +
            tr_cgroup_numbers(folder, "cpu.cfs_period_us", time + 1, 1);
    if (n < 2 || !time[1])
        return;
    whole = time[0] / time[1] + (time[0] % time[1] > 0); /* a quota of -1 is none, and very large */
    if (whole < (uint64_t)*cores)
        *cores = (int)whole;
}

int tr_thread_cores(void)
{
    cpu_set_t set;
    int n;

    if (sched_getaffinity(0, sizeof(set), &set) == 0)
        n = CPU_COUNT(&set);
    else /* a system with more cores than the set has places */
        n = (int)sysconf(_SC_NPROCESSORS_ONLN);
    tr_cgroup_walk("cpu", bound_by_quota, &n);
    return n > 0 ? n : 1;
}
