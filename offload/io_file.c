/* SPDX-License-Identifier: Apache-2.0
 *
 * What is done with a store's files beside transfers: opening them as the file system allows it,
 * and keeping what goes through the page cache from staying there.
 */
#include "offload/io.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include "offload/store.h"
#include "src/base/mem.h"

/* A fifo must not block; but reads of a file must, which a ring would give back undone. */
static int open_at(int folder_fd, const char *name, int flags)
{
    int fd = openat(folder_fd, name, flags | O_NONBLOCK, 0644), is;

    if (fd < 0 || ((is = fcntl(fd, F_GETFL)) >= 0 && fcntl(fd, F_SETFL, is & ~O_NONBLOCK) >= 0))
        return fd;
    close(fd);
    return -1;
}

static int is_refusal(int error)
{
    return error == EINVAL || error == EOPNOTSUPP;
}

/* A file system that knows says it: its blocks may be larger than ours, which no read can tell as
 * long as nothing has been written there. */
static int takes_blocks(int fd)
{
#ifdef STATX_DIOALIGN
    struct statx st;

    if (statx(fd, "", AT_EMPTY_PATH, STATX_DIOALIGN, &st) == 0 && st.stx_mask & STATX_DIOALIGN)
        return st.stx_dio_offset_align && st.stx_dio_offset_align <= TR_STORE_ALIGN &&
               st.stx_dio_mem_align <= TR_STORE_ALIGN;
#endif
    (void)fd;
    return 1;
}

/* Some refuse O_DIRECT when the file is opened, some when it is first used. */
static int takes_a_read(int fd)
{
    void *page = tr_alloc_pages(TR_MEM_IO, TR_STORE_ALIGN);
    int works = page && (pread(fd, page, TR_STORE_ALIGN, 0) >= 0 || !is_refusal(errno));

    tr_free_pages(TR_MEM_IO, page, TR_STORE_ALIGN);
    return works;
}

static int leave_direct(int fd)
{
    int is = fcntl(fd, F_GETFL);

    return is < 0 || fcntl(fd, F_SETFL, is & ~O_DIRECT) < 0 ? -errno : 0;
}

int tr_io_openat(int folder_fd, const char *name, int flags, int *direct)
{
    int fd = open_at(folder_fd, name, flags | (*direct ? O_DIRECT : 0)), r = 0;

    if (fd < 0 && *direct && is_refusal(errno)) {
        *direct = 0;
        /* the file may have been created before the flag was refused */
        fd = open_at(folder_fd, name, flags & ~O_EXCL);
    }
    if (fd < 0)
        return -errno;
    if (*direct && !(takes_blocks(fd) && takes_a_read(fd))) {
        *direct = 0;
        r = leave_direct(fd);
    }
    if (r == 0)
        return fd;
    close(fd);
    return r;
}

int tr_io_open_nameless(int folder_fd, const char *folder, const char *name, int *direct)
{
    int flags = O_RDWR | O_CLOEXEC, wish = *direct;
    int fd = tr_io_openat(folder_fd, folder, flags | O_TMPFILE, direct);

    if (fd >= 0 || (fd != -EOPNOTSUPP && fd != -EISDIR && fd != -EINVAL))
        return fd;
    *direct = wish;
    fd = tr_io_openat(folder_fd, name, flags | O_CREAT | O_TRUNC | O_NOFOLLOW, direct);
    if (fd >= 0)
        unlinkat(folder_fd, name, 0);
    return fd;
}

void tr_io_describe_files(const struct tr_io_file *files, uint32_t n_folders, char *text,
                          size_t room)
{
    int n = n_folders > 1 ? snprintf(text, room, "%u folders, ", n_folders) : 0;
    uint32_t direct = 0;

    for (uint32_t i = 0; i < n_folders; i++)
        direct += files[tr_file_in(TR_FILE_GEN0, i)].direct != 0;
    snprintf(text + n, room - (size_t)n, "%s",
             direct == n_folders ? "O_DIRECT"
             : direct            ? "O_DIRECT in some"
                                 : "buffered");
}

/* A buffered write is sent on its way at once, and what was written a little before has arrived by
 * then: it can be dropped. So the page cache holds a few MiB of a store and no more. */
#define BEHIND_BYTES (8u << 20)

static void forget_written(const struct tr_io_file *file, const struct tr_io_request *r)
{
    uint64_t from = r->offset > BEHIND_BYTES ? r->offset - BEHIND_BYTES : 0;

    sync_file_range(file->fd, (off_t)r->offset, (off_t)r->bytes, SYNC_FILE_RANGE_WRITE);
    posix_fadvise(file->fd, (off_t)from, (off_t)(r->offset - from), POSIX_FADV_DONTNEED);
}

/* The cache keeps pages in folios of up to 2 MiB and drops whole ones only: that in which the
 * request before this one ended is dropped now. */
#define FOLIO_BYTES (2u << 20)

static void forget_read(const struct tr_io_file *file, const struct tr_io_request *r)
{
    uint64_t from = r->offset > FOLIO_BYTES ? r->offset - FOLIO_BYTES : 0;

    posix_fadvise(file->fd, (off_t)from, (off_t)(r->offset + r->bytes - from), POSIX_FADV_DONTNEED);
}

void tr_io_forget(const struct tr_io_file *file, const struct tr_io_request *r)
{
    if (file->direct || file->memory || r->result < 0)
        return;
    if (r->op == TR_IO_WRITE)
        forget_written(file, r);
    else if (r->op == TR_IO_READ)
        forget_read(file, r);
    else
        posix_fadvise(file->fd, 0, 0, POSIX_FADV_DONTNEED);
}
