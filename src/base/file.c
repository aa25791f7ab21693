/* SPDX-License-Identifier: Apache-2.0 */
#include "src/base/file.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "src/base/err.h"
#include "src/base/mem.h"

#define FLUSH_BYTES (64u << 20) /* so that a small machine never holds many dirty pages */

static int fail(const char *what, const char *path)
{
    int e = errno;

    return tr_error(-e, "%s: %s: %s", path, what, strerror(e));
}

int tr_pread(int fd, const char *path, void *buf, size_t n, uint64_t offset)
{
    char *p = buf;

    while (n) {
        ssize_t r = pread(fd, p, n, (off_t)offset);

        if (r < 0 && errno == EINTR)
            continue;
        if (r < 0)
            return fail("cannot read", path);
        if (r == 0)
            return tr_error(-ENODATA, "%s: ends at byte %llu, %zu bytes short", path,
                            (unsigned long long)offset, n);
        p += r;
        n -= (size_t)r;
        offset += (uint64_t)r;
    }
    return 0;
}

int tr_pwrite(int fd, const char *path, const void *buf, size_t n, uint64_t offset)
{
    const char *p = buf;

    while (n) {
        ssize_t r = pwrite(fd, p, n, (off_t)offset);

        if (r < 0 && errno == EINTR)
            continue;
        if (r < 0)
            return tr_error(-errno, "%s: cannot write %zu bytes at byte %llu: %s", path, n,
                            (unsigned long long)offset, strerror(errno));
        p += r;
        n -= (size_t)r;
        offset += (uint64_t)r;
    }
    return 0;
}

/* Left to itself the kernel would hold written pages until the end, and a memory cgroup counts
 * them: the export of a large model must not need its size (the page cache of 2.2 GB would not fit
 * in the 1 GiB that the whole run is promised to stay in). */
int tr_file_flush(int fd, const char *path, uint64_t written, uint64_t *flushed)
{
    if (written - *flushed < FLUSH_BYTES)
        return 0;
    if (fdatasync(fd) < 0)
        return fail("cannot sync", path);
    posix_fadvise(fd, 0, (off_t)written, POSIX_FADV_DONTNEED);
    *flushed = written;
    return 0;
}

static int check_regular(int fd, const char *path, size_t limit, size_t *bytes)
{
    struct stat st;

    if (fstat(fd, &st) < 0)
        return fail("cannot stat", path);
    if (!S_ISREG(st.st_mode))
        return tr_error(-EINVAL, "%s: not a regular file", path);
    if ((uint64_t)st.st_size > limit)
        return tr_error(-EFBIG, "%s: %lld bytes, at most %zu are read", path, (long long)st.st_size,
                        limit);
    *bytes = (size_t)st.st_size;
    return 0;
}

int tr_file_read(const char *path, size_t limit, char **out, size_t *bytes)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK); /* a fifo must not block */
    char *buf = NULL;
    size_t n = 0;
    int r;

    if (fd < 0)
        return fail("cannot open", path);
    r = check_regular(fd, path, limit, &n);
    if (r == 0 && !(buf = tr_alloc(TR_MEM_TEXT, n + 1)))
        r = -ENOMEM;
    if (r == 0)
        r = tr_pread(fd, path, buf, n, 0);
    close(fd);
    if (r < 0) {
        tr_free(TR_MEM_TEXT, buf);
        return r;
    }
    *out = buf;
    if (bytes)
        *bytes = n;
    return 0;
}

int tr_sync_folder(const char *path)
{
    int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC), r = 0;

    if (fd < 0)
        return fail("cannot open", path);
    if (fsync(fd) < 0 && errno != EINVAL && errno != EOPNOTSUPP)
        r = fail("cannot sync", path);
    close(fd);
    return r;
}

static int sync_parent(const char *path)
{
    char *folder = tr_folder_of(path);
    int r = folder ? tr_sync_folder(folder) : -ENOMEM;

    tr_free(TR_MEM_MISC, folder);
    return r;
}

/* A new file of this name, locked. Another writer is waited for: then its file has the final name.
 * One that nobody is at was left by a kill, and goes: no byte is written to a file that was there.
 * Where the file system has no locks, two at once are not kept apart. */
static int open_unfinished(const char *tmp)
{
    struct stat is, named;
    int fd, r = 0;

    while (r == 0) {
        fd = open(tmp, O_WRONLY | O_CREAT | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC, 0644);
        if (fd < 0)
            return fail("cannot create", tmp);
        while (flock(fd, LOCK_EX) < 0 && errno == EINTR)
            ;
        if (fstat(fd, &is) == 0 && lstat(tmp, &named) == 0 && is.st_dev == named.st_dev &&
            is.st_ino == named.st_ino) {
            if (S_ISREG(is.st_mode) && is.st_size == 0 && is.st_nlink == 1)
                return fd;
            if (unlink(tmp) < 0)
                r = fail("cannot remove", tmp);
        }
        close(fd);
    }
    return r;
}

int tr_file_write(const char *path, const void *data, size_t bytes)
{
    char tmp[4096];
    int fd, r;

    if (snprintf(tmp, sizeof(tmp), "%s" TR_FILE_TMP, path) >= (int)sizeof(tmp))
        return tr_error(-ENAMETOOLONG, "%s: path too long", path);
    fd = open_unfinished(tmp);
    if (fd < 0)
        return fd;
    r = tr_pwrite(fd, tmp, data, bytes, 0);
    if (r == 0 && fsync(fd) < 0)
        r = fail("cannot sync", tmp);
    if (r == 0 && rename(tmp, path) < 0)
        r = fail("cannot rename to", path);
    if (r < 0)
        unlink(tmp);
    close(fd); /* and with it the lock */
    return r < 0 ? r : sync_parent(path);
}

static int copy_bytes(int in, int out, const char *from, const char *to, uint64_t most)
{
    char buf[65536];
    uint64_t offset = 0;

    for (;;) {
        ssize_t n = pread(in, buf, sizeof(buf), (off_t)offset);
        int r;

        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return fail("cannot read", from);
        if (n == 0)
            return fsync(out) < 0 ? fail("cannot sync", to) : 0;
        if ((uint64_t)n > most - offset)
            return tr_error(-EFBIG, "%s: is larger than %llu bytes", from,
                            (unsigned long long)most);
        r = tr_pwrite(out, to, buf, (size_t)n, offset);
        if (r < 0)
            return r;
        offset += (uint64_t)n;
    }
}

int tr_file_copy(const char *from, const char *to, uint64_t most)
{
    int in = open(from, O_RDONLY | O_CLOEXEC | O_NONBLOCK), out, r;

    if (in < 0)
        return fail("cannot open", from);
    out = open(to, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
    if (out < 0) {
        r = fail("cannot create", to);
        close(in);
        return r;
    }
    r = copy_bytes(in, out, from, to, most);
    close(out);
    close(in);
    if (r < 0)
        unlink(to);
    return r;
}

/* What is made durable in it later is lost all the same if its own name is. */
static int enter_folder(const char *path)
{
    char above[4096];
    int r;

    snprintf(above, sizeof(above), "%s/..", path);
    r = tr_sync_folder(above);
    if (r < 0)
        rmdir(path);
    return r;
}

int tr_make_folder(const char *path)
{
    struct stat st;

    if (mkdir(path, 0755) == 0)
        return enter_folder(path);
    if (errno == EEXIST && stat(path, &st) == 0 && S_ISDIR(st.st_mode))
        return 0;
    return fail("cannot create the folder", path);
}

int tr_folder_is_empty(const char *path)
{
    DIR *d = opendir(path);
    struct dirent *e;
    struct stat st;
    int empty = 1;

    if (!d && errno == ENOENT && lstat(path, &st) < 0)
        return -ENOENT;
    /* A file, or a link to nothing, is not empty; what cannot be looked at is an error. */
    if (!d && errno != ENOTDIR && errno != ENOENT && errno != ELOOP)
        return fail("cannot open", path);
    if (!d)
        return lstat(path, &st) < 0 ? fail("cannot open", path) : 0;
    while (empty && (e = readdir(d)))
        empty = !strcmp(e->d_name, ".") || !strcmp(e->d_name, "..");
    closedir(d);
    return empty;
}

int tr_folder_has(const char *folder, const char *name)
{
    char *path = tr_path(folder, name);
    struct stat st;
    int yes = path && stat(path, &st) == 0;

    tr_free(TR_MEM_MISC, path);
    return yes;
}

int tr_folder_holds_only(const char *path, const char *name)
{
    DIR *d = opendir(path);
    struct dirent *e;
    int found = 0, others = 0;

    while (d && (e = readdir(d))) {
        if (!strcmp(e->d_name, name))
            found = 1;
        else if (strcmp(e->d_name, ".") && strcmp(e->d_name, ".."))
            others = 1;
    }
    if (d)
        closedir(d);
    return found && !others;
}

int tr_folder_lock(const char *path)
{
    int fd = open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    struct stat st;

    if (fd < 0)
        return -1;
    if (fstat(fd, &st) == 0 && st.st_uid == geteuid() && flock(fd, LOCK_EX | LOCK_NB) == 0 &&
        fstat(fd, &st) == 0 && st.st_nlink > 0)
        return fd;
    close(fd);
    return -1;
}

int tr_remove_tree(const char *path)
{
    int fd = open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC), r = 0;
    DIR *d = fd < 0 ? NULL : fdopendir(fd);
    struct dirent *e;

    if (fd >= 0 && !d) {
        close(fd);
        return tr_error(-ENOMEM, "%s: out of memory", path);
    }
    if (!d && errno != ENOTDIR && errno != ELOOP && errno != ENOENT)
        return fail("cannot open", path);
    if (!d)
        return unlink(path) < 0 && errno != ENOENT ? fail("cannot remove", path) : 0;
    while (r == 0 && (e = readdir(d))) {
        char *child;
        struct stat st;

        if (!strcmp(e->d_name, ".") || !strcmp(e->d_name, ".."))
            continue;
        child = tr_path(path, e->d_name);
        if (!child)
            r = -ENOMEM;
        else if (lstat(child, &st) == 0 && S_ISDIR(st.st_mode))
            r = tr_remove_tree(child);
        else if (unlink(child) < 0)
            r = fail("cannot remove", child);
        tr_free(TR_MEM_MISC, child);
    }
    closedir(d);
    if (r == 0 && rmdir(path) < 0)
        r = fail("cannot remove", path);
    return r;
}

static int free_bytes(int r, const struct statvfs *v, const char *path, uint64_t *out)
{
    if (r < 0)
        return fail("cannot ask for free space", path);
    *out = (uint64_t)v->f_bavail * v->f_frsize;
    return 0;
}

int tr_free_bytes(const char *path, uint64_t *out)
{
    struct statvfs v;

    return free_bytes(statvfs(path, &v), &v, path, out);
}

int tr_free_bytes_of(int fd, const char *path, uint64_t *out)
{
    struct statvfs v;

    return free_bytes(fstatvfs(fd, &v), &v, path, out);
}

void tr_file_drop(int fd)
{
    while (ftruncate(fd, 0) < 0 && errno == EINTR)
        ;
    close(fd);
}

char *tr_path(const char *folder, const char *name)
{
    size_t length = strlen(folder), n = length + strlen(name) + 2;
    int slash = length && folder[length - 1] == '/';
    char *p = tr_alloc(TR_MEM_MISC, n);

    if (p)
        snprintf(p, n, "%s%s%s", folder, slash ? "" : "/", name);
    return p;
}

char *tr_folder_of(const char *path)
{
    size_t n = strlen(path);
    char *folder;

    while (n > 1 && path[n - 1] == '/')
        n--;
    while (n && path[n - 1] != '/')
        n--;
    folder = tr_strdup(TR_MEM_MISC, n ? path : ".");
    if (folder && n)
        folder[n > 1 ? n - 1 : 1] = 0;
    return folder;
}

int tr_check_place(const char *path)
{
    char *folder = tr_folder_of(path);
    int r = folder ? 0 : -ENOMEM;

    if (r == 0 && access(folder, W_OK | X_OK) < 0)
        r = tr_error(-errno, "%s: cannot create it in %s: %s", path, folder, strerror(errno));
    tr_free(TR_MEM_MISC, folder);
    return r;
}

int tr_ends_in(const char *path, const char *const *endings)
{
    size_t n = strlen(path);

    for (; *endings; endings++) {
        size_t k = strlen(*endings);

        if (n >= k && !strcasecmp(path + n - k, *endings))
            return 1;
    }
    return 0;
}
