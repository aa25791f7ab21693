/* SPDX-License-Identifier: Apache-2.0 */
#include "cpu/stream.h"

#include <pthread.h>
#include <string.h>
#include <time.h>

#include "src/base/err.h"
#include "src/base/mem.h"
#include "src/base/philox.h"
#include "src/base/thread.h"

#define RING         128
#define MAX_DELAY_US 200

/* The lock protects the ring, both counters and stop; it is never held while a command runs, and
 * never together with another stream's. */
struct tr_cpu_stream {
    struct tr_cpu_stream_params params;
    pthread_t thread;
    int started, stop;
    pthread_mutex_t lock;
    pthread_cond_t pushed_more, finished_more;
    uint64_t pushed, finished; /* commands since the start; pushed - finished <= RING */
    struct tr_cpu_command ring[RING];
};

static void pause_at_random(const struct tr_cpu_stream *s)
{
    struct tr_philox counter = {{(uint32_t)s->finished, (uint32_t)(s->finished >> 32)}};
    uint64_t seed = s->params.delay_seed;
    uint32_t r = tr_philox4x32(counter, (uint32_t)seed, (uint32_t)(seed >> 32)).v[0];
    struct timespec t = {0, (long)((uint64_t)r * (MAX_DELAY_US * 1000) >> 32)};

    nanosleep(&t, NULL);
}

static void run_command(struct tr_cpu_stream *s, const struct tr_cpu_command *c)
{
    switch (c->kind) {
    case TR_COMMAND_OP:
        s->params.run_op(s->params.arg, &c->op);
        break;
    case TR_COMMAND_COPY:
        memcpy(c->move.to, c->move.from, c->move.bytes);
        break;
    case TR_COMMAND_FILL:
        memset(c->move.to, c->move.byte, c->move.bytes);
        break;
    case TR_COMMAND_CALL:
        c->call.fn(c->call.arg);
        break;
    case TR_COMMAND_WAIT:
        tr_cpu_stream_await(c->wait.stream, c->wait.point);
        break;
    }
}

static void *stream_main(void *arg)
{
    struct tr_cpu_stream *s = arg;

    pthread_mutex_lock(&s->lock);
    for (;;) {
        while (!s->stop && s->pushed == s->finished)
            pthread_cond_wait(&s->pushed_more, &s->lock);
        if (s->pushed == s->finished)
            break;
        pthread_mutex_unlock(&s->lock);
        /* Only this thread moves `finished`, and a slot is not refilled before it has moved. */
        if (s->params.delay_seed)
            pause_at_random(s);
        run_command(s, &s->ring[s->finished % RING]);
        pthread_mutex_lock(&s->lock);
        s->finished++;
        pthread_cond_broadcast(&s->finished_more);
    }
    pthread_mutex_unlock(&s->lock);
    return NULL;
}

void tr_cpu_stream_push(struct tr_cpu_stream *s, const struct tr_cpu_command *command)
{
    pthread_mutex_lock(&s->lock);
    while (s->pushed - s->finished == RING)
        pthread_cond_wait(&s->finished_more, &s->lock);
    s->ring[s->pushed++ % RING] = *command;
    pthread_cond_signal(&s->pushed_more);
    pthread_mutex_unlock(&s->lock);
}

uint64_t tr_cpu_stream_point(struct tr_cpu_stream *s)
{
    uint64_t point;

    pthread_mutex_lock(&s->lock);
    point = s->pushed;
    pthread_mutex_unlock(&s->lock);
    return point;
}

void tr_cpu_stream_await(struct tr_cpu_stream *s, uint64_t point)
{
    pthread_mutex_lock(&s->lock);
    while (s->finished < point)
        pthread_cond_wait(&s->finished_more, &s->lock);
    pthread_mutex_unlock(&s->lock);
}

int tr_cpu_stream_open(struct tr_cpu_stream **out, const struct tr_cpu_stream_params *p)
{
    struct tr_cpu_stream *s = tr_alloc(TR_MEM_MISC, sizeof(*s));
    int error;

    if (!s)
        return -ENOMEM;
    s->params = *p;
    pthread_mutex_init(&s->lock, NULL);
    pthread_cond_init(&s->pushed_more, NULL);
    pthread_cond_init(&s->finished_more, NULL);
    error = tr_thread_start(&s->thread, p->name, stream_main, s);
    s->started = !error;
    if (error) {
        tr_cpu_stream_close(s);
        return error;
    }
    *out = s;
    return 0;
}

void tr_cpu_stream_stop(struct tr_cpu_stream *s)
{
    if (!s || !s->started)
        return;
    pthread_mutex_lock(&s->lock);
    s->stop = 1;
    pthread_cond_signal(&s->pushed_more);
    pthread_mutex_unlock(&s->lock);
    pthread_join(s->thread, NULL);
    s->started = 0;
}

void tr_cpu_stream_close(struct tr_cpu_stream *s)
{
    if (!s)
        return;
    tr_cpu_stream_stop(s);
    pthread_cond_destroy(&s->finished_more);
    pthread_cond_destroy(&s->pushed_more);
    pthread_mutex_destroy(&s->lock);
    tr_free(TR_MEM_MISC, s);
}
