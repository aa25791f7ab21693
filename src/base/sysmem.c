/* SPDX-License-Identifier: Apache-2.0
 *
 * /proc/meminfo knows the machine and nothing of cgroups, so a container's limit is looked up in
 * its own cgroup and in every one above it. Nor does it know what a batch system's `ulimit -v` lets
 * the process have, where what is reserved counts like what is used.
 */
#include "src/base/sysmem.h"

#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <unistd.h>

#include "src/base/cgroup.h"
#include "src/base/err.h"
#include "src/base/thread.h"

/* What a thread reserves of the addresses that a process may have, in no budget: its stack,
 * malloc's arena and a buffer of the BLAS. */
#define BESIDE (256ull << 20)

struct memory {
    uint64_t free, most;
};

/* Past "high" nobody is killed, but all are slowed down until next to nothing is left: as good as a
 * limit. */
struct version {
    const char *limit[2], *usage, *cache[2];
};

static const struct version versions[] = {
    [1] = {{"memory.limit_in_bytes", NULL},
           "memory.usage_in_bytes",
           {"total_inactive_file ", "total_active_file "}},
    [2] = {{"memory.max", "memory.high"}, "memory.current", {"inactive_file ", "active_file "}}};

/* What of a group's use the kernel takes back when it is wanted: the cache of files. */
static uint64_t reclaimable(const char *folder, const struct version *v)
{
    char path[PATH_MAX], line[128];
    unsigned long long value;
    uint64_t bytes = 0;
    FILE *f;

    if (snprintf(path, sizeof(path), "%s/memory.stat", folder) >= (int)sizeof(path))
        return 0;
    f = fopen(path, "re");
    while (f && fgets(line, sizeof(line), f))
        for (int i = 0; i < 2; i++) {
            size_t n = strlen(v->cache[i]);

            if (!strncmp(line, v->cache[i], n) && sscanf(line + n, " %llu", &value) == 1)
                bytes += value;
        }
    if (f)
        fclose(f);
    return bytes;
}

static uint64_t read_limit(const char *folder, const struct version *v)
{
    uint64_t least = UINT64_MAX, limit;

    for (int i = 0; i < 2 && v->limit[i]; i++)
        if (tr_cgroup_numbers(folder, v->limit[i], &limit, 1) && limit < least)
            least = limit;
    return least;
}

static void bound(struct memory *m, uint64_t most, uint64_t used)
{
    uint64_t left = most > used ? most - used : 0;

    if (left < m->free)
        m->free = left;
    if (most < m->most)
        m->most = most;
}

static void bound_by_group(void *arg, int version, const char *folder)
{
    const struct version *v = &versions[version];
    uint64_t most = read_limit(folder, v), used, cache;

    if (most == UINT64_MAX || !tr_cgroup_numbers(folder, v->usage, &used, 1))
        return;
    cache = reclaimable(folder, v);
    bound(arg, most, used - (cache < used ? cache : used));
}

static void bound_by_process(struct memory *m)
{
    uint64_t page = (uint64_t)sysconf(_SC_PAGESIZE), beside = BESIDE * (uint64_t)tr_thread_cores();
    unsigned long long all = 0, data = 0;
    FILE *f = fopen("/proc/self/statm", "re");
    struct rlimit limit;

    if (f && fscanf(f, "%llu %*u %*u %*u %*u %llu", &all, &data) != 2)
        all = data = 0;
    if (f)
        fclose(f);
    if (getrlimit(RLIMIT_AS, &limit) == 0 && limit.rlim_cur != RLIM_INFINITY)
        bound(m, limit.rlim_cur, page * all + beside);
    if (getrlimit(RLIMIT_DATA, &limit) == 0 && limit.rlim_cur != RLIM_INFINITY)
        bound(m, limit.rlim_cur, page * data + beside);
}

uint64_t tr_installed_memory(void)
{
    return (uint64_t)sysconf(_SC_PHYS_PAGES) * (uint64_t)sysconf(_SC_PAGESIZE);
}

uint64_t tr_most_memory(void)
{
    struct memory m = {UINT64_MAX, tr_installed_memory()};

    tr_cgroup_walk("memory", bound_by_group, &m);
    bound_by_process(&m);
    return m.most;
}

int tr_free_memory(uint64_t *bytes)
{
    struct memory m = {.most = UINT64_MAX};
    unsigned long long kib = 0;
    char line[256];
    FILE *f = fopen("/proc/meminfo", "re");

    if (!f)
        return tr_error(-errno, "/proc/meminfo: %s", strerror(errno));
    while (fgets(line, sizeof(line), f))
        if (sscanf(line, "MemAvailable: %llu", &kib) == 1)
            break;
    fclose(f);
    if (!kib)
        return tr_error(-ENODATA, "/proc/meminfo: no MemAvailable");
    m.free = kib << 10;
    tr_cgroup_walk("memory", bound_by_group, &m);
    bound_by_process(&m);
    *bytes = m.free;
    return 0;
}

int tr_mappings_left(size_t bytes, int most)
{
    void *at[1024], *p = NULL;
    int n = 0;

    while (n < most && n < 1024 && p != MAP_FAILED) {
        p = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (p != MAP_FAILED)
            at[n++] = p;
    }
    for (int i = 0; i < n; i++)
        munmap(at[i], bytes);
    return n;
}
