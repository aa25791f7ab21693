/* SPDX-License-Identifier: Apache-2.0
 *
 * The one thread pool: a static partition of n work items over `threads` workers, the caller being
 * one of them. Which worker does an item never changes what the item computes, so results do not
 * depend on the number of threads (invariant 1). Plain pthreads: ThreadSanitizer sees everything.
 */
#ifndef TR_BASE_POOL_H
#define TR_BASE_POOL_H

#include <stdint.h>

struct tr_pool;

/* Does items [begin, end); worker is 0..threads-1 (for per-worker scratch). */
typedef void tr_pool_fn(void *arg, int64_t begin, int64_t end, int worker);

int tr_pool_open(struct tr_pool **out, int threads);
void tr_pool_close(struct tr_pool *pool); /* NULL is allowed */
int tr_pool_threads(const struct tr_pool *pool);

/* Splits [0, n) into at most `threads` contiguous parts of about equal size, each a multiple of
 * `grain` (the last may be short), and returns when all are done. One caller at a time. */
void tr_pool_run(struct tr_pool *pool, int64_t n, int64_t grain, tr_pool_fn *fn, void *arg);

#endif
