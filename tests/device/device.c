/* SPDX-License-Identifier: Apache-2.0
 *
 * The cpu device's machinery: order within a stream and across streams, events, delays that expose
 * a missing wait, kept errors, and a budget that is exact to the byte.
 */
#include <sched.h>
#include <semaphore.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "src/base/device.h"
#include "src/base/err.h"
#include "src/base/mem.h"

#define MEMORY (16u << 20)

static struct tr_device *open_device(unsigned delay_seed)
{
    struct tr_device_params p = {.memory_bytes = MEMORY, .threads = 2, .delay_seed = delay_seed};
    struct tr_device *d = NULL;

    assert_int_equal(tr_device_open_cpu(&d, &p), 0);
    return d;
}

/* ---- order ---- */

static void a_stream_runs_in_order(void **state)
{
    struct tr_device *d = open_device(0);
    unsigned char *a = d->ops->arena(d), out[4] = {0};

    (void)state;
    for (int i = 0; i < 1000; i++) { /* many times the ring */
        d->ops->fill(d, TR_STREAM_IN, a, i & 255, 64);
        d->ops->copy_in(d, TR_STREAM_IN, a + 4096, a, 64);
        d->ops->copy_out(d, TR_STREAM_IN, out + i % 4, a + 4096 + 63, 1);
    }
    assert_int_equal(d->ops->sync(d, TR_STREAM_IN), 0);
    for (int i = 0; i < 4; i++)
        assert_int_equal(out[i], (996 + i) & 255);
    d->ops->close(d);
}

struct round {
    unsigned char *cell;
    int want, wrong;
};

static void compare(void *arg)
{
    struct round *r = arg;

    /* Atomic, because the mutant below races on purpose. */
    r->wrong += __atomic_load_n(r->cell, __ATOMIC_RELAXED) != r->want;
}

static void store(void *arg)
{
    struct round *r = arg;

    __atomic_store_n(r->cell, (unsigned char)r->want, __ATOMIC_RELAXED);
}

/* IN writes a cell for COMPUTE to read, over and over, with or without the events that order the
 * write before the read and the read before the next write. Returns the wrong reads. */
static int produce_and_consume(unsigned seed, int with_wait, int rounds)
{
    static struct round r[200];
    struct tr_device *d = open_device(seed);
    struct tr_event *written, *read;
    int wrong = 0;

    assert_int_equal(d->ops->event_open(d, &written), 0);
    assert_int_equal(d->ops->event_open(d, &read), 0);
    for (int i = 0; i < rounds; i++) {
        r[i] = (struct round){.cell = d->ops->arena(d), .want = i % 250 + 1};
        d->ops->wait(d, TR_STREAM_IN, read);
        d->ops->call(d, TR_STREAM_IN, store, &r[i]);
        d->ops->record(d, TR_STREAM_IN, written);
        if (with_wait)
            d->ops->wait(d, TR_STREAM_COMPUTE, written);
        d->ops->call(d, TR_STREAM_COMPUTE, compare, &r[i]);
        d->ops->record(d, TR_STREAM_COMPUTE, read);
    }
    assert_int_equal(d->ops->sync(d, TR_STREAM_COMPUTE), 0);
    assert_int_equal(d->ops->sync(d, TR_STREAM_IN), 0);
    for (int i = 0; i < rounds; i++)
        wrong += r[i].wrong;
    d->ops->event_close(d, written);
    d->ops->event_close(d, read);
    d->ops->close(d);
    return wrong;
}

static void events_order_streams(void **state)
{
    (void)state;
    for (unsigned seed = 0; seed < 4; seed++)
        assert_int_equal(produce_and_consume(seed, 1, 100), 0);
}

/* The mutant: delays must expose the missing wait, with every seed. */
static void delays_expose_a_missing_wait(void **state)
{
    (void)state;
    for (unsigned seed = 1; seed < 6; seed++)
        assert_true(produce_and_consume(seed, 0, 100) > 0);
}

/* ---- events ---- */

static void hold(void *arg)
{
    sem_wait(arg);
}

static void count(void *arg)
{
    __atomic_fetch_add((int *)arg, 1, __ATOMIC_RELAXED);
}

static void an_event_is_the_point_of_its_last_record(void **state)
{
    struct tr_device *d = open_device(0);
    struct tr_event *e;
    sem_t gate;
    int n = 0;

    (void)state;
    sem_init(&gate, 0, 0);
    assert_int_equal(d->ops->event_open(d, &e), 0);
    d->ops->wait(d, TR_STREAM_COMPUTE, e); /* never recorded: no wait */
    d->ops->record(d, TR_STREAM_IN, e);
    d->ops->call(d, TR_STREAM_IN, hold, &gate); /* after the record: not waited for */
    d->ops->wait(d, TR_STREAM_COMPUTE, e);
    d->ops->call(d, TR_STREAM_COMPUTE, count, &n);
    assert_int_equal(d->ops->sync(d, TR_STREAM_COMPUTE), 0);
    assert_int_equal(n, 1);

    d->ops->record(d, TR_STREAM_IN, e); /* again, now behind the gate */
    d->ops->wait(d, TR_STREAM_COMPUTE, e);
    d->ops->event_close(d, e); /* the wait has captured its point */
    d->ops->call(d, TR_STREAM_COMPUTE, count, &n);
    usleep(20000);
    assert_int_equal(__atomic_load_n(&n, __ATOMIC_RELAXED), 1);
    sem_post(&gate);
    assert_int_equal(d->ops->sync(d, TR_STREAM_COMPUTE), 0);
    assert_int_equal(n, 2);
    d->ops->close(d);
    sem_destroy(&gate);
}

static void close_drains(void **state)
{
    struct tr_device *d = open_device(3);
    int n = 0;

    (void)state;
    for (int i = 0; i < 50; i++)
        for (int s = 0; s < TR_STREAMS; s++)
            d->ops->call(d, (enum tr_stream)s, count, &n);
    d->ops->close(d);
    assert_int_equal(n, 50 * TR_STREAMS);
}

/* ---- errors ---- */

static void errors_are_kept_until_a_sync(void **state)
{
    struct tr_device *d = open_device(0);
    int32_t start[2] = {0, 1};
    struct tr_op bad = {TR_OP_MATMUL, .matmul = {.n = 1, .m = 0, .k = 1, .grains = {1, start}}};
    struct tr_op worse = {.kind = TR_OP_KINDS};

    (void)state;
    assert_int_equal(d->ops->run(d, TR_STREAM_IN, &bad), -EINVAL);
    assert_int_equal(d->ops->error(d), 0);
    assert_int_equal(d->ops->run(d, TR_STREAM_COMPUTE, &bad), 0);
    assert_int_equal(d->ops->run(d, TR_STREAM_COMPUTE, &worse), 0);
    while (!d->ops->error(d)) /* comes without a sync, and stays */
        sched_yield();
    assert_int_equal(d->ops->error(d), -EINVAL);
    assert_non_null(strstr(tr_error_message(), "0 x 1"));
    assert_int_equal(d->ops->sync(d, TR_STREAM_COMPUTE), -EINVAL);
    assert_non_null(strstr(tr_error_message(), "0 x 1")); /* the first one */
    assert_int_equal(d->ops->error(d), 0);
    assert_int_equal(d->ops->sync(d, TR_STREAM_COMPUTE), 0);
    d->ops->close(d);
}

static void opaque_says_so(void **state)
{
    struct tr_device_params p = {.memory_bytes = MEMORY, .threads = 2, .opaque = 1};
    struct tr_device_info info;
    struct tr_device *d = NULL;

    (void)state;
    assert_int_equal(tr_device_open_cpu(&d, &p), 0);
    d->ops->info(d, &info);
    assert_false(info.host_visible);
    d->ops->close(d);
}

static void bad_parameters_are_refused(void **state)
{
    struct tr_device_params p = {.memory_bytes = 4096, .threads = 2};
    uint64_t before = tr_mem_now(TR_MEM_ARENA);
    struct tr_device *d = NULL;

    (void)state;
    assert_int_equal(tr_device_open_cpu(&d, &p), -EINVAL);
    assert_non_null(strstr(tr_error_message(), "too small"));
    p.memory_bytes = MEMORY;
    p.tier = "sse9";
    assert_int_equal(tr_device_open_cpu(&d, &p), -EINVAL);
    assert_non_null(strstr(tr_error_message(), "sse9"));
    assert_null(d);
    assert_int_equal(tr_mem_now(TR_MEM_ARENA), before);
}

/* ---- the budget (invariant 6) ---- */

/* Writes a byte in a child: the signal that ended it, 0 if none did. */
static int signal_of_write(char *p)
{
    int status = 0;
    pid_t pid = fork();

    if (pid == 0) {
        signal(SIGSEGV, SIG_DFL); /* also where a sanitizer has its own */
        *(volatile char *)p = 1;
        _exit(0);
    }
    assert_int_equal(waitpid(pid, &status, 0), pid);
    return WIFSIGNALED(status) ? WTERMSIG(status) : 0;
}

static void the_budget_is_exact(void **state)
{
    uint64_t before = tr_mem_now(TR_MEM_ARENA);
    struct tr_device_params p = {.memory_bytes = MEMORY, .threads = 2};
    struct tr_device *d = open_device(0);
    struct tr_device_info info;
    char *arena = d->ops->arena(d);

    (void)state;
    d->ops->info(d, &info);
    assert_int_equal(info.arena_bytes + info.workspace_bytes, MEMORY);
    assert_int_equal(info.workspace_bytes, tr_device_cpu_workspace(&p));
    assert_int_equal(tr_mem_now(TR_MEM_ARENA) - before, MEMORY);
    assert_int_equal((uintptr_t)arena % 4096, 0);
    assert_true(info.host_visible && info.grain_tokens == 512);
    assert_non_null(strstr(info.name, "OpenBLAS"));

    assert_int_equal(signal_of_write(arena), 0);
    assert_int_equal(signal_of_write(arena + info.arena_bytes - 1), 0);
    assert_int_equal(signal_of_write(arena + info.arena_bytes), SIGSEGV);
    assert_int_equal(signal_of_write(arena - 1), SIGSEGV);
    d->ops->close(d);
    assert_int_equal(tr_mem_now(TR_MEM_ARENA), before);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_stream_runs_in_order),
        cmocka_unit_test(events_order_streams),
        cmocka_unit_test(delays_expose_a_missing_wait),
        cmocka_unit_test(an_event_is_the_point_of_its_last_record),
        cmocka_unit_test(close_drains),
        cmocka_unit_test(errors_are_kept_until_a_sync),
        cmocka_unit_test(opaque_says_so),
        cmocka_unit_test(bad_parameters_are_refused),
        cmocka_unit_test(the_budget_is_exact),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
