/* SPDX-License-Identifier: Apache-2.0
 *
 * Free memory inside a memory cgroup: its limit bounds it, and files that have been read do not
 * count against it, for the kernel drops them when memory is wanted. And cores, of which a cgroup
 * may have all and little of their time. And a process with limits of its own.
 */
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "src/base/sysmem.h"
#include "src/base/thread.h"
#include "tests/support/cgroup.h"

#define MIB        (1ull << 20)
#define LIMIT      (256 * MIB)
#define FILE_BYTES (96 * MIB)

/* All of it is in the page cache then, as this process's. */
static void write_and_read(const char *path)
{
    static char buf[1 << 20];
    int fd = open(path, O_RDWR | O_CREAT | O_TRUNC, 0600);

    for (uint64_t at = 0; at < FILE_BYTES; at += sizeof(buf))
        assert_int_equal(write(fd, buf, sizeof(buf)), sizeof(buf));
    assert_int_equal(fsync(fd), 0);
    for (uint64_t at = 0; at < FILE_BYTES; at += sizeof(buf))
        assert_int_equal(pread(fd, buf, sizeof(buf), (off_t)at), sizeof(buf));
    close(fd);
}

static void inside(const struct cgroup *g)
{
    const char *folder = getenv("TMPDIR");
    char path[4096];
    uint64_t before, after;

    assert_int_equal(cgroup_join(g), 0);
    assert_int_equal(tr_most_memory(), LIMIT);
    assert_int_equal(tr_free_memory(&before), 0);
    assert_in_range(before, LIMIT / 2, LIMIT);
    snprintf(path, sizeof(path), "%s/tailrace-sysmem-%d", folder ? folder : "/var/tmp", getpid());
    write_and_read(path);
    assert_int_equal(tr_free_memory(&after), 0);
    unlink(path);
    print_message("free of %llu: %llu, and with a file of %llu read %llu\n", LIMIT,
                  (unsigned long long)before, FILE_BYTES, (unsigned long long)after);
    assert_in_range(after, before - FILE_BYTES / 4, LIMIT);
}

static void group_of_its_own(void **state)
{
    const struct cgroup *g = *state;
    pid_t child = fork();
    int status;

    if (child == 0) {
        inside(g);
        exit(0);
    }
    assert_int_equal(waitpid(child, &status, 0), child);
    cgroup_remove(g);
    assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
}

/* ---- groups as they are written down here ---- */

static const char *written;                    /* what lies in it */
static const char *group = "0::/job\n";        /* as the process is told */
static const char *at = "/sys/fs/cgroup/job/"; /* where it lies then */

FILE *__real_fopen64(const char *path, const char *mode);
FILE *__wrap_fopen64(const char *path, const char *mode);

/* Rows of "NAME CONTENT". */
static FILE *open_written(const char *name)
{
    static char text[64];
    size_t n = strlen(name);

    for (const char *row = written; *row; row += strcspn(row, "\n") + 1)
        if (!strncmp(row, name, n) && row[n] == ' ') {
            snprintf(text, sizeof(text), "%.*s", (int)strcspn(row + n, "\n") - 1, row + n + 1);
            return fmemopen(text, strlen(text), "r");
        }
    return NULL;
}

FILE *__wrap_fopen64(const char *path, const char *mode)
{
    if (written && !strcmp(path, "/proc/self/cgroup"))
        return fmemopen((char *)(uintptr_t)group, strlen(group), "r");
    if (written && !strncmp(path, at, strlen(at)))
        return open_written(path + strlen(at));
    if (written && !strncmp(path, "/sys/fs/cgroup/", 15))
        return NULL;
    return __real_fopen64(path, mode);
}

static void check_written(const char *rows, uint64_t most)
{
    uint64_t bytes;

    written = rows;
    assert_int_equal(tr_most_memory(), most);
    assert_int_equal(tr_free_memory(&bytes), 0);
    assert_true(bytes <= most - MIB);
    written = NULL;
}

/* Version 2: past "high" the kernel slows down what it kills past "max". */
static void second_version(void **state)
{
    (void)state;
    check_written("memory.max 268435456\nmemory.current 1048576\n", 256 * MIB);
    check_written("memory.max max\nmemory.high 134217728\nmemory.current 1048576\n", 128 * MIB);
    check_written("memory.max 268435456\nmemory.high 134217728\nmemory.current 1048576\n",
                  128 * MIB);
    check_written("memory.max 134217728\nmemory.high max\nmemory.current 1048576\n", 128 * MIB);
    check_written("memory.max max\nmemory.high max\nmemory.current 1048576\n", tr_most_memory());
}

static void check_cores(const char *rows, int cores)
{
    written = rows;
    assert_int_equal(tr_thread_cores(), cores);
    written = NULL;
}

/* Half a core is one. */
static void time_of_cores(void **state)
{
    int all = tr_thread_cores(), two = all < 2 ? all : 2;

    (void)state;
    check_cores("cpu.max max 100000\n", all);
    check_cores("cpu.max 50000 100000\n", 1);
    check_cores("cpu.max 100000 100000\n", 1);
    check_cores("cpu.max 100001 100000\n", two);
    check_cores("cpu.max 100000000 100000\n", all);
    check_cores("memory.max max\n", all);
    group = "3:memory:/else\n2:cpuacct,cpu:/job\n1:cpuset:/else\n";
    at = "/sys/fs/cgroup/cpu/job/";
    check_cores("cpu.cfs_quota_us -1\ncpu.cfs_period_us 100000\n", all);
    check_cores("cpu.cfs_quota_us 30000\ncpu.cfs_period_us 100000\n", 1);
    check_cores("cpu.cfs_quota_us 30000\n", all);
    group = "2:cpuacct,cpus:/job\n";
    check_cores("cpu.cfs_quota_us 30000\ncpu.cfs_period_us 100000\n", all);
    group = "0::/job\n";
    at = "/sys/fs/cgroup/job/";
}

/* ---- limits of the process ---- */

static int limited = -1; /* the resource */
static uint64_t limit;

int __real_getrlimit64(int resource, struct rlimit *out);
int __wrap_getrlimit64(int resource, struct rlimit *out);

int __wrap_getrlimit64(int resource, struct rlimit *out)
{
    if (resource != limited)
        return __real_getrlimit64(resource, out);
    out->rlim_cur = out->rlim_max = limit;
    return 0;
}

/* What a batch system sets by `ulimit -v` or -d. What the process has counts, and each thread takes
 * addresses that are in no budget. */
static void check_limit(int resource)
{
    uint64_t beside = 256 * MIB * (uint64_t)tr_thread_cores(), bytes;

    limited = resource;
    limit = beside + LIMIT;
    assert_true(tr_most_memory() <= limit);
    assert_int_equal(tr_free_memory(&bytes), 0);
    assert_true(bytes < LIMIT);
    limit = beside / 2;
    assert_int_equal(tr_most_memory(), limit);
    assert_int_equal(tr_free_memory(&bytes), 0);
    assert_int_equal(bytes, 0);
    limited = -1;
}

static void limits_of_the_process(void **state)
{
    (void)state;
    check_limit(RLIMIT_AS);
    check_limit(RLIMIT_DATA);
}

static void no_group(void **state)
{
    uint64_t bytes;

    (void)state;
    assert_true(tr_most_memory() <= tr_installed_memory());
    assert_int_equal(tr_free_memory(&bytes), 0);
    assert_in_range(bytes, MIB, tr_most_memory());
}

int main(void)
{
    struct cgroup g;
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(no_group),
        cmocka_unit_test(limits_of_the_process),
        cmocka_unit_test(second_version),
        cmocka_unit_test(time_of_cores),
        cmocka_unit_test_prestate(group_of_its_own, &g),
    };

    /* A path with a colon, which ends no field of /proc/self/cgroup. */
    if (!cgroup_make(&g, "tailrace:sysmem", LIMIT))
        return 77;
    return cmocka_run_group_tests(tests, NULL, NULL);
}
