/* SPDX-License-Identifier: Apache-2.0
 *
 * What is chosen by time: the way to an exact global norm (src/train/clip.c), where updates run
 * (src/train/update_on.c) and how often a step is made durable (durability.c). All ways have the
 * same bits, so the machine may decide; and as each is the faster or the slower by what the others
 * are, all that the options leave open are predicted, every one with every other, as the run would
 * be. The fastest is taken among those that the disk has room for and whose steps are durable as
 * they shall be.
 *
 * A new run's store has room for waiting gradients, or has not: there that is decided once. On a
 * machine that has not been measured every step is durable, and what differs between the ways is
 * weighed: the arithmetic of a second backward pass against the bytes that go to the device and to
 * the drive. Of equal ways the first is taken: two-pass, on the device.
 */
#include "src/base/err.h"
#include "src/run/open.h"

/* A machine of which nothing is known: multiplications a second; bytes a second of copies both ways
 * and of its drive. */
#define GPU_FLOPS   50e12
#define CPU_FLOPS   100e9
#define LINK_BYTES  20e9
#define DRIVE_BYTES 3e9

struct way {
    enum tr_parked parked; /* F32: clipping is deferred */
    int apart;             /* updates run on the cpu */
    enum tr_keep keep;
};

struct search {
    struct tr_run *run;
    const struct tr_figures *figures; /* or NULL */
    const struct tr_batch *batch;
    int clips;     /* the clip method is to be chosen */
    struct way at; /* what is placed */
    /* The fastest: every step durable (or whatever is not to be chosen); and not every step. */
    struct way way[2];
    double seconds[2]; /* of a step; 0: there is none */
};

static int is_same(const struct way *a, const struct way *b)
{
    return a->parked == b->parked && a->apart == b->apart && a->keep == b->keep;
}

/* Places the run so. -ENOMEM: so it does not fit. */
static int place(struct search *s, const struct way *w)
{
    struct tr_run *run = s->run;
    int r = 0;

    if (is_same(w, &s->at))
        return 0;
    if (w->parked != s->at.parked)
        r = run_park(run, w->parked);
    run->apart = w->apart;
    run->params.durability = w->keep;
    s->at = *w;
    return r < 0 ? r : run_place_anew(run);
}

/* Seconds of a step, or without figures of what differs between the ways. */
static double weigh(const struct search *s, const struct tr_prediction *p)
{
    const struct tr_run *run = s->run;
    const struct tr_model *m = run->model;
    double flops = run->choice.cuda ? GPU_FLOPS : CPU_FLOPS, again, copied;

    if (s->figures)
        return tr_prediction_seconds(p);
    again = m->parked || !s->clips ? 0 : 6.0 * (double)m->n_params * (double)p->tokens / flops;
    copied = (double)p->sim.copied_bytes;
    if (run->apart) /* gradients one way, weights both */
        copied += (double)m->n_trained * (4 + 2 * (double)tr_dtype_size(m->dtype));
    return again + copied / LINK_BYTES +
           (double)(p->sim.read_bytes + p->sim.written_bytes) / DRIVE_BYTES;
}

/* A new run's disk; that of a machine by name is not there to be looked at. */
static int lacks_disk(const struct search *s)
{
    const struct tr_run *run = s->run;

    if (run->store || !run->params.store || !run->params.out ||
        (s->figures && s->figures->elsewhere))
        return 0;
    return run_check_disk(run) == -ENOSPC;
}

static int try_way(struct search *s, const struct way *w)
{
    int i = w->keep == TR_KEEP_CHECKPOINT, r = place(s, w);
    struct tr_prediction p;
    double seconds;

    if (r < 0)
        return r == -ENOMEM ? 0 : r;
    if (lacks_disk(s))
        return 0;
    if (run_predict(s->run, s->figures, s->batch, &p) < 0)
        return 0; /* what cannot be predicted is not chosen for it */
    seconds = weigh(s, &p);
    if (s->seconds[i] > 0 && s->seconds[i] <= seconds)
        return 0;
    s->seconds[i] = seconds;
    s->way[i] = *w;
    return 0;
}

/* Where all gradients have room on the device, none is made twice and none leaves it: nothing is
 * faster. */
static int try_clips(struct search *s, struct way w)
{
    int r = try_way(s, &w);

    if (r < 0 || !s->clips || s->run->plan.parked)
        return r;
    w.parked = TR_PARKED_F32;
    return try_way(s, &w);
}

static int try_all(struct search *s, struct way w, int both)
{
    enum tr_keep keep = w.keep;
    int r = 0;

    for (w.apart = 0; w.apart <= 1; w.apart++) {
        if (!run_may_update(s->run, w.apart))
            continue;
        for (int i = 0; i <= both && r == 0; i++) {
            w.keep = !both ? keep : i ? TR_KEEP_CHECKPOINT : TR_KEEP_STEP;
            r = try_clips(s, w);
        }
    }
    return r;
}

/* AUTO: it was not to be chosen. */
static enum tr_clip clip_of(const struct search *s, const struct way *w)
{
    return !s->clips ? TR_CLIP_AUTO : w->parked ? TR_CLIP_DEFERRED : TR_CLIP_TWO_PASS;
}

static void take_clip(struct search *s, const struct way *w)
{
    struct tr_train_params *p = &s->run->params;

    if (!s->clips)
        return;
    p->clip_method = clip_of(s, w);
    if (w->parked)
        p->parked_dtype = TR_TYPE_F32;
    s->run->clip_chosen = w->parked != TR_PARKED_NONE;
}

static int is_open(const struct search *s, int both)
{
    return both || s->clips || (run_may_update(s->run, 0) && run_may_update(s->run, 1));
}

int run_choose(struct tr_run *run, const struct tr_figures *figures, const struct tr_batch *batch,
               int weigh_durability)
{
    const struct tr_train_params *p = &run->params;
    struct way before = {run->model->parked, run->apart, p->durability};
    int both =
        figures && p->durability != TR_KEEP_NONE && (weigh_durability || run->durability_auto);
    struct search s = {.run = run,
                       .figures = figures,
                       .batch = batch,
                       .clips = p->clip_norm > 0 && p->clip_method == TR_CLIP_AUTO,
                       .at = before};
    const struct way *chosen;
    int r = is_open(&s, both) ? try_all(&s, before, both) : 0;

    if (r < 0)
        return r;
    if (s.seconds[0] > 0 && s.seconds[1] > 0)
        run->durable = (struct tr_durable_cost){s.seconds[0], s.seconds[1], clip_of(&s, &s.way[0]),
                                                clip_of(&s, &s.way[1])};
    chosen = &s.way[run->durability_auto ? !run_is_step_durable(run)
                                         : before.keep == TR_KEEP_CHECKPOINT];
    if (!(s.seconds[chosen - s.way] > 0))
        chosen = &before;
    take_clip(&s, chosen);
    return place(&s, chosen);
}
