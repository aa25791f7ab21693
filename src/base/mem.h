/* SPDX-License-Identifier: Apache-2.0
 *
 * Tagged host memory: every byte has a name, so that the memory table can be printed. Buffers that
 * a budget bounds (arenas, I/O buffers) are page-aligned and come from tr_alloc_pages.
 */
#ifndef TR_BASE_MEM_H
#define TR_BASE_MEM_H

#include <stddef.h>
#include <stdint.h>

enum tr_mem_tag {
    TR_MEM_MISC,  /* tables, strings, small structs */
    TR_MEM_TEXT,  /* tokenizers and data sets */
    TR_MEM_BATCH, /* tokens, targets and weights of a step */
    TR_MEM_IO,    /* I/O buffers outside the device arena */
    TR_MEM_ARENA, /* the cpu device's memory */
    TR_MEM_TAGS
};

/* Zeroed memory or NULL (message kept). n == 0 gives a valid pointer. */
void *tr_alloc(enum tr_mem_tag tag, size_t n);
/* Like tr_alloc(tag, n * size), failing on overflow. */
void *tr_alloc_array(enum tr_mem_tag tag, size_t n, size_t size);
/* Grows or shrinks; new bytes are not zeroed. On failure NULL, and p stays valid. */
void *tr_realloc(enum tr_mem_tag tag, void *p, size_t n);
void tr_free(enum tr_mem_tag tag, void *p); /* NULL is allowed */
char *tr_strdup(enum tr_mem_tag tag, const char *s);

/* 4096-aligned zeroed pages, mapped, huge ones where the system has them; the peak of these is what
 * --host-memory bounds. */
void *tr_alloc_pages(enum tr_mem_tag tag, size_t bytes);
/* The same with byte `at`, a multiple of 4096, at the beginning of a huge page, if it has one. */
void *tr_alloc_pages_aligned(enum tr_mem_tag tag, size_t bytes, size_t at);
void tr_free_pages(enum tr_mem_tag tag, void *p, size_t bytes);

/* Such a mapping of whole pages alone, not counted; NULL: there is none. */
void *tr_map_aligned(size_t bytes, size_t at);
/* For memory that was mapped elsewhere (src/base/pages.c). */
void tr_mem_count(enum tr_mem_tag tag, int64_t bytes);
uint64_t tr_mem_now(enum tr_mem_tag tag);
uint64_t tr_mem_peak(enum tr_mem_tag tag);
/* Peaks of all tags but the device arena: what --host-memory bounds. */
uint64_t tr_mem_host_peak(void);
uint64_t tr_mem_host_now(void);
/* Peaks count from now on: a process may open one run after the other. */
void tr_mem_restart_peaks(void);
const char *tr_mem_tag_name(enum tr_mem_tag tag);

static inline size_t tr_round_up(size_t n, size_t align)
{
    return (n + align - 1) / align * align;
}

#endif
