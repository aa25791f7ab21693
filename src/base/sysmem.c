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

static void bound_by_folder(const char *folder, const char *limit, const char *usage,
                            uint64_t *free)
{
    uint64_t most, used, left;

    if (!read_number(folder, limit, &most) || !read_number(folder, usage, &used))
        return;
    left = most > used ? most - used : 0;
    if (left < *free)
        *free = left;
}

/* Walks from MOUNT/PATH up to MOUNT: a limit anywhere above counts too. */
static void bound_by_cgroup(const char *mount, char *path, int version, uint64_t *free)
{
    const char *limit = version == 2 ? "memory.max" : "memory.limit_in_bytes";
    const char *usage = version == 2 ? "memory.current" : "memory.usage_in_bytes";
    char folder[PATH_MAX], *slash;

    for (;;) {
        if (snprintf(folder, sizeof(folder), "%s%s", mount, path) < (int)sizeof(folder))
            bound_by_folder(folder, limit, usage, free);
        slash = strrchr(path, '/');
        if (!slash)
            return;
        *slash = 0;
    }
}

static void bound_by_cgroups(uint64_t *free)
{
    char line[PATH_MAX + 64], *path;
    FILE *f = fopen("/proc/self/cgroup", "re");

    if (!f)
        return;
    while (fgets(line, sizeof(line), f)) {
        line[strcspn(line, "\n")] = 0;
        path = strrchr(line, ':');
        if (!path)
            continue;
        if (strncmp(line, "0::", 3) == 0)
            bound_by_cgroup("/sys/fs/cgroup", path + 1, 2, free);
        else if (strstr(line, ":memory:"))
            bound_by_cgroup("/sys/fs/cgroup/memory", path + 1, 1, free);
    }
    fclose(f);
}

uint64_t tr_installed_memory(void)
{
    return (uint64_t)sysconf(_SC_PHYS_PAGES) * (uint64_t)sysconf(_SC_PAGESIZE);
}

int tr_free_memory(uint64_t *bytes)
{
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
    *bytes = kib << 10;
    bound_by_cgroups(bytes);
    return 0;
}
