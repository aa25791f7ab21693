/* SPDX-License-Identifier: Apache-2.0
 *
 * Who sweeps takes the lock first, so a folder that is in use stays. Between its making and its
 * locking a folder looks like one that was left: its maker sees that it has lost it, and makes
 * another. Only folders of this user and of this name are looked at, and no link is followed.
 */
#include "src/run/temporary.h"

#include <dirent.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "src/base/err.h"
#include "src/base/file.h"
#include "src/base/mem.h"

#define NAME  "tailrace-temporary-"
#define TRIES 100

static const char *base(void)
{
    const char *folder = getenv("TMPDIR");

    return folder && *folder ? folder : "/var/tmp";
}

/* What cannot be removed is no reason to fail: it was somebody's before. */
static void sweep(const char *in)
{
    DIR *d = opendir(in);
    struct dirent *e;

    while (d && (e = readdir(d))) {
        char *path = strncmp(e->d_name, NAME, sizeof(NAME) - 1) ? NULL : tr_path(in, e->d_name);
        int fd = path ? tr_folder_lock(path) : -1;

        if (fd >= 0) {
            tr_remove_tree(path);
            close(fd);
        }
        tr_free(TR_MEM_MISC, path);
    }
    if (d)
        closedir(d);
}

int tr_temporary_make(struct tr_temporary *t, const char *in)
{
    char path[PATH_MAX];

    *t = (struct tr_temporary){.lock = -1};
    in = in ? in : base();
    sweep(in);
    for (int i = 0; i < TRIES && t->lock < 0; i++) {
        snprintf(path, sizeof(path), "%s/" NAME "XXXXXX", in);
        if (!mkdtemp(path))
            return tr_error(-errno, "%s: cannot make a temporary folder: %s", path,
                            strerror(errno));
        t->lock = tr_folder_lock(path);
    }
    if (t->lock < 0)
        return tr_error(-EBUSY, "%s: no temporary folder can be locked there", in);
    t->path = tr_strdup(TR_MEM_MISC, path);
    return t->path ? 0 : -ENOMEM;
}

int tr_temporary_remove(struct tr_temporary *t)
{
    int r = t->path ? tr_remove_tree(t->path) : 0;

    if (t->path && t->lock >= 0)
        close(t->lock);
    tr_free(TR_MEM_MISC, t->path);
    t->path = NULL;
    return r;
}
