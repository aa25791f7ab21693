/* SPDX-License-Identifier: Apache-2.0 */
#include "src/plan/counter.h"

#include <stdio.h>
#include <string.h>
#include <sys/mman.h>

#include "src/base/err.h"
#include "src/base/mem.h"

#define PAGE 4096u

static struct tr_counter *of(const struct tr_device *d)
{
    return (struct tr_counter *)d;
}

static void counter_close(struct tr_device *d)
{
    struct tr_counter *c = of(d);

    if (c->arena)
        munmap(c->arena, c->info.arena_bytes + PAGE);
    tr_free(TR_MEM_MISC, c);
}

static void counter_info(const struct tr_device *d, struct tr_device_info *info)
{
    *info = of(d)->info;
}

static void *counter_arena(struct tr_device *d)
{
    return of(d)->arena;
}

static void *counter_host_alloc(struct tr_device *d, size_t bytes)
{
    (void)d;
    return tr_alloc_pages(TR_MEM_IO, bytes);
}

static void counter_host_free(struct tr_device *d, void *p, size_t bytes)
{
    (void)d;
    tr_free_pages(TR_MEM_IO, p, bytes);
}

/* It begins when what has been queued for compute is done. */
static void copy_out(struct tr_counter *c, size_t bytes)
{
    c->out_bytes += bytes;
    c->out_until = c->out_until > c->seconds ? c->out_until : c->seconds;
    if (c->figures->out > 0)
        c->out_until += (double)bytes / c->figures->out;
}

/* Of the other streams only what the pass itself has them do, and that is copies out. */
static int counter_copy(struct tr_device *d, enum tr_stream s, void *to, const void *from,
                        size_t bytes)
{
    (void)to;
    (void)from;
    if (s == TR_STREAM_COMPUTE && of(d)->figures->in > 0)
        of(d)->seconds += (double)bytes / of(d)->figures->in;
    if (s == TR_STREAM_OUT)
        copy_out(of(d), bytes);
    return 0;
}

/* A fill writes half of what a cast moves. */
static int counter_fill(struct tr_device *d, enum tr_stream s, void *to, int byte, size_t bytes)
{
    const double *cost = of(d)->figures->cost[TR_COST_ADD][TR_WIDTH_32];

    (void)s;
    (void)to;
    (void)byte;
    of(d)->seconds += cost[TR_TERM_ONCE] + cost[TR_TERM_WORK] * (double)bytes;
    return 0;
}

static int counter_run(struct tr_device *d, enum tr_stream s, const struct tr_op *op)
{
    (void)s;
    of(d)->seconds += tr_figures_seconds(of(d)->figures, op);
    of(d)->ops++;
    return 0;
}

static int counter_call(struct tr_device *d, enum tr_stream s, void (*fn)(void *arg), void *arg)
{
    (void)d;
    (void)s;
    fn(arg);
    return 0;
}

static int counter_event_open(struct tr_device *d, struct tr_event **out)
{
    (void)d;
    *out = NULL;
    return 0;
}

static void counter_event_close(struct tr_device *d, struct tr_event *e)
{
    (void)d;
    (void)e;
}

static int counter_record(struct tr_device *d, enum tr_stream s, struct tr_event *e)
{
    (void)d;
    (void)s;
    (void)e;
    return 0;
}

/* Compute waits for nothing but copies out. */
static int counter_wait(struct tr_device *d, enum tr_stream s, struct tr_event *e)
{
    struct tr_counter *c = of(d);

    (void)e;
    if (s == TR_STREAM_COMPUTE && c->out_until > c->seconds)
        c->seconds = c->out_until;
    return 0;
}

static int counter_sync(struct tr_device *d, enum tr_stream s)
{
    (void)d;
    (void)s;
    return 0;
}

static int counter_error(struct tr_device *d)
{
    (void)d;
    return 0;
}

static const struct tr_device_ops counter_ops = {
    .close = counter_close,
    .info = counter_info,
    .arena = counter_arena,
    .host_alloc = counter_host_alloc,
    .host_free = counter_host_free,
    .copy_in = counter_copy,
    .copy_out = counter_copy,
    .fill = counter_fill,
    .run = counter_run,
    .call = counter_call,
    .event_open = counter_event_open,
    .event_close = counter_event_close,
    .record = counter_record,
    .wait = counter_wait,
    .sync = counter_sync,
    .error = counter_error,
};

int tr_counter_open(struct tr_counter **out, const struct tr_figures *figures,
                    const struct tr_device_info *info)
{
    struct tr_counter *c = tr_alloc(TR_MEM_MISC, sizeof(*c));
    void *arena;

    if (!c)
        return -ENOMEM;
    c->device.ops = &counter_ops;
    c->figures = figures;
    c->info = *info;
    arena = mmap(NULL, info->arena_bytes + PAGE, PROT_NONE,
                 MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (arena == MAP_FAILED) {
        tr_free(TR_MEM_MISC, c);
        return tr_error(-ENOMEM, "cannot reserve %llu bytes of addresses",
                        (unsigned long long)info->arena_bytes);
    }
    c->arena = arena;
    *out = c;
    return 0;
}

int tr_counter_info(const struct tr_figures *figures, uint64_t budget, uint64_t pinned,
                    struct tr_device_info *info)
{
    uint64_t tables = figures->cuda ? tr_pinned_tables(pinned) : 0;
    uint64_t own = figures->workspace_bytes + tables;

    memset(info, 0, sizeof(*info));
    if (budget < own + PAGE)
        return tr_error(-EINVAL,
                        "a device memory of %llu bytes is too small: %s takes %llu for itself",
                        (unsigned long long)budget, figures->name, (unsigned long long)own);
    snprintf(info->name, sizeof(info->name), "%s", figures->name);
    snprintf(info->bits, sizeof(info->bits), "%.*s", (int)sizeof(info->bits) - 1, figures->device);
    info->workspace_bytes = own;
    info->arena_bytes = (budget - own) / PAGE * PAGE;
    info->grain_tokens = figures->grain_tokens;
    info->host_visible = !figures->cuda;
    for (int t = 0; t < TR_DTYPES; t++)
        info->compute[t] = figures->cuda ? (enum tr_dtype)t : TR_F32;
    return 0;
}
