/* SPDX-License-Identifier: Apache-2.0
 *
 * Whether the kernel lets this process have io_uring: some containers refuse it.
 */
#ifndef TR_TESTS_SUPPORT_URING_H
#define TR_TESTS_SUPPORT_URING_H

#include "offload/io.h"

static inline int have_uring(void)
{
    struct tr_io_file files[TR_IO_FILES];
    struct tr_io_params p = {.files = files, .depth = 4};
    struct tr_io *io;

    for (int i = 0; i < TR_IO_FILES; i++)
        files[i] = (struct tr_io_file){.fd = -1};
    if (tr_io_open_uring(&io, &p) < 0)
        return 0;
    io->ops->close(io);
    return 1;
}

#endif
