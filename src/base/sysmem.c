/* SPDX-License-Identifier: Apache-2.0
 *
 * /proc/meminfo knows the machine and nothing of cgroups, so a container's limit is looked up in
 * its own cgroup and in every one above it. A file that is absent or says "max" bounds nothing.
 */
#include "src/base/sysmem.h"

#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "src/base/err.h"

struct memory {
    uint64_t free, most;
};

/* Past "high" nobody is killed, but all are slowed down until next to nothing is left: as good as a
 * limit. */
struct version {
    const char *mount, *limit[2], *usage, *cache[2];
};

static const struct version version_1 = {"/sys/fs/cgroup/memory",
                                         {"memory.limit_in_bytes", NULL},
                                         "memory.usage_in_bytes",
                                         {"total_inactive_file ", "total_active_file "}};
static const struct version version_2 = {"/sys/fs/cgroup",
                                         {"memory.max", "memory.high"},
                                         "memory.current",
                                         {"inactive_file ", "active_file "}};

static int read_number(const char *folder, const char *name, uint64_t *out)
{
    char path[PATH_MAX];
    unsigned long long value;
    int found;
    FILE *f;

    if (snprintf(path, sizeof(path), "%s/%s", folder, name) >= (int)sizeof(path))
        return 0;
    f = fopen(path, "re");
    if (!f)
        return 0;
    found = fscanf(f, "%llu", &value) == 1;
    fclose(f);
    if (found)
        *out = value;
    return found;
}

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
        if (read_number(folder, v->limit[i], &limit) && limit < least)
            least = limit;
    return least;
}

static void bound_by_folder(const char *folder, const struct version *v, struct memory *m)
{
    uint64_t most = read_limit(folder, v), used, cache, left;

    if (most == UINT64_MAX || !read_number(folder, v->usage, &used))
        return;
    cache = reclaimable(folder, v);
    used -= cache < used ? cache : used;
    left = most > used ? most - used : 0;
    if (left < m->free)
        m->free = left;
    if (most < m->most)
        m->most = most;
}

/* Walks from MOUNT/PATH up to MOUNT: a limit anywhere above counts too. */
static void bound_by_cgroup(const struct version *v, char *path, struct memory *m)
{
    char folder[PATH_MAX], *slash;

    for (;;) {
        if (snprintf(folder, sizeof(folder), "%s%s", v->mount, path) < (int)sizeof(folder))
            bound_by_folder(folder, v, m);
        slash = strrchr(path, '/');
        if (!slash)
            return;
        *slash = 0;
    }
}

/* Lines of "ID:CONTROLLERS:PATH"; a path may have colons, too. */
static void bound_by_cgroups(struct memory *m)
{
    char line[PATH_MAX + 64], *controllers, *path;
    FILE *f = fopen("/proc/self/cgroup", "re");

    if (!f)
        return;
    while (fgets(line, sizeof(line), f)) {
        line[strcspn(line, "\n")] = 0;
        controllers = strchr(line, ':');
        path = controllers ? strchr(controllers + 1, ':') : NULL;
        if (!path)
            continue;
        *path++ = 0;
        if (!strcmp(line, "0:"))
            bound_by_cgroup(&version_2, path, m);
        else if (!strcmp(controllers, ":memory"))
            bound_by_cgroup(&version_1, path, m);
    }
    fclose(f);
}

uint64_t tr_installed_memory(void)
{
    return (uint64_t)sysconf(_SC_PHYS_PAGES) * (uint64_t)sysconf(_SC_PAGESIZE);
}

uint64_t tr_most_memory(void)
{
    struct memory m = {UINT64_MAX, tr_installed_memory()};

    bound_by_cgroups(&m);
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
    bound_by_cgroups(&m);
    *bytes = m.free;
    return 0;
}
