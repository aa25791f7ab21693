/* SPDX-License-Identifier: Apache-2.0
 *
 * Events: a record puts a mark into the stream's work; whoever waits waits for the mark that was
 * the event's latest at the call. An event that was never recorded is complete.
 */
#include <stdlib.h>

#include "tests/cuda/runtime/runtime.h"

struct CUevent_st {
    struct fake_mark *mark; /* the latest record; under fake_state.lock */
    unsigned flags;
};

/* The latest mark with a reference of the caller's, NULL if none; e must be live. */
static struct fake_mark *latest(cudaEvent_t e)
{
    struct fake_mark *m;

    pthread_mutex_lock(&fake_state.lock);
    m = e->mark;
    if (m)
        fake_mark_ref(m);
    pthread_mutex_unlock(&fake_state.lock);
    return m;
}

static cudaError_t check(cudaEvent_t e)
{
    return fake_object_live(FAKE_EVENT, e) ? cudaSuccess : cudaErrorInvalidResourceHandle;
}

cudaError_t cudaEventCreateWithFlags(cudaEvent_t *event, unsigned int flags)
{
    cudaError_t e = fake_enter("cudaEventCreateWithFlags", 0);
    struct CUevent_st *made;

    if (!e && (!event || flags > 3))
        e = cudaErrorInvalidValue;
    if (!e) {
        made = calloc(1, sizeof(*made));
        if (!made)
            abort();
        made->flags = flags;
        fake_object_add(FAKE_EVENT, made, 0);
        *event = made;
    }
    return fake_leave(e);
}

void fake_event_destroy(cudaEvent_t e)
{
    fake_object_remove(FAKE_EVENT, e, NULL);
    if (e->mark)
        fake_mark_unref(e->mark);
    free(e);
}

cudaError_t cudaEventDestroy(cudaEvent_t event)
{
    cudaError_t e = fake_enter("cudaEventDestroy", 0), own = check(event);

    if (!own)
        fake_event_destroy(event);
    return fake_leave(e ? e : own);
}

cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream)
{
    cudaError_t e = fake_enter("cudaEventRecord", 0);
    struct fake_mark *made, *old;

    if (!e)
        e = check(event);
    if (!e)
        e = fake_stream_check(stream);
    if (e)
        return fake_leave(e);
    made = fake_mark_push(stream);
    pthread_mutex_lock(&fake_state.lock);
    old = event->mark;
    event->mark = made;
    pthread_mutex_unlock(&fake_state.lock);
    if (old)
        fake_mark_unref(old);
    return cudaSuccess;
}

struct wait_command {
    struct fake_command base;
    struct fake_mark *mark;
};

static void run_wait(struct fake_command *c)
{
    fake_mark_wait(((struct wait_command *)c)->mark);
}

static void destroy_wait(struct fake_command *c)
{
    fake_mark_unref(((struct wait_command *)c)->mark);
}

cudaError_t cudaStreamWaitEvent(cudaStream_t stream, cudaEvent_t event, unsigned int flags)
{
    cudaError_t e = fake_enter("cudaStreamWaitEvent", 0);
    struct wait_command *c;
    struct fake_mark *m;

    if (!e && flags)
        e = cudaErrorInvalidValue;
    if (!e)
        e = fake_stream_check(stream);
    if (!e)
        e = check(event);
    m = e ? NULL : latest(event);
    if (!m)
        return fake_leave(e);
    c = fake_command_new(sizeof(*c));
    c->base.run = run_wait;
    c->base.destroy = destroy_wait;
    c->mark = m;
    fake_push(stream, &c->base);
    return cudaSuccess;
}

cudaError_t cudaEventSynchronize(cudaEvent_t event)
{
    cudaError_t e = fake_enter("cudaEventSynchronize", 0);
    struct fake_mark *m;

    if (!e)
        e = check(event);
    if (e)
        return fake_leave(e);
    m = latest(event);
    if (m) {
        fake_mark_wait(m);
        fake_mark_unref(m);
    }
    return fake_leave(fake_surface());
}

/* Whether the latest record is done. "Not ready" orders nothing. */
static int is_done(struct fake_mark *m)
{
    return !m || (atomic_load_explicit(&m->done, memory_order_relaxed) &&
                  atomic_load_explicit(&m->done, memory_order_acquire));
}

cudaError_t cudaEventQuery(cudaEvent_t event)
{
    cudaError_t e = fake_enter("cudaEventQuery", 0);
    struct fake_mark *m;

    if (!e)
        e = check(event);
    if (e)
        return fake_leave(e);
    m = latest(event);
    e = is_done(m) ? cudaSuccess : cudaErrorNotReady;
    if (m)
        fake_mark_unref(m);
    if (fake_surface())
        e = fake_surface();
    return fake_leave(e);
}

cudaError_t cudaEventElapsedTime(float *ms, cudaEvent_t start, cudaEvent_t end)
{
    cudaError_t e = fake_enter("cudaEventElapsedTime", 0);
    struct fake_mark *a, *b;

    if (!e && !ms)
        e = cudaErrorInvalidValue;
    if (!e && (check(start) || check(end) || (start->flags & cudaEventDisableTiming) ||
               (end->flags & cudaEventDisableTiming)))
        e = cudaErrorInvalidResourceHandle;
    if (e)
        return fake_leave(e);
    a = latest(start);
    b = latest(end);
    if (!a || !b)
        e = cudaErrorInvalidResourceHandle;
    else if (!is_done(a) || !is_done(b))
        e = cudaErrorNotReady;
    else
        *ms = (float)(b->time_ns - a->time_ns) * 1e-6f;
    if (a)
        fake_mark_unref(a);
    if (b)
        fake_mark_unref(b);
    return fake_leave(e);
}
