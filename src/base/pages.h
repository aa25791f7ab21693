/* SPDX-License-Identifier: Apache-2.0
 *
 * Host memory that carries bulk data: the cpu device's arena, homes of the host tier, staging. It
 * is of exactly the size asked for, and as good as the system allows: in huge pages (reserved ones
 * where the mapping is ours alone, else transparent ones), locked, and on the NUMA node next to the
 * device or the drive. Whatever is refused is done without, and said once.
 *
 * The place and what was refused belong to the process, as the memory does.
 */
#ifndef TR_BASE_PAGES_H
#define TR_BASE_PAGES_H

#include "src/base/mem.h"

enum tr_pages_wish {
    TR_PAGES_LOCKED = 1, /* else somebody else locks them, as a driver does that registers them */
};

/* As tr_alloc_pages; freed with tr_free_pages. */
void *tr_pages_alloc(enum tr_mem_tag tag, size_t bytes, unsigned wish);
/* The same of memory that is mapped already, with other things beside it. */
void tr_pages_improve(void *p, size_t bytes, unsigned wish);

/* For all that is allocated from now on: near to the GPUs, else to the cores if those are on one
 * node, else to the drive that holds this folder (NULL: unknown). */
void tr_pages_place(int gpu, const char *folder);

/* What was refused since tr_pages_place, in words: "not locked: ..."; "" where nothing was. */
void tr_pages_remark(char *text, size_t room);

#endif
