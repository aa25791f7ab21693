/* SPDX-License-Identifier: Apache-2.0
 *
 * Errors of the fake runtime: injected ones at every call in turn, sticky ones, a lost device, a
 * missing or old driver, and what cudaGetLastError makes of them.
 */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "tests/cuda/runtime/harness.h"

__global__ void set_to(int *to, int value)
{
    *to = value;
}

struct job {
    cudaStream_t stream;
    cudaEvent_t event;
    int *device, *pinned;
    cublasLtHandle_t blas;
};

#define STEP(call)                                                                                 \
    do {                                                                                           \
        cudaError_t step_error = (call);                                                           \
        if (step_error)                                                                            \
            return step_error;                                                                     \
    } while (0)

static cudaError_t work(struct job *j)
{
    int count;

    STEP(cudaGetDeviceCount(&count));
    STEP(cudaStreamCreateWithFlags(&j->stream, cudaStreamNonBlocking));
    STEP(cudaEventCreateWithFlags(&j->event, cudaEventDisableTiming));
    STEP(cudaMalloc(&j->device, 4096));
    STEP(cudaHostAlloc(&j->pinned, 4096, 0));
    if (cublasLtCreate(&j->blas))
        return cudaErrorNotSupported;
    *j->pinned = 1;
    STEP(cudaMemcpyAsync(j->device, j->pinned, 4, cudaMemcpyHostToDevice, j->stream));
    TR_LAUNCH(set_to, 1, 1, 0, j->stream, j->device, 2);
    STEP(cudaGetLastError());
    STEP(cudaMemcpyAsync(j->pinned, j->device, 4, cudaMemcpyDeviceToHost, j->stream));
    STEP(cudaEventRecord(j->event, j->stream));
    STEP(cudaEventSynchronize(j->event));
    return *j->pinned == 2 ? cudaSuccess : cudaErrorUnknown;
}

/* Gives everything back; the first error. */
static cudaError_t finish(struct job *j, cudaError_t e)
{
    cudaError_t each[5] = {cudaSuccess, cudaSuccess, cudaSuccess, cudaSuccess, cudaSuccess};

    if (j->stream)
        each[0] = cudaStreamDestroy(j->stream);
    if (j->event)
        each[1] = cudaEventDestroy(j->event);
    if (j->device)
        each[2] = cudaFree(j->device);
    if (j->pinned)
        each[3] = cudaFreeHost(j->pinned);
    if (j->blas && cublasLtDestroy(j->blas))
        each[4] = cudaErrorNotSupported;
    for (int i = 0; i < 5 && !e; i++)
        e = each[i];
    return e;
}

static cudaError_t run_job(void)
{
    struct job j = {};

    return finish(&j, work(&j));
}

static void every_call_in_turn(const char *how)
{
    uint64_t calls;

    fake_configure("");
    OK(run_job());
    calls = fake_calls();
    assert_true(calls > 14);
    for (uint64_t i = 1; i <= calls; i++) {
        fake_configure("");
        fake_fail(i, how);
        if (run_job() == cudaSuccess)
            fail_msg("call %d failed with %s and nobody saw it", (int)i, how);
        assert_int_equal(fake_leaks(), 0);
    }
    fake_configure("");
    fake_fail(calls + 1, how);
    OK(run_job());
}

static void each_call_can_fail(void **)
{
    every_call_in_turn("2");
    every_call_in_turn("sticky");
    every_call_in_turn("lost");
}

static void a_call_fails_once(void **)
{
    int n;

    fake_configure("fail=2:2");
    OK(cudaGetDevice(&n));
    FAILS(cudaGetDevice(&n), cudaErrorMemoryAllocation);
    OK(cudaGetDevice(&n));
    FAILS(cudaPeekAtLastError(), cudaErrorMemoryAllocation);
    FAILS(cudaGetLastError(), cudaErrorMemoryAllocation);
    OK(cudaGetLastError());
}

static void a_function_fails_by_name(void **)
{
    static char buffer[64];
    int n;

    fake_configure("fail=cudaHostRegister:801");
    OK(cudaGetDevice(&n));
    FAILS(cudaHostRegister(buffer, 64, 0), cudaErrorNotSupported);
    FAILS(cudaHostRegister(buffer, 64, 0), cudaErrorNotSupported);
    fake_configure("fail=cudaGetDevice@2:2");
    OK(cudaSetDevice(0));
    OK(cudaGetDevice(&n));
    OK(cudaSetDevice(0));
    FAILS(cudaGetDevice(&n), cudaErrorMemoryAllocation);
    OK(cudaGetDevice(&n));
}

static void sticky_errors_stay(void **)
{
    static const struct {
        const char *how;
        cudaError_t error;
    } cases[] = {{"fail=1:sticky", cudaErrorIllegalAddress},
                 {"fail=1:lost", cudaErrorUnknown},
                 {"fail=1:719", cudaErrorLaunchFailure},
                 {"fail=1:214", cudaErrorECCUncorrectable}};
    int n;

    for (unsigned i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        fake_configure(cases[i].how);
        for (int k = 0; k < 3; k++)
            FAILS(cudaGetDevice(&n), cases[i].error);
        FAILS(cudaGetLastError(), cases[i].error);
        FAILS(cudaGetLastError(), cases[i].error);
    }
}

static void failures_of_queued_work_come_late(void **)
{
    int *x, n;
    cudaStream_t s;

    for (int i = 0; i < 3; i++) {
        fake_configure("");
        x = nullptr;
        OK(cudaMalloc(&x, 8));
        s = new_stream();
        fake_fail(1, "700");
        if (i == 0)
            OK(cudaMemsetAsync(x, 0, 8, s));
        else if (i == 1)
            OK(cudaMemcpyAsync(x, x + 1, 4, cudaMemcpyDeviceToDevice, s));
        else
            TR_LAUNCH(set_to, 1, 1, 0, s, x, 0);
        OK(cudaGetLastError());
        OK(cudaGetDevice(&n));
        FAILS(cudaStreamSynchronize(s), cudaErrorIllegalAddress);
        FAILS(cudaGetDevice(&n), cudaErrorIllegalAddress);
        assert_int_equal(*x, -1);
        FAILS(cudaStreamDestroy(s), cudaErrorIllegalAddress);
        FAILS(cudaFree(x), cudaErrorIllegalAddress);
        assert_int_equal(fake_leaks(), 0);
    }
}

static void drivers_and_devices(void **)
{
    int n = -1;
    cublasLtHandle_t h;
    struct cudaDeviceProp p;
    char id[16];

    fake_configure("driver=0");
    OK(cudaDriverGetVersion(&n));
    assert_int_equal(n, 0);
    FAILS(cudaGetDeviceCount(&n), cudaErrorInsufficientDriver);
    fake_configure("driver=12020");
    OK(cudaDriverGetVersion(&n));
    assert_int_equal(n, 12020);
    OK(cudaRuntimeGetVersion(&n));
    assert_int_equal(n, CUDART_VERSION);
    FAILS(cudaSetDevice(0), cudaErrorInsufficientDriver);
    fake_configure("devices=0");
    OK(cudaDriverGetVersion(&n));
    FAILS(cudaGetDeviceCount(&n), cudaErrorNoDevice);
    assert_int_equal(n, 0);
    FAILS(cudaSetDevice(0), cudaErrorNoDevice);
    assert_int_equal(cublasLtCreate(&h), CUBLAS_STATUS_NOT_INITIALIZED);
    fake_configure("devices=2,memory=3GiB");
    OK(cudaGetDeviceCount(&n));
    assert_int_equal(n, 2);
    FAILS(cudaSetDevice(2), cudaErrorInvalidDevice);
    OK(cudaSetDevice(1));
    OK(cudaGetDevice(&n));
    assert_int_equal(n, 1);
    OK(cudaSetDevice(0));
    OK(cudaGetDeviceProperties(&p, 1));
    assert_true(p.totalGlobalMem == (size_t)3 << 30);
    OK(cudaDeviceGetAttribute(&n, cudaDevAttrMultiProcessorCount, 1));
    assert_int_equal(n, p.multiProcessorCount);
    OK(cudaDeviceGetPCIBusId(id, sizeof(id), 1));
    assert_string_equal(id, "0000:02:00.0");
    FAILS(cudaGetDeviceProperties(&p, -1), cudaErrorInvalidDevice);
    assert_string_equal(cudaGetErrorName(cudaErrorInvalidDevice), "cudaErrorInvalidDevice");
}

static void three_calls(void)
{
    int n;

    for (int i = 0; i < 3; i++)
        OK(cudaGetDevice(&n));
}

static void expect_count(const char *fail, const char *count)
{
    char path[] = "/tmp/fake-cuda-count-XXXXXX", words[96], text[16] = "";
    int fd = mkstemp(path);

    assert_true(fd >= 0);
    snprintf(words, sizeof(words), "count=%s%s", path, fail);
    assert_int_equal(in_child(three_calls, words), 0);
    assert_true(read(fd, text, sizeof(text) - 1) > 0);
    assert_string_equal(text, count);
    close(fd);
    unlink(path);
}

static void calls_are_counted(void **)
{
    expect_count("", "3\n");
    expect_count(",fail=cudaGetDevice@4:2", "3\n3\n");
    expect_count(",fail=cudaSetDevice@4:2", "3\n0\n");
}

static void unknown_words_abort(void **)
{
    static const char *const words[] = {"memroy=1MiB", "memory=1XB", "memory",
                                        "fail=3",      "fail=:2",    "devices="};

    for (unsigned i = 0; i < sizeof(words) / sizeof(words[0]); i++)
        assert_int_equal(in_child(three_calls, words[i]), -SIGABRT);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_call_can_fail),
        cmocka_unit_test(a_call_fails_once),
        cmocka_unit_test(a_function_fails_by_name),
        cmocka_unit_test(sticky_errors_stay),
        cmocka_unit_test(failures_of_queued_work_come_late),
        cmocka_unit_test(drivers_and_devices),
        cmocka_unit_test(calls_are_counted),
        cmocka_unit_test(unknown_words_abort),
    };

    return cmocka_run_group_tests(tests, nullptr, nullptr);
}
