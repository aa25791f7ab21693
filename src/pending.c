/* SPDX-License-Identifier: Apache-2.0
 *
 * Exact clipping in one backward pass. A global norm is known when the last gradient is; to have
 * them all applied with it, either the backward pass comes twice, or the gradients wait. Here they
 * wait in the store: the backward pass measures each one (in f32) and parks it beside the
 * parameters and the state of its unit, and the next step's forward pass, which loads the
 * parameters anyway, loads it with them and applies it first. So a step costs the bytes of its
 * gradients, once each way, instead of a second backward pass, and its numbers are the same to the
 * last bit.
 *
 * In between the step is finished, but the parameters are not: "the parameters from before, their
 * gradients, the clip's coefficient, the learning rate and the loss scale" is what its commit names
 * (struct tr_pending), and the update may be made as often as a run is killed before the next
 * commit. Where finished parameters are wanted (a validation, an export, the end of the run), it is
 * made by a pass of nothing but updates, which changes no bit either. A step that is skipped leaves
 * nothing, and the next one's updates pass through.
 */
#include "src/base/err.h"
#include "src/run.h"

void run_take_pending(struct tr_run *run)
{
    const struct tr_pending *p = &run->cursor.pending;
    struct tr_update *u = &run->pass.update;

    u->lr = p->lr;
    u->t = run->cursor.t;
    u->coefficient = p->coefficient;
    u->unscale = p->unscale;
}

/* Before the cursor counts the step: its loss scale is the step's own still. */
void run_leave_pending(struct tr_run *run, double lr, int skip)
{
    run->cursor.pending = (struct tr_pending){.is = !skip,
                                              .coefficient = run->pass.update.coefficient,
                                              .unscale = (float)(1 / run->cursor.loss_scale),
                                              .lr = lr};
}

int run_settle(struct tr_run *run)
{
    const struct tr_visits *v;
    uint32_t n = run_visits(run, RUN_SETTLE, &v);
    int r;

    if (!run->cursor.pending.is)
        return 0;
    run_take_pending(run);
    r = run_begin(run, RUN_SETTLE);
    for (uint32_t i = 0; i < n && r == 0; i++)
        r = run_visit(run, v, i, 1);
    run->begun = RUN_NOTHING;
    if (r < 0 || (r = run->device->ops->sync(run->device, TR_STREAM_COMPUTE)) < 0)
        return r;
    run->cursor.pending = (struct tr_pending){0};
    return 0;
}
