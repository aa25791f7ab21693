/* SPDX-License-Identifier: Apache-2.0 */
#include "src/checkpoint/unfinished.h"

#include <ctype.h>
#include <dirent.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "src/base/file.h"
#include "src/base/mem.h"

char *tr_unfinished_name(const char *path)
{
    size_t n = strlen(path) + 32;
    char *name = tr_alloc(TR_MEM_MISC, n);
    struct stat st;

    for (long number = getpid(); name; number++) {
        snprintf(name, n, "%s.tmp-%ld", path, number);
        if (lstat(name, &st) < 0)
            break;
    }
    return name;
}

/* NAME.tmp-NUMBER? */
int tr_unfinished_is(const char *entry, const char *name)
{
    size_t n = strlen(name);

    if (strncmp(entry, name, n) || strncmp(entry + n, ".tmp-", 5) ||
        !isdigit((unsigned char)entry[n + 5]))
        return 0;
    entry += n + 5;
    return !entry[strspn(entry, "0123456789")];
}

void tr_unfinished_sweep(const char *path, void (*sweep_one)(const char *left))
{
    const char *slash = strrchr(path, '/'), *name = slash ? slash + 1 : path;
    char *folder = tr_folder_of(path);
    DIR *d = folder ? opendir(folder) : NULL;
    struct dirent *e;

    while (d && (e = readdir(d))) {
        char *left = tr_unfinished_is(e->d_name, name) ? tr_path(folder, e->d_name) : NULL;

        if (left)
            sweep_one(left);
        tr_free(TR_MEM_MISC, left);
    }
    if (d)
        closedir(d);
    tr_free(TR_MEM_MISC, folder);
}
