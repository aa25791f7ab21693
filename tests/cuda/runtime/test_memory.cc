/* SPDX-License-Identifier: Apache-2.0
 *
 * Memory of the fake device: its cap, poison, guards, what is refused and what is left behind.
 */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/cuda/runtime/harness.h"

static const size_t MiB = (size_t)1 << 20;

static size_t free_bytes(void)
{
    size_t free, total;

    OK(cudaMemGetInfo(&free, &total));
    return free;
}

static void the_cap_holds(void **)
{
    cublasLtHandle_t h;
    size_t free, total;
    void *a, *b;

    fake_configure("memory=16MiB,overhead=3MiB,cublas=1MiB");
    OK(cudaMemGetInfo(&free, &total));
    assert_int_equal(total, 16 * MiB);
    assert_int_equal(free, 13 * MiB);
    OK(cudaMalloc(&a, 5 * MiB)); /* charged in steps of 2 MiB */
    assert_int_equal(free_bytes(), 7 * MiB);
    OK(cudaMalloc(&b, 1000)); /* and small ones in steps of 512 */
    assert_int_equal(free_bytes(), 7 * MiB - 1024);
    OK(cudaFree(b));
    FAILS(cudaMalloc(&b, 6 * MiB + 1), cudaErrorMemoryAllocation);
    assert_null(b);
    OK(cudaMalloc(&b, 6 * MiB));
    assert_int_equal(cublasLtCreate(&h), CUBLAS_STATUS_SUCCESS);
    assert_int_equal(free_bytes(), 0);
    FAILS(cudaMalloc(&b, 1), cudaErrorMemoryAllocation);
    assert_int_equal(cublasLtDestroy(h), CUBLAS_STATUS_SUCCESS);
    assert_int_equal(free_bytes(), MiB);
    OK(cudaDeviceReset()); /* b was forgotten */
    assert_int_equal(free_bytes(), 13 * MiB);
    assert_int_equal(fake_leaks(), 0);
}

static void pinned_memory_has_a_cap(void **)
{
    static char buffer[8192];
    void *p, *q;

    fake_configure("pinned=8KiB");
    OK(cudaHostAlloc(&p, 4096, cudaHostAllocDefault));
    FAILS(cudaHostAlloc(&q, 4097, cudaHostAllocDefault), cudaErrorMemoryAllocation);
    FAILS(cudaHostRegister(buffer, 8192, 0), cudaErrorMemoryAllocation);
    OK(cudaHostRegister(buffer, 4096, 0));
    FAILS(cudaHostRegister(buffer + 1, 1, 0), cudaErrorHostMemoryAlreadyRegistered);
    FAILS(cudaHostRegister(p, 1, 0), cudaErrorHostMemoryAlreadyRegistered);
    FAILS(cudaHostUnregister(buffer + 1), cudaErrorHostMemoryNotRegistered);
    OK(cudaHostUnregister(buffer));
    FAILS(cudaHostUnregister(buffer), cudaErrorHostMemoryNotRegistered);
    OK(cudaFreeHost(p));
    OK(cudaHostAlloc(&p, 8192, cudaHostAllocDefault));
    OK(cudaFreeHost(p));
}

static void page_tables_take_device_memory(void **)
{
    void *p;

    fake_configure("memory=16MiB");
    OK(cudaHostAlloc(&p, 3 * MiB, cudaHostAllocDefault));
    assert_int_equal(free_bytes(), 16 * MiB - 6 * 1024);
    OK(cudaFreeHost(p));
    assert_int_equal(free_bytes(), 16 * MiB);
}

static void memory_is_poison(void **)
{
    size_t n = 5 * MiB + 777;
    unsigned char *host = static_cast<unsigned char *>(malloc(n));
    float f;
    void *p;

    fake_configure("");
    assert_non_null(host);
    p = device_bytes(n);
    assert_int_equal((uintptr_t)p % 256, 0);
    OK(cudaMemcpy(host, p, n, cudaMemcpyDeviceToHost));
    for (size_t i = 0; i < n; i++)
        if (host[i] != 0xff)
            fail_msg("byte %zu is %d", i, host[i]);
    memcpy(&f, host, 4);
    assert_true(f != f);
    /* and again where it was used before */
    memset(host, 0, n);
    OK(cudaMemcpy(p, host, n, cudaMemcpyHostToDevice));
    OK(cudaFree(p));
    p = device_bytes(n);
    assert_int_equal(peek(p), -1);
    OK(cudaFree(p));
    free(host);
}

static void read_past_the_end(void)
{
    volatile char *p = static_cast<volatile char *>(device_bytes(4096));

    (void)p[4096];
}

static void read_before_the_start(void)
{
    volatile char *p = static_cast<volatile char *>(device_bytes(4096));

    (void)p[-1];
}

static void write_just_past_the_end(void)
{
    volatile char *p = static_cast<volatile char *>(pinned_bytes(100));

    p[100] = 0;
    (void)cudaFreeHost(const_cast<char *>(p));
}

static void use_after_free(void)
{
    volatile char *p = static_cast<volatile char *>(device_bytes(4096));

    OK(cudaFree(const_cast<char *>(p)));
    (void)p[0];
}

/* A sanitizer turns the signal into an exit code of its own. */
static void ends_were_guarded(int code)
{
    assert_true(code != 0 && code != 86);
}

static void guards_catch(void **)
{
    ends_were_guarded(in_child(read_past_the_end, "leaks=86"));
    ends_were_guarded(in_child(read_before_the_start, "leaks=86"));
    ends_were_guarded(in_child(use_after_free, "leaks=86"));
    assert_int_equal(in_child(write_just_past_the_end, ""), -SIGABRT);
    assert_non_null(strstr(child_text, "wrote just outside pinned memory of 100 bytes"));
}

__global__ void add_one(int *x)
{
    x[threadIdx.x] += 1;
}

static int *fill_and_add(void)
{
    int *x = static_cast<int *>(device_bytes(4096));
    cudaStream_t s = new_stream();

    OK(cudaMemsetAsync(x, 0, 4096, s));
    TR_LAUNCH(add_one, 1, 32, 0, s, x);
    OK(cudaStreamSynchronize(s));
    assert_int_equal(peek(x), 1);
    OK(cudaStreamDestroy(s));
    return x;
}

static void use_as_told(void)
{
    OK(cudaFree(fill_and_add()));
}

static void read_by_the_host(void)
{
    volatile int *x = fill_and_add();

    OK(cudaFree(device_bytes(4096)));
    (void)x[0];
}

/* Device memory is not the host's to read; without protect=1 it goes unseen. */
static void protection_keeps_the_host_out(void **)
{
    assert_int_equal(in_child(use_as_told, "protect=1,leaks=86"), 0);
    assert_int_equal(in_child(read_by_the_host, "leaks=86"), 86);
    ends_were_guarded(in_child(read_by_the_host, "protect=1,leaks=86"));
}

static void wrong_pointers_are_refused(void **)
{
    char *x, *pinned, pageable[16] = "";
    cudaStream_t s;

    fake_configure("");
    x = static_cast<char *>(device_bytes(4096));
    pinned = static_cast<char *>(pinned_bytes(4096));
    s = new_stream();
#define COPY(to, from, n, kind)                                                                    \
    do {                                                                                           \
        FAILS(cudaMemcpyAsync(to, from, n, kind, s), cudaErrorInvalidValue);                       \
        FAILS(cudaMemcpy(to, from, n, kind), cudaErrorInvalidValue);                               \
    } while (0)
    COPY(x, x, 8, cudaMemcpyHostToDevice);
    COPY(pageable, x, 8, cudaMemcpyHostToDevice);
    COPY(pageable, pinned, 8, cudaMemcpyDeviceToHost);
    COPY(x, pinned, 8, cudaMemcpyDeviceToHost);
    COPY(x, pinned, 8, cudaMemcpyDeviceToDevice);
    COPY(x + 4090, pinned, 8, cudaMemcpyHostToDevice);
    COPY(x, pinned + 4090, 8, cudaMemcpyHostToDevice);
    COPY(x, nullptr, 8, cudaMemcpyHostToDevice);
    COPY(x + 8, x + 4090, 8, cudaMemcpyDefault);
    FAILS(cudaMemsetAsync(pinned, 0, 8, s), cudaErrorInvalidValue);
    FAILS(cudaMemsetAsync(x + 4090, 0, 8, s), cudaErrorInvalidValue);
    OK(cudaMemcpyAsync(x, pageable, 8, cudaMemcpyDefault, s));
    OK(cudaMemcpyAsync(x, x, 0, cudaMemcpyDeviceToDevice, s));
    FAILS(cudaFree(x + 256), cudaErrorInvalidValue);
    FAILS(cudaFree(pinned), cudaErrorInvalidValue);
    FAILS(cudaFreeHost(x), cudaErrorInvalidValue);
    OK(cudaFree(nullptr));
    OK(cudaFreeHost(nullptr));
    OK(cudaFreeHost(pinned));
    FAILS(cudaFreeHost(pinned), cudaErrorInvalidValue);
    OK(cudaStreamDestroy(s));
    OK(cudaFree(x));
    FAILS(cudaFree(x), cudaErrorInvalidValue);
    FAILS(cudaMemcpy(pageable, x, 8, cudaMemcpyDeviceToHost), cudaErrorInvalidValue);
}

/* cudaFree waits for the work that may use the memory. */
static void freeing_waits(void **)
{
    cudaStream_t s;
    int *x;

    fake_configure("delay=3");
    s = new_stream();
    for (int i = 0; i < 50; i++) {
        x = static_cast<int *>(device_bytes(4096));
        for (int k = 0; k < 8; k++)
            OK(cudaMemsetAsync(x, 1, 4096, s));
        OK(cudaFree(x));
    }
    OK(cudaStreamDestroy(s));
}

static void leave_everything(void)
{
    static char buffer[4096];
    cublasLtHandle_t h;
    cublasLtMatmulDesc_t d;
    cublasLtMatrixLayout_t l;
    cublasLtMatmulPreference_t p;

    (void)new_stream();
    (void)new_event();
    (void)device_bytes(100);
    (void)pinned_bytes(200);
    OK(cudaHostRegister(buffer, 300, 0));
    assert_int_equal(cublasLtCreate(&h), CUBLAS_STATUS_SUCCESS);
    assert_int_equal(cublasLtMatmulDescCreate(&d, CUBLAS_COMPUTE_32F, CUDA_R_32F), 0);
    assert_int_equal(cublasLtMatrixLayoutCreate(&l, CUDA_R_32F, 1, 1, 1), 0);
    assert_int_equal(cublasLtMatmulPreferenceCreate(&p), 0);
}

static void leave_and_reset(void)
{
    leave_everything();
    OK(cudaDeviceReset());
}

static void leave_nothing(void)
{
    void *x = device_bytes(100);
    cudaStream_t s = new_stream();

    OK(cudaMemsetAsync(x, 0, 100, s));
    OK(cudaStreamDestroy(s));
    OK(cudaFree(x));
}

static void leaks_are_reported(void **)
{
    static const char *const kinds[] = {
        "stream of call 1 ",           "event of call 2 ",
        "device memory of call 3 ",    "pinned memory of call 4 (200",
        "registered memory of call 5", "cublasLt handle of call 6",
        "matmul descriptor of call 7", "matrix layout of call 8",
        "matmul preference of call 9"};

    for (int reset = 0; reset < 2; reset++) {
        assert_int_equal(in_child(reset ? leave_and_reset : leave_everything, "leaks=86"), 86);
        for (unsigned i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++)
            if (!strstr(child_text, kinds[i]))
                fail_msg("%s is not in: %s", kinds[i], child_text);
    }
    assert_int_equal(in_child(leave_nothing, "leaks=86"), 0);
    assert_string_equal(child_text, "");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_cap_holds),
        cmocka_unit_test(pinned_memory_has_a_cap),
        cmocka_unit_test(page_tables_take_device_memory),
        cmocka_unit_test(memory_is_poison),
        cmocka_unit_test(guards_catch),
        cmocka_unit_test(freeing_waits),
        cmocka_unit_test(wrong_pointers_are_refused),
        cmocka_unit_test(leaks_are_reported),
        cmocka_unit_test(protection_keeps_the_host_out),
    };

    return cmocka_run_group_tests(tests, nullptr, nullptr);
}
