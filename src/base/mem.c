/* SPDX-License-Identifier: Apache-2.0 */
#include "src/base/mem.h"

#include <assert.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "src/base/err.h"

#define PAGE      4096u
#define HUGE_PAGE ((size_t)2 << 20)

static struct {
    _Atomic uint64_t now, peak;
} counters[TR_MEM_TAGS];

void tr_mem_count(enum tr_mem_tag tag, int64_t bytes)
{
    uint64_t now = atomic_fetch_add(&counters[tag].now, (uint64_t)bytes) + (uint64_t)bytes;
    uint64_t peak = atomic_load(&counters[tag].peak);

    while (bytes > 0 && now > peak)
        if (atomic_compare_exchange_weak(&counters[tag].peak, &peak, now))
            break;
}

/* Stands before each block. What is counted is what was asked for: what malloc makes of it depends
 * on what was freed before, and the smallest budget that a plan names must do the next time too. */
struct header {
    size_t bytes; /* with the header */
    size_t tag;   /* and malloc's alignment of 16 is kept */
};

static_assert(sizeof(struct header) == 16, "a block is as aligned as malloc's");

/* A block of no bytes has one: to LeakSanitizer a pointer past malloc's end is a leak. */
static size_t whole_size(size_t n)
{
    return sizeof(struct header) + (n ? n : 1);
}

static void *out_of_memory(enum tr_mem_tag tag, size_t n)
{
    tr_error(-ENOMEM, "out of memory: %zu bytes for %s", n, tr_mem_tag_name(tag));
    return NULL;
}

void *tr_alloc(enum tr_mem_tag tag, size_t n)
{
    struct header *h = n < SIZE_MAX - sizeof(*h) ? calloc(1, whole_size(n)) : NULL;

    if (!h)
        return out_of_memory(tag, n);
    *h = (struct header){n + sizeof(*h), (size_t)tag};
    tr_mem_count(tag, (int64_t)h->bytes);
    return h + 1;
}

void *tr_alloc_array(enum tr_mem_tag tag, size_t n, size_t size)
{
    size_t bytes;

    if (__builtin_mul_overflow(n, size, &bytes)) {
        tr_error(-ENOMEM, "out of memory: %zu x %zu bytes for %s", n, size, tr_mem_tag_name(tag));
        return NULL;
    }
    return tr_alloc(tag, bytes);
}

void *tr_realloc(enum tr_mem_tag tag, void *p, size_t n)
{
    struct header *h = p ? (struct header *)p - 1 : NULL;
    size_t before = h ? h->bytes : 0;

    assert(!h || h->tag == (size_t)tag);
    h = n < SIZE_MAX - sizeof(*h) ? realloc(h, whole_size(n)) : NULL;
    if (!h)
        return out_of_memory(tag, n);
    *h = (struct header){n + sizeof(*h), (size_t)tag};
    tr_mem_count(tag, (int64_t)h->bytes - (int64_t)before);
    return h + 1;
}

void tr_free(enum tr_mem_tag tag, void *p)
{
    struct header *h;

    if (!p)
        return;
    h = (struct header *)p - 1;
    assert(h->tag == (size_t)tag);
    tr_mem_count(tag, -(int64_t)h->bytes);
    free(h);
}

char *tr_strdup(enum tr_mem_tag tag, const char *s)
{
    size_t n = strlen(s) + 1;
    char *p = tr_alloc(tag, n);

    return p ? memcpy(p, s, n) : NULL;
}

/* What lies before and behind is given back. */
void *tr_map_aligned(size_t bytes, size_t at)
{
    size_t spare = bytes >= HUGE_PAGE ? HUGE_PAGE : 0, before;
    char *p = mmap(NULL, bytes + spare, PROT_READ | PROT_WRITE,
                   MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

    if (p == MAP_FAILED)
        return NULL;
    before = spare ? (size_t)(-((uintptr_t)p + at) % HUGE_PAGE) : 0;
    if (before)
        munmap(p, before);
    if (spare > before)
        munmap(p + before + bytes, spare - before);
    return p + before;
}

void *tr_alloc_pages_aligned(enum tr_mem_tag tag, size_t bytes, size_t at)
{
    size_t whole = tr_round_up(bytes ? bytes : 1, PAGE);
    void *p = tr_map_aligned(whole, tr_round_up(at, PAGE));

    if (!p)
        return out_of_memory(tag, bytes);
    /* A request to a drive then is few segments: a virtual NVMe drive reads twice as fast so. */
    if (whole >= HUGE_PAGE)
        madvise(p, whole, MADV_HUGEPAGE);
    tr_mem_count(tag, (int64_t)bytes);
    return p;
}

void *tr_alloc_pages(enum tr_mem_tag tag, size_t bytes)
{
    return tr_alloc_pages_aligned(tag, bytes, 0);
}

void tr_free_pages(enum tr_mem_tag tag, void *p, size_t bytes)
{
    if (!p)
        return;
    munmap(p, bytes ? bytes : 1);
    tr_mem_count(tag, -(int64_t)bytes);
}

uint64_t tr_mem_now(enum tr_mem_tag tag)
{
    return atomic_load(&counters[tag].now);
}

uint64_t tr_mem_peak(enum tr_mem_tag tag)
{
    return atomic_load(&counters[tag].peak);
}

uint64_t tr_mem_host_now(void)
{
    uint64_t sum = 0;

    for (int tag = 0; tag < TR_MEM_TAGS; tag++)
        sum += tag == TR_MEM_ARENA ? 0 : tr_mem_now((enum tr_mem_tag)tag);
    return sum;
}

void tr_mem_restart_peaks(void)
{
    for (int tag = 0; tag < TR_MEM_TAGS; tag++)
        atomic_store(&counters[tag].peak, atomic_load(&counters[tag].now));
}

uint64_t tr_mem_host_peak(void)
{
    uint64_t sum = 0;

    for (int tag = 0; tag < TR_MEM_TAGS; tag++)
        sum += tag == TR_MEM_ARENA ? 0 : tr_mem_peak((enum tr_mem_tag)tag);
    return sum;
}

const char *tr_mem_tag_name(enum tr_mem_tag tag)
{
    static const char *const names[TR_MEM_TAGS] = {
        [TR_MEM_MISC] = "tables", [TR_MEM_TEXT] = "text",          [TR_MEM_BATCH] = "batch",
        [TR_MEM_IO] = "I/O",      [TR_MEM_ARENA] = "device arena",
    };

    return names[tag];
}
