/* SPDX-License-Identifier: Apache-2.0
 *
 * Streams: a thread and a queue each. Many threads may queue (they share a lock among themselves),
 * one takes; the two sides meet in one atomic pointer per command, so that only "queued before run"
 * is ordered. With delay=SEED a stream pauses at random before each command.
 */
#include <limits.h>
#include <linux/futex.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "tests/cuda/runtime/runtime.h"

struct CUstream_st {
    pthread_t thread;
    pthread_mutex_t push;       /* among those who queue */
    struct fake_command *tail;  /* theirs: the last command queued */
    struct fake_command *head;  /* the thread's: the last command taken */
    atomic_uint queued, done;   /* queued is waited on as a futex */
    uint64_t rng;               /* 0: no pauses */
    struct CUstream_st *zombie; /* destroyed and not yet joined */
};

static struct CUstream_st *zombies; /* under fake_state.lock */
static atomic_uint_fast64_t pauses;
static atomic_uint deepest;

static void futex_wait(atomic_uint *word, unsigned seen)
{
    syscall(SYS_futex, word, FUTEX_WAIT_PRIVATE, seen, NULL, NULL, 0);
}

static void futex_wake(atomic_uint *word)
{
    syscall(SYS_futex, word, FUTEX_WAKE_PRIVATE, INT_MAX, NULL, NULL, 0);
}

void *fake_command_new(size_t size)
{
    struct fake_command *c = calloc(1, size);

    if (!c)
        abort();
    return c;
}

/* Half of the commands at once, a quarter after letting others run, a quarter up to 0.5 ms late. */
static void pause_at_random(struct CUstream_st *s)
{
    unsigned r;

    if (!s->rng)
        return;
    s->rng = s->rng * 6364136223846793005u + 1442695040888963407u;
    r = (unsigned)(s->rng >> 33);
    if (r % 4 > 1)
        return;
    atomic_fetch_add_explicit(&pauses, 1, memory_order_relaxed);
    if (r % 4 == 0)
        usleep(r / 4 % 500);
    else
        sched_yield();
}

uint64_t fake_pauses(void)
{
    return atomic_load_explicit(&pauses, memory_order_relaxed);
}

/* A stream takes so many commands that are not done; whoever queues one more waits for it. */
#define MOST_QUEUED 1024

static void wait_for_room(struct CUstream_st *s)
{
    unsigned queued = atomic_load_explicit(&s->queued, memory_order_relaxed), ahead;

    while ((ahead = queued - atomic_load_explicit(&s->done, memory_order_relaxed)) >= MOST_QUEUED)
        usleep(20);
    if (ahead >= atomic_load_explicit(&deepest, memory_order_relaxed))
        atomic_store_explicit(&deepest, ahead + 1, memory_order_relaxed);
}

unsigned fake_deepest(void)
{
    return atomic_load_explicit(&deepest, memory_order_relaxed);
}

static struct fake_command *take(struct CUstream_st *s)
{
    for (;;) {
        unsigned seen = atomic_load_explicit(&s->queued, memory_order_relaxed);
        struct fake_command *c = atomic_load_explicit(&s->head->next, memory_order_acquire);

        if (c)
            return c;
        futex_wait(&s->queued, seen);
    }
}

static void *play(void *arg)
{
    struct CUstream_st *s = arg;
    int last = 0;

    while (!last) {
        struct fake_command *c = take(s);

        pause_at_random(s);
        if (c->fault)
            fake_fault(c->fault);
        else if (c->run && !fake_dead())
            c->run(c);
        last = c->last;
        if (c->destroy)
            c->destroy(c);
        free(s->head);
        s->head = c;
        atomic_fetch_add_explicit(&s->done, 1, memory_order_release);
    }
    free(s->head);
    return NULL;
}

unsigned fake_push(cudaStream_t s, struct fake_command *c)
{
    unsigned number;

    pthread_mutex_lock(&s->push);
    wait_for_room(s);
    atomic_store_explicit(&s->tail->next, c, memory_order_release);
    s->tail = c;
    number = atomic_fetch_add_explicit(&s->queued, 1, memory_order_relaxed) + 1;
    pthread_mutex_unlock(&s->push);
    futex_wake(&s->queued);
    return number;
}

struct work_command {
    struct fake_command base;
    void (*run)(void *), (*destroy)(void *);
    void *arg;
};

static void run_work(struct fake_command *base)
{
    struct work_command *c = (struct work_command *)base;

    fake_memory_open();
    c->run(c->arg);
    fake_memory_close();
}

static void destroy_work(struct fake_command *base)
{
    struct work_command *c = (struct work_command *)base;

    c->destroy(c->arg);
}

void fake_push_work(cudaStream_t s, void (*run)(void *), void (*destroy)(void *), void *arg)
{
    struct work_command *c = fake_command_new(sizeof(*c));

    c->base.run = run_work;
    c->base.destroy = destroy_work;
    c->base.fault = fake_take_planned_fault();
    c->run = run;
    c->destroy = destroy;
    c->arg = arg;
    fake_push(s, &c->base);
}

static void mark_done(struct fake_command *c)
{
    struct fake_mark *m = *(struct fake_mark **)(c + 1);
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    m->time_ns = now.tv_sec * 1000000000 + now.tv_nsec;
    atomic_store_explicit(&m->done, 1, memory_order_release);
    futex_wake(&m->done);
    fake_mark_unref(m);
}

static struct fake_mark *push_mark(cudaStream_t s, unsigned *number)
{
    struct fake_mark *m = fake_command_new(sizeof(*m));
    struct fake_command *c = fake_command_new(sizeof(*c) + sizeof(m));

    atomic_init(&m->refs, 2);
    *(struct fake_mark **)(c + 1) = m;
    c->destroy = mark_done; /* also where the context is dead: nobody waits for ever */
    *number = fake_push(s, c);
    return m;
}

struct fake_mark *fake_mark_push(cudaStream_t s)
{
    unsigned number;

    return push_mark(s, &number);
}

void fake_mark_ref(struct fake_mark *m)
{
    atomic_fetch_add_explicit(&m->refs, 1, memory_order_relaxed);
}

void fake_mark_unref(struct fake_mark *m)
{
    if (atomic_fetch_sub_explicit(&m->refs, 1, memory_order_release) == 1) {
        (void)atomic_load_explicit(&m->refs, memory_order_acquire);
        free(m);
    }
}

void fake_mark_wait(struct fake_mark *m)
{
    while (!atomic_load_explicit(&m->done, memory_order_acquire))
        futex_wait(&m->done, 0);
}

/* The mark, and then the count: a query after this finds the stream idle. */
static void wait_for(cudaStream_t s, struct fake_mark *m, unsigned number)
{
    fake_mark_wait(m);
    fake_mark_unref(m);
    while ((int)(atomic_load_explicit(&s->done, memory_order_relaxed) - number) < 0)
        sched_yield();
}

void fake_stream_drain(cudaStream_t s)
{
    unsigned number;
    struct fake_mark *m = push_mark(s, &number);

    wait_for(s, m, number);
}

void fake_drain_all(void)
{
    struct {
        cudaStream_t stream;
        struct fake_mark *mark;
        unsigned number;
    } wait[64];
    int n = 0;

    pthread_mutex_lock(&fake_state.lock);
    for (struct fake_object *o = fake_state.objects[FAKE_STREAM]; o; o = o->next, n++) {
        if (n == 64)
            abort();
        wait[n].stream = o->p;
        wait[n].mark = push_mark(o->p, &wait[n].number);
    }
    pthread_mutex_unlock(&fake_state.lock);
    while (n--)
        wait_for(wait[n].stream, wait[n].mark, wait[n].number);
    fake_streams_join();
}

void fake_streams_join(void)
{
    struct CUstream_st *s, *next;

    pthread_mutex_lock(&fake_state.lock);
    s = zombies;
    zombies = NULL;
    pthread_mutex_unlock(&fake_state.lock);
    for (; s; s = next) {
        next = s->zombie;
        pthread_join(s->thread, NULL);
        pthread_mutex_destroy(&s->push);
        free(s);
    }
}

cudaError_t fake_stream_check(cudaStream_t s)
{
    if (s == NULL || s == cudaStreamLegacy || s == cudaStreamPerThread) {
        fake_say("the default stream is not supported");
        return cudaErrorInvalidResourceHandle;
    }
    return fake_object_live(FAKE_STREAM, s) ? cudaSuccess : cudaErrorInvalidResourceHandle;
}

static cudaError_t start(struct CUstream_st *s, int number)
{
    unsigned seed = fake_state.options.delay;
    sigset_t all, old;
    char name[16];
    int error;

    pthread_mutex_init(&s->push, NULL);
    s->head = s->tail = fake_command_new(sizeof(*s->head));
    s->rng = seed ? (uint64_t)seed << 20 | (unsigned)number : 0;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &old);
    error = pthread_create(&s->thread, NULL, play, s);
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    if (error)
        return cudaErrorOperatingSystem;
    snprintf(name, sizeof(name), "fake-stream%d", number % 1000);
    pthread_setname_np(s->thread, name);
    return cudaSuccess;
}

static cudaError_t create(cudaStream_t *out, unsigned flags)
{
    struct CUstream_st *s;
    cudaError_t e;
    int number;

    if (!out || flags != cudaStreamNonBlocking) {
        fake_say("only streams with cudaStreamNonBlocking are supported");
        return cudaErrorInvalidValue;
    }
    pthread_mutex_lock(&fake_state.lock);
    number = fake_state.streams_made++;
    pthread_mutex_unlock(&fake_state.lock);
    s = fake_command_new(sizeof(*s));
    e = start(s, number);
    if (e) {
        free(s->head);
        free(s);
        return e;
    }
    fake_object_add(FAKE_STREAM, s, 0);
    *out = s;
    return cudaSuccess;
}

void fake_stream_destroy(cudaStream_t s)
{
    struct fake_command *c = fake_command_new(sizeof(*c));

    fake_object_remove(FAKE_STREAM, s, NULL);
    c->last = 1;
    fake_push(s, c);
    pthread_mutex_lock(&fake_state.lock);
    s->zombie = zombies;
    zombies = s;
    pthread_mutex_unlock(&fake_state.lock);
}

cudaError_t cudaStreamCreateWithFlags(cudaStream_t *pStream, unsigned int flags)
{
    cudaError_t e = fake_enter("cudaStreamCreateWithFlags", 0);

    return fake_leave(e ? e : create(pStream, flags));
}

/* Returns at once; what is queued still runs. */
cudaError_t cudaStreamDestroy(cudaStream_t stream)
{
    cudaError_t e = fake_enter("cudaStreamDestroy", 0), own = fake_stream_check(stream);

    if (!own)
        fake_stream_destroy(stream);
    return fake_leave(e ? e : own);
}

cudaError_t cudaStreamSynchronize(cudaStream_t stream)
{
    cudaError_t e = fake_enter("cudaStreamSynchronize", 0);

    if (!e)
        e = fake_stream_check(stream);
    if (!e) {
        fake_stream_drain(stream);
        e = fake_surface();
    }
    return fake_leave(e);
}

cudaError_t cudaStreamQuery(cudaStream_t stream)
{
    cudaError_t e = fake_enter("cudaStreamQuery", 0);

    if (!e)
        e = fake_stream_check(stream);
    if (!e)
        e = fake_surface();
    /* "Not ready" must order nothing: only the answer that all is done acquires. */
    if (!e) {
        unsigned queued = atomic_load_explicit(&stream->queued, memory_order_relaxed);

        if (queued != atomic_load_explicit(&stream->done, memory_order_relaxed) ||
            queued != atomic_load_explicit(&stream->done, memory_order_acquire))
            e = cudaErrorNotReady;
        else
            e = fake_surface();
    }
    return fake_leave(e);
}

cudaError_t cudaDeviceSynchronize(void)
{
    cudaError_t e = fake_enter("cudaDeviceSynchronize", 0);

    if (!e) {
        fake_drain_all();
        e = fake_surface();
    }
    return fake_leave(e);
}
