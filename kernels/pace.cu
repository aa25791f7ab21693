/* SPDX-License-Identifier: Apache-2.0
 *
 * How far the program queues ahead of the GPU. A stream holds about a thousand launches that have
 * not ended. The next one waits inside the driver, spinning, and what other threads ask of the same
 * context, such as the copies of the next block, may have to wait behind it. So whoever queues ops
 * waits here, asleep, long before: between one and two rounds of launches are ahead.
 */
#include "kernels/device.h"

#define ROUND     256 /* launches */
#define OTHERWISE 4   /* of an op whose launches do not grow with the grains, at most */

static unsigned launches_of(const struct tr_op *op)
{
    switch (op->kind) {
    case TR_OP_MATMUL:
    case TR_OP_MATMUL_DX:
    case TR_OP_MATMUL_DW:
        return 1 + (unsigned)op->matmul.grains.n; /* of a bias, too */
    case TR_OP_RMSNORM_GRAD:
        return 1 + 2 * (unsigned)op->rmsnorm.grains.n;
    case TR_OP_BIAS_GRAD:
        return 1 + 2 * (unsigned)op->bias_grad.grains.n;
    default:
        return OTHERWISE;
    }
}

void tr_cuda_pace_close(struct tr_cuda_pace *p)
{
    for (int i = 0; i < TR_CUDA_MARKS; i++)
        if (p->mark[i])
            cudaEventDestroy(p->mark[i]);
}

int tr_cuda_pace_keep(struct tr_cuda_pace *p, cudaStream_t stream, const struct tr_op *op)
{
    cudaError_t e;

    p->launches += launches_of(op);
    if (p->launches < ROUND)
        return 0;
    p->launches = 0;
    p->next = (p->next + 1) % TR_CUDA_MARKS;
    e = cudaEventSynchronize(p->mark[p->next]); /* of a round ago; the first time there is none */
    if (e == cudaSuccess)
        e = cudaEventRecord(p->mark[p->next], stream);
    return e == cudaSuccess ? 0 : tr_cuda_error(e, "the work on the device");
}
