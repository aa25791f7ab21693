/* SPDX-License-Identifier: Apache-2.0
 *
 * Which I/O engine: the choice is made when the program runs, since containers and sysctls refuse
 * io_uring where the kernel has it.
 */
#include "offload/io.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "src/base/err.h"

static int ask_environment(enum tr_io_kind *kind)
{
    const char *name = getenv("TAILRACE_IO");

    if (*kind != TR_IO_AUTO || !name || !*name)
        return 0;
    if (!strcmp(name, "threads"))
        *kind = TR_IO_THREADS;
    else if (!strcmp(name, "uring") || !strcmp(name, "io_uring"))
        *kind = TR_IO_URING;
    else
        return tr_error(-EINVAL, "TAILRACE_IO: \"%s\" is neither uring nor threads", name);
    return 0;
}

/* EPERM: sysctl or a container's seccomp filter; ENOSYS: not built in; ENOMEM: memory lock limit of
 * old kernels. Any other refusal is as good a reason: the threads do the same. */
static int open_any(struct tr_io **out, const struct tr_io_params *p)
{
    char why[sizeof((*out)->refused)];
    int r = tr_io_open_uring(out, p);

    if (r == 0)
        return 0;
    snprintf(why, sizeof(why), "%s", tr_error_message());
    r = tr_io_open_threads(out, p);
    if (r == 0)
        memcpy((*out)->refused, why, sizeof(why));
    return r;
}

int tr_io_open(struct tr_io **out, enum tr_io_kind kind, const struct tr_io_params *p)
{
    int r = ask_environment(&kind);

    if (r < 0)
        return r;
    return kind == TR_IO_THREADS ? tr_io_open_threads(out, p)
           : kind == TR_IO_URING ? tr_io_open_uring(out, p)
                                 : open_any(out, p);
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
