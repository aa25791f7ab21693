/* SPDX-License-Identifier: Apache-2.0 */
#include "src/base/cgroup.h"

#include <limits.h>
#include <stdio.h>
#include <string.h>

#define MOUNT "/sys/fs/cgroup"

int tr_cgroup_numbers(const char *folder, const char *name, uint64_t *out, int n)
{
    char path[PATH_MAX];
    unsigned long long value;
    int found = 0;
    FILE *f;

    if (snprintf(path, sizeof(path), "%s/%s", folder, name) >= (int)sizeof(path))
        return 0;
    f = fopen(path, "re");
    while (f && found < n && fscanf(f, "%llu", &value) == 1)
        out[found++] = value;
    if (f)
        fclose(f);
    return found;
}

/* From MOUNT/PATH up to MOUNT. */
static void walk_up(int version, const char *mount, char *path, tr_cgroup_fn *fn, void *arg)
{
    char folder[PATH_MAX], *slash;

    for (;;) {
        if (snprintf(folder, sizeof(folder), "%s%s", mount, path) < (int)sizeof(folder))
            fn(arg, version, folder);
        slash = strrchr(path, '/');
        if (!slash)
            return;
        *slash = 0;
    }
}

/* Is it one of "A,B,C"? */
static int is_among(const char *list, const char *name)
{
    size_t n = strlen(name);

    for (const char *at = list; *at; at += strcspn(at, ",") + (at[strcspn(at, ",")] == ','))
        if (strcspn(at, ",") == n && !strncmp(at, name, n))
            return 1;
    return 0;
}

/* Lines of "ID:CONTROLLERS:PATH"; a path may have colons, too. */
void tr_cgroup_walk(const char *controller, tr_cgroup_fn *fn, void *arg)
{
    char line[PATH_MAX + 64], mount[64], *controllers, *path;
    FILE *f = fopen("/proc/self/cgroup", "re");

    snprintf(mount, sizeof(mount), MOUNT "/%s", controller);
    while (f && fgets(line, sizeof(line), f)) {
        line[strcspn(line, "\n")] = 0;
        controllers = strchr(line, ':');
        path = controllers ? strchr(controllers + 1, ':') : NULL;
        if (!path)
            continue;
        *path++ = 0;
        if (!strcmp(line, "0:"))
            walk_up(2, MOUNT, path, fn, arg);
        else if (is_among(controllers + 1, controller))
            walk_up(1, mount, path, fn, arg);
    }
    if (f)
        fclose(f);
}
