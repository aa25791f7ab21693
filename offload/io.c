/* SPDX-License-Identifier: Apache-2.0
 *
 * Which I/O engine: the choice is made when the program runs, since containers and sysctls refuse
 * io_uring where the kernel has it.
 */
#include "offload/io.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>

#include "src/base/err.h"

static enum tr_io_kind asked_for(enum tr_io_kind kind)
{
    const char *name = getenv("TAILRACE_IO");

    if (kind != TR_IO_AUTO || !name)
        return kind;
    if (!strcmp(name, "threads"))
        return TR_IO_THREADS;
    return !strcmp(name, "io_uring") ? TR_IO_URING : TR_IO_AUTO;
}

int tr_io_open(struct tr_io **out, enum tr_io_kind kind, const struct tr_io_params *p)
{
    int r;

    kind = asked_for(kind);
    if (kind == TR_IO_THREADS)
        return tr_io_open_threads(out, p);
    r = tr_io_open_uring(out, p);
    /* EPERM: sysctl or a container's seccomp filter; ENOSYS: not built in; ENOMEM: memory lock
     * limit of old kernels. Any other refusal is as good a reason: the threads do the same. */
    if (r < 0 && kind == TR_IO_AUTO)
        return tr_io_open_threads(out, p);
    return r;
}

void tr_io_forget(const struct tr_io_file *file, const struct tr_io_request *r)
{
    if (file->direct || r->result < 0)
        return;
    /* Dirty pages cannot be dropped: those written go when they are synced. */
    if (r->op == TR_IO_READ)
        posix_fadvise(file->fd, (off_t)r->offset, (off_t)r->bytes, POSIX_FADV_DONTNEED);
    else if (r->op == TR_IO_SYNC)
        posix_fadvise(file->fd, 0, 0, POSIX_FADV_DONTNEED);
}
