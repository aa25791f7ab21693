/* SPDX-License-Identifier: Apache-2.0
 *
 * /proc/meminfo knows the machine and nothing of cgroups, so a container's limit is looked up in
 * its own cgroup and in every one above it.
 */
#include "src/base/sysmem.h"

#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "src/base/cgroup.h"
#include "src/base/err.h"

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

static void bound(void *arg, int version, const char *folder)
{
    const struct version *v = &versions[version];
    uint64_t most = read_limit(folder, v), used, cache, left;
    struct memory *m = arg;

    if (most == UINT64_MAX || !tr_cgroup_numbers(folder, v->usage, &used, 1))
        return;
    cache = reclaimable(folder, v);
    used -= cache < used ? cache : used;
    left = most > used ? most - used : 0;
    if (left < m->free)
        m->free = left;
    if (most < m->most)
        m->most = most;
}

uint64_t tr_installed_memory(void)
{
    return (uint64_t)sysconf(_SC_PHYS_PAGES) * (uint64_t)sysconf(_SC_PAGESIZE);
}

uint64_t tr_most_memory(void)
{
    struct memory m = {UINT64_MAX, tr_installed_memory()};

    tr_cgroup_walk("memory", bound, &m);
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
    tr_cgroup_walk("memory", bound, &m);
    *bytes = m.free;
    return 0;
}
