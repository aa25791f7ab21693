/* SPDX-License-Identifier: Apache-2.0
 *
 * Which I/O engine: the choice is made when the program runs, since containers and sysctls refuse
 * io_uring where the kernel has it.
 */
#include "offload/io.h"

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

int tr_io_check_environment(void)
{
    enum tr_io_kind kind = TR_IO_AUTO;

    return ask_environment(&kind);
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
