/* SPDX-License-Identifier: Apache-2.0
 *
 * Errors of the cuda device, injected by the fake runtime: every call of a small life (open,
 * copies, ops, close) fails in turn, once by itself and once for good. Nothing crashes, nothing is
 * left behind, and every failure comes out somewhere with a message.
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

#define MIB ((uint64_t)1 << 20)

static const struct tr_device_params params = {.memory_bytes = 180 * MIB};

static const struct test_fake *need_fake(const char *words)
{
    const struct test_fake *fake = test_device_fake();

    if (!fake)
        skip();
    fake->configure(words);
    return fake;
}

static int32_t grain[2] = {0, 16};

static struct tr_op product(char *arena)
{
    struct tr_op op = {TR_OP_MATMUL, .matmul = {.w = arena,
                                                .x = arena + 65536,
                                                .y = arena + 2 * 65536,
                                                .n = 16,
                                                .m = 16,
                                                .k = 16,
                                                .grains = {1, grain}}};

    return op;
}

static struct tr_op sum(char *arena)
{
    struct tr_op op = {TR_OP_ADD, .add = {.a = arena + 2 * 65536,
                                          .b = (float *)(arena + 65536),
                                          .out = arena + 3 * 65536,
                                          .n = 256}};

    return op;
}

static void nothing(void *arg)
{
    (void)arg;
}

/* Remembers the first failure of a life and that it had something to say. */
struct life {
    int error;
    char message[600];
    int silent;
};

static void note(struct life *l, int error)
{
    if (!error)
        return;
    l->silent |= !tr_error_message()[0];
    if (!l->error) {
        l->error = error;
        snprintf(l->message, sizeof(l->message), "%s", tr_error_message());
    }
    tr_error(0, "%s", "");
}

static int went(struct life *l, int error)
{
    note(l, error);
    return !l->error;
}

/* Stops at the first failure: what follows may depend on what was not queued. */
static void work(struct tr_device *d, struct life *l, char *host)
{
    const struct tr_device_ops *o = d->ops;
    char *arena = o->arena(d);
    struct tr_op matmul = product(arena), add = sum(arena);
    struct tr_event *e = NULL;

    (void)(went(l, o->event_open(d, &e)) &&
           went(l, o->fill(d, TR_STREAM_IN, arena, 0, 2 * 65536)) &&
           went(l, o->copy_in(d, TR_STREAM_IN, arena, host, 1024)) &&
           went(l, o->record(d, TR_STREAM_IN, e)) && went(l, o->wait(d, TR_STREAM_COMPUTE, e)) &&
           went(l, o->run(d, TR_STREAM_COMPUTE, &matmul)) &&
           went(l, o->run(d, TR_STREAM_COMPUTE, &add)) &&
           went(l, o->call(d, TR_STREAM_COMPUTE, nothing, NULL)) &&
           went(l, o->copy_out(d, TR_STREAM_COMPUTE, host, arena + 3 * 65536, 1024)) &&
           went(l, o->error(d)));
    for (int s = 0; s < TR_STREAMS; s++)
        note(l, o->sync(d, (enum tr_stream)s));
    o->event_close(d, e);
}

static struct life live(void)
{
    struct life l = {0};
    struct tr_device *d = NULL;
    uint64_t bytes, total;
    void *host;

    tr_error(0, "%s", "");
    note(&l, tr_device_cuda_memory(0, &bytes, &total));
    note(&l, tr_device_cuda_workspace(0, &bytes));
    note(&l, tr_device_open_cuda(&d, &params));
    if (!d)
        return l;
    host = d->ops->host_alloc(d, 4096);
    assert_non_null(host);
    work(d, &l, host);
    d->ops->host_free(d, host, 4096);
    d->ops->close(d);
    return l;
}

/* Each of these fails at every call, and the life must say so. The rest are calls that give
 * something back, that ask whether the device is still there, and the one that pins memory. */
static void failures_are_told(void **state)
{
    static const char *const names[] = {"cublasLtCreate",
                                        "cublasLtMatmul",
                                        "cublasLtMatmulAlgoGetHeuristic",
                                        "cublasLtMatmulDescCreate",
                                        "cublasLtMatmulDescSetAttribute",
                                        "cublasLtMatmulPreferenceCreate",
                                        "cublasLtMatmulPreferenceSetAttribute",
                                        "cublasLtMatrixLayoutCreate",
                                        "cudaDriverGetVersion",
                                        "cudaEventCreateWithFlags",
                                        "cudaEventRecord",
                                        "cudaEventSynchronize",
                                        "cudaFuncGetAttributes",
                                        "cudaGetDeviceCount",
                                        "cudaGetDeviceProperties",
                                        "cudaLaunchHostFunc",
                                        "cudaMalloc",
                                        "cudaMemGetInfo",
                                        "cudaMemcpyAsync",
                                        "cudaMemsetAsync",
                                        "cudaRuntimeGetVersion",
                                        "cudaStreamCreateWithFlags",
                                        "cudaStreamWaitEvent",
                                        "launch"};

    (void)state;
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        const struct test_fake *fake;
        struct life l;
        char words[128];

        snprintf(words, sizeof(words), "memory=256MiB,fail=%s:1", names[i]);
        fake = need_fake(words);
        l = live();
        if (!l.error || l.silent)
            fail_msg("%s fails and nobody says so", names[i]);
        assert_int_equal(fake->leaks(), 0);
    }
    need_fake("");
}

static void every_call_may_fail(void **state)
{
    static const char *const how[] = {"2", "700", "sticky", "lost"};
    const struct test_fake *fake = need_fake("memory=256MiB");
    struct life l = live();
    uint64_t n = fake->calls(), misc = tr_mem_now(TR_MEM_MISC), io = tr_mem_now(TR_MEM_IO);

    (void)state;
    if (l.error)
        fail_msg("%s", l.message);
    assert_int_equal(fake->leaks(), 0);
    assert_true(n > 60);
    for (uint64_t i = 1; i <= n; i++)
        for (size_t h = 0; h < sizeof(how) / sizeof(how[0]); h++) {
            fake->configure("memory=256MiB");
            fake->fail_call(i, how[h]);
            l = live();
            assert_false(l.silent);
            fake->fail_call(1u << 30, "1");
            if (h < 2)
                assert_int_equal(fake->leaks(), 0);
            assert_int_equal(tr_mem_now(TR_MEM_MISC), misc);
            assert_int_equal(tr_mem_now(TR_MEM_IO), io);
        }
    fake->configure("");
}

/* ---- errors that stay ---- */

static void an_error_of_the_device_stays(void **state)
{
    const struct test_fake *fake = need_fake("memory=256MiB");
    struct tr_device *d = NULL;
    struct tr_event *e = NULL;
    struct tr_op op;
    char first[600];
    int code;

    (void)state;
    assert_int_equal(tr_device_open_cuda(&d, &params), 0);
    assert_int_equal(d->ops->event_open(d, &e), 0);
    op = sum(d->ops->arena(d));
    fake->fail_call(2, "700"); /* the kernel faults while it runs; the first call names the GPU */
    assert_int_equal(d->ops->run(d, TR_STREAM_COMPUTE, &op), 0);
    code = d->ops->sync(d, TR_STREAM_COMPUTE);
    assert_int_equal(code, -EIO);
    snprintf(first, sizeof(first), "%s", tr_error_message());
    assert_non_null(strstr(first, "cudaErrorIllegalAddress"));
    assert_non_null(strstr(first, "what was committed before is intact"));

    assert_int_equal(d->ops->error(d), code);
    assert_string_equal(tr_error_message(), first);
    assert_int_equal(d->ops->run(d, TR_STREAM_COMPUTE, &op), code);
    assert_int_equal(d->ops->fill(d, TR_STREAM_IN, d->ops->arena(d), 0, 16), code);
    assert_int_equal(d->ops->record(d, TR_STREAM_IN, e), code);
    assert_int_equal(d->ops->call(d, TR_STREAM_IN, nothing, NULL), code);
    assert_int_equal(d->ops->sync(d, TR_STREAM_OUT), code);
    assert_string_equal(tr_error_message(), first);
    d->ops->event_close(d, e);
    d->ops->close(d);
    fake->configure("");
}

/* Comes without a sync, to whoever asks. */
static void a_lost_device_is_seen_without_waiting(void **state)
{
    const struct test_fake *fake = need_fake("memory=256MiB");
    struct tr_device *d = NULL;

    (void)state;
    assert_int_equal(tr_device_open_cuda(&d, &params), 0);
    assert_int_equal(d->ops->error(d), 0);
    fake->fail_call(2, "lost");
    assert_int_equal(d->ops->error(d), -EIO);
    assert_non_null(strstr(tr_error_message(), "the device is lost"));
    assert_int_equal(d->ops->sync(d, TR_STREAM_COMPUTE), -EIO);
    d->ops->close(d);
    fake->configure("");
}

/* cuBLASLt has a status of its own, which says little: the driver is asked, too. */
static void cublas_tells_what_the_driver_tells(void **state)
{
    const struct test_fake *fake = need_fake("memory=256MiB,fail=cublasLtMatmul:lost");
    struct tr_device *d = NULL;
    struct tr_op op;

    (void)state;
    assert_int_equal(tr_device_open_cuda(&d, &params), 0);
    op = product(d->ops->arena(d));
    assert_int_equal(d->ops->run(d, TR_STREAM_COMPUTE, &op), 0);
    for (int i = 0; i < 2; i++) {
        assert_int_equal(d->ops->sync(d, TR_STREAM_COMPUTE), -EIO);
        assert_non_null(strstr(tr_error_message(), "op matmul on the cuda device: cuBLASLt"));
        assert_non_null(strstr(tr_error_message(), "CUBLAS_STATUS_EXECUTION_FAILED: cudaError"));
        assert_non_null(strstr(tr_error_message(), "what was committed before is intact"));
    }
    d->ops->close(d);
    fake->configure("");
}

/* A refusal by the runtime that is no fault of the device: one error, and work goes on. */
static void a_passing_error_passes(void **state)
{
    const struct test_fake *fake = need_fake("memory=256MiB");
    struct tr_device *d = NULL;
    struct tr_op op;

    (void)state;
    assert_int_equal(tr_device_open_cuda(&d, &params), 0);
    op = sum(d->ops->arena(d));
    fake->fail_call(2, "701");
    assert_int_equal(d->ops->run(d, TR_STREAM_COMPUTE, &op), 0);
    assert_int_equal(d->ops->sync(d, TR_STREAM_COMPUTE), -EIO);
    assert_non_null(strstr(tr_error_message(), "op add on the cuda device"));
    fake->fail_call(2, "1"); /* nor may a copy's failure be taken for that of a launch */
    assert_int_equal(d->ops->fill(d, TR_STREAM_COMPUTE, d->ops->arena(d), 0, 16), -EINVAL);
    assert_int_equal(d->ops->run(d, TR_STREAM_COMPUTE, &op), 0);
    assert_int_equal(d->ops->sync(d, TR_STREAM_COMPUTE), 0);
    d->ops->close(d);
    assert_int_equal(fake->leaks(), 0);
    fake->configure("");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_error_of_the_device_stays),
        cmocka_unit_test(a_lost_device_is_seen_without_waiting),
        cmocka_unit_test(a_passing_error_passes),
        cmocka_unit_test(cublas_tells_what_the_driver_tells),
        cmocka_unit_test(failures_are_told),
        cmocka_unit_test(every_call_may_fail),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
