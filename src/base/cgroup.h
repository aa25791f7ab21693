/* SPDX-License-Identifier: Apache-2.0
 *
 * The control groups (version 2 and 1) that the process stands in: what bounds a container is said
 * there, and nowhere else.
 */
#ifndef TR_BASE_CGROUP_H
#define TR_BASE_CGROUP_H

#include <stdint.h>

typedef void tr_cgroup_fn(void *arg, int version, const char *folder);
/* Calls fn with the folder of the process's group of this controller ("memory", "cpu"), and of
 * every one above it: their limits count too. */
void tr_cgroup_walk(const char *controller, tr_cgroup_fn *fn, void *arg);
/* The numbers at the beginning of such a file, n at most; returns how many there are. A file that
 * is absent or says "max" has none. */
int tr_cgroup_numbers(const char *folder, const char *name, uint64_t *out, int n);

#endif
