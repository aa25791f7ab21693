/* SPDX-License-Identifier: Apache-2.0
 *
 * What only the cpu device has: its parameters, and a budget that is exact to the byte. What every
 * device has is tested in table.c.
 */
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

static struct tr_device *open_device(void)
{
    struct tr_device_params p = {.memory_bytes = MEMORY, .threads = 2};
    struct tr_device *d = NULL;

    assert_int_equal(tr_device_open_cpu(&d, &p), 0);
    return d;
}

/* ---- errors ---- */

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
    struct tr_device *d = open_device();
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

/* A device for f32 alone takes less for itself, and says what it cannot do instead of doing it
 * past its scratch. */
static void f32_alone_takes_less(void **state)
{
    static const int32_t start[] = {0, 1};
    struct tr_device_params all = {.memory_bytes = MEMORY, .threads = 2}, p = all;
    struct tr_device *d = NULL;
    struct tr_op op = {.kind = TR_OP_MATMUL};
    char *arena;

    (void)state;
    p.f32_only = 1;
    assert_true(4 * tr_device_cpu_workspace(&p) < tr_device_cpu_workspace(&all));
    assert_int_equal(tr_device_open_cpu(&d, &p), 0);
    arena = d->ops->arena(d);
    memset(arena, 0, 16384);
    op.matmul = (struct tr_op_matmul){.w = arena,
                                        .x = arena + 4096,
                                        .y = arena + 8192,
                                        .n = 1,
                                        .m = 16,
                                        .k = 16,
                                        .grains = {1, start}};
    assert_int_equal(d->ops->run(d, TR_STREAM_COMPUTE, &op), 0);
    assert_int_equal(d->ops->sync(d, TR_STREAM_COMPUTE), 0);
    op.matmul.w_dtype = TR_BF16;
    d->ops->run(d, TR_STREAM_COMPUTE, &op);
    assert_int_equal(d->ops->sync(d, TR_STREAM_COMPUTE), -EINVAL);
    assert_non_null(strstr(tr_error_message(), "f32 alone"));
    d->ops->close(d);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(opaque_says_so),
        cmocka_unit_test(bad_parameters_are_refused),
        cmocka_unit_test(the_budget_is_exact),
        cmocka_unit_test(f32_alone_takes_less),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
