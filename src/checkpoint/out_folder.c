/* SPDX-License-Identifier: Apache-2.0
 *
 * The temporary name lies beside the place, not in it and not in /tmp: only within one file system
 * is a rename atomic. Its process id keeps two exports apart; rename() replaces an empty folder and
 * refuses a full one, so that of two that finish at once one fails and nothing is lost.
 */
#include "src/checkpoint/out_folder.h"

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "src/base/err.h"
#include "src/base/file.h"
#include "src/base/mem.h"

/* An empty folder may be a link: the rename must meet the folder itself. */
static char *resolve(const char *path, int exists)
{
    char real[PATH_MAX];
    size_t n;

    if (exists && realpath(path, real))
        return tr_strdup(TR_MEM_MISC, real);
    n = strlen(path);
    while (n > 1 && path[n - 1] == '/')
        n--;
    if (n >= sizeof(real)) {
        tr_error(-ENAMETOOLONG, "%s: path too long", path);
        return NULL;
    }
    memcpy(real, path, n);
    real[n] = 0;
    return tr_strdup(TR_MEM_MISC, real);
}

static void free_names(struct tr_out_folder *o)
{
    tr_free(TR_MEM_MISC, o->path);
    tr_free(TR_MEM_MISC, o->tmp);
    o->path = o->tmp = NULL;
}

int tr_out_folder_begin(struct tr_out_folder *o, const char *path)
{
    int empty = tr_folder_is_empty(path);
    size_t n;

    o->path = o->tmp = NULL;
    if (empty == 0)
        return tr_error(-EEXIST, "%s: exists and is not an empty folder; nothing is overwritten",
                        path);
    o->path = resolve(path, empty > 0);
    n = o->path ? strlen(o->path) + 32 : 0;
    o->tmp = o->path ? tr_alloc(TR_MEM_MISC, n) : NULL;
    if (!o->tmp) {
        free_names(o);
        return -ENOMEM;
    }
    snprintf(o->tmp, n, "%s.tmp-%ld", o->path, (long)getpid());
    if (mkdir(o->tmp, 0755) < 0) {
        int e = -errno;

        tr_error(e, "%s: cannot create the folder: %s", path, strerror(-e));
        free_names(o);
        return e;
    }
    return 0;
}

static int sync_parent(const char *path)
{
    char *parent = tr_path(path, "..");
    int r = parent ? tr_sync_folder(parent) : -ENOMEM;

    tr_free(TR_MEM_MISC, parent);
    return r;
}

/* Removing must not replace the message of what went wrong. */
static void remove_quietly(const char *path)
{
    char *message = tr_strdup(TR_MEM_MISC, tr_error_message());

    tr_remove_tree(path);
    if (message)
        tr_error(0, "%s", message);
    tr_free(TR_MEM_MISC, message);
}

int tr_out_folder_end(struct tr_out_folder *o, int r)
{
    if (r == 0)
        r = tr_sync_folder(o->tmp);
    if (r == 0 && rename(o->tmp, o->path) < 0)
        r = tr_error(-errno, "%s: cannot rename to %s: %s", o->tmp, o->path, strerror(errno));
    if (r < 0)
        remove_quietly(o->tmp);
    else
        r = sync_parent(o->path);
    free_names(o);
    return r;
}
