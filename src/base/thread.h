/* SPDX-License-Identifier: Apache-2.0
 *
 * Threads of the library: named, and with every signal blocked, so that handlers of the program run
 * on its own threads only.
 */
#ifndef TR_BASE_THREAD_H
#define TR_BASE_THREAD_H

#include <pthread.h>

/* name: at most 15 characters. 0 or a negative errno with a message. */
int tr_thread_start(pthread_t *thread, const char *name, void *(*fn)(void *arg), void *arg);

/* Cores this process may run on (its affinity), or as many as its time comes to (the quotas of its
 * cgroups), at least 1. */
int tr_thread_cores(void);

#endif
