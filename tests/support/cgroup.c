/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/support/cgroup.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

static const struct cgroup_version {
    const char *root, *limit, *swap, *peak;
    int swap_counts_memory;
} versions[] = {
    {"/sys/fs/cgroup/memory", "memory.limit_in_bytes", "memory.memsw.limit_in_bytes",
     "memory.max_usage_in_bytes", 1},
    {"/sys/fs/cgroup", "memory.max", "memory.swap.max", "memory.peak", 0},
};

/* "r" or "r+": never makes a file where there is no such group. */
static FILE *open_file(const struct cgroup *g, const char *file, const char *mode)
{
    char path[256];

    snprintf(path, sizeof(path), "%s/%s", g->folder, file);
    return fopen(path, mode);
}

static int write_number(const struct cgroup *g, const char *file, uint64_t value)
{
    FILE *f = open_file(g, file, "r+");
    int n;

    if (!f)
        return -1;
    n = fprintf(f, "%llu\n", (unsigned long long)value);
    return fclose(f) == 0 && n > 0 ? 0 : -1;
}

/* 0 where there is no such file, nor a number in it. */
static int read_number(const struct cgroup *g, const char *file, uint64_t *value)
{
    FILE *f = open_file(g, file, "r");
    unsigned long long number = 0;
    int n = 0;

    if (f) {
        n = fscanf(f, "%llu", &number);
        fclose(f);
    }
    *value = number;
    return n == 1;
}

/* A limit that is there can be set, and is what was set. */
static int set_limit(const struct cgroup *g, const char *file, uint64_t limit)
{
    FILE *f = open_file(g, file, "r+");
    uint64_t is;

    if (!f)
        return 0;
    fclose(f);
    if (write_number(g, file, limit) < 0 || !read_number(g, file, &is) || is != limit)
        fail_msg("%s/%s is not %llu", g->folder, file, (unsigned long long)limit);
    return 1;
}

int cgroup_make(struct cgroup *g, const char *name, uint64_t bytes)
{
    for (size_t i = 0; i < sizeof(versions) / sizeof(versions[0]); i++) {
        const struct cgroup_version *v = &versions[i];

        g->version = v;
        snprintf(g->folder, sizeof(g->folder), "%s/%s", v->root, name);
        if (mkdir(g->folder, 0755) < 0 && errno != EEXIST)
            continue;
        if (set_limit(g, v->limit, bytes)) {
            print_message("in %s\n", g->folder);
            if (!set_limit(g, v->swap, v->swap_counts_memory ? bytes : 0))
                print_message("skipped: the limit of swap, which this kernel does not count\n");
            return 1;
        }
        rmdir(g->folder);
    }
    print_message("skipped: the memory cgroup, for none may be made here\n");
    return 0;
}

int cgroup_join(const struct cgroup *g)
{
    return write_number(g, "cgroup.procs", (uint64_t)getpid());
}

uint64_t cgroup_peak(const struct cgroup *g)
{
    uint64_t bytes;

    return read_number(g, g->version->peak, &bytes) ? bytes : 0;
}

/* A process that has been waited for may still be in it for a moment: a ring is closed by a worker
 * of the kernel. */
void cgroup_remove(const struct cgroup *g)
{
    int r = rmdir(g->folder);

    for (int i = 0; r < 0 && errno == EBUSY && i < 500; i++) {
        usleep(10000);
        r = rmdir(g->folder);
    }
    assert_int_equal(r, 0);
}
