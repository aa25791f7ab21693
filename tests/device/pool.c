/* SPDX-License-Identifier: Apache-2.0
 *
 * The thread pool: every item is done once, in parts that respect the grain, whatever the counts.
 */
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

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
        assert_true(i == 0 || r.worker[i] >= r.worker[i - 1]);
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
        cmocka_unit_test(bad_counts_are_refused),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
