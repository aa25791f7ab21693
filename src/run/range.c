/* SPDX-License-Identifier: Apache-2.0 */
#include "src/run/range.h"

#include <math.h>

#include "src/base/err.h"
#include "src/run/open.h"

double tr_range_rate(double middle, int i)
{
    double share = (double)i / (TR_RANGE_STEPS - 1);

    return middle * pow(TR_RANGE_FACTOR, share - 0.5);
}

int tr_range_add(struct tr_range *r, double loss)
{
    double smooth;

    if (!isfinite(loss))
        return 1;
    r->mean = TR_RANGE_MEMORY * r->mean + (1 - TR_RANGE_MEMORY) * loss;
    smooth = r->mean / (1 - pow(TR_RANGE_MEMORY, r->n + 1)); /* as if it had begun with the first */
    if (!r->n)
        r->first = smooth;
    if (!r->n || smooth < r->lowest) {
        r->lowest = smooth;
        r->best = r->n;
    }
    r->n++;
    return smooth > TR_RANGE_RISEN * r->lowest;
}

/* However few steps the run is to have: those of the test are counted as its own meanwhile. */
static int is_stopped(const struct tr_run *run)
{
    return run->params.stop && run->params.stop(run->params.stop_arg);
}

/* All steps of the test, as long as nobody stops it (-EINTR); nothing of them is committed. */
static int sweep(struct tr_run *run, double middle, struct tr_range *range)
{
    for (int i = 0; i < TR_RANGE_STEPS; i++) {
        double loss;
        int r = run_trial(run, tr_range_rate(middle, i), &loss);

        if (r < 0)
            return r;
        if (tr_range_add(range, loss))
            break;
        if (is_stopped(run))
            return tr_error(-EINTR, "--lr auto: the test was stopped, and is undone");
    }
    return 0;
}

/* Back to the commit that the test began at: an engine that is closed takes with it what no commit
 * names, and a new one counts the run's own bytes alone. */
static int undo(struct tr_run *run, const struct tr_cursor *before)
{
    run->cursor = *before;
    run_close_offload(run);
    return run_open_offload(run);
}

int run_find_rate(struct tr_run *run)
{
    const struct tr_cursor before = run->cursor;
    struct tr_train_params *p = &run->params;
    double middle = run_default_rate(run);
    struct tr_range range = {.n = 0};
    int r = sweep(run, middle, &range), stopped = r == -EINTR;

    if (r == 0 || stopped)
        r = undo(run, &before);
    if (r < 0 || stopped)
        return r < 0 ? r : -EINTR;
    if (range.best == 0)
        return tr_error(-EDOM,
                        "--lr auto: the loss only rises, from %g on, at rates from %.3g on; "
                        "give a rate",
                        range.first, tr_range_rate(middle, 0));
    p->lr = tr_range_rate(middle, range.best) / TR_RANGE_BACK;
    run_log(run,
            "--lr auto: %.3g; in a test of %d steps, now undone, the smoothed loss fell from %.4f "
            "to %.4f, lowest at %.3g",
            p->lr, range.n, range.first, range.lowest, tr_range_rate(middle, range.best));
    return run_write_options(run);
}
