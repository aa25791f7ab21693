/* SPDX-License-Identifier: Apache-2.0
 *
 * The device table, over the device that TR_TEST_DEVICE names: order within a stream and across
 * streams, events, delays that expose a missing wait, and kept errors.
 */
#include <sched.h>
#include <semaphore.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#include "src/base/err.h"
#include "tests/device/which.h"

#define MEMORY (16u << 20)

static struct tr_device *open_device(unsigned delay_seed)
{
    struct tr_device_params p = {.threads = 2, .delay_seed = delay_seed};
    struct tr_device *d = NULL;

    assert_int_equal(test_device_open(&d, &p, MEMORY), 0);
    return d;
}

/* ---- order ---- */

static void a_stream_runs_in_order(void **state)
{
    struct tr_device *d = open_device(0);
    unsigned char *a = d->ops->arena(d), way[64], out[4] = {0};

    (void)state;
    for (int i = 0; i < 1000; i++) { /* many times the ring */
        d->ops->fill(d, TR_STREAM_IN, a, i & 255, 64);
        d->ops->copy_out(d, TR_STREAM_IN, way, a, 64);
        d->ops->copy_in(d, TR_STREAM_IN, a + 4096, way, 64);
        d->ops->copy_out(d, TR_STREAM_IN, out + i % 4, a + 4096 + 63, 1);
    }
    assert_int_equal(d->ops->sync(d, TR_STREAM_IN), 0);
    for (int i = 0; i < 4; i++)
        assert_int_equal(out[i], (996 + i) & 255);
    d->ops->close(d);
}

/* IN writes a cell for COMPUTE to read, over and over, with or without the events that order the
 * write before the read and the read before the next write. Returns the wrong reads. */
static int produce_and_consume(unsigned seed, int with_wait, int rounds)
{
    struct tr_device *d = open_device(seed);
    unsigned char *cell = d->ops->arena(d), *seen = d->ops->host_alloc(d, 4096);
    struct tr_event *written, *read;
    int wrong = 0;

    assert_int_equal(d->ops->event_open(d, &written), 0);
    assert_int_equal(d->ops->event_open(d, &read), 0);
    for (int i = 0; i < rounds; i++) {
        d->ops->wait(d, TR_STREAM_IN, read);
        d->ops->fill(d, TR_STREAM_IN, cell, i % 250 + 1, 64);
        d->ops->record(d, TR_STREAM_IN, written);
        if (with_wait)
            d->ops->wait(d, TR_STREAM_COMPUTE, written);
        d->ops->copy_out(d, TR_STREAM_COMPUTE, seen + i, cell, 1);
        d->ops->record(d, TR_STREAM_COMPUTE, read);
    }
    assert_int_equal(d->ops->sync(d, TR_STREAM_COMPUTE), 0);
    assert_int_equal(d->ops->sync(d, TR_STREAM_IN), 0);
    for (int i = 0; i < rounds; i++)
        wrong += seen[i] != i % 250 + 1;
    d->ops->event_close(d, written);
    d->ops->event_close(d, read);
    d->ops->host_free(d, seen, 4096);
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
    if (!test_device_delays())
        skip();             /* nothing slows a real GPU down on purpose */
#ifndef __SANITIZE_THREAD__ /* which rightly calls it a data race */
    for (unsigned seed = 1; seed < 6; seed++)
        assert_true(produce_and_consume(seed, 0, 100) > 0);
#endif
}

/* ---- events ---- */

static void count(void *arg)
{
    __atomic_fetch_add((int *)arg, 1, __ATOMIC_RELAXED);
}

/* The second record is of much work: who waits for the first one reads what was there before. */
static void an_event_is_the_point_of_its_last_record(void **state)
{
    struct tr_device *d = open_device(test_device_delays() ? 5 : 0);
    unsigned char *a = d->ops->arena(d), *seen = d->ops->host_alloc(d, 4096);
    struct tr_event *e;

    (void)state;
    d->ops->fill(d, TR_STREAM_COMPUTE, a, 7, MEMORY);
    assert_int_equal(d->ops->event_open(d, &e), 0);
    d->ops->wait(d, TR_STREAM_COMPUTE, e); /* never recorded: no wait */
    d->ops->copy_out(d, TR_STREAM_COMPUTE, seen, a, 1);
    assert_int_equal(d->ops->sync(d, TR_STREAM_COMPUTE), 0);
    assert_int_equal(seen[0], 7);

    d->ops->record(d, TR_STREAM_IN, e);
    for (int i = 0; i < 20; i++)
        d->ops->fill(d, TR_STREAM_IN, a, 100 + i, MEMORY);
    d->ops->record(d, TR_STREAM_IN, e);
    d->ops->wait(d, TR_STREAM_COMPUTE, e);
    d->ops->event_close(d, e); /* the wait has captured its point */
    d->ops->copy_out(d, TR_STREAM_COMPUTE, seen + 1, a + MEMORY - 1, 1);
    assert_int_equal(d->ops->sync(d, TR_STREAM_COMPUTE), 0);
    assert_int_equal(seen[1], 119);
    assert_int_equal(d->ops->sync(d, TR_STREAM_IN), 0);
    d->ops->host_free(d, seen, 4096);
    d->ops->close(d);
}

/* ---- calls ---- */

struct look {
    const unsigned char *seen;
    int rounds, wrong;
};

static void look(void *arg)
{
    struct look *l = arg;

    l->wrong += l->seen[l->rounds] != (l->rounds & 127) + 1;
    l->rounds++;
}

/* Each call comes when what stands before it is done, in order; a sync waits for the calls too. */
static void a_call_comes_after_what_is_before_it(void **state)
{
    (void)state;
    for (unsigned seed = 0; seed < 4; seed++) {
        struct tr_device *d = open_device(test_device_delays() ? seed : 0);
        unsigned char *a = d->ops->arena(d), *seen = d->ops->host_alloc(d, 4096);
        struct look l = {.seen = seen};

        for (int i = 0; i < 100; i++) {
            d->ops->fill(d, TR_STREAM_OUT, a, (i & 127) + 1, 1u << 20);
            d->ops->copy_out(d, TR_STREAM_OUT, seen + i, a + (1u << 20) - 1, 1);
            assert_int_equal(d->ops->call(d, TR_STREAM_OUT, look, &l), 0);
        }
        assert_int_equal(d->ops->sync(d, TR_STREAM_OUT), 0);
        assert_int_equal(l.rounds, 100);
        assert_int_equal(l.wrong, 0);
        d->ops->host_free(d, seen, 4096);
        d->ops->close(d);
    }
}

static void hold(void *arg)
{
    sem_wait(arg);
}

/* A GPU's copies must not stand still until the host has answered. The cpu's streams may. */
static void a_call_holds_up_nobody(void **state)
{
    struct tr_device *d;
    unsigned char *seen;
    struct tr_event *e;
    sem_t gate;

    (void)state;
    if (test_device_is_cpu())
        skip();
    d = open_device(0);
    seen = d->ops->host_alloc(d, 4096);
    sem_init(&gate, 0, 0);
    assert_int_equal(d->ops->event_open(d, &e), 0);
    d->ops->call(d, TR_STREAM_IN, hold, &gate);
    d->ops->fill(d, TR_STREAM_IN, d->ops->arena(d), 9, 64);
    d->ops->record(d, TR_STREAM_IN, e);
    d->ops->wait(d, TR_STREAM_COMPUTE, e);
    d->ops->copy_out(d, TR_STREAM_COMPUTE, seen, d->ops->arena(d), 1);
    assert_int_equal(d->ops->sync(d, TR_STREAM_COMPUTE), 0);
    assert_int_equal(seen[0], 9);
    sem_post(&gate);
    assert_int_equal(d->ops->sync(d, TR_STREAM_IN), 0);
    d->ops->event_close(d, e);
    d->ops->host_free(d, seen, 4096);
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

static void the_arena_is_as_asked(void **state)
{
    struct tr_device *d = open_device(0);
    struct tr_device_info info;

    (void)state;
    d->ops->info(d, &info);
    assert_true(info.arena_bytes >= MEMORY);
    assert_int_equal((uintptr_t)d->ops->arena(d) % 4096, 0);
    assert_true(info.grain_tokens > 0 && info.name[0] && info.bits[0]);
    assert_int_equal(info.host_visible, test_device_is_cpu());
    assert_int_equal(info.compute[TR_F32], TR_F32);
    assert_int_equal(info.compute[TR_BF16], test_device_is_cpu() ? TR_F32 : TR_BF16);
    assert_string_equal(info.remark, "");
    d->ops->close(d);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_stream_runs_in_order),
        cmocka_unit_test(events_order_streams),
        cmocka_unit_test(delays_expose_a_missing_wait),
        cmocka_unit_test(an_event_is_the_point_of_its_last_record),
        cmocka_unit_test(a_call_comes_after_what_is_before_it),
        cmocka_unit_test(a_call_holds_up_nobody),
        cmocka_unit_test(close_drains),
        cmocka_unit_test(errors_are_kept_until_a_sync),
        cmocka_unit_test(the_arena_is_as_asked),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
