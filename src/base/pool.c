/* SPDX-License-Identifier: Apache-2.0
 *
 * Persistent workers that sleep on a condition between runs. A run is published under the lock
 * as a new turn. Each worker begins with its own share of the items, the same from run to run, and
 * takes from it piece by piece; one that has no more takes half of what another still has. So a
 * core that is busy with something else (I/O, an interrupt) holds up no more than the piece in
 * hand, and a worker that has not yet woken when nothing is left is not waited for. Before
 * sleeping, both sides look at an atomic copy of what they wait for a bounded number of times: ops
 * follow each other closely.
 *
 * The lock protects turn, job and active; turn and active are atomic only for that look.
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

/* Units [begin, end) that nobody has taken yet, as begin << 32 | end: whoever exchanges the value
 * has taken what the new one leaves out. */
struct share {
    _Atomic uint64_t units;
    char rest[56]; /* of a cache line */
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
    _Atomic int active;     /* workers that are in this turn, the caller apart */
    struct worker *workers; /* (threads - 1): the caller is worker 0 */
    struct share *shares;   /* (threads) */
};

static void relax(void)
{
#if defined(__x86_64__)
    __builtin_ia32_pause();
#endif
}

static uint64_t units_of(uint32_t begin, uint32_t end)
{
    return (uint64_t)begin << 32 | end;
}

static uint32_t begin_of(uint64_t units)
{
    return (uint32_t)(units >> 32);
}

static uint32_t end_of(uint64_t units)
{
    return (uint32_t)units;
}

/* Its owner's: a quarter of what is left, from the front. 0: nothing is. */
static int take_front(struct share *share, uint32_t *begin, uint32_t *end)
{
    uint64_t all = atomic_load(&share->units);

    do {
        *begin = begin_of(all);
        *end = *begin + (end_of(all) - *begin + 3) / 4;
    } while (*begin < *end &&
             !atomic_compare_exchange_weak(&share->units, &all, units_of(*end, end_of(all))));
    return *begin < *end;
}

/* Another's: half of what is left, from the back. */
static int take_back(struct share *share, uint32_t *begin, uint32_t *end)
{
    uint64_t all = atomic_load(&share->units);

    do {
        *end = end_of(all);
        *begin = *end - (*end - begin_of(all) + 1) / 2;
    } while (*begin < *end &&
             !atomic_compare_exchange_weak(&share->units, &all, units_of(begin_of(all), *begin)));
    return *begin < *end;
}

/* Fills the worker's own share, which is empty, with half of another's. 0: nobody has any. */
static int steal(struct tr_pool *pool, const struct job *job, int index)
{
    uint32_t begin, end;

    for (int i = 1; i < job->parts; i++)
        if (take_back(&pool->shares[(index + i) % job->parts], &begin, &end)) {
            atomic_store(&pool->shares[index].units, units_of(begin, end));
            return 1;
        }
    return 0;
}

static void do_units(struct tr_pool *pool, const struct job *job, int index)
{
    uint32_t begin, end;

    do {
        while (take_front(&pool->shares[index], &begin, &end)) {
            int64_t last = end * job->grain;

            job->fn(job->arg, begin * job->grain, last < job->n ? last : job->n, index);
        }
    } while (steal(pool, job, index));
}

static void leave(struct tr_pool *pool)
{
    pthread_mutex_lock(&pool->lock);
    if (atomic_fetch_sub(&pool->active, 1) == 1)
        pthread_cond_signal(&pool->done);
    pthread_mutex_unlock(&pool->lock);
}

/* Sleeps until a turn after `seen` is published, and enters it if there is still something to do
 * for this worker; 0 when the pool closes. */
static int await_turn(struct tr_pool *pool, uint64_t *seen, int index, struct job *job)
{
    int go;

    for (int i = 0; i < pool->spins && atomic_load(&pool->turn) == *seen; i++)
        relax();
    pthread_mutex_lock(&pool->lock);
    while (!pool->stop && (atomic_load(&pool->turn) == *seen || index >= pool->job.parts)) {
        *seen = atomic_load(&pool->turn);
        pthread_cond_wait(&pool->work, &pool->lock);
    }
    *seen = atomic_load(&pool->turn);
    *job = pool->job;
    go = !pool->stop;
    if (go)
        atomic_fetch_add(&pool->active, 1);
    pthread_mutex_unlock(&pool->lock);
    return go;
}

static void *worker_main(void *arg)
{
    struct worker *w = arg;
    struct job job;
    uint64_t seen = 0;

    while (await_turn(w->pool, &seen, w->index, &job)) {
        do_units(w->pool, &job, w->index);
        leave(w->pool);
    }
    return NULL;
}

int tr_pool_threads(const struct tr_pool *pool)
{
    return pool->threads;
}

static void publish(struct tr_pool *pool, const struct job *job, uint32_t units)
{
    pthread_mutex_lock(&pool->lock);
    for (int i = 0; i < job->parts; i++)
        atomic_store(&pool->shares[i].units,
                     units_of((uint32_t)((uint64_t)units * i / job->parts),
                              (uint32_t)((uint64_t)units * (i + 1) / job->parts)));
    pool->job = *job;
    atomic_fetch_add(&pool->turn, 1);
    pthread_cond_broadcast(&pool->work);
    pthread_mutex_unlock(&pool->lock);
}

/* Nothing is left to take: waits for those who are still at it. */
static void await_active(struct tr_pool *pool)
{
    for (int i = 0; i < pool->spins && atomic_load(&pool->active) > 0; i++)
        relax();
    pthread_mutex_lock(&pool->lock);
    pool->job.parts = 0;
    while (atomic_load(&pool->active) > 0)
        pthread_cond_wait(&pool->done, &pool->lock);
    pthread_mutex_unlock(&pool->lock);
}

void tr_pool_run(struct tr_pool *pool, int64_t n, int64_t grain, tr_pool_fn *fn, void *arg)
{
    struct job job = {fn, arg, n, grain > 0 ? grain : 1, pool->threads};
    int64_t units;

    if (n <= 0)
        return;
    while ((units = (n - 1) / job.grain + 1) > INT32_MAX)
        job.grain *= 2;
    if (units < job.parts)
        job.parts = (int)units;
    if (job.parts == 1) {
        fn(arg, 0, n, 0);
        return;
    }
    publish(pool, &job, (uint32_t)units);
    do_units(pool, &job, 0);
    await_active(pool);
}

int tr_pool_open(struct tr_pool **out, int threads)
{
    struct tr_pool *pool;
    int error = 0;

    if (threads < 1 || threads > TR_MOST_THREADS)
        return tr_error(-EINVAL, "threads must be 1 to %d, not %d", TR_MOST_THREADS, threads);
    pool = tr_alloc(TR_MEM_MISC, sizeof(*pool));
    if (!pool)
        return -ENOMEM;
    pthread_mutex_init(&pool->lock, NULL);
    pthread_cond_init(&pool->work, NULL);
    pthread_cond_init(&pool->done, NULL);
    pool->threads = threads;
    pool->spins = threads <= tr_thread_cores() ? SPINS : 0;
    pool->workers = tr_alloc_array(TR_MEM_MISC, (size_t)threads, sizeof(*pool->workers));
    pool->shares = tr_alloc_array(TR_MEM_MISC, (size_t)threads, sizeof(*pool->shares));
    if (!pool->workers || !pool->shares)
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
    tr_free(TR_MEM_MISC, pool->shares);
    tr_free(TR_MEM_MISC, pool->workers);
    tr_free(TR_MEM_MISC, pool);
}
