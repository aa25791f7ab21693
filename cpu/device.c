/* SPDX-License-Identifier: Apache-2.0
 *
 * The cpu device: the table of src/base/device.h over an arena, three stream threads and one pool.
 * Owns all of them; knows the ops only by their kind. One mapping holds everything that the budget
 * bounds, with pages that fault between the parts:
 *
 *     | guard | scratch of every worker | guard | arena | guard |
 *
 * Only the compute stream runs ops, and so only its thread uses the pool (as worker 0). The first
 * error of an op is kept, with its message, until a sync of any stream hands it out.
 */
#include <pthread.h>
#include <stdio.h>
#include <sys/mman.h>

#include "cpu/blas.h"
#include "cpu/run.h"
#include "cpu/stream.h"
#include "src/base/err.h"
#include "src/base/pages.h"
#include "src/base/thread.h"

#define PAGE 4096

struct tr_event {
    struct tr_cpu_stream *stream; /* of the last record; NULL before the first */
    uint64_t point;
};

struct cpu_device {
    struct tr_device base;
    struct tr_cpu_context context;
    char *mapping, *arena;
    size_t mapping_bytes, arena_bytes, workspace_bytes;
    struct tr_cpu_stream *streams[TR_STREAMS];
    int opaque;
    pthread_mutex_t lock; /* of the events and the kept error */
    int error;
    char message[512];
};

static struct cpu_device *of(const struct tr_device *d)
{
    return (struct cpu_device *)d;
}

/* ---- ops ---- */

static void run_and_keep(void *arg, const struct tr_op *op)
{
    struct cpu_device *d = arg;
    int error = tr_cpu_run(&d->context.cpu, op);

    if (!error)
        return;
    pthread_mutex_lock(&d->lock);
    if (!d->error) {
        d->error = error;
        snprintf(d->message, sizeof(d->message), "%s", tr_error_message());
    }
    pthread_mutex_unlock(&d->lock);
}

/* ---- the table ---- */

static int push(struct tr_device *device, enum tr_stream s, const struct tr_cpu_command *command)
{
    tr_cpu_stream_push(of(device)->streams[s], command);
    return 0;
}

static int device_copy(struct tr_device *device, enum tr_stream s, void *to, const void *from,
                       size_t bytes)
{
    struct tr_cpu_command c = {TR_COMMAND_COPY, .move = {.to = to, .from = from, .bytes = bytes}};

    return push(device, s, &c);
}

static int device_fill(struct tr_device *device, enum tr_stream s, void *to, int byte, size_t bytes)
{
    struct tr_cpu_command c = {TR_COMMAND_FILL, .move = {.to = to, .byte = byte, .bytes = bytes}};

    return push(device, s, &c);
}

static int device_run(struct tr_device *device, enum tr_stream s, const struct tr_op *op)
{
    struct tr_cpu_command c = {TR_COMMAND_OP, .op = *op};

    if (s != TR_STREAM_COMPUTE)
        return tr_error(-EINVAL, "ops run on the compute stream, not on stream %d", (int)s);
    return push(device, s, &c);
}

static int device_call(struct tr_device *device, enum tr_stream s, void (*fn)(void *arg), void *arg)
{
    struct tr_cpu_command c = {TR_COMMAND_CALL, .call = {fn, arg}};

    return push(device, s, &c);
}

static int device_event_open(struct tr_device *device, struct tr_event **out)
{
    (void)device;
    *out = tr_alloc(TR_MEM_MISC, sizeof(**out));
    return *out ? 0 : -ENOMEM;
}

static void device_event_close(struct tr_device *device, struct tr_event *e)
{
    (void)device;
    tr_free(TR_MEM_MISC, e);
}

static int device_record(struct tr_device *device, enum tr_stream s, struct tr_event *e)
{
    struct cpu_device *d = of(device);
    uint64_t point = tr_cpu_stream_point(d->streams[s]);

    pthread_mutex_lock(&d->lock);
    e->stream = d->streams[s];
    e->point = point;
    pthread_mutex_unlock(&d->lock);
    return 0;
}

static int device_wait(struct tr_device *device, enum tr_stream s, struct tr_event *e)
{
    struct cpu_device *d = of(device);
    struct tr_cpu_command c = {TR_COMMAND_WAIT, .wait = {0}};

    pthread_mutex_lock(&d->lock);
    c.wait.stream = e->stream;
    c.wait.point = e->point;
    pthread_mutex_unlock(&d->lock);
    if (!c.wait.stream || c.wait.stream == d->streams[s])
        return 0;
    return push(device, s, &c);
}

static int device_sync(struct tr_device *device, enum tr_stream s)
{
    struct cpu_device *d = of(device);
    int error;

    tr_cpu_stream_await(d->streams[s], tr_cpu_stream_point(d->streams[s]));
    pthread_mutex_lock(&d->lock);
    error = d->error ? tr_error(d->error, "%s", d->message) : 0;
    d->error = 0;
    pthread_mutex_unlock(&d->lock);
    return error;
}

static int device_error(struct tr_device *device)
{
    struct cpu_device *d = of(device);
    int error;

    pthread_mutex_lock(&d->lock);
    error = d->error ? tr_error(d->error, "%s", d->message) : 0;
    pthread_mutex_unlock(&d->lock);
    return error;
}

static void *device_arena(struct tr_device *device)
{
    return of(device)->arena;
}

static void *device_host_alloc(struct tr_device *device, size_t bytes)
{
    (void)device;
    return tr_pages_alloc(TR_MEM_IO, bytes, TR_PAGES_LOCKED);
}

static void device_host_free(struct tr_device *device, void *p, size_t bytes)
{
    (void)device;
    tr_free_pages(TR_MEM_IO, p, bytes);
}

static void device_info(const struct tr_device *device, struct tr_device_info *info)
{
    const struct cpu_device *d = of(device);
    const char *tier = tr_cpu_tier_name(d->context.tier);
    const char *blas = tr_blas_bits(d->context.cpu.blas);

    *info = (struct tr_device_info){.arena_bytes = d->arena_bytes,
                                    .workspace_bytes = d->workspace_bytes,
                                    .host_visible = !d->opaque, /* compute[]: f32 from any */
                                    .grain_tokens = TR_GRAIN_CPU};
    snprintf(info->name, sizeof(info->name), "cpu (%s, %s)", tier, blas);
    snprintf(info->bits, sizeof(info->bits), "cpu %s, %s", tier, blas);
    snprintf(info->remark, sizeof(info->remark), "%s", tr_blas_remark(d->context.cpu.blas));
}

static void device_close(struct tr_device *device)
{
    struct cpu_device *d = of(device);

    for (int s = 0; s < TR_STREAMS; s++)
        tr_cpu_stream_stop(d->streams[s]);
    for (int s = 0; s < TR_STREAMS; s++)
        tr_cpu_stream_close(d->streams[s]);
    tr_cpu_context_close(&d->context);
    tr_free_pages(TR_MEM_ARENA, d->mapping, d->mapping_bytes);
    pthread_mutex_destroy(&d->lock);
    tr_free(TR_MEM_MISC, d);
}

static const struct tr_device_ops cpu_ops = {
    .close = device_close,
    .info = device_info,
    .arena = device_arena,
    .host_alloc = device_host_alloc,
    .host_free = device_host_free,
    .copy_in = device_copy,
    .copy_out = device_copy,
    .fill = device_fill,
    .run = device_run,
    .call = device_call,
    .event_open = device_event_open,
    .event_close = device_event_close,
    .record = device_record,
    .wait = device_wait,
    .sync = device_sync,
    .error = device_error,
};

/* ---- opening ---- */

static int threads_of(const struct tr_device_params *p)
{
    return p->threads > 0 ? p->threads : tr_thread_cores();
}

uint64_t tr_device_cpu_workspace(const struct tr_device_params *p)
{
    return (uint64_t)threads_of(p) * tr_cpu_scratch_bytes(p->f32_only) + 3 * PAGE;
}

static int map_memory(struct cpu_device *d, const struct tr_device_params *p)
{
    size_t scratch = (size_t)threads_of(p) * tr_cpu_scratch_bytes(p->f32_only);

    d->workspace_bytes = (size_t)tr_device_cpu_workspace(p);
    if (p->memory_bytes < d->workspace_bytes + PAGE)
        return tr_error(-EINVAL,
                        "a device memory of %llu bytes is too small: the cpu device itself needs "
                        "%zu with %d threads",
                        (unsigned long long)p->memory_bytes, d->workspace_bytes + PAGE,
                        threads_of(p));
    d->arena_bytes = (size_t)(p->memory_bytes - d->workspace_bytes) / PAGE * PAGE;
    d->mapping_bytes = d->workspace_bytes + d->arena_bytes;
    d->mapping = tr_alloc_pages_aligned(TR_MEM_ARENA, d->mapping_bytes, 2 * PAGE + scratch);
    if (!d->mapping)
        return -ENOMEM;
    d->context.cpu.scratch = d->mapping + PAGE;
    d->context.cpu.f32_only = p->f32_only;
    d->arena = d->context.cpu.scratch + scratch + PAGE;
    if (mprotect(d->mapping, PAGE, PROT_NONE) || mprotect(d->arena - PAGE, PAGE, PROT_NONE) ||
        mprotect(d->arena + d->arena_bytes, PAGE, PROT_NONE))
        return tr_error(-errno, "cannot protect the guard pages of the device memory");
    tr_pages_improve(d->arena, d->arena_bytes, TR_PAGES_LOCKED);
    return 0;
}

static int open_streams(struct cpu_device *d, unsigned delay_seed)
{
    static const char *const names[TR_STREAMS] = {"tr-compute", "tr-in", "tr-out"};
    int error = 0;

    for (int s = 0; s < TR_STREAMS && !error; s++) {
        struct tr_cpu_stream_params params = {names[s], 0, run_and_keep, d};

        if (delay_seed)
            params.delay_seed = (uint64_t)(s + 1) << 32 | delay_seed;
        error = tr_cpu_stream_open(&d->streams[s], &params);
    }
    return error;
}

int tr_device_open_cpu(struct tr_device **out, const struct tr_device_params *p)
{
    struct cpu_device *d = tr_alloc(TR_MEM_MISC, sizeof(*d));
    int error;

    if (!d)
        return -ENOMEM;
    d->base.ops = &cpu_ops;
    d->opaque = p->opaque;
    pthread_mutex_init(&d->lock, NULL);
    error = tr_cpu_context_open(&d->context, p->tier, threads_of(p));
    if (!error)
        error = map_memory(d, p);
    if (!error)
        error = open_streams(d, p->delay_seed);
    if (!error)
        error = tr_blas_check_room(threads_of(p));
    if (error) {
        device_close(&d->base);
        return error;
    }
    *out = &d->base;
    return 0;
}
