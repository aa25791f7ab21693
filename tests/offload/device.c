/* SPDX-License-Identifier: Apache-2.0
 *
 * A device with nothing but an arena and streams: a thread and a list of functions each.
 */
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "src/base/mem.h"
#include "tests/offload/harness.h"

struct command {
    void (*fn)(void *arg);
    void *arg;
    struct command *next;
};

struct stream {
    pthread_t thread;
    pthread_mutex_t lock;
    pthread_cond_t changed;
    struct command *first, **last;
    uint64_t rng;
    uint32_t max_delay_us;
    int busy, stop;
};

struct test_dev {
    struct tr_device device;
    struct test_device_params p;
    char *arena;
    struct stream stream[TR_STREAMS];
};

static void *play(void *arg)
{
    struct stream *s = arg;

    pthread_mutex_lock(&s->lock);
    for (;;) {
        struct command *c;

        while (!s->first && !s->stop)
            pthread_cond_wait(&s->changed, &s->lock);
        c = s->first;
        if (!c)
            break;
        s->first = c->next;
        if (!s->first)
            s->last = &s->first;
        s->busy = 1;
        pthread_mutex_unlock(&s->lock);
        if (s->rng && s->max_delay_us)
            usleep(rng_below(&s->rng, s->max_delay_us));
        c->fn(c->arg);
        free(c);
        pthread_mutex_lock(&s->lock);
        s->busy = 0;
        pthread_cond_broadcast(&s->changed);
    }
    pthread_mutex_unlock(&s->lock);
    return NULL;
}

static void queue(struct stream *s, void (*fn)(void *arg), void *arg)
{
    struct command *c = malloc(sizeof(*c));

    *c = (struct command){fn, arg, NULL};
    pthread_mutex_lock(&s->lock);
    *s->last = c;
    s->last = &c->next;
    pthread_cond_broadcast(&s->changed);
    pthread_mutex_unlock(&s->lock);
}

void test_device_run(struct tr_device *d, void (*fn)(void *arg), void *arg)
{
    queue(&((struct test_dev *)d)->stream[TR_STREAM_COMPUTE], fn, arg);
}

static int dev_call(struct tr_device *d, enum tr_stream stream, void (*fn)(void *arg), void *arg)
{
    struct test_dev *t = (struct test_dev *)d;

    queue(&t->stream[t->p.eager ? TR_STREAM_OUT : stream], fn, arg);
    return 0;
}

static int dev_sync(struct tr_device *d, enum tr_stream stream)
{
    struct stream *s = &((struct test_dev *)d)->stream[stream];

    pthread_mutex_lock(&s->lock);
    while (s->first || s->busy)
        pthread_cond_wait(&s->changed, &s->lock);
    pthread_mutex_unlock(&s->lock);
    return 0;
}

static void dev_close(struct tr_device *d)
{
    struct test_dev *t = (struct test_dev *)d;

    for (int i = 0; i < TR_STREAMS; i++) {
        struct stream *s = &t->stream[i];

        pthread_mutex_lock(&s->lock);
        s->stop = 1;
        pthread_cond_broadcast(&s->changed);
        pthread_mutex_unlock(&s->lock);
        pthread_join(s->thread, NULL);
        pthread_cond_destroy(&s->changed);
        pthread_mutex_destroy(&s->lock);
    }
    tr_free_pages(TR_MEM_ARENA, t->arena, t->p.arena_bytes);
    free(t);
}

static void dev_info(const struct tr_device *d, struct tr_device_info *info)
{
    const struct test_dev *t = (const struct test_dev *)d;

    memset(info, 0, sizeof(*info));
    info->arena_bytes = t->p.arena_bytes;
    info->host_visible = 1;
}

static void *dev_arena(struct tr_device *d)
{
    return ((struct test_dev *)d)->arena;
}

static const struct tr_device_ops ops = {
    .close = dev_close,
    .info = dev_info,
    .arena = dev_arena,
    .call = dev_call,
    .sync = dev_sync,
};

struct tr_device *test_device(const struct test_device_params *p)
{
    struct test_dev *t = calloc(1, sizeof(*t));

    t->device.ops = &ops;
    t->p = *p;
    t->arena = tr_alloc_pages(TR_MEM_ARENA, p->arena_bytes);
    for (int i = 0; i < TR_STREAMS; i++) {
        struct stream *s = &t->stream[i];

        pthread_mutex_init(&s->lock, NULL);
        pthread_cond_init(&s->changed, NULL);
        s->last = &s->first;
        s->rng = p->delay_seed ? p->delay_seed + (uint64_t)i : 0;
        s->max_delay_us = p->max_delay_us;
        pthread_create(&s->thread, NULL, play, s);
    }
    return &t->device;
}
