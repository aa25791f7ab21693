/* SPDX-License-Identifier: Apache-2.0
 *
 * The thread pool: every item is done once, in parts that respect the grain, whatever the counts,
 * and a worker that is held up holds up no more than the part in hand.
 */
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "src/base/err.h"
#include "src/base/pool.h"

#define MAX_N 300

struct record {
    int done[MAX_N], worker[MAX_N];
    int64_t grain;
    int threads, misaligned, unblocked;
};

static void note(void *arg, int64_t begin, int64_t end, int worker)
{
    struct record *r = arg;
    sigset_t mask;

    if (begin % r->grain)
        __atomic_fetch_add(&r->misaligned, 1, __ATOMIC_RELAXED);
    pthread_sigmask(SIG_BLOCK, NULL, &mask);
    if (worker > 0 && !sigismember(&mask, SIGINT))
        __atomic_fetch_add(&r->unblocked, 1, __ATOMIC_RELAXED);
    for (int64_t i = begin; i < end; i++) {
        r->done[i]++;
        r->worker[i] = worker;
    }
}

static void check_run(struct tr_pool *pool, int64_t n, int64_t grain)
{
    struct record r = {.grain = grain, .threads = tr_pool_threads(pool)};

    tr_pool_run(pool, n, grain, note, &r);
    assert_int_equal(r.misaligned, 0);
    assert_int_equal(r.unblocked, 0);
    for (int64_t i = 0; i < n; i++) {
        assert_int_equal(r.done[i], 1);
        assert_in_range(r.worker[i], 0, r.threads - 1);
    }
    for (int64_t i = n; i < MAX_N; i++)
        assert_int_equal(r.done[i], 0);
}

static void every_item_is_done_once(void **state)
{
    (void)state;
    for (int threads = 1; threads <= 5; threads++) {
        struct tr_pool *pool = NULL;

        assert_int_equal(tr_pool_open(&pool, threads), 0);
        assert_int_equal(tr_pool_threads(pool), threads);
        for (int64_t n = 0; n < MAX_N; n += n < 20 ? 1 : 31)
            for (int64_t grain = 1; grain <= 64; grain *= 4)
                check_run(pool, n, grain);
        tr_pool_close(pool);
    }
}

static void add_up(void *arg, int64_t begin, int64_t end, int worker)
{
    int64_t *sums = arg;

    sums[worker] += end - begin;
}

/* Turns in quick succession, with fewer parts than workers in between: none is lost or repeated. */
static void turns_do_not_mix(void **state)
{
    struct tr_pool *pool = NULL;
    int64_t sums[3] = {0}, want = 0;

    (void)state;
    assert_int_equal(tr_pool_open(&pool, 3), 0);
    for (int64_t turn = 0; turn < 5000; turn++) {
        int64_t n = turn % 5;

        tr_pool_run(pool, n, 1, add_up, sums);
        want += n;
        assert_int_equal(sums[0] + sums[1] + sums[2], want);
    }
    tr_pool_close(pool);
}

struct held {
    _Atomic int64_t done;
    int64_t in_hand, n;
    _Atomic int waited; /* milliseconds */
};

/* Whoever has the first item does not end before all that it has not in hand is done. */
static void hold_first(void *arg, int64_t begin, int64_t end, int worker)
{
    struct held *h = arg;

    (void)worker;
    if (begin == 0) {
        h->in_hand = end;
        while (h->done < h->n - h->in_hand && h->waited < 20000) {
            usleep(1000);
            h->waited++;
        }
    } else {
        h->done += end - begin;
    }
}

static void a_held_worker_holds_up_one_part(void **state)
{
    (void)state;
    for (int threads = 2; threads <= 5; threads++) {
        struct tr_pool *pool = NULL;
        struct held h = {.n = 16 * threads};

        assert_int_equal(tr_pool_open(&pool, threads), 0);
        tr_pool_run(pool, h.n, 1, hold_first, &h);
        assert_int_equal(h.done, h.n - h.in_hand);
        assert_in_range(h.waited, 0, 19999);
        tr_pool_close(pool);
    }
}

static void bad_counts_are_refused(void **state)
{
    struct tr_pool *pool = NULL;

    (void)state;
    assert_int_equal(tr_pool_open(&pool, 0), -EINVAL);
    assert_int_equal(tr_pool_open(&pool, 100000), -EINVAL);
    assert_non_null(strstr(tr_error_message(), "100000"));
    tr_pool_close(NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_item_is_done_once),
        cmocka_unit_test(turns_do_not_mix),
        cmocka_unit_test(a_held_worker_holds_up_one_part),
        cmocka_unit_test(bad_counts_are_refused),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
