/* SPDX-License-Identifier: Apache-2.0
 *
 * Takes the place of io_uring.c where liburing was not there when this was built.
 */
#include "offload/io.h"
#include "src/base/err.h"

int tr_io_open_uring(struct tr_io **out, const struct tr_io_params *p)
{
    (void)out;
    (void)p;
    return tr_error(-ENOSYS, "built without io_uring");
}
