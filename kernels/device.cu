/* SPDX-License-Identifier: Apache-2.0
 *
 * The cuda device: the table of src/base/device.h on the CUDA runtime. Three streams that know
 * nothing of the default stream; an op is queued by the calling thread, so that what is wrong with
 * its arguments is known at once and kept, like any error of an op, until the next sync.
 *
 * What goes wrong while kernels run comes back from any later call. Whether such an error is the
 * end of the device is for the driver to say: after every failure a stream is asked, and if it
 * answers with an error too, the first message is kept for good and every later call returns it at
 * once.
 *
 * The driver may run the functions of `call` of all streams on one thread: none may wait. And a
 * stream stands still from the moment it reaches a function until the host has run it and the
 * driver has heard of that. So each stream has a second one for its functions, which follows it by
 * an event, and the stream itself goes on.
 */
#include "kernels/device.h"

#include <stdio.h>
#include <string.h>
#include <sys/mman.h>

#include "kernels/matmul.h"

#define HOST_PAGE 4096ull /* what drives want buffers aligned to */

static struct tr_cuda_device *of(const struct tr_device *d)
{
    return (struct tr_cuda_device *)d;
}

/* Asked of the driver every time: the thread is the caller's, and other code on it may have made
 * another GPU current since. It costs far less than a launch. */
int tr_cuda_use(int ordinal)
{
    cudaError_t e = cudaSetDevice(ordinal);

    return e == cudaSuccess ? 0 : tr_cuda_error(e, "cannot use GPU %d", ordinal);
}

/* The same where something is given back: a failure must not replace the message that tells why. */
static void use_quietly(const struct tr_cuda_device *d)
{
    if (cudaSetDevice(d->ordinal) != cudaSuccess)
        cudaGetLastError();
}

/* ---- kept errors ---- */

static void keep(struct tr_cuda_kept *kept, int code)
{
    if (kept->code)
        return;
    kept->code = code;
    snprintf(kept->message, sizeof(kept->message), "%s", tr_cuda_host->message());
}

static int kept_error(const struct tr_cuda_kept *kept)
{
    return kept->code ? tr_cuda_host->error(kept->code, kept->message) : 0;
}

/* After a failure with its message kept: for good, if the driver has given up the device. cuBLASLt
 * does not tell why it fails then: the driver does. */
static int judge(struct tr_cuda_device *d, int code)
{
    cudaError_t e = cudaStreamQuery(d->streams[TR_STREAM_COMPUTE]);
    char first[256];

    if (e == cudaSuccess || e == cudaErrorNotReady)
        return code;
    cudaGetLastError();
    if (strstr(tr_cuda_host->message(), "CUBLAS_STATUS_")) {
        snprintf(first, sizeof(first), "%s", tr_cuda_host->message());
        code = tr_cuda_error(e, "%s", first);
    }
    pthread_mutex_lock(&d->lock);
    keep(&d->lost, code);
    pthread_mutex_unlock(&d->lock);
    return code;
}

/* Before every call: 0 where the device is alive and this thread's own. */
static int enter(struct tr_cuda_device *d)
{
    int error;

    pthread_mutex_lock(&d->lock);
    error = kept_error(&d->lost);
    pthread_mutex_unlock(&d->lock);
    return error ? error : tr_cuda_use(d->ordinal);
}

static int leave(struct tr_cuda_device *d, cudaError_t e, const char *what)
{
    return e == cudaSuccess ? 0 : judge(d, tr_cuda_error(e, "%s", what));
}

/* ---- memory ---- */

static void *device_arena(struct tr_device *device)
{
    return of(device)->arena;
}

/* Pages of the driver's, whole and zeroed as ours are; NULL where it has none to give either. */
static void *alloc_pinned(struct tr_cuda_device *d, size_t bytes)
{
    struct tr_cuda_pinned *pinned = (struct tr_cuda_pinned *)tr_cuda_host->alloc(sizeof(*pinned));

    if (!pinned)
        return NULL;
    if (cudaHostAlloc(&pinned->base, bytes + HOST_PAGE, cudaHostAllocPortable) != cudaSuccess) {
        cudaGetLastError();
        tr_cuda_host->free(pinned);
        return NULL;
    }
    pinned->p = (char *)(((uintptr_t)pinned->base + HOST_PAGE - 1) / HOST_PAGE * HOST_PAGE);
    memset(pinned->p, 0, bytes);
    tr_cuda_host->count_pages((int64_t)bytes);
    pthread_mutex_lock(&d->lock);
    pinned->next = d->pinned;
    d->pinned = pinned;
    pthread_mutex_unlock(&d->lock);
    return pinned->p;
}

/* 1 where p was of the driver's, and is its own again. */
static int free_pinned(struct tr_cuda_device *d, const void *p, size_t bytes)
{
    struct tr_cuda_pinned **at = &d->pinned, *pinned;

    pthread_mutex_lock(&d->lock);
    while (*at && (*at)->p != p)
        at = &(*at)->next;
    pinned = *at;
    if (pinned)
        *at = pinned->next;
    pthread_mutex_unlock(&d->lock);
    if (!pinned)
        return 0;
    if (cudaFreeHost(pinned->base) != cudaSuccess)
        cudaGetLastError(); /* the device is lost */
    tr_cuda_host->free(pinned);
    tr_cuda_host->count_pages(-(int64_t)bytes);
    return 1;
}

/* Pages of the program's own that the driver pins, rather than pages of the driver's: they are on
 * the node and of the size that were chosen, and disk I/O may register them too. Some drivers pin
 * only what they gave themselves; where neither is to be had, pages that are not pinned serve. */
static void *device_host_alloc(struct tr_device *device, size_t bytes)
{
    struct tr_cuda_device *d = of(device);
    void *p = tr_cuda_host->alloc_pages(bytes);
    cudaError_t e;

    if (!p || bytes == 0 || enter(d))
        return p;
    /* Pinning touches every page: of 2 MiB there are far fewer, where the system has them, and
     * homes are pinned between two reads of the first step. */
    madvise(p, bytes, MADV_HUGEPAGE);
    e = cudaHostRegister(p, bytes, cudaHostRegisterPortable);
    if (e == cudaSuccess)
        return p;
    cudaGetLastError();
    tr_cuda_host->free_pages(p, bytes); /* what was touched of it would be there twice */
    p = alloc_pinned(d, bytes);
    if (p)
        return p;
    pthread_mutex_lock(&d->lock);
    snprintf(d->remark, sizeof(d->remark),
             "the driver does not pin host memory (%s; see ulimit -l): copies to and from the GPU "
             "are slower",
             cudaGetErrorName(e));
    pthread_mutex_unlock(&d->lock);
    return tr_cuda_host->alloc_pages(bytes);
}

static void device_host_free(struct tr_device *device, void *p, size_t bytes)
{
    if (!p)
        return;
    use_quietly(of(device));
    if (free_pinned(of(device), p, bytes))
        return;
    if (bytes > 0 && cudaHostUnregister(p) != cudaSuccess)
        cudaGetLastError(); /* it was never pinned, or the device is lost */
    tr_cuda_host->free_pages(p, bytes);
}

static int device_copy_in(struct tr_device *device, enum tr_stream s, void *to, const void *host,
                          size_t bytes)
{
    struct tr_cuda_device *d = of(device);
    int error = enter(d);

    if (error || bytes == 0)
        return error;
    return leave(d, cudaMemcpyAsync(to, host, bytes, cudaMemcpyHostToDevice, d->streams[s]),
                 "a copy to the device");
}

static int device_copy_out(struct tr_device *device, enum tr_stream s, void *host, const void *from,
                           size_t bytes)
{
    struct tr_cuda_device *d = of(device);
    int error = enter(d);

    if (error || bytes == 0)
        return error;
    return leave(d, cudaMemcpyAsync(host, from, bytes, cudaMemcpyDeviceToHost, d->streams[s]),
                 "a copy from the device");
}

static int device_fill(struct tr_device *device, enum tr_stream s, void *to, int byte, size_t bytes)
{
    struct tr_cuda_device *d = of(device);
    int error = enter(d);

    if (error || bytes == 0)
        return error;
    return leave(d, cudaMemsetAsync(to, byte, bytes, d->streams[s]), "a fill of device memory");
}

/* ---- work ---- */

static int device_run(struct tr_device *device, enum tr_stream s, const struct tr_op *op)
{
    struct tr_cuda_device *d = of(device);
    int error = enter(d);

    if (error)
        return error;
    if (s != TR_STREAM_COMPUTE)
        return tr_cuda_refuse(-EINVAL, "ops run on the compute stream, not on stream %d", (int)s);
    pthread_mutex_lock(&d->run_lock);
    tr_cuda_times_begin(d->times, op, d->cuda.stream);
    error = tr_cuda_run(&d->cuda, op);
    tr_cuda_times_end(d->times, d->cuda.stream);
    if (!error)
        error = tr_cuda_pace_keep(&d->pace, d->cuda.stream, op);
    pthread_mutex_unlock(&d->run_lock);
    if (!error)
        return 0;
    error = judge(d, error);
    pthread_mutex_lock(&d->lock);
    keep(&d->op, error);
    pthread_mutex_unlock(&d->lock);
    return 0;
}

/* The caller's stream goes on where the other one is now. Its lock is held. */
static cudaError_t follow(struct tr_cuda_device *d, enum tr_stream s)
{
    struct tr_cuda_caller *caller = &d->callers[s];
    cudaError_t e = cudaEventRecord(caller->due, d->streams[s]);

    return e == cudaSuccess ? cudaStreamWaitEvent(caller->stream, caller->due, 0) : e;
}

static int device_call(struct tr_device *device, enum tr_stream s, void (*fn)(void *arg), void *arg)
{
    struct tr_cuda_device *d = of(device);
    struct tr_cuda_caller *caller = &d->callers[s];
    int error = enter(d);
    cudaError_t e;

    if (error)
        return error;
    pthread_mutex_lock(&caller->lock);
    e = follow(d, s);
    if (e == cudaSuccess)
        e = cudaLaunchHostFunc(caller->stream, fn, arg);
    pthread_mutex_unlock(&caller->lock);
    return leave(d, e, "a call in a stream");
}

static int device_event_open(struct tr_device *device, struct tr_event **out)
{
    struct tr_cuda_device *d = of(device);
    int error = enter(d);
    struct tr_event *e;

    if (error)
        return error;
    e = (struct tr_event *)tr_cuda_host->alloc(sizeof(*e));
    if (!e)
        return -ENOMEM;
    error = leave(d, cudaEventCreateWithFlags(&e->event, cudaEventDisableTiming), "an event");
    if (error) {
        tr_cuda_host->free(e);
        return error;
    }
    *out = e;
    return 0;
}

static void device_event_close(struct tr_device *device, struct tr_event *e)
{
    if (!e)
        return;
    use_quietly(of(device));
    if (cudaEventDestroy(e->event) != cudaSuccess)
        cudaGetLastError();
    tr_cuda_host->free(e);
}

static int device_record(struct tr_device *device, enum tr_stream s, struct tr_event *e)
{
    struct tr_cuda_device *d = of(device);
    int error = enter(d);

    return error ? error
                 : leave(d, cudaEventRecord(e->event, d->streams[s]), "the record of an event");
}

static int device_wait(struct tr_device *device, enum tr_stream s, struct tr_event *e)
{
    struct tr_cuda_device *d = of(device);
    int error = enter(d);

    return error
               ? error
               : leave(d, cudaStreamWaitEvent(d->streams[s], e->event, 0), "the wait for an event");
}

/* Asleep, which the wait for a stream is not: the last ops of a step may take seconds, and the core
 * is wanted for checksums and updates. The caller's stream follows the other, and ends after it. */
static cudaError_t wait_for_end(struct tr_cuda_device *d, enum tr_stream s)
{
    struct tr_cuda_caller *caller = &d->callers[s];
    cudaError_t e;

    pthread_mutex_lock(&caller->lock);
    e = follow(d, s);
    if (e == cudaSuccess)
        e = cudaEventRecord(caller->end, caller->stream);
    pthread_mutex_unlock(&caller->lock);
    return e == cudaSuccess ? cudaEventSynchronize(caller->end) : e;
}

static int device_sync(struct tr_device *device, enum tr_stream s)
{
    struct tr_cuda_device *d = of(device);
    int error = enter(d);

    if (!error)
        error = leave(d, wait_for_end(d, s), "the work on the device");
    pthread_mutex_lock(&d->lock);
    if (d->op.code) /* it came first */
        error = kept_error(&d->op);
    d->op.code = 0;
    pthread_mutex_unlock(&d->lock);
    return error;
}

static int device_error(struct tr_device *device)
{
    struct tr_cuda_device *d = of(device);
    int error = enter(d);
    cudaError_t e;

    if (error)
        return error;
    e = cudaStreamQuery(d->streams[TR_STREAM_COMPUTE]);
    if (e != cudaSuccess && e != cudaErrorNotReady)
        return judge(d, tr_cuda_error(e, "the work on the device"));
    pthread_mutex_lock(&d->lock);
    error = kept_error(&d->op);
    pthread_mutex_unlock(&d->lock);
    return error;
}

/* ---- what it is ---- */

static void device_info(const struct tr_device *device, struct tr_device_info *info)
{
    struct tr_cuda_device *d = of(device);

    *info = {};
    info->arena_bytes = d->arena_bytes;
    info->workspace_bytes = d->workspace_bytes;
    info->grain_tokens = tr_cuda_large(&d->cuda) ? TR_GRAIN_LARGE : TR_GRAIN_CUDA;
    for (int t = 0; t < TR_DTYPES; t++)
        info->compute[t] = (enum tr_dtype)t;
    snprintf(info->name, sizeof(info->name), "%s", d->name);
    snprintf(info->bits, sizeof(info->bits), "%s", d->bits);
    pthread_mutex_lock(&d->lock);
    snprintf(info->remark, sizeof(info->remark), "%s", d->remark);
    pthread_mutex_unlock(&d->lock);
}

static size_t device_choices(struct tr_device *device, char *text, size_t room)
{
    struct tr_cuda_device *d = of(device);
    size_t n;

    pthread_mutex_lock(&d->run_lock);
    n = tr_cuda_matmul_describe(d->cuda.matmul, text, room);
    pthread_mutex_unlock(&d->run_lock);
    return n;
}

static size_t device_times(struct tr_device *device, char *text, size_t room)
{
    struct tr_cuda_device *d = of(device);
    size_t n;

    if (enter(d))
        return 0;
    pthread_mutex_lock(&d->run_lock);
    n = tr_cuda_times_describe(d->times, text, room);
    pthread_mutex_unlock(&d->run_lock);
    return n;
}

static void close_streams(struct tr_cuda_device *d)
{
    tr_cuda_pace_close(&d->pace);
    for (int s = 0; s < TR_STREAMS; s++) {
        if (d->streams[s])
            cudaStreamDestroy(d->streams[s]);
        if (d->callers[s].stream)
            cudaStreamDestroy(d->callers[s].stream);
        if (d->callers[s].due)
            cudaEventDestroy(d->callers[s].due);
        if (d->callers[s].end)
            cudaEventDestroy(d->callers[s].end);
        pthread_mutex_destroy(&d->callers[s].lock);
    }
}

void tr_cuda_close(struct tr_device *device)
{
    struct tr_cuda_device *d = of(device);

    for (int s = 0; s < TR_STREAMS; s++) {
        if (d->streams[s])
            cudaStreamSynchronize(d->streams[s]);
        if (d->callers[s].stream)
            cudaStreamSynchronize(d->callers[s].stream);
    }
    tr_cuda_times_close(d->times);
    tr_cuda_matmul_close(d->cuda.matmul);
    close_streams(d);
    if (d->memory) {
        cudaFree(d->memory);
        tr_cuda_memory_take(d->ordinal, -(int64_t)d->memory_bytes);
    }
    cudaGetLastError();
    pthread_mutex_destroy(&d->run_lock);
    pthread_mutex_destroy(&d->lock);
    tr_cuda_host->free(d);
}

static void device_close(struct tr_device *device)
{
    use_quietly(of(device));
    tr_cuda_close(device);
}

/* By name and not by position, which C++17 has no other way to say. */
static struct tr_device_ops make_ops(void)
{
    struct tr_device_ops t = {};

    t.close = device_close;
    t.info = device_info;
    t.arena = device_arena;
    t.host_alloc = device_host_alloc;
    t.host_free = device_host_free;
    t.copy_in = device_copy_in;
    t.copy_out = device_copy_out;
    t.fill = device_fill;
    t.run = device_run;
    t.call = device_call;
    t.event_open = device_event_open;
    t.event_close = device_event_close;
    t.record = device_record;
    t.wait = device_wait;
    t.sync = device_sync;
    t.error = device_error;
    t.choices = device_choices;
    t.times = device_times;
    return t;
}

const struct tr_device_ops tr_cuda_ops = make_ops();
