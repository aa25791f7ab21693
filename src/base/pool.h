/* SPDX-License-Identifier: Apache-2.0
 *
 * The one thread pool: n work items over `threads` workers, the caller being one of them. Each has
 * a share and, when that is done, takes from the others': the cores also serve the disk. Which
 * worker does an item, and which items it does in one go, never changes what an item computes, so
 * results depend neither on that nor on the number of threads (invariant 1). Plain pthreads:
 * ThreadSanitizer sees everything.
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

/* Splits [0, n) into parts, each a multiple of `grain` (the last may be short), calls fn once for
 * each, and returns when all are done. One caller at a time. */
void tr_pool_run(struct tr_pool *pool, int64_t n, int64_t grain, tr_pool_fn *fn, void *arg);

#endif
