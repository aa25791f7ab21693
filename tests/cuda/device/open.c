/* SPDX-License-Identifier: Apache-2.0
 *
 * Opening the cuda device: the budget by the driver's own figure (invariant 6), and one message for
 * each thing that can be missing. Most cases need the fake runtime; the budget is also tested on a
 * real GPU.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "src/base/err.h"
#include "src/base/mem.h"
#include "tests/device/which.h"

#define MIB   ((uint64_t)1 << 20)
#define ARENA (32 * MIB)

static const struct test_fake *need_fake(const char *words)
{
    const struct test_fake *fake = test_device_fake();

    if (!fake)
        skip();
    fake->configure(words);
    return fake;
}

static uint64_t bytes_free(void)
{
    uint64_t free_bytes = 0, total = 0;

    assert_int_equal(tr_device_cuda_memory(0, &free_bytes, &total), 0);
    return free_bytes;
}

static void refused(const struct tr_device_params *p, int code, const char *word)
{
    struct tr_device *d = NULL;
    uint64_t before = tr_mem_now(TR_MEM_MISC);

    assert_int_equal(tr_device_open_cuda(&d, p), code);
    assert_null(d);
    if (!strstr(tr_error_message(), word))
        fail_msg("no '%s' in: %s", word, tr_error_message());
    if (code == -ENODEV || code == -ENOENT || code == -ELIBBAD)
        assert_non_null(strstr(tr_error_message(), "--device cpu"));
    assert_int_equal(tr_mem_now(TR_MEM_MISC), before);
}

/* ---- the budget ---- */

/* What the device takes, by the driver's figure, of a budget that is not a round number. */
static void the_budget_holds(void **state)
{
    struct tr_device_params p = {0};
    struct tr_device_info info;
    struct tr_device *d = NULL;
    uint64_t before, least, during;

    (void)state;
    before = bytes_free(); /* on a real GPU this has made the context */
    assert_int_equal(tr_device_cuda_workspace(0, &least), 0);
    p.memory_bytes = least + ARENA + 12345;
    assert_int_equal(tr_device_open_cuda(&d, &p), 0);
    d->ops->info(d, &info);
    during = bytes_free();
    assert_true(before - during <= p.memory_bytes);
    assert_true(info.arena_bytes + info.workspace_bytes <= p.memory_bytes);
    assert_true(info.arena_bytes + info.workspace_bytes > p.memory_bytes - 4096);
    assert_true(info.arena_bytes >= ARENA);
    assert_true(info.arena_bytes <= ARENA + 6 * MIB);
    assert_int_equal(d->ops->fill(d, TR_STREAM_COMPUTE, d->ops->arena(d), 1, info.arena_bytes), 0);
    assert_int_equal(d->ops->sync(d, TR_STREAM_COMPUTE), 0);
    assert_int_equal(bytes_free(), during);
    d->ops->close(d);
    assert_true(bytes_free() > during);
}

/* The context's and the library's own use count: with the fake they are what it was told. */
static void overhead_counts(void **state)
{
    const struct test_fake *fake = need_fake("memory=512MiB,overhead=100MiB,cublas=30MiB");
    struct tr_device_params p = {.memory_bytes = 300 * MIB};
    struct tr_device_info info;
    struct tr_device *d = NULL;
    uint64_t least;

    (void)state;
    assert_int_equal(tr_device_cuda_workspace(0, &least), 0);
    assert_true(least >= 130 * MIB);
    assert_int_equal(tr_device_open_cuda(&d, &p), 0);
    d->ops->info(d, &info);
    assert_true(info.workspace_bytes >= 130 * MIB);
    assert_true(512 * MIB - bytes_free() <= p.memory_bytes);
    d->ops->close(d);
    p.memory_bytes = least - 1;
    refused(&p, -EINVAL, "too small");
    p.memory_bytes = 1;
    refused(&p, -EINVAL, "too small");
    p.memory_bytes = least;
    assert_int_equal(tr_device_open_cuda(&d, &p), 0);
    d->ops->close(d);
    p.memory_bytes = 600 * MIB;
    d = NULL;
    refused(&p, -ENOMEM, "cannot take");
    assert_int_equal(fake->leaks(), 0);
}

/* What the driver has compiled may have other bits with the next driver; other code has not. */
static void driver_of_portable_code(void **state)
{
    static const struct {
        const char *words;
        int driver;
    } cases[] = {{"memory=256MiB,sm=86", 0},
                 {"memory=256MiB,sm=89", 0},
                 {"memory=256MiB,sm=80", 1},
                 {"memory=256MiB,sm=90", 1}};

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct tr_device_params p = {0};
        struct tr_device_info info;
        struct tr_device *d = NULL;

        need_fake(cases[i].words);
        assert_int_equal(tr_device_open_cuda(&d, &p), 0);
        d->ops->info(d, &info);
        assert_non_null(strstr(info.bits, ", cuBLASLt "));
        assert_int_equal(strstr(info.bits, ", driver for CUDA 13.0") != NULL, cases[i].driver);
        d->ops->close(d);
    }
}

/* Host memory that is pinned costs device memory. What is kept for code is not spent on that: the
 * fake loads none, so there all of it must be left. */
static void pinned_memory_keeps_the_budget(void **state)
{
    uint64_t code = test_device_fake() ? 64 * MIB : 0, before, least;
    struct tr_device_params p = {.host_bytes = 2048 * MIB};
    struct tr_device *d = NULL;
    void *host;

    (void)state;
    before = bytes_free();
    assert_int_equal(tr_device_cuda_workspace(0, &least), 0);
    p.memory_bytes = least + p.host_bytes / 512 + ARENA;
    assert_int_equal(tr_device_open_cuda(&d, &p), 0);
    host = d->ops->host_alloc(d, p.host_bytes);
    assert_non_null(host);
    assert_true(before - bytes_free() + code <= p.memory_bytes);
    d->ops->host_free(d, host, p.host_bytes);
    d->ops->close(d);
    p.memory_bytes = least + p.host_bytes / 512 - 1;
    refused(&p, -EINVAL, "too small");
}

static void no_budget_is_most_of_what_is_free(void **state)
{
    struct tr_device_params p = {0};
    struct tr_device_info info;
    struct tr_device *d = NULL;

    (void)state;
    need_fake("memory=400MiB");
    assert_int_equal(tr_device_open_cuda(&d, &p), 0);
    d->ops->info(d, &info);
    assert_true(info.arena_bytes + info.workspace_bytes <= 360 * MIB);
    assert_true(info.arena_bytes + info.workspace_bytes >= 350 * MIB);
    assert_true(bytes_free() >= 40 * MIB);
    d->ops->close(d);
}

static void two_devices_share_a_gpu(void **state)
{
    struct tr_device_params p = {0};
    struct tr_device_info first, second;
    struct tr_device *a = NULL, *b = NULL;

    (void)state;
    need_fake("memory=512MiB");
    p.memory_bytes = 200 * MIB;
    assert_int_equal(tr_device_open_cuda(&a, &p), 0);
    assert_int_equal(tr_device_open_cuda(&b, &p), 0);
    a->ops->info(a, &first);
    b->ops->info(b, &second);
    assert_true(second.arena_bytes + 4 * MIB >= first.arena_bytes);
    assert_true(512 * MIB - bytes_free() <= 400 * MIB);
    a->ops->close(a);
    b->ops->close(b);
}

/* ---- what can be missing ---- */

static void missing_things_are_named(void **state)
{
    struct tr_device_params p = {.memory_bytes = 200 * MIB};

    (void)state;
    need_fake("driver=0");
    refused(&p, -ENODEV, "no NVIDIA driver");
    need_fake("driver=11040");
    refused(&p, -ENODEV, "knows CUDA 11.4");
    need_fake("devices=0");
    refused(&p, -ENODEV, "no NVIDIA GPU");
    need_fake("devices=2");
    p.ordinal = 2;
    refused(&p, -ENODEV, "no GPU 2: this machine has 2");
    p.ordinal = -1;
    refused(&p, -ENODEV, "no GPU -1");
    p.ordinal = 0;
    need_fake("fail=cudaGetDeviceCount:999"); /* the driver's module is not loaded, or asleep */
    refused(&p, -ENODEV, "CUDA does not start: cudaErrorUnknown");
    need_fake("fail=cudaFuncGetAttributes:209");
    refused(&p, -ENODEV, "gpu_archs");
    need_fake("fail=cudaFuncGetAttributes:222"); /* a toolkit newer than the driver built it */
    refused(&p, -ENODEV, "the driver is older");
    need_fake("fail=cublasLtCreate:1");
    refused(&p, -EIO, "cuBLASLt: it does not start");
    need_fake("");
}

static void a_module_must_be_one(void **state)
{
    struct tr_device_params p = {0};
    char *kept = strdup(getenv("TAILRACE_CUDA_MODULE") ? getenv("TAILRACE_CUDA_MODULE") : "");

    (void)state;
    setenv("TAILRACE_CUDA_MODULE", "/nowhere/tailrace-cuda.so", 1);
    refused(&p, -ENOENT, "/nowhere/tailrace-cuda.so");
    setenv("TAILRACE_CUDA_MODULE", "libm.so.6", 1);
    refused(&p, -ELIBBAD, "not a CUDA module");
    setenv("TAILRACE_CUDA_MODULE", kept, 1);
    free(kept);
}

static void memory_that_cannot_be_pinned_serves(void **state)
{
    struct tr_device_params p = {.memory_bytes = 200 * MIB};
    struct tr_device_info info;
    struct tr_device *d = NULL;
    unsigned char *host;

    (void)state;
    need_fake("pinned=0");
    assert_int_equal(tr_device_open_cuda(&d, &p), 0);
    d->ops->info(d, &info);
    assert_string_equal(info.remark, "");
    host = d->ops->host_alloc(d, 8192);
    assert_non_null(host);
    assert_int_equal((uintptr_t)host % 4096, 0);
    d->ops->info(d, &info);
    assert_non_null(strstr(info.remark, "pin"));
    host[8191] = 9;
    assert_int_equal(d->ops->copy_in(d, TR_STREAM_IN, d->ops->arena(d), host, 8192), 0);
    host[0] = 1;
    assert_int_equal(d->ops->copy_out(d, TR_STREAM_IN, host, (char *)d->ops->arena(d) + 8191, 1),
                     0);
    assert_int_equal(d->ops->sync(d, TR_STREAM_IN), 0);
    assert_int_equal(host[0], 9);
    d->ops->host_free(d, host, 8192);
    d->ops->close(d);
    need_fake("");
}

/* A driver that pins only memory of its own: aligned, counted and zeroed as any other, no remark.
 */
static void memory_of_the_drivers_serves(void **state)
{
    const struct test_fake *fake = need_fake("fail=cudaHostRegister:801");
    struct tr_device_params p = {.memory_bytes = 200 * MIB};
    uint64_t io = tr_mem_now(TR_MEM_IO), misc = tr_mem_now(TR_MEM_MISC);
    unsigned char *host[3], zeros[5000] = {0};
    struct tr_device_info info;
    struct tr_device *d = NULL;

    (void)state;
    assert_int_equal(tr_device_open_cuda(&d, &p), 0);
    for (int i = 0; i < 3; i++) {
        host[i] = d->ops->host_alloc(d, 5000);
        assert_non_null(host[i]);
        assert_int_equal((uintptr_t)host[i] % 4096, 0);
        assert_memory_equal(host[i], zeros, 5000);
    }
    assert_int_equal(tr_mem_now(TR_MEM_IO), io + 15000);
    d->ops->info(d, &info);
    assert_string_equal(info.remark, "");
    host[1][4999] = 9;
    assert_int_equal(d->ops->copy_in(d, TR_STREAM_IN, d->ops->arena(d), host[1], 5000), 0);
    assert_int_equal(d->ops->copy_out(d, TR_STREAM_IN, host[2], (char *)d->ops->arena(d) + 4999, 1),
                     0);
    assert_int_equal(d->ops->sync(d, TR_STREAM_IN), 0);
    assert_int_equal(host[2][0], 9);
    d->ops->host_free(d, host[1], 5000);
    d->ops->host_free(d, host[0], 5000);
    d->ops->host_free(d, host[2], 5000);
    assert_int_equal(tr_mem_now(TR_MEM_IO), io);
    d->ops->close(d);
    assert_int_equal(tr_mem_now(TR_MEM_MISC), misc);
    assert_int_equal(fake->leaks(), 0);
    need_fake("");
}

static void pinned_memory_is_counted(void **state)
{
    struct tr_device_params p = {0};
    uint64_t before = tr_mem_now(TR_MEM_IO);
    struct tr_device *d = NULL;
    void *host;

    (void)state;
    assert_int_equal(test_device_open(&d, &p, ARENA), 0);
    host = d->ops->host_alloc(d, 65536);
    assert_int_equal(tr_mem_now(TR_MEM_IO), before + 65536);
    d->ops->host_free(d, host, 65536);
    assert_int_equal(tr_mem_now(TR_MEM_IO), before);
    d->ops->close(d);
}

/* More ops than are read at a time, and two products of one shape. */
static void run_some(struct tr_device *d)
{
    int32_t start[2] = {0, 4};
    char *a = d->ops->arena(d);
    struct tr_op cast = {
        TR_OP_CAST,
        .cast = {.from = a, .from_dtype = TR_F32, .to_dtype = TR_F32, .to = a + 4096, .n = 16}};
    struct tr_op product = {
        TR_OP_MATMUL,
        .matmul = {
            .w = a, .x = a + 4096, .y = a + 8192, .n = 4, .m = 16, .k = 8, .grains = {1, start}}};

    assert_int_equal(d->ops->fill(d, TR_STREAM_COMPUTE, a, 0, 16384), 0);
    for (int i = 0; i < 1100; i++)
        assert_int_equal(d->ops->run(d, TR_STREAM_COMPUTE, &cast), 0);
    for (int i = 0; i < 2; i++)
        assert_int_equal(d->ops->run(d, TR_STREAM_COMPUTE, &product), 0);
    assert_int_equal(d->ops->sync(d, TR_STREAM_COMPUTE), 0);
}

/* Who asks is told what took how long. */
static void times_are_told(void **state)
{
    struct tr_device_params p = {0};
    struct tr_device *d = NULL;
    char text[4096] = "";
    size_t length;

    (void)state;
    assert_int_equal(test_device_open(&d, &p, ARENA), 0);
    assert_int_equal(d->ops->times(d, NULL, 0), 0);
    d->ops->close(d);
    setenv("TAILRACE_CUDA_TIMES", "1", 1);
    assert_int_equal(test_device_open(&d, &p, ARENA), 0);
    unsetenv("TAILRACE_CUDA_TIMES");
    run_some(d);
    length = d->ops->times(d, NULL, 0);
    assert_true(length > 100 && length < sizeof(text));
    assert_int_equal(d->ops->times(d, text, sizeof(text)), length);
    assert_int_equal(strlen(text), length);
    assert_non_null(strstr(text, "cast | 1100 times | "));
    assert_non_null(strstr(text, "matmul 4 x 16 x 8 in 1 | 2 times | "));
    assert_non_null(strstr(text, "waits above 10 ms | "));
    assert_null(strstr(text, "errors"));
    d->ops->times(d, text, 10);
    assert_int_equal(strlen(text), 9);
    d->ops->close(d);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_budget_holds),
        cmocka_unit_test(pinned_memory_keeps_the_budget),
        cmocka_unit_test(driver_of_portable_code),
        cmocka_unit_test(overhead_counts),
        cmocka_unit_test(no_budget_is_most_of_what_is_free),
        cmocka_unit_test(two_devices_share_a_gpu),
        cmocka_unit_test(missing_things_are_named),
        cmocka_unit_test(a_module_must_be_one),
        cmocka_unit_test(memory_that_cannot_be_pinned_serves),
        cmocka_unit_test(memory_of_the_drivers_serves),
        cmocka_unit_test(pinned_memory_is_counted),
        cmocka_unit_test(times_are_told),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
