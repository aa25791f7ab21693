/* SPDX-License-Identifier: Apache-2.0
 *
 * OpenBLAS gets the right kernels by itself, obeys the user's choice, says so when it comes too
 * late, and can be called from many threads at once. Each start is tried in a child process, as the
 * kernels are chosen once in a process.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>
#include <dlfcn.h>

#include "cpu/blas.h"
#include "cpu/flags.h"
#include "src/base/err.h"
#include "src/base/pool.h"

/* Runs fn in a child with OPENBLAS_CORETYPE = core (NULL: unset); 1 if it returned 1. */
static int in_child(int (*fn)(void), const char *core)
{
    pid_t pid = fork();
    int status = 0;

    if (pid == 0) {
        if (core)
            setenv("OPENBLAS_CORETYPE", core, 1);
        else
            unsetenv("OPENBLAS_CORETYPE");
        _exit(fn() ? 0 : 1);
    }
    assert_true(pid > 0);
    assert_int_equal(waitpid(pid, &status, 0), pid);
    return WIFEXITED(status) && WEXITSTATUS(status) == 0;
}

static int ends_with(const char *s, const char *end)
{
    size_t n = strlen(s), m = strlen(end);

    return n >= m && !strcmp(s + n - m, end);
}

static int chooses_by_itself(void)
{
    const struct tr_blas *blas, *again;
    const char *want = tr_cpu_blas_coretype();

    setenv("OPENBLAS_NUM_THREADS", "7", 1);
    if (tr_blas_open(&blas) || tr_blas_open(&again) || blas != again)
        return 0;
    if (getenv("OPENBLAS_CORETYPE") || strcmp(getenv("OPENBLAS_NUM_THREADS"), "7"))
        return 0;
    return (!want || ends_with(tr_blas_bits(blas), want)) && !*tr_blas_remark(blas);
}

static int obeys_the_user(void)
{
    const struct tr_blas *blas;

    return !tr_blas_open(&blas) && ends_with(tr_blas_bits(blas), " Nehalem") &&
           !*tr_blas_remark(blas) == !tr_cpu_blas_coretype() &&
           !strcmp(getenv("OPENBLAS_CORETYPE"), "Nehalem");
}

static int says_it_came_too_late(void)
{
    const struct tr_blas *blas;

    return dlopen("libopenblas.so.0", RTLD_NOW) && !tr_blas_open(&blas) &&
           (!tr_cpu_blas_coretype() || strstr(tr_blas_remark(blas), "had been loaded before"));
}

static void kernels_are_chosen(void **state)
{
    (void)state;
    assert_true(in_child(chooses_by_itself, NULL));
    assert_true(in_child(obeys_the_user, "Nehalem"));
    assert_true(in_child(says_it_came_too_late, "Nehalem"));
    /* The checks can fail: the wrong start does not pass them. */
    assert_false(in_child(obeys_the_user, "Haswell"));
    assert_false(in_child(chooses_by_itself, "Nehalem"));
}

#define CALLS 100
#define SIDE  70

static float a[SIDE * SIDE], b[SIDE * SIDE], products[CALLS][SIDE * SIDE];
static const struct tr_blas *shared;

static void multiply(void *arg, int64_t begin, int64_t end, int worker)
{
    (void)arg;
    (void)worker;
    for (int64_t i = begin; i < end; i++) {
        struct tr_gemm g = {.rows = SIDE,
                            .cols = SIDE,
                            .k = SIDE,
                            .a = a,
                            .b = b,
                            .c = products[i],
                            .lda = SIDE,
                            .ldb = SIDE,
                            .ldc = SIDE};
        for (int repeat = 0; repeat < 5; repeat++)
            tr_blas_gemm(shared, &g);
    }
}

/* More threads at once than the library was built for (64). */
static void many_threads_call_at_once(void **state)
{
    struct tr_pool *pool = NULL;

    (void)state;
    for (int i = 0; i < SIDE * SIDE; i++) {
        a[i] = (float)(i % 13) - 6;
        b[i] = (float)(i % 7) - 3;
    }
    assert_int_equal(tr_blas_open(&shared), 0);
    assert_int_equal(tr_pool_open(&pool, CALLS), 0);
    tr_pool_run(pool, CALLS, 1, multiply, NULL);
    tr_pool_close(pool);
    for (int row = 0; row < SIDE; row++) {
        double want = 0;

        for (int k = 0; k < SIDE; k++)
            want += (double)a[row * SIDE + k] * b[k * SIDE + row];
        assert_true((double)products[0][row * SIDE + row] == want);
    }
    for (int i = 1; i < CALLS; i++)
        assert_memory_equal(products[0], products[i], sizeof(products[0]));
}

/* Under a limit that the process has reached OpenBLAS would ask for them without an end. */
static void room_for_buffers(void **state)
{
    struct rlimit was, none;

    (void)state;
    assert_int_equal(tr_blas_check_room(2), 0);
    assert_int_equal(getrlimit(RLIMIT_AS, &was), 0);
    none = was;
    none.rlim_cur = 1 << 20;
    assert_int_equal(setrlimit(RLIMIT_AS, &none), 0);
    assert_int_equal(tr_blas_check_room(2), -ENOMEM);
    assert_int_equal(setrlimit(RLIMIT_AS, &was), 0);
    assert_non_null(strstr(tr_error_message(), "room for 0 of them"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(kernels_are_chosen),
        cmocka_unit_test(many_threads_call_at_once),
        cmocka_unit_test(room_for_buffers),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
