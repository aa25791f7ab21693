/* SPDX-License-Identifier: Apache-2.0
 *
 * --durability auto: every step is durable where the plan predicts that this costs at most a
 * twentieth of the step's time, else every so many steps are. Both times are those of the fastest
 * way to do so (choose.c): what suits the one, of clip methods say, need not suit the other. On a
 * machine that has not been measured every step is durable, and a run that exists goes on as it
 * began (resolve.c).
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
#include "src/base/json.h"

#define MOST_COST 0.05

static int is_seen_first(const struct tr_run *run)
{
    return run->plan.in.norm && !run->plan.in.group;
}

static double cost(const struct tr_run *run)
{
    return run->durable.step / run->durable.checkpoint - 1;
}

int run_is_step_durable(const struct tr_run *run)
{
    return !run->durable.step || !is_seen_first(run) || cost(run) <= MOST_COST;
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

static const char *clip(enum tr_clip method)
{
    return method == TR_CLIP_DEFERRED ? "deferred" : "two-pass";
}

void run_print_durability(FILE *f, const struct tr_run *run)
{
    const struct tr_durable_cost *d = &run->durable;
    char text[256];

    if (d->step > 0)
        fprintf(f, "durable   every step %.3f s a step%s%s, every %lld steps %.3f s%s%s\n", d->step,
                d->step_clip ? ", " : "", d->step_clip ? clip(d->step_clip) : "",
                (long long)run->params.checkpoint_every, d->checkpoint,
                d->checkpoint_clip ? ", " : "", d->checkpoint_clip ? clip(d->checkpoint_clip) : "");
    if (run->durability_auto)
        fprintf(f, "auto      --durability: %s\n", run_durability_text(run, text, sizeof(text)));
}

json_t *run_durability_json(const struct tr_run *run)
{
    static const char *const names[] = {[TR_KEEP_AUTO] = "auto",
                                        [TR_KEEP_STEP] = "step",
                                        [TR_KEEP_CHECKPOINT] = "checkpoint",
                                        [TR_KEEP_NONE] = "none"};
    json_t *o = json_pack("{s:s}", "chosen", names[run->params.durability]);

    if (!run->durable.step)
        return o;
    if (run->durable.step_clip)
        tr_json_add(&o, "step_clip_method", json_string(clip(run->durable.step_clip)));
    if (run->durable.checkpoint_clip)
        tr_json_add(&o, "checkpoint_clip_method", json_string(clip(run->durable.checkpoint_clip)));
    tr_json_add(&o, "step_seconds", json_real(run->durable.step));
    tr_json_add(&o, "checkpoint_seconds", json_real(run->durable.checkpoint));
    return o;
}
