/* SPDX-License-Identifier: Apache-2.0
 *
 * Free memory inside a memory cgroup: its limit bounds it, and files that have been read do not
 * count against it, for the kernel drops them when memory is wanted.
 */
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "src/base/sysmem.h"

#define MIB        (1ull << 20)
#define LIMIT      (256 * MIB)
#define FILE_BYTES (96 * MIB)

/* Of version 1, else 2; its path has a colon, which ends no field of /proc/self/cgroup. */
static const struct group {
    const char *folder, *limit;
} groups[] = {{"/sys/fs/cgroup/memory/tailrace:sysmem", "memory.limit_in_bytes"},
              {"/sys/fs/cgroup/tailrace:sysmem", "memory.max"}};

static int write_file(const struct group *g, const char *name, unsigned long long value)
{
    char path[256];
    FILE *f;
    int n;

    snprintf(path, sizeof(path), "%s/%s", g->folder, name);
    if (!(f = fopen(path, "r+")))
        return 0;
    n = fprintf(f, "%llu\n", value);
    return fclose(f) == 0 && n > 0;
}

static const struct group *make_group(void)
{
    for (size_t i = 0; i < sizeof(groups) / sizeof(groups[0]); i++) {
        const struct group *g = &groups[i];

        mkdir(g->folder, 0755);
        if (write_file(g, g->limit, LIMIT))
            return g;
        rmdir(g->folder);
    }
    return NULL;
}

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

static void inside(const struct group *g)
{
    const char *folder = getenv("TMPDIR");
    char path[4096];
    uint64_t before, after;

    assert_true(write_file(g, "cgroup.procs", (unsigned long long)getpid()));
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
    const struct group *g = *state;
    pid_t child = fork();
    int status;

    if (child == 0) {
        inside(g);
        exit(0);
    }
    assert_int_equal(waitpid(child, &status, 0), child);
    rmdir(g->folder);
    assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
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
    const struct group *g = make_group();
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(no_group),
        cmocka_unit_test_prestate(group_of_its_own, (void *)g),
    };

    if (!g) {
        puts("skipped: no memory cgroup may be made here");
        return 77;
    }
    return cmocka_run_group_tests(tests, NULL, NULL);
}
