/* SPDX-License-Identifier: Apache-2.0
 *
 * Streams, events, copies and launches of the fake runtime. A gate that holds a stream makes "not
 * yet run" a certainty, so that these tests do not hope for a delay; the two that do run until the
 * delay has struck.
 */
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "tests/cuda/runtime/harness.h"

static void events_order_streams(void **)
{
    char *x, *y;
    cudaStream_t a, b;
    cudaEvent_t e;
    struct gate *g;

    fresh("");
    x = static_cast<char *>(device_bytes(8));
    y = x + 4;
    a = new_stream();
    b = new_stream();
    e = new_event();
    OK(cudaMemsetAsync(x, 0, 8, a));
    OK(cudaStreamSynchronize(a));
    g = gate_close(a);
    OK(cudaMemsetAsync(x, 1, 4, a));
    OK(cudaEventRecord(e, a));

    /* without a wait the copy runs ahead */
    OK(cudaMemcpyAsync(y, x, 4, cudaMemcpyDeviceToDevice, b));
    OK(cudaStreamSynchronize(b));
    assert_int_equal(peek(y), 0);
    /* with one it does not */
    OK(cudaStreamWaitEvent(b, e, 0));
    OK(cudaMemcpyAsync(y, x, 4, cudaMemcpyDeviceToDevice, b));
    FAILS(cudaStreamQuery(b), cudaErrorNotReady);
    FAILS(cudaEventQuery(e), cudaErrorNotReady);
    assert_int_equal(peek(y), 0);
    gate_open(g);
    OK(cudaStreamSynchronize(b));
    assert_int_equal(peek(y), 0x01010101);
    OK(cudaStreamQuery(b));
    OK(cudaEventQuery(e));

    OK(cudaEventDestroy(e));
    OK(cudaStreamDestroy(a));
    OK(cudaStreamDestroy(b));
    OK(cudaFree(x));
    assert_int_equal(fake_leaks(), 0);
}

/* A wait means the latest record at the call, not a later one; no record, no wait. */
static void waits_mean_the_last_record(void **)
{
    cudaStream_t a, b;
    cudaEvent_t e;
    struct gate *g;

    fresh("");
    a = new_stream();
    b = new_stream();
    e = new_event();
    g = gate_close(a);
    OK(cudaStreamWaitEvent(b, e, 0));
    OK(cudaEventQuery(e));
    OK(cudaEventSynchronize(e));
    OK(cudaStreamSynchronize(b));
    OK(cudaEventRecord(e, b));
    OK(cudaStreamWaitEvent(b, e, 0));
    OK(cudaEventRecord(e, a));
    OK(cudaStreamSynchronize(b));
    FAILS(cudaEventQuery(e), cudaErrorNotReady);
    gate_open(g);
    OK(cudaEventSynchronize(e));
    OK(cudaEventDestroy(e));
    OK(cudaStreamDestroy(a));
    OK(cudaStreamDestroy(b));
}

/* Rounds until a copy has overtaken the fill it should have waited for. */
static int overtakes(const char *words, int with_event, int rounds)
{
    char *x;
    cudaStream_t a, b;
    cudaEvent_t e;
    int seen = 0;

    fresh(words);
    x = static_cast<char *>(device_bytes(8));
    a = new_stream();
    b = new_stream();
    e = new_event();
    for (int i = 1; i <= rounds && !seen; i++) {
        OK(cudaMemsetAsync(x, i & 0x7f, 4, a));
        OK(cudaEventRecord(e, a));
        if (with_event)
            OK(cudaStreamWaitEvent(b, e, 0));
        OK(cudaMemcpyAsync(x + 4, x, 4, cudaMemcpyDeviceToDevice, b));
        OK(cudaDeviceSynchronize());
        seen = peek(x + 4) == (i & 0x7f) * 0x01010101 ? 0 : i;
    }
    OK(cudaEventDestroy(e));
    OK(cudaStreamDestroy(a));
    OK(cudaStreamDestroy(b));
    OK(cudaFree(x));
    return seen;
}

static void delays_show_a_missing_event(void **)
{
    uint64_t before = fake_pauses();

    assert_int_equal(overtakes("", 1, 300), 0);
    assert_int_equal(fake_pauses(), before);
    assert_int_equal(overtakes("delay=1", 1, 300), 0);
    assert_int_equal(overtakes("delay=2", 1, 300), 0);
    assert_true(fake_pauses() > before + 300); /* of some 2400 commands */
    if (UNDER_TSAN)
        return; /* the next test is the sharper one */
    for (int seed = 1; seed <= 4; seed++) {
        char words[32];

        snprintf(words, sizeof(words), "delay=%d", seed);
        assert_int_not_equal(overtakes(words, 0, 2000), 0);
    }
}

/* The fill is long over when the copy is queued, and still nothing orders the two. */
static void copy_much_later(int with_event)
{
    char *x = static_cast<char *>(device_bytes(8));
    cudaStream_t a = new_stream(), b = new_stream();
    cudaEvent_t e = new_event();

    OK(cudaMemsetAsync(x, 1, 4, a));
    OK(cudaEventRecord(e, a));
    usleep(50000);
    OK(cudaMemsetAsync(x + 4, 1, 4, a)); /* going back to a stream must not order it */
    if (with_event)
        OK(cudaStreamWaitEvent(b, e, 0));
    OK(cudaMemcpyAsync(x, x, 0, cudaMemcpyDeviceToDevice, b));
    OK(cudaMemsetAsync(x, 2, 4, b));
    OK(cudaDeviceSynchronize());
    OK(cudaEventDestroy(e));
    OK(cudaStreamDestroy(a));
    OK(cudaStreamDestroy(b));
    OK(cudaFree(x));
}

static void with_event(void)
{
    copy_much_later(1);
}

static void without_event(void)
{
    copy_much_later(0);
}

static void tsan_sees_a_missing_event(void **)
{
    if (!UNDER_TSAN)
        skip();
    assert_int_equal(in_child(with_event, "leaks=86"), 0);
    assert_int_not_equal(in_child(without_event, "leaks=86"), 0);
    assert_non_null(strstr(child_text, "data race"));
}

static void pinned_sources_are_read_late(void **)
{
    int *x, *pinned, pageable = 1;
    cudaStream_t s;
    struct gate *g;

    fresh("");
    x = static_cast<int *>(device_bytes(8));
    pinned = static_cast<int *>(pinned_bytes(4));
    s = new_stream();
    g = gate_close(s);
    *pinned = 1;
    OK(cudaMemcpyAsync(x, pinned, 4, cudaMemcpyHostToDevice, s));
    OK(cudaMemcpyAsync(x + 1, &pageable, 4, cudaMemcpyHostToDevice, s));
    *pinned = 2;
    pageable = 2;
    gate_open(g);
    OK(cudaStreamSynchronize(s));
    assert_int_equal(peek(x), 2);
    assert_int_equal(peek(x + 1), 1);

    /* to pinned memory at any time, to pageable memory before the call returns */
    *pinned = 0;
    g = gate_close(s);
    OK(cudaMemcpyAsync(pinned, x + 1, 4, cudaMemcpyDeviceToHost, s));
    assert_int_equal(*pinned, 0);
    gate_open(g);
    OK(cudaStreamSynchronize(s));
    assert_int_equal(*pinned, 1);
    OK(cudaMemcpyAsync(&pageable, x + 1, 4, cudaMemcpyDeviceToHost, s));
    assert_int_equal(pageable, 1);

    OK(cudaStreamDestroy(s));
    OK(cudaFree(x));
    OK(cudaFreeHost(pinned));
}

/* CUDA need not stage pageable memory: where streams are delayed nothing is. */
static void pageable_memory_may_be_used_late(void **)
{
    int *x, pageable = 1, back = 0;
    cudaStream_t s;
    struct gate *g;

    fresh("delay=3");
    x = static_cast<int *>(device_bytes(4));
    s = new_stream();
    g = gate_close(s);
    OK(cudaMemcpyAsync(x, &pageable, 4, cudaMemcpyHostToDevice, s));
    OK(cudaMemcpyAsync(&back, x, 4, cudaMemcpyDeviceToHost, s));
    pageable = 2;
    assert_int_equal(back, 0);
    gate_open(g);
    OK(cudaStreamSynchronize(s));
    assert_int_equal(back, 2);
    OK(cudaStreamDestroy(s));
    OK(cudaFree(x));
}

static void registered_memory_is_pinned(void **)
{
    static int source[2];
    int *x;
    cudaStream_t s;
    struct gate *g;

    fresh("");
    x = static_cast<int *>(device_bytes(4));
    s = new_stream();
    OK(cudaHostRegister(source, 4, cudaHostRegisterDefault));
    g = gate_close(s);
    source[0] = 1;
    OK(cudaMemcpyAsync(x, source, 4, cudaMemcpyHostToDevice, s));
    source[0] = 2;
    FAILS(cudaMemcpyAsync(x, source, 8, cudaMemcpyHostToDevice, s), cudaErrorInvalidValue);
    gate_open(g);
    OK(cudaHostUnregister(source)); /* waits for the copy */
    assert_int_equal(peek(x), 2);
    OK(cudaStreamDestroy(s));
    OK(cudaFree(x));
}

static void a_destroyed_stream_finishes(void **)
{
    int *x;
    cudaStream_t s;
    cudaEvent_t e;
    struct gate *g;

    fresh("");
    x = static_cast<int *>(device_bytes(4));
    s = new_stream();
    e = new_event();
    g = gate_close(s);
    OK(cudaMemsetAsync(x, 3, 4, s));
    OK(cudaEventRecord(e, s));
    OK(cudaStreamDestroy(s));
    FAILS(cudaStreamSynchronize(s), cudaErrorInvalidResourceHandle);
    FAILS(cudaEventQuery(e), cudaErrorNotReady);
    gate_open(g);
    OK(cudaEventSynchronize(e));
    assert_int_equal(peek(x), 0x03030303);
    OK(cudaEventDestroy(e));
    OK(cudaFree(x));
}

static void call_the_runtime(void *error)
{
    *static_cast<cudaError_t *>(error) = cudaStreamQuery(nullptr);
}

static void host_functions_run_in_order(void **)
{
    cudaError_t error = cudaSuccess;
    cudaStream_t s;

    fresh("");
    s = new_stream();
    OK(cudaLaunchHostFunc(s, call_the_runtime, &error));
    OK(cudaStreamSynchronize(s));
    FAILS(error, cudaErrorNotPermitted);
    OK(cudaStreamDestroy(s));
}

static void only_nonblocking_streams(void **)
{
    cudaStream_t s;
    cudaEvent_t e, timed;
    float ms;

    fresh("");
    FAILS(cudaStreamCreateWithFlags(&s, cudaStreamDefault), cudaErrorInvalidValue);
    FAILS(cudaStreamSynchronize(nullptr), cudaErrorInvalidResourceHandle);
    FAILS(cudaStreamSynchronize(cudaStreamPerThread), cudaErrorInvalidResourceHandle);
    FAILS(cudaEventDestroy(nullptr), cudaErrorInvalidResourceHandle);
    s = new_stream();
    e = new_event();
    OK(cudaEventCreateWithFlags(&timed, cudaEventDefault));
    FAILS(cudaEventElapsedTime(&ms, timed, timed), cudaErrorInvalidResourceHandle);
    OK(cudaEventRecord(timed, s));
    OK(cudaEventRecord(e, s));
    OK(cudaStreamSynchronize(s));
    OK(cudaEventElapsedTime(&ms, timed, timed));
    assert_true(ms == 0);
    FAILS(cudaEventElapsedTime(&ms, timed, e), cudaErrorInvalidResourceHandle);
    OK(cudaEventDestroy(e));
    OK(cudaEventDestroy(timed));
    OK(cudaStreamDestroy(s));
}

/* --- launches --- */

__global__ void count_up(int *to, int from)
{
    to[blockIdx.x * blockDim.x + threadIdx.x] = from + static_cast<int>(threadIdx.x);
}

__global__ void use_shared(int *to)
{
    TR_SHARED_DYNAMIC(int, tile);

    tile[threadIdx.x] = 7;
    __syncthreads();
    to[threadIdx.x] = tile[blockDim.x - 1 - threadIdx.x];
}

__global__ void diverge(int *)
{
    if (threadIdx.x == 0)
        __syncthreads();
}

static void kernels_run(void **)
{
    int *x, host[64];
    cudaStream_t s;
    struct gate *g;

    fresh("");
    x = static_cast<int *>(device_bytes(sizeof(host)));
    s = new_stream();
    g = gate_close(s);
    TR_LAUNCH(count_up, 2, 32, 0, s, x, 5);
    OK(cudaGetLastError());
    assert_int_equal(peek(x), -1);
    gate_open(g);
    OK(cudaMemcpyAsync(host, x, sizeof(host), cudaMemcpyDeviceToHost, s));
    for (int i = 0; i < 64; i++)
        assert_int_equal(host[i], 5 + i % 32);
    OK(cudaStreamDestroy(s));
    OK(cudaFree(x));
}

static void configurations_are_checked(void **)
{
    static const struct {
        dim3 grid, block;
        cudaError_t error;
    } cases[] = {{dim3(1), dim3(1024), cudaSuccess},
                 {dim3(1), dim3(1025), cudaErrorInvalidConfiguration},
                 {dim3(1), dim3(32, 32, 2), cudaErrorInvalidConfiguration},
                 {dim3(1), dim3(1, 1, 65), cudaErrorInvalidConfiguration},
                 {dim3(1), dim3(0), cudaErrorInvalidConfiguration},
                 {dim3(0), dim3(1), cudaErrorInvalidConfiguration},
                 {dim3(1, 65536), dim3(1), cudaErrorInvalidConfiguration},
                 {dim3(1, 1, 65536), dim3(1), cudaErrorInvalidConfiguration}};
    int *x;
    cudaStream_t s;

    fresh("");
    x = static_cast<int *>(device_bytes(4096));
    s = new_stream();
    for (unsigned i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        TR_LAUNCH(count_up, cases[i].grid, cases[i].block, 0, s, x, 0);
        FAILS(cudaPeekAtLastError(), cases[i].error);
        FAILS(cudaGetLastError(), cases[i].error);
        OK(cudaGetLastError());
    }
    TR_LAUNCH(count_up, 1, 1, 0, nullptr, x, 0);
    FAILS(cudaGetLastError(), cudaErrorInvalidResourceHandle);
    OK(cudaStreamDestroy(s));
    OK(cudaFree(x));
}

static void shared_memory_is_raised_by_kernel(void **)
{
    const enum cudaFuncAttribute attribute = cudaFuncAttributeMaxDynamicSharedMemorySize;
    struct cudaFuncAttributes a;
    int *x;
    cudaStream_t s;

    fresh("");
    x = static_cast<int *>(device_bytes(4096));
    s = new_stream();
    TR_LAUNCH(use_shared, 1, 32, 48 << 10, s, x);
    OK(cudaGetLastError());
    TR_LAUNCH(use_shared, 1, 32, (48 << 10) + 1, s, x);
    FAILS(cudaGetLastError(), cudaErrorInvalidValue);
    FAILS(cudaFuncSetAttribute(use_shared, attribute, (99 << 10) + 1), cudaErrorInvalidValue);
    OK(cudaFuncSetAttribute(use_shared, attribute, 99 << 10));
    OK(cudaFuncGetAttributes(&a, use_shared));
    assert_int_equal(a.maxDynamicSharedSizeBytes, 99 << 10);
    (void)cudaGetLastError();
    TR_LAUNCH(use_shared, 1, 32, 99 << 10, s, x);
    OK(cudaGetLastError());
    TR_LAUNCH(count_up, 1, 32, 99 << 10, s, x, 0); /* another kernel */
    FAILS(cudaGetLastError(), cudaErrorInvalidValue);
    OK(cudaStreamSynchronize(s));
    assert_int_equal(peek(x), 7);
    OK(cudaStreamDestroy(s));
    OK(cudaFree(x));
    fresh("sm=90");
    OK(cudaFuncSetAttribute(use_shared, attribute, 227 << 10));
    FAILS(cudaFuncSetAttribute(use_shared, attribute, (227 << 10) + 1), cudaErrorInvalidValue);
    fresh("sm=80");
    OK(cudaFuncSetAttribute(use_shared, attribute, 163 << 10));
    FAILS(cudaFuncSetAttribute(use_shared, attribute, (163 << 10) + 1), cudaErrorInvalidValue);
}

static void never_called(void *called)
{
    *static_cast<int *>(called) = 1;
}

static void a_bad_kernel_ends_the_context(void **)
{
    int *x, called = 0;
    cudaStream_t s;
    void *more;

    fresh("");
    x = static_cast<int *>(device_bytes(8));
    s = new_stream();
    TR_LAUNCH(diverge, 1, 64, 0, s, x);
    OK(cudaGetLastError());
    OK(cudaMemsetAsync(x, 1, 4, s));
    OK(cudaLaunchHostFunc(s, never_called, &called));
    FAILS(cudaStreamSynchronize(s), cudaErrorLaunchFailure);
    assert_int_not_equal(strlen(fake_last_shim_error()), 0);
    assert_int_equal(called, 0);
    assert_int_equal(*x, -1); /* what came after it was dropped */
    FAILS(cudaMalloc(&more, 4), cudaErrorLaunchFailure);
    FAILS(cudaGetLastError(), cudaErrorLaunchFailure);
    FAILS(cudaGetLastError(), cudaErrorLaunchFailure);
    /* giving back reports it, and gives back */
    FAILS(cudaStreamDestroy(s), cudaErrorLaunchFailure);
    FAILS(cudaFree(x), cudaErrorLaunchFailure);
    assert_int_equal(fake_leaks(), 0);
}

/* Where a kernel gets host memory that is not pinned, a GPU faults. */
static void kernels_see_no_pageable_memory(void **)
{
    int host[64], *x, *pinned;
    cudaStream_t s;

    fresh("");
    x = static_cast<int *>(device_bytes(128));
    pinned = static_cast<int *>(pinned_bytes(128));
    s = new_stream();
    TR_LAUNCH(count_up, 1, 16, 0, s, x + 16, 1);
    TR_LAUNCH(count_up, 1, 16, 0, s, pinned, 1);
    TR_LAUNCH(diverge, 1, 1, 0, s, nullptr);
    TR_LAUNCH(diverge, 1, 1, 0, s, x + 32); /* its end */
    OK(cudaStreamSynchronize(s));
    assert_int_equal(pinned[1], 2);
    host[0] = 0;
    TR_LAUNCH(count_up, 1, 16, 0, s, host, 1);
    OK(cudaGetLastError());
    FAILS(cudaStreamSynchronize(s), cudaErrorIllegalAddress);
    assert_non_null(strstr(fake_last_shim_error(), "argument 0"));
    assert_int_equal(host[0], 0);
    FAILS(cudaStreamDestroy(s), cudaErrorIllegalAddress);
    FAILS(cudaFree(x), cudaErrorIllegalAddress);
    FAILS(cudaFreeHost(pinned), cudaErrorIllegalAddress);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(events_order_streams),
        cmocka_unit_test(waits_mean_the_last_record),
        cmocka_unit_test(delays_show_a_missing_event),
        cmocka_unit_test(tsan_sees_a_missing_event),
        cmocka_unit_test(pinned_sources_are_read_late),
        cmocka_unit_test(pageable_memory_may_be_used_late),
        cmocka_unit_test(registered_memory_is_pinned),
        cmocka_unit_test(a_destroyed_stream_finishes),
        cmocka_unit_test(host_functions_run_in_order),
        cmocka_unit_test(only_nonblocking_streams),
        cmocka_unit_test(kernels_run),
        cmocka_unit_test(configurations_are_checked),
        cmocka_unit_test(shared_memory_is_raised_by_kernel),
        cmocka_unit_test(kernels_see_no_pageable_memory),
        cmocka_unit_test(a_bad_kernel_ends_the_context),
    };

    return cmocka_run_group_tests(tests, nullptr, nullptr);
}
