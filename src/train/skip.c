/* SPDX-License-Identifier: Apache-2.0
 *
 * Steps whose loss or gradient is not finite: nothing of them may stay.
 *
 * The loss, and the global norm where one is asked for, are known before the first weight changes:
 * such a step updates nothing. Without a norm every gradient is applied as soon as it exists, and
 * with one for each group of layers as soon as its group is whole: whether all were finite is known
 * only after the last one. Then the commit of the step before is the way back: what was changed
 * since is given up, as long as nothing but this step has changed it and a second generation holds
 * what was before. Otherwise the run ends, and says where it stands. With --fused-gemm there is no
 * gradient to look at: the weights are looked at instead.
 *
 * Gradients in f16 are scaled up, so that small ones do not vanish, by as much as they bear: a step
 * that overflows lowers the scale, a thousand that do not raise it. Scale and count stand in every
 * commit, for a run that goes on is to have the bits of one that never stopped.
 */
#include <math.h>

#include "src/base/err.h"
#include "src/run/run.h"

#define MOST_SKIPS  3
#define CLEAN_STEPS 1000

int run_read_norm(struct tr_run *run, double *norm)
{
    const unsigned char *adapter = run->pass.adapter.measured;
    double sums[2] = {0};
    uint32_t first = run->step.read_sumsq;
    int r = run->device->ops->copy_out(run->device, TR_STREAM_COMPUTE, run->step.sumsq,
                                       run->pass.arena + run->plan.sumsq.offset,
                                       (size_t)run->pass.n_sumsq * 8);

    if (r < 0 || (r = run->device->ops->sync(run->device, TR_STREAM_COMPUTE)) < 0)
        return r;
    for (uint32_t i = first; i < run->pass.n_sumsq; i++)
        sums[adapter && adapter[i]] += run->step.sumsq[i];
    run->step.read_sumsq = run->pass.n_sumsq;
    for (int i = 0; i < 2; i++)
        run->step.norms[i] = sqrt(sums[i]) / run->cursor.loss_scale;
    *norm = sqrt(sums[0] + sums[1]) / run->cursor.loss_scale;
    return 0;
}

static int no_way_back(const struct tr_run *run)
{
    unsigned long long step = run->cursor.step;

    if (tr_store_generations(run->store) < 2)
        return tr_error(-EDOM,
                        "step %llu: a gradient was not finite, and without durability there is no "
                        "state from before it: %s has to be started again",
                        step, run->params.out);
    return tr_error(-EDOM,
                    "step %llu: a gradient was not finite; the run goes back to its last commit, "
                    "step %llu, and ends there; --clip-norm sees such gradients before they are "
                    "applied",
                    step, (unsigned long long)run->last.step);
}

/* Updates since the last commit are lost with this step's: then there must be none. */
static int give_up(struct tr_run *run)
{
    if (tr_store_generations(run->store) < 2 || run->cursor.t != run->last.t)
        return no_way_back(run);
    run->step.begun = run->step.since_commit = RUN_NOTHING;
    return tr_offload_abandon(run->offload);
}

int run_check_applied(struct tr_run *run, double *norm, int *skip)
{
    int finite, r;

    if (*skip || run->plan.in.norm) {
        r = run->device->ops->sync(run->device, TR_STREAM_COMPUTE);
        return r == 0 && *skip && run->step.groups > 1 ? give_up(run) : r;
    }
    r = run_read_norm(run, norm);
    finite = isfinite(*norm);
    if (run->plan.in.fused)
        *norm = NAN;
    if (r < 0 || finite)
        return r;
    *skip = 1;
    return give_up(run);
}

int run_check_skips(struct tr_run *run, int skip)
{
    if (!skip || run->cursor.loss_scale > 1)
        run->step.skips = 0;
    if (!skip || ++run->step.skips < MOST_SKIPS)
        return 0;
    return tr_error(-EDOM,
                    "step %llu: loss or gradient was not finite in %d steps in a row; nothing of "
                    "them was applied; lower --lr, or look at the data and the model",
                    (unsigned long long)run->cursor.step, MOST_SKIPS);
}

int run_rescale(struct tr_run *run, int skipped)
{
    struct tr_cursor *c = &run->cursor;

    if (run->model->dtype != TR_F16)
        return 0;
    c->clean = skipped ? 0 : c->clean + 1;
    if (skipped && c->loss_scale <= 1)
        return tr_error(-EDOM,
                        "step %llu: a gradient overflows f16 at a loss scale of %g, which is as "
                        "low as it goes; nothing of the step was applied; --dtype bf16 has the "
                        "range of f32",
                        (unsigned long long)c->step, c->loss_scale);
    if (skipped)
        c->loss_scale = fmax(c->loss_scale / 2, 1);
    if (c->clean == CLEAN_STEPS) {
        c->loss_scale *= 2;
        c->clean = 0;
    }
    return 0;
}

void run_note_skips(const struct tr_run *run)
{
    if ((run->plan.in.norm && !run->plan.in.group) ||
        (run->params.durability == TR_KEEP_STEP && tr_store_generations(run->store) == 2))
        return;
    run_log(run,
            "note: without --clip-norm, or by groups, a gradient that is not finite is noticed "
            "after it has been applied; %s",
            tr_store_generations(run->store) < 2
                ? "with --durability none the run would be lost"
                : "the run would then end and go back to its last commit");
}
