/* SPDX-License-Identifier: Apache-2.0
 *
 * rename() replaces an empty folder and refuses a full one, so that of two that finish at once one
 * fails and nothing is lost.
 *
 * A folder is swept only where it is surely ours and nobody is at it any more: it has the name, is
 * this user's, holds our mark, and its lock is free. It is locked before it has the mark, and the
 * mark goes when all else is synced, just before the rename.
 */
#include "src/checkpoint/out_folder.h"

#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "src/base/err.h"
#include "src/base/file.h"
#include "src/base/mem.h"
#include "src/checkpoint/unfinished.h"

#define MARK TR_UNFINISHED_MARK

/* Nothing can be renamed to a folder that a file system or another folder is mounted on: to be
 * known before the first byte, not after the last. Older kernels do not tell. */
static int check_place(const char *path)
{
    struct statx st;

    if (statx(AT_FDCWD, path, 0, 0, &st) < 0 || !(st.stx_attributes & STATX_ATTR_MOUNT_ROOT))
        return 0;
    return tr_error(-EBUSY,
                    "%s: something is mounted there, and no folder can take its place: give one "
                    "in it, such as %s/model",
                    path, path);
}

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
    if (o->lock >= 0)
        close(o->lock);
    o->lock = -1;
    tr_free(TR_MEM_MISC, o->path);
    tr_free(TR_MEM_MISC, o->tmp);
    o->path = o->tmp = NULL;
}

static void sweep_one(const char *path)
{
    int fd = tr_folder_lock(path);
    struct stat st;

    if (fd < 0)
        return;
    if (fstatat(fd, MARK, &st, AT_SYMLINK_NOFOLLOW) == 0 && S_ISREG(st.st_mode))
        tr_remove_tree(path);
    close(fd);
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

static const char why[] = "A folder that is being written; what a kill has left of it is removed "
                          "by the next command that writes to the same place.\n";

/* Without a lock, which not all file systems have, the folder would never be swept. */
static int mark(struct tr_out_folder *o)
{
    char *path = tr_path(o->tmp, MARK);
    int fd = path ? open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644) : -1;
    int r = fd >= 0 ? tr_pwrite(fd, path, why, sizeof(why) - 1, 0) : -errno;

    if (path && fd < 0)
        tr_error(r, "%s: cannot make: %s", path, strerror(-r));
    if (fd >= 0)
        close(fd);
    tr_free(TR_MEM_MISC, path);
    return r;
}

static int unmark(struct tr_out_folder *o)
{
    return unlinkat(o->lock, MARK, 0) == 0
               ? 0
               : tr_error(-errno, "%s/" MARK ": cannot remove: %s", o->tmp, strerror(errno));
}

/* Who may see into an empty folder may see into what takes its place, and nobody else: if it cannot
 * be of the same group, then not that which it is of. */
static int take_after(const struct tr_out_folder *o)
{
    struct stat st;
    mode_t mode;

    if (stat(o->path, &st) < 0)
        return 0;
    mode = (st.st_mode & 07777) | S_IRWXU;
    if (fchown(o->lock, (uid_t)-1, st.st_gid) < 0)
        mode &= ~(mode_t)(S_ISGID | S_IRWXG);
    return fchmod(o->lock, mode) == 0
               ? 0
               : tr_error(-errno, "%s: cannot change who may use it: %s", o->tmp, strerror(errno));
}

static int make(struct tr_out_folder *o)
{
    int r;

    tr_unfinished_sweep(o->path, sweep_one);
    if (mkdir(o->tmp, 0755) < 0)
        return tr_error(-errno, "%s: cannot create the folder: %s", o->path, strerror(errno));
    o->lock = open(o->tmp, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (o->lock < 0)
        r = tr_error(-errno, "%s: cannot open: %s", o->tmp, strerror(errno));
    else
        r = flock(o->lock, LOCK_EX) == 0 || errno != EINTR ? mark(o) : -EINTR;
    if (r == 0)
        r = take_after(o);
    if (r < 0)
        remove_quietly(o->tmp);
    return r;
}

int tr_out_folder_begin(struct tr_out_folder *o, const char *path)
{
    int empty = tr_folder_is_empty(path), r;

    *o = (struct tr_out_folder){.lock = -1};
    if (empty == 0)
        return tr_error(-EEXIST, "%s: exists and is not an empty folder; nothing is overwritten",
                        path);
    if (empty > 0 && (r = check_place(path)) < 0)
        return r;
    o->path = resolve(path, empty > 0);
    o->tmp = o->path ? tr_unfinished_name(o->path) : NULL;
    if (!o->tmp) {
        free_names(o);
        return -ENOMEM;
    }
    r = make(o);
    if (r < 0)
        free_names(o);
    return r;
}

static int sync_parent(const char *path)
{
    char *parent = tr_path(path, "..");
    int r = parent ? tr_sync_folder(parent) : -ENOMEM;

    tr_free(TR_MEM_MISC, parent);
    return r;
}

int tr_out_folder_end(struct tr_out_folder *o, int r)
{
    if (r == 0)
        r = tr_sync_folder(o->tmp);
    if (r == 0)
        r = unmark(o);
    if (r == 0 && rename(o->tmp, o->path) < 0)
        r = tr_error(-errno, "%s: cannot rename to %s: %s", o->tmp, o->path, strerror(errno));
    if (r < 0)
        remove_quietly(o->tmp);
    else if ((r = tr_sync_folder(o->path)) == 0)
        r = sync_parent(o->path);
    free_names(o);
    return r;
}
