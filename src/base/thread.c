/* SPDX-License-Identifier: Apache-2.0 */
#include "src/base/thread.h"

#include <sched.h>
#include <signal.h>
#include <string.h>
#include <unistd.h>

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

int tr_thread_cores(void)
{
    cpu_set_t set;
    int n;

    if (sched_getaffinity(0, sizeof(set), &set) == 0)
        n = CPU_COUNT(&set);
    else /* a system with more cores than the set has places */
        n = (int)sysconf(_SC_NPROCESSORS_ONLN);
    return n > 0 ? n : 1;
}
