/* SPDX-License-Identifier: Apache-2.0
 *
 * Persistent workers that sleep on a condition between runs. A run is published under the lock
 * as a new turn; every worker takes the part of its own index, so that nothing is handed out by
 * chance, and the last one to finish wakes the caller. Before sleeping, both sides look at an
 * atomic copy of what they wait for a bounded number of times: ops follow each other closely.
 *
 * The lock protects turn, job and pending; turn_seen and pending are atomic only for that look.
 */
#include "src/base/pool.h"

#include <pthread.h>
#include <stdatomic.h>

#include "src/base/err.h"
#include "src/base/mem.h"
#include "src/base/thread.h"

#define SPINS 400

struct job {
    tr_pool_fn *fn;
    void *arg;
    int64_t n, grain;
    int parts;
};

struct worker {
    struct tr_pool *pool;
    pthread_t thread;
    int index;
};

struct tr_pool {
    int threads, started, spins;
    int stop;
    pthread_mutex_t lock;
    pthread_cond_t work, done;
    struct job job;
    _Atomic uint64_t turn;
    _Atomic int pending;
    struct worker *workers; /* (threads - 1): the caller is worker 0 */
};

static void relax(void)
{
#if defined(__x86_64__)
    __builtin_ia32_pause();
#endif
}

static void do_part(const struct job *job, int index)
{
    int64_t units = (job->n + job->grain - 1) / job->grain;
    int64_t begin = units * index / job->parts * job->grain;
    int64_t end = units * (index + 1) / job->parts * job->grain;

    if (end > job->n)
        end = job->n;
    if (begin < end)
        job->fn(job->arg, begin, end, index);
}

static void finish_part(struct tr_pool *pool)
{
    pthread_mutex_lock(&pool->lock);
    if (atomic_fetch_sub(&pool->pending, 1) == 1)
        pthread_cond_signal(&pool->done);
    pthread_mutex_unlock(&pool->lock);
}

/* Sleeps until a turn after `seen` is published; 0 when the pool closes. */
static int await_turn(struct tr_pool *pool, uint64_t *seen, struct job *job)
{
    int go;

    for (int i = 0; i < pool->spins && atomic_load(&pool->turn) == *seen; i++)
        relax();
    pthread_mutex_lock(&pool->lock);
    while (!pool->stop && atomic_load(&pool->turn) == *seen)
        pthread_cond_wait(&pool->work, &pool->lock);
    *seen = atomic_load(&pool->turn);
    *job = pool->job;
    go = !pool->stop;
    pthread_mutex_unlock(&pool->lock);
    return go;
}

static void *worker_main(void *arg)
{
    struct worker *w = arg;
    struct job job;
    uint64_t seen = 0;

    while (await_turn(w->pool, &seen, &job)) {
        if (w->index >= job.parts)
            continue;
        do_part(&job, w->index);
        finish_part(w->pool);
    }
    return NULL;
}

int tr_pool_threads(const struct tr_pool *pool)
{
    return pool->threads;
}

void tr_pool_run(struct tr_pool *pool, int64_t n, int64_t grain, tr_pool_fn *fn, void *arg)
{
    struct job job = {fn, arg, n, grain > 0 ? grain : 1, 1};
    int64_t units = n > 0 ? (n + job.grain - 1) / job.grain : 0;

    if (units == 0)
        return;
    job.parts = units < pool->threads ? (int)units : pool->threads;
    if (job.parts > 1) {
        pthread_mutex_lock(&pool->lock);
        pool->job = job;
        atomic_store(&pool->pending, job.parts - 1);
        atomic_fetch_add(&pool->turn, 1);
        pthread_cond_broadcast(&pool->work);
        pthread_mutex_unlock(&pool->lock);
    }
    do_part(&job, 0);
    if (job.parts == 1)
        return;
    for (int i = 0; i < pool->spins && atomic_load(&pool->pending) > 0; i++)
        relax();
    pthread_mutex_lock(&pool->lock);
    while (atomic_load(&pool->pending) > 0)
        pthread_cond_wait(&pool->done, &pool->lock);
    pthread_mutex_unlock(&pool->lock);
}

int tr_pool_open(struct tr_pool **out, int threads)
{
    struct tr_pool *pool;
    int error = 0;

    if (threads < 1 || threads > 1024)
        return tr_error(-EINVAL, "threads must be 1 to 1024, not %d", threads);
    pool = tr_alloc(TR_MEM_MISC, sizeof(*pool));
    if (!pool)
        return -ENOMEM;
    pthread_mutex_init(&pool->lock, NULL);
    pthread_cond_init(&pool->work, NULL);
    pthread_cond_init(&pool->done, NULL);
    pool->threads = threads;
    pool->spins = threads <= tr_thread_cores() ? SPINS : 0;
    pool->workers = tr_alloc_array(TR_MEM_MISC, (size_t)threads, sizeof(*pool->workers));
    if (!pool->workers)
        error = -ENOMEM;
    for (int i = 1; i < threads && !error; i++) {
        struct worker *w = &pool->workers[i - 1];

        w->pool = pool;
        w->index = i;
        error = tr_thread_start(&w->thread, "tr-pool", worker_main, w);
        if (!error)
            pool->started = i;
    }
    if (error) {
        tr_pool_close(pool);
        return error;
    }
    *out = pool;
    return 0;
}

void tr_pool_close(struct tr_pool *pool)
{
    if (!pool)
        return;
    pthread_mutex_lock(&pool->lock);
    pool->stop = 1;
    pthread_cond_broadcast(&pool->work);
    pthread_mutex_unlock(&pool->lock);
    for (int i = 0; i < pool->started; i++)
        pthread_join(pool->workers[i].thread, NULL);
    pthread_cond_destroy(&pool->done);
    pthread_cond_destroy(&pool->work);
    pthread_mutex_destroy(&pool->lock);
    tr_free(TR_MEM_MISC, pool->workers);
    tr_free(TR_MEM_MISC, pool);
}
