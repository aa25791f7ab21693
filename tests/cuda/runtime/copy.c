/* SPDX-License-Identifier: Apache-2.0
 *
 * Copies, fills and host functions. A copy reads its source when it runs, not when it is queued,
 * but for pageable host memory, which CUDA may stage: the source is read in the call, and a copy to
 * pageable memory is done when the call returns. CUDA promises neither ("might be synchronous"),
 * and where streams are delayed neither is so. Device pointers must lie in live device memory, host
 * pointers must not.
 */
#include <stdlib.h>
#include <string.h>

#include "tests/cuda/runtime/runtime.h"

struct copy_command {
    struct fake_command base;
    void *dst;
    const void *src;
    size_t bytes;
    int value;    /* of a fill */
    void *staged; /* owned */
};

static void run_copy(struct fake_command *base)
{
    struct copy_command *c = (struct copy_command *)base;

    fake_memory_open();
    memcpy(c->dst, c->src, c->bytes);
    fake_memory_close();
}

static void run_fill(struct fake_command *base)
{
    struct copy_command *c = (struct copy_command *)base;

    fake_memory_open();
    memset(c->dst, c->value, c->bytes);
    fake_memory_close();
}

static void destroy_copy(struct fake_command *base)
{
    free(((struct copy_command *)base)->staged);
}

static struct copy_command *new_command(void *dst, const void *src, size_t bytes)
{
    struct copy_command *c = fake_command_new(sizeof(*c));

    c->base.run = run_copy;
    c->base.destroy = destroy_copy;
    c->base.fault = fake_take_planned_fault();
    c->dst = dst;
    c->src = src;
    c->bytes = bytes;
    return c;
}

/* Whether the places fit the kind of copy. */
static cudaError_t check(enum fake_place dst, enum fake_place src, enum cudaMemcpyKind kind)
{
    int to_device = dst == FAKE_AT_DEVICE, from_device = src == FAKE_AT_DEVICE;

    if (kind < cudaMemcpyHostToHost || kind > cudaMemcpyDefault)
        return cudaErrorInvalidMemcpyDirection;
    if (dst == FAKE_AT_NOWHERE || src == FAKE_AT_NOWHERE)
        return cudaErrorInvalidValue;
    if (kind != cudaMemcpyDefault && (int)kind != to_device + 2 * from_device)
        return cudaErrorInvalidValue;
    return cudaSuccess;
}

static cudaError_t copy_async(void *dst, const void *src, size_t bytes, enum cudaMemcpyKind kind,
                              cudaStream_t stream)
{
    enum fake_place to = fake_place_of(dst, bytes), from = fake_place_of(src, bytes);
    cudaError_t e = fake_stream_check(stream);
    int stages = !fake_state.options.delay, waits;
    struct copy_command *c;

    if (!e && bytes)
        e = check(to, from, kind);
    if (e || !bytes)
        return e;
    waits = to == FAKE_AT_PAGEABLE && stages;
    c = new_command(dst, src, bytes);
    if (from == FAKE_AT_PAGEABLE && stages && !waits) {
        c->staged = malloc(bytes);
        if (!c->staged)
            abort();
        c->src = memcpy(c->staged, src, bytes);
    }
    fake_push(stream, &c->base);
    if (!waits)
        return cudaSuccess;
    fake_stream_drain(stream);
    return fake_surface();
}

cudaError_t cudaMemcpyAsync(void *dst, const void *src, size_t count, enum cudaMemcpyKind kind,
                            cudaStream_t stream)
{
    cudaError_t e = fake_enter("cudaMemcpyAsync", FAKE_QUEUES);

    return fake_leave(e ? e : copy_async(dst, src, count, kind, stream));
}

/* CUDA runs this on the default stream, which does not wait for the non-blocking ones. */
cudaError_t cudaMemcpy(void *dst, const void *src, size_t count, enum cudaMemcpyKind kind)
{
    cudaError_t e = fake_enter("cudaMemcpy", 0);

    if (!e)
        e = fake_surface();
    if (!e && count)
        e = check(fake_place_of(dst, count), fake_place_of(src, count), kind);
    if (!e && count) {
        fake_memory_open();
        memcpy(dst, src, count);
        fake_memory_close();
    }
    return fake_leave(e);
}

cudaError_t cudaMemsetAsync(void *devPtr, int value, size_t count, cudaStream_t stream)
{
    cudaError_t e = fake_enter("cudaMemsetAsync", FAKE_QUEUES);
    struct copy_command *c;

    if (!e)
        e = fake_stream_check(stream);
    if (!e && count && fake_place_of(devPtr, count) != FAKE_AT_DEVICE)
        e = cudaErrorInvalidValue;
    if (e || !count)
        return fake_leave(e);
    c = new_command(devPtr, NULL, count);
    c->base.run = run_fill;
    c->value = value;
    fake_push(stream, &c->base);
    return cudaSuccess;
}

struct host_command {
    struct fake_command base;
    cudaHostFn_t fn;
    void *data;
};

static void run_host(struct fake_command *base)
{
    struct host_command *c = (struct host_command *)base;

    fake_set_in_callback(1);
    c->fn(c->data);
    fake_set_in_callback(0);
}

/* As in CUDA, a function that is queued behind a failure is never called. */
cudaError_t cudaLaunchHostFunc(cudaStream_t stream, cudaHostFn_t fn, void *userData)
{
    cudaError_t e = fake_enter("cudaLaunchHostFunc", 0);
    struct host_command *c;

    if (!e && !fn)
        e = cudaErrorInvalidValue;
    if (!e)
        e = fake_stream_check(stream);
    if (e)
        return fake_leave(e);
    c = fake_command_new(sizeof(*c));
    c->base.run = run_host;
    c->fn = fn;
    c->data = userData;
    fake_push(stream, &c->base);
    return cudaSuccess;
}
