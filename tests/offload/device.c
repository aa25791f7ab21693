/* SPDX-License-Identifier: Apache-2.0
 *
 * A device with nothing but an arena, copies and streams: a thread and a list of commands each. It
 * can fail and be defective in the ways of harness.h.
 */
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "src/base/mem.h"
#include "tests/offload/harness.h"

/* A function, or a copy where there is none. */
struct command {
    void (*fn)(void *arg);
    void *arg;
    char *to;
    const char *from;
    size_t bytes;
    struct command *next;
};

struct list {
    struct command *first, **last;
};

struct stream {
    struct test_dev *device;
    pthread_t thread;
    pthread_mutex_t lock;
    pthread_cond_t changed;
    struct list commands;
    uint64_t rng;
    uint32_t max_delay_us;
    int busy, stop;
};

/* What lay in host memory before a copy out, for the mutant that keeps it. */
struct before {
    char *at, *bytes;
    struct before *next;
};

struct test_dev {
    struct tr_device device;
    struct test_device_params p;
    char *memory, *arena; /* what there is, what it is called; the same unless opaque */
    struct stream stream[TR_STREAMS + 1]; /* the last: for callbacks that do not wait */
    pthread_mutex_t lock;
    struct list late; /* copies that only compute waits for */
    struct list lost; /* callbacks that come when it is closed */
    struct before *before;
    uint32_t seen; /* what `fault` counts */
    int error;
    uint64_t copies, host_bytes;
};

static void push(struct list *l, struct command *c)
{
    c->next = NULL;
    *(l->first ? l->last : &l->first) = c;
    l->last = &c->next;
}

static struct command *pop(struct list *l)
{
    struct command *c = l->first;

    if (c)
        l->first = c->next;
    return c;
}

static void perform(struct command *c)
{
    if (c->fn)
        c->fn(c->arg);
    else
        memcpy(c->to, c->from, c->bytes);
    free(c);
}

/* Copies that were put off, before whatever must not see that. */
static void catch_up(struct test_dev *t)
{
    struct command *c;

    pthread_mutex_lock(&t->lock);
    while ((c = pop(&t->late)))
        perform(c);
    pthread_mutex_unlock(&t->lock);
}

static void *play(void *arg)
{
    struct stream *s = arg;
    struct command *c;

    pthread_mutex_lock(&s->lock);
    for (;;) {
        while (!s->commands.first && !s->stop)
            pthread_cond_wait(&s->changed, &s->lock);
        c = pop(&s->commands);
        if (!c)
            break;
        s->busy = 1;
        pthread_mutex_unlock(&s->lock);
        if (s->rng && s->max_delay_us)
            usleep(rng_below(&s->rng, s->max_delay_us));
        if (s == &s->device->stream[TR_STREAM_COMPUTE])
            catch_up(s->device);
        perform(c);
        pthread_mutex_lock(&s->lock);
        s->busy = 0;
        pthread_cond_broadcast(&s->changed);
    }
    pthread_mutex_unlock(&s->lock);
    return NULL;
}

static void queue(struct stream *s, const struct command *command)
{
    struct command *c = malloc(sizeof(*c));

    *c = *command;
    pthread_mutex_lock(&s->lock);
    push(&s->commands, c);
    pthread_cond_broadcast(&s->changed);
    pthread_mutex_unlock(&s->lock);
}

static struct test_dev *of(struct tr_device *d)
{
    return (struct test_dev *)d;
}

void test_device_run(struct tr_device *d, void (*fn)(void *arg), void *arg)
{
    struct command c = {.fn = fn, .arg = arg};

    queue(&of(d)->stream[TR_STREAM_COMPUTE], &c);
}

char *test_device_memory(struct tr_device *d, void *at)
{
    return of(d)->memory + ((char *)at - of(d)->arena);
}

void test_device_fault_after(struct tr_device *d, uint64_t n)
{
    of(d)->p.fault_after = (uint32_t)n;
}

uint64_t test_device_copies(struct tr_device *d)
{
    return __atomic_load_n(&of(d)->copies, __ATOMIC_RELAXED);
}

uint64_t test_device_host_bytes(struct tr_device *d)
{
    return __atomic_load_n(&of(d)->host_bytes, __ATOMIC_RELAXED);
}

/* ---- what goes wrong ---- */

/* Is it the turn of this fault? A device that has lost callbacks loses all that follow. */
static int strikes(struct test_dev *t, enum device_fault fault)
{
    int now;

    if (t->p.fault != fault)
        return 0;
    pthread_mutex_lock(&t->lock);
    now = t->seen++ == t->p.fault_after || (fault == FAULT_LOST && t->seen > t->p.fault_after);
    if (now && fault == FAULT_LOST)
        t->error = -EIO;
    pthread_mutex_unlock(&t->lock);
    return now;
}

/* In the place of a copy, in its stream. */
static void break_down(void *arg)
{
    struct test_dev *t = arg;

    pthread_mutex_lock(&t->lock);
    t->error = -EIO;
    pthread_mutex_unlock(&t->lock);
}

static int refuse(void)
{
    return tr_error(-EIO, "the test device refuses");
}

static int dev_error(struct tr_device *d)
{
    struct test_dev *t = of(d);
    int error;

    pthread_mutex_lock(&t->lock);
    error = t->p.mutant == DEVICE_DEAF ? 0 : t->error;
    pthread_mutex_unlock(&t->lock);
    return error ? tr_error(error, "the test device is broken") : 0;
}

/* DEVICE_STALE: copies out are noted, copies in of the same memory get what was there before. */
static void note_before(struct test_dev *t, char *host, size_t bytes)
{
    struct before *b;

    if (t->p.mutant != DEVICE_STALE)
        return;
    b = malloc(sizeof(*b));
    *b = (struct before){host, malloc(bytes), t->before};
    memcpy(b->bytes, host, bytes);
    pthread_mutex_lock(&t->lock);
    t->before = b;
    pthread_mutex_unlock(&t->lock);
}

static const char *before_of(struct test_dev *t, const char *host)
{
    const char *found = host;

    pthread_mutex_lock(&t->lock);
    for (const struct before *b = t->before; b; b = b->next)
        if (b->at == host)
            found = b->bytes;
    pthread_mutex_unlock(&t->lock);
    return found;
}

/* ---- the table ---- */

static int dev_copy_in(struct tr_device *d, enum tr_stream s, void *to, const void *host,
                       size_t bytes)
{
    struct test_dev *t = of(d);
    struct command c = {.to = test_device_memory(d, to), .bytes = bytes};

    if (strikes(t, FAULT_COPY_IN))
        return refuse();
    __atomic_fetch_add(&t->copies, 1, __ATOMIC_RELAXED);
    c.from = before_of(t, host);
    if (strikes(t, FAULT_ASYNC_IN)) {
        c.fn = break_down;
        c.arg = t;
    }
    if (t->p.mutant == DEVICE_LATE_IN) {
        struct command *late = malloc(sizeof(*late));

        *late = c;
        pthread_mutex_lock(&t->lock);
        push(&t->late, late);
        pthread_mutex_unlock(&t->lock);
    } else {
        queue(&t->stream[s], &c);
    }
    return 0;
}

static int dev_copy_out(struct tr_device *d, enum tr_stream s, void *host, const void *from,
                        size_t bytes)
{
    struct test_dev *t = of(d);
    struct command c = {
        .to = host, .from = test_device_memory(d, (void *)(uintptr_t)from), .bytes = bytes};

    if (strikes(t, FAULT_COPY_OUT))
        return refuse();
    __atomic_fetch_add(&t->copies, 1, __ATOMIC_RELAXED);
    note_before(t, host, bytes);
    if (strikes(t, FAULT_ASYNC_OUT)) {
        c.fn = break_down;
        c.arg = t;
    }
    queue(&t->stream[s], &c);
    return 0;
}

static int dev_call(struct tr_device *d, enum tr_stream s, void (*fn)(void *arg), void *arg)
{
    struct test_dev *t = of(d);
    struct command c = {.fn = fn, .arg = arg};
    int eager = (t->p.mutant == DEVICE_EAGER && s == TR_STREAM_COMPUTE) ||
                (t->p.mutant == DEVICE_EAGER_OUT && s == TR_STREAM_OUT);

    if (strikes(t, FAULT_CALL))
        return refuse();
    if (strikes(t, FAULT_LOST)) {
        struct command *lost = malloc(sizeof(*lost));

        *lost = c;
        pthread_mutex_lock(&t->lock);
        push(&t->lost, lost);
        pthread_mutex_unlock(&t->lock);
        return 0;
    }
    queue(&t->stream[eager ? TR_STREAMS : s], &c);
    return 0;
}

static int dev_sync(struct tr_device *d, enum tr_stream stream)
{
    struct stream *s = &of(d)->stream[stream];
    int r = dev_error(d);

    if (r < 0 && of(d)->p.fault == FAULT_LOST)
        return r;
    pthread_mutex_lock(&s->lock);
    while (s->commands.first || s->busy)
        pthread_cond_wait(&s->changed, &s->lock);
    pthread_mutex_unlock(&s->lock);
    return r;
}

static void free_memory(struct test_dev *t)
{
    while (t->before) {
        struct before *b = t->before;

        t->before = b->next;
        free(b->bytes);
        free(b);
    }
    if (t->p.opaque)
        munmap(t->arena, t->p.arena_bytes);
    tr_free_pages(TR_MEM_ARENA, t->memory, t->p.arena_bytes);
}

static void dev_close(struct tr_device *d)
{
    struct test_dev *t = of(d);
    struct command *c;

    for (int i = 0; i <= TR_STREAMS; i++) {
        struct stream *s = &t->stream[i];

        pthread_mutex_lock(&s->lock);
        s->stop = 1;
        pthread_cond_broadcast(&s->changed);
        pthread_mutex_unlock(&s->lock);
        pthread_join(s->thread, NULL);
        pthread_cond_destroy(&s->changed);
        pthread_mutex_destroy(&s->lock);
    }
    while ((c = pop(&t->late)))
        free(c); /* where they went may be gone */
    while ((c = pop(&t->lost)))
        perform(c);
    free_memory(t);
    pthread_mutex_destroy(&t->lock);
    free(t);
}

static void dev_info(const struct tr_device *d, struct tr_device_info *info)
{
    const struct test_dev *t = (const struct test_dev *)d;

    memset(info, 0, sizeof(*info));
    info->arena_bytes = t->p.arena_bytes;
    info->host_visible = !t->p.opaque;
}

static void *dev_arena(struct tr_device *d)
{
    return of(d)->arena;
}

static void *dev_host_alloc(struct tr_device *d, size_t bytes)
{
    __atomic_fetch_add(&of(d)->host_bytes, bytes, __ATOMIC_RELAXED);
    return tr_alloc_pages(TR_MEM_IO, bytes);
}

static void dev_host_free(struct tr_device *d, void *p, size_t bytes)
{
    __atomic_fetch_sub(&of(d)->host_bytes, bytes, __ATOMIC_RELAXED);
    tr_free_pages(TR_MEM_IO, p, bytes);
}

static const struct tr_device_ops ops = {
    .close = dev_close,
    .info = dev_info,
    .arena = dev_arena,
    .host_alloc = dev_host_alloc,
    .host_free = dev_host_free,
    .copy_in = dev_copy_in,
    .copy_out = dev_copy_out,
    .call = dev_call,
    .sync = dev_sync,
    .error = dev_error,
};

struct tr_device *test_device(const struct test_device_params *p)
{
    struct test_dev *t = calloc(1, sizeof(*t));

    t->device.ops = &ops;
    t->p = *p;
    t->memory = t->arena = tr_alloc_pages(TR_MEM_ARENA, p->arena_bytes);
    if (p->opaque) {
        t->arena = mmap(NULL, p->arena_bytes, PROT_NONE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        assert_ptr_not_equal(t->arena, MAP_FAILED);
    }
    pthread_mutex_init(&t->lock, NULL);
    for (int i = 0; i <= TR_STREAMS; i++) {
        struct stream *s = &t->stream[i];

        s->device = t;
        pthread_mutex_init(&s->lock, NULL);
        pthread_cond_init(&s->changed, NULL);
        s->rng = p->delay_seed ? p->delay_seed + (uint64_t)i : 0;
        s->max_delay_us = p->max_delay_us;
        pthread_create(&s->thread, NULL, play, s);
    }
    return &t->device;
}
