/* SPDX-License-Identifier: Apache-2.0
 *
 * A grid: its blocks in the chosen order. The engine with its stacks and shared memory belongs to
 * the thread of the system and is kept from grid to grid, so that a launch allocates nothing and
 * two streams share nothing, not even an order of events that ThreadSanitizer could mistake for
 * one that the program made.
 */
#include "tests/cuda/shim/engine.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>

static pthread_once_t once = PTHREAD_ONCE_INIT;
static pthread_key_t key;
static bool have_key;

static void engine_free(void *p)
{
    struct shim_engine *e = (struct shim_engine *)p;

    shim_block_free(e);
    shim_shared_free(e);
    shim_copy_free(e);
    free(e);
}

static void make_key(void)
{
    have_key = !pthread_key_create(&key, engine_free);
}

/* A module that is closed must not leave its destructor behind. */
__attribute__((destructor)) static void delete_key(void)
{
    if (have_key) {
        engine_free(pthread_getspecific(key));
        pthread_key_delete(key);
    }
}

static struct shim_engine *engine_get(void)
{
    struct shim_engine *e = shim_now;

    if (e)
        return e;
    pthread_once(&once, make_key);
    e = have_key ? (struct shim_engine *)calloc(1, sizeof *e) : NULL;
    if (!e || pthread_setspecific(key, e)) {
        free(e);
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
        blockIdx = {(unsigned)(b % d->x), (unsigned)(b / d->x % d->y),
                    (unsigned)(b / d->x / d->y)};
        shim_block_run(e);
    }
}

int tr_shim_run(const struct tr_shim_grid *g, void (*body)(void *arg), void *arg, char *error,
                size_t room)
{
    struct shim_engine *e = engine_get();
    uint64_t n_threads = (uint64_t)g->block.x * g->block.y * g->block.z;

    if (!e || !n_threads || n_threads > SHIM_THREADS || e->running) {
        snprintf(error, room, "%s", !e           ? "no memory for the grid"
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
    shim_block_prepare(e);
    fiber_adopt(&e->main);
    e->running = true;
    SHIM_RELEASE(&e->start_sync);
    run_blocks(e);
    SHIM_ACQUIRE(&e->end_sync);
    e->running = false;
    return e->failed ? -1 : 0;
}
