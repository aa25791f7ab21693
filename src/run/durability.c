/* SPDX-License-Identifier: Apache-2.0
 *
 * --durability auto: every step is durable where the plan predicts that this costs at most a
 * twentieth of the step's time, else every so many steps are. On a machine that has not been
 * measured every step is, and a run that exists goes on as it began (resolve.c).
 *
 * Both have the same bits as long as gradients are finite. One that is not, seen before anything is
 * applied, drops its step in either; seen afterwards it needs the generation from before the step
 * (src/train/skip.c), which only durable steps have. There the choice is never made: by default no
 * run ends that could go on.
 */
#include "src/run/open.h"

#include <stdio.h>
#include <string.h>

#include "src/base/err.h"

#define MOST_COST 0.05

static int place_again(struct tr_run *run, enum tr_keep keep)
{
    if (run->params.durability == keep)
        return 0;
    run->params.durability = keep;
    return run_place_anew(run);
}

/* Seconds of a step, with its share of a commit. */
static int weigh(struct tr_run *run, const struct tr_figures *figures, const struct tr_batch *batch,
                 double *seconds)
{
    struct tr_prediction p;
    int r = run_predict(run, figures, batch, &p);

    *seconds = tr_prediction_seconds(&p);
    return r;
}

int run_weigh_durability(struct tr_run *run, const struct tr_figures *figures,
                         const struct tr_batch *batch)
{
    static const enum tr_keep ways[] = {TR_KEEP_STEP, TR_KEEP_CHECKPOINT};
    enum tr_keep keep = run->params.durability;
    double seconds[2];
    int r = 0, restored;

    if (!figures || keep == TR_KEEP_NONE)
        return 0;
    for (size_t i = 0; i < 2 && r == 0; i++)
        if ((r = place_again(run, ways[i])) == 0)
            r = weigh(run, figures, batch, &seconds[i]);
    restored = place_again(run, keep);
    if (r < 0 || restored < 0) /* what cannot be predicted is no reason not to do it */
        return restored;
    run->durable = (struct tr_durable_cost){seconds[0], seconds[1]};
    return 0;
}

static int is_seen_first(const struct tr_run *run)
{
    return run->plan.in.norm && !run->plan.in.group;
}

static double cost(const struct tr_run *run)
{
    return run->durable.step / run->durable.checkpoint - 1;
}

int run_choose_durability(struct tr_run *run, const struct tr_figures *figures,
                          const struct tr_batch *batch)
{
    int r;

    if (!run->durability_auto)
        return 0;
    if ((r = run_weigh_durability(run, figures, batch)) < 0)
        return r;
    if (!run->durable.step || !is_seen_first(run) || cost(run) <= MOST_COST)
        return 0;
    return place_again(run, TR_KEEP_CHECKPOINT);
}

const char *run_durability_text(const struct tr_run *run, char *text, size_t room)
{
    long long every = run->params.checkpoint_every;
    int step = run->params.durability == TR_KEEP_STEP;

    if (!run->durable.step)
        snprintf(text, room, "every step, as the machine has not been measured (tailrace bench)");
    else if (step && cost(run) > MOST_COST)
        snprintf(text, room,
                 "every step, though it is predicted to cost %.3g %%: without --clip-norm, or by "
                 "groups, a gradient that is not finite would else end the run",
                 100 * cost(run));
    else if (step && cost(run) <= 0) /* the two have other placements: either may be the faster */
        snprintf(text, room, "every step, which is predicted to cost nothing");
    else if (step)
        snprintf(text, room, "every step, which is predicted to cost %.2g %%", 100 * cost(run));
    else
        snprintf(text, room,
                 "every %lld steps; every step is predicted to cost %.3g %% (--durability step)",
                 every, 100 * cost(run));
    return text;
}

json_t *run_durability_json(const struct tr_run *run)
{
    static const char *const names[] = {"auto", "step", "checkpoint", "none"};
    json_t *o = json_pack("{s:s}", "chosen", names[run->params.durability]);

    if (o && run->durable.step) {
        json_object_set_new(o, "step_seconds", json_real(run->durable.step));
        json_object_set_new(o, "checkpoint_seconds", json_real(run->durable.checkpoint));
    }
    return o;
}
