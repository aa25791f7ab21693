/* SPDX-License-Identifier: Apache-2.0
 *
 * A memory cgroup of version 1, else 2, below the root, for a child to train in: where this machine
 * lets us make one.
 */
#ifndef TR_TESTS_SUPPORT_CGROUP_H
#define TR_TESTS_SUPPORT_CGROUP_H

#include <stdint.h>

struct cgroup {
    char folder[128];
    const struct cgroup_version *version;
};

/* With this limit, of memory and swap together. 0, and why not is said: none may be made here. */
int cgroup_make(struct cgroup *g, const char *name, uint64_t bytes);
/* This process joins it: 0, or -1. */
int cgroup_join(const struct cgroup *g);
/* The most that has been in it; 0: the kernel does not say. */
uint64_t cgroup_peak(const struct cgroup *g);
/* After the last process of it has ended. */
void cgroup_remove(const struct cgroup *g);

#endif
