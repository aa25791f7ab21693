/* SPDX-License-Identifier: Apache-2.0
 *
 * A grid: its blocks in the chosen order. The engine with its stacks and shared memory belongs to
 * a thread of the system until that ends, so that a launch allocates nothing and two streams share
 * nothing, not even an order of events that ThreadSanitizer could mistake for one that the program
 * made. Then it goes to the next thread that comes: a fiber of ThreadSanitizer's costs 0.5 to 2 ms
 * and 0.8 MB.
 */
#include "tests/cuda/shim/engine.h"

#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>

static pthread_once_t once = PTHREAD_ONCE_INIT;
static pthread_key_t key;
static bool have_key;
static struct shim_engine *idle;
static char idle_lock; // not a mutex: it would order the streams in ThreadSanitizer's eyes

static void lock(void)
{
    while (__atomic_test_and_set(&idle_lock, __ATOMIC_ACQUIRE))
        sched_yield();
}

static void unlock(void)
{
    __atomic_clear(&idle_lock, __ATOMIC_RELEASE);
}

static void engine_put(void *p)
{
    struct shim_engine *e = (struct shim_engine *)p;

    lock();
    e->next = idle;
    idle = e;
    unlock();
}

static struct shim_engine *engine_take(void)
{
    lock();
    struct shim_engine *e = idle;
    if (e)
        idle = e->next;
    unlock();
    if (!e && (e = (struct shim_engine *)shim_alloc(sizeof *e)))
        shim_fill(e, 0, sizeof *e);
    return e;
}

static void make_key(void)
{
    have_key = !pthread_key_create(&key, engine_put);
}

/* A module that is closed must not leave its destructor behind. */
__attribute__((destructor)) static void free_engines(void)
{
    if (!have_key)
        return;
    if (pthread_getspecific(key))
        engine_put(pthread_getspecific(key));
    pthread_key_delete(key);
    while (idle) {
        struct shim_engine *e = idle;
        idle = e->next;
        shim_block_free(e);
        shim_shared_free(e);
        shim_copy_free(e);
        shim_free(e);
    }
}

static struct shim_engine *engine_get(void)
{
    struct shim_engine *e = shim_now;

    if (e)
        return e;
    pthread_once(&once, make_key);
    e = have_key ? engine_take() : NULL;
    if (!e || pthread_setspecific(key, e)) {
        if (e)
            engine_put(e);
        return NULL;
    }
    shim_now = e;
    return e;
}

static void run_blocks(struct shim_engine *e)
{
    const dim3 *d = &e->g->grid;

    for (uint64_t i = 0; i < e->n_blocks && !e->failed; i++) {
        uint64_t b = shim_order_block(&e->order, i, e->n_blocks);
        blockIdx = {(unsigned)(b % d->x), (unsigned)(b / d->x % d->y), (unsigned)(b / d->x / d->y)};
        shim_block_run(e, (int)(i & 1));
    }
}

int tr_shim_run(const struct tr_shim_grid *g, void (*body)(void *arg), void *arg, char *error,
                size_t room)
{
    struct shim_engine *e = engine_get();
    uint64_t n_threads = (uint64_t)g->block.x * g->block.y * g->block.z;

    if (!e || !n_threads || n_threads > SHIM_THREADS || e->running) {
        snprintf(error, room, "%s",
                 !e           ? "no memory for the grid"
                 : e->running ? "a grid launched by a kernel"
                              : "a block of no or more than 1024 threads");
        return -1;
    }
    e->g = g;
    e->body = body;
    e->arg = arg;
    e->error = error;
    e->room = room;
    e->failed = false;
    e->n_blocks = (uint64_t)g->grid.x * g->grid.y * g->grid.z;
    if (shim_order_begin(&e->order, e->n_blocks)) {
        snprintf(error, room, "TR_SHIM_ORDER is not ascending, descending or random:SEED");
        return -1;
    }
    gridDim = g->grid;
    blockDim = g->block;
    e->grid_sync = &e->no_grid_sync;
#if TR_SHIM_TSAN
    e->grid_sync = (struct shim_grid_sync *)shim_alloc(sizeof *e->grid_sync);
#endif
    shim_block_prepare(e);
    fiber_adopt(&e->main);
    e->running = true;
    SHIM_RELEASE(&e->grid_sync->start);
    run_blocks(e);
    SHIM_ACQUIRE(&e->grid_sync->end);
#if TR_SHIM_TSAN
    shim_free(e->grid_sync);
#endif
    e->running = false;
    return e->failed ? -1 : 0;
}
