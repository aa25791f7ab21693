/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/train/late.h"

#include <assert.h>
#include <pthread.h>

#define HELD 4096
#define SLOW 40 /* copies instead of one */

/* A copy out, or a point in the stream. */
struct out {
    struct tr_event *event;
    void *host;
    const void *from;
    size_t bytes;
};

static const struct tr_device_ops *sound;
static struct tr_device_ops ops;
static struct late late;
static pthread_t caller;
static struct tr_event *all; /* compute, when copies that were held are queued */
static struct tr_op held_ops[HELD];
static struct out held_outs[HELD];
static int n_ops, n_outs;
static int has_copied;             /* compute, with no op since */
static struct tr_event *copied[2]; /* recorded then: the last two */

static int is_held(enum tr_stream s)
{
    return s == late.stream && pthread_equal(pthread_self(), caller);
}

static int queue_ops(struct tr_device *d)
{
    int r = 0;

    for (int i = 0; i < n_ops && r == 0; i++)
        r = sound->run(d, TR_STREAM_COMPUTE, &held_ops[i]);
    n_ops = 0;
    return r;
}

/* Behind all compute so far, whatever they would have waited for. */
static int queue_outs(struct tr_device *d)
{
    int r = n_outs ? sound->record(d, TR_STREAM_COMPUTE, all) : 0;

    if (r == 0 && n_outs)
        r = sound->wait(d, TR_STREAM_OUT, all);
    for (int i = 0; i < n_outs && r == 0; i++) {
        const struct out *o = &held_outs[i];

        r = o->event ? sound->record(d, TR_STREAM_OUT, o->event)
                     : sound->copy_out(d, TR_STREAM_OUT, o->host, o->from, o->bytes);
    }
    n_outs = 0;
    return r;
}

static int queue_held(struct tr_device *d)
{
    int r = queue_ops(d);

    return r < 0 ? r : queue_outs(d);
}

static int late_run(struct tr_device *d, enum tr_stream s, const struct tr_op *op)
{
    has_copied = 0;
    if (!is_held(s))
        return sound->run(d, s, op);
    assert(n_ops < HELD);
    held_ops[n_ops++] = *op;
    return 0;
}

static int late_copy_in(struct tr_device *d, enum tr_stream s, void *to, const void *host,
                        size_t bytes)
{
    int r = is_held(s) ? queue_held(d) : 0;

    if (s == TR_STREAM_COMPUTE)
        has_copied = 1;
    for (int i = 1; i < SLOW && r == 0 && late.slow && s == TR_STREAM_COMPUTE; i++)
        r = sound->copy_in(d, s, to, host, bytes);
    return r < 0 ? r : sound->copy_in(d, s, to, host, bytes);
}

static int late_fill(struct tr_device *d, enum tr_stream s, void *to, int byte, size_t bytes)
{
    int r = is_held(s) ? queue_held(d) : 0;

    return r < 0 ? r : sound->fill(d, s, to, byte, bytes);
}

static int late_copy_out(struct tr_device *d, enum tr_stream s, void *host, const void *from,
                         size_t bytes)
{
    int mine = pthread_equal(pthread_self(), caller), r = 0;

    if (is_held(s) && s == TR_STREAM_OUT) {
        assert(n_outs < HELD);
        held_outs[n_outs++] = (struct out){.host = host, .from = from, .bytes = bytes};
        return 0;
    }
    if (is_held(s))
        r = queue_held(d);
    if (r == 0)
        r = sound->copy_out(d, s, host, from, bytes);
    return r == 0 && mine && s == TR_STREAM_OUT ? sound->sync(d, s) : r;
}

static int late_record(struct tr_device *d, enum tr_stream s, struct tr_event *e)
{
    int r = 0;

    if (is_held(s) && s == TR_STREAM_OUT) {
        assert(n_outs < HELD);
        held_outs[n_outs++] = (struct out){.event = e};
        return 0;
    }
    if (is_held(s) && late.deaf)
        return 0;
    if (s == TR_STREAM_COMPUTE && has_copied && e != copied[1]) {
        copied[0] = copied[1];
        copied[1] = e;
    }
    if (is_held(s))
        r = queue_held(d);
    return r < 0 ? r : sound->record(d, s, e);
}

static int late_wait(struct tr_device *d, enum tr_stream s, struct tr_event *e)
{
    int r;

    if (is_held(s) && s == TR_STREAM_OUT) /* see queue_outs */
        return 0;
    if (!is_held(s) && late.deaf)
        return 0;
    if (late.rash && (e == copied[0] || e == copied[1]))
        return 0;
    r = queue_held(d);
    return r < 0 ? r : sound->wait(d, s, e);
}

static int late_call(struct tr_device *d, enum tr_stream s, void (*fn)(void *arg), void *arg)
{
    int r = 0;

    if (is_held(s) && late.hasty) {
        fn(arg);
        return 0;
    }
    if (is_held(s))
        r = queue_held(d);
    return r < 0 ? r : sound->call(d, s, fn, arg);
}

static int late_sync(struct tr_device *d, enum tr_stream s)
{
    int r = is_held(s) ? queue_held(d) : 0;

    return r < 0 ? r : sound->sync(d, s);
}

/* Before the run closes its device. */
static void late_close(struct tr_device *d)
{
    sound->event_close(d, all);
    sound->close(d);
}

void late_open(struct tr_run *run, const struct late *params)
{
    sound = run->device->ops;
    ops = *sound;
    ops.close = late_close;
    ops.run = late_run;
    ops.copy_in = late_copy_in;
    ops.copy_out = late_copy_out;
    ops.fill = late_fill;
    ops.record = late_record;
    ops.wait = late_wait;
    ops.call = late_call;
    ops.sync = late_sync;
    late = *params;
    caller = pthread_self();
    n_ops = n_outs = has_copied = 0;
    copied[0] = copied[1] = NULL;
    if (sound->event_open(run->device, &all) == 0)
        run->device->ops = &ops;
}
