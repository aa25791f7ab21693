/* SPDX-License-Identifier: Apache-2.0 */
#include "kernels/cuda.h"

#include <stdio.h>

#include "kernels/device.h"

static int dispatch(const struct tr_cuda *cuda, const struct tr_op *op)
{
    switch (op->kind) {
#define RUN(kind, name, member)                                                                    \
    case TR_OP_##kind:                                                                             \
        return tr_cuda_##name(cuda, &op->member);
        TR_OPS(RUN)
#undef RUN
    case TR_OP_KINDS:
        break;
    }
    return tr_cuda_refuse(-EINVAL, "no such op: %d", (int)op->kind);
}

int tr_cuda_run(const struct tr_cuda *cuda, const struct tr_op *op)
{
    int error = dispatch(cuda, op);
    char message[400];

    if (!error || op->kind >= TR_OP_KINDS)
        return error;
    snprintf(message, sizeof(message), "%s", tr_cuda_host->message());
    return tr_cuda_refuse(error, "op %s on the cuda device: %s", tr_op_name(op->kind), message);
}
