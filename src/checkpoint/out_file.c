/* SPDX-License-Identifier: Apache-2.0
 *
 * A file is swept only where it is surely ours and nobody is at it any more: it has the name, is
 * this user's, begins with our mark, and its lock is free. It is locked before it has the mark, and
 * the mark goes when all else is synced, just before the file has its name.
 */
#include "src/checkpoint/out_file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "src/base/err.h"
#include "src/base/file.h"
#include "src/base/mem.h"
#include "src/checkpoint/unfinished.h"

static const char mark[] = TR_UNFINISHED_MARK "\n";

_Static_assert(sizeof(mark) - 1 == TR_OUT_FILE_HEAD, "the head takes the place of the mark");

/* Opened without waiting for anybody: under this name there may be a pipe. */
static void sweep_one(const char *path)
{
    int fd = open(path, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
    char begins[sizeof(mark) - 1];
    struct stat st;

    if (fd < 0)
        return;
    if (fstat(fd, &st) == 0 && S_ISREG(st.st_mode) && st.st_uid == geteuid() &&
        flock(fd, LOCK_EX | LOCK_NB) == 0 &&
        pread(fd, begins, sizeof(begins), 0) == (ssize_t)sizeof(begins) &&
        !memcmp(begins, mark, sizeof(begins)))
        unlink(path);
    close(fd);
}

static int refuse(const char *path)
{
    return tr_error(-EEXIST, "%s: exists", path);
}

int tr_out_file_check(const char *path)
{
    struct stat st;

    return lstat(path, &st) == 0 ? refuse(path) : 0;
}

int tr_out_file_begin(struct tr_out_file *o, const char *path)
{
    int r = tr_out_file_check(path);

    *o = (struct tr_out_file){.path = path, .fd = -1};
    if (r < 0)
        return r;
    tr_unfinished_sweep(path, sweep_one);
    o->tmp = tr_unfinished_name(path);
    if (!o->tmp)
        return -ENOMEM;
    o->fd = open(o->tmp, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
    if (o->fd < 0) {
        r = tr_error(-errno, "%s: cannot make: %s", o->tmp, strerror(errno));
        tr_free(TR_MEM_MISC, o->tmp);
        o->tmp = NULL;
        return r;
    }
    while (flock(o->fd, LOCK_EX) < 0 && errno == EINTR)
        ; /* without a lock, which not all file systems have, the file would never be swept */
    r = tr_pwrite(o->fd, o->tmp, mark, sizeof(mark) - 1, 0);
    return r < 0 ? tr_out_file_end(o, NULL, r) : 0;
}

static int sync_file(const struct tr_out_file *o)
{
    return fsync(o->fd) < 0 ? tr_error(-errno, "%s: cannot sync: %s", o->tmp, strerror(errno)) : 0;
}

/* A hard link never replaces what is there (invariant 7); where a file system has none, renaming
 * does as little as can be done. */
static int give_name(const struct tr_out_file *o)
{
    char *folder = tr_folder_of(o->path);
    int r = folder ? 0 : -ENOMEM, linked = r == 0 && link(o->tmp, o->path) == 0;

    if (r == 0 && !linked)
        r = errno == EEXIST ? refuse(o->path) : tr_out_file_check(o->path);
    if (r == 0 && (linked ? unlink(o->tmp) : rename(o->tmp, o->path)) < 0)
        r = tr_error(-errno, "%s: cannot rename to %s: %s", o->tmp, o->path, strerror(errno));
    if (r == 0)
        r = tr_sync_folder(folder);
    tr_free(TR_MEM_MISC, folder);
    return r;
}

int tr_out_file_end(struct tr_out_file *o, const void *head, int r)
{
    if (r == 0 && (r = sync_file(o)) == 0 &&
        (r = tr_pwrite(o->fd, o->tmp, head, TR_OUT_FILE_HEAD, 0)) == 0)
        r = sync_file(o);
    if (close(o->fd) < 0 && r == 0)
        r = tr_error(-errno, "%s: cannot write: %s", o->tmp, strerror(errno));
    if (r == 0)
        r = give_name(o);
    if (r < 0)
        unlink(o->tmp);
    tr_free(TR_MEM_MISC, o->tmp);
    *o = (struct tr_out_file){.fd = -1};
    return r;
}
