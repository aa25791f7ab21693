/* SPDX-License-Identifier: Apache-2.0
 *
 * What the shim tells the sanitizers. The shim itself is never instrumented, since its fibers
 * share its state without synchronisation by design; so the build says which sanitizer the
 * program has (TR_SHIM_TSAN, TR_SHIM_ASAN), and without one everything here is empty.
 */
#ifndef TR_TESTS_CUDA_SANITIZER_H
#define TR_TESTS_CUDA_SANITIZER_H

#include <stdlib.h>

#if TR_SHIM_TSAN
#include <sanitizer/tsan_interface.h>

#ifdef __cplusplus
extern "C" {
#endif
void __tsan_ignore_thread_begin(void);
void __tsan_ignore_thread_end(void);
void __tsan_read16(void *p);
void __tsan_write16(void *p);
#ifdef __cplusplus
}
#endif

#define SHIM_ACQUIRE(p) __tsan_acquire(p)
#define SHIM_RELEASE(p) __tsan_release(p)
#else
#define SHIM_ACQUIRE(p) ((void)(p))
#define SHIM_RELEASE(p) ((void)(p))
#endif

#if TR_SHIM_ASAN
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#define SHIM_POISON(p, n)   __asan_poison_memory_region(p, n)
#define SHIM_UNPOISON(p, n) __asan_unpoison_memory_region(p, n)
#else
#define SHIM_POISON(p, n)   ((void)(p))
#define SHIM_UNPOISON(p, n) ((void)(p))
#endif

/* Memory of the shim's own: to ThreadSanitizer it is new, whoever had those bytes before. NULL when
 * there is none. */
static inline void *shim_alloc(size_t bytes)
{
#if TR_SHIM_TSAN
    __tsan_ignore_thread_begin();
#endif
    void *p = aligned_alloc(256, (bytes + 255) / 256 * 256);
#if TR_SHIM_TSAN
    __tsan_ignore_thread_end();
#endif
    return p;
}

static inline void shim_free(void *p)
{
#if TR_SHIM_TSAN
    __tsan_ignore_thread_begin();
#endif
    free(p);
#if TR_SHIM_TSAN
    __tsan_ignore_thread_end();
#endif
}

/* Sanitized frames are several times larger. */
enum { SHIM_STACK_BYTES = TR_SHIM_TSAN + TR_SHIM_ASAN > 0 ? 256 << 10 : 64 << 10 };

#endif
