/* SPDX-License-Identifier: Apache-2.0
 *
 * How much memory this process may still take: what the machine has available, bounded by the
 * memory cgroups that the process stands in (version 2 and 1) and by its own resource limits.
 */
#ifndef TR_BASE_SYSMEM_H
#define TR_BASE_SYSMEM_H

#include <stddef.h>
#include <stdint.h>

uint64_t tr_installed_memory(void); /* bytes, whoever has them */
uint64_t tr_most_memory(void);      /* of them, what cgroups and limits allow */
/* The cache of files counts as free, for the kernel gives it back. */
int tr_free_memory(uint64_t *bytes);
/* How many mappings of so many bytes the process would get now, `most` (up to 1024) at most. */
int tr_mappings_left(size_t bytes, int most);

#endif
