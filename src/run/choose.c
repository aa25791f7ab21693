/* SPDX-License-Identifier: Apache-2.0
 *
 * What is chosen by time: the way to an exact global norm (clip_method.c), where updates run
 * (update_on.c), how often a step is made durable (durability.c) and what the device's
 * memory is for where it is too small for all: activations that need not be made again, or records
 * that need not be loaded again; and whether activations pass the time in host memory. All ways
 * have the same bits, so the machine may decide; and as each is the faster or the slower by what
 * the others are, all that the options leave open are predicted, every one with every other, as the
 * run would be. The fastest is taken among those that the disk has room for and whose steps are
 * durable as they shall be.
 *
 * A new run's store has room for waiting gradients, or has not: there that is decided once. On a
 * machine that has not been measured every step is durable, and what differs between the ways is
 * weighed: the arithmetic of a second backward pass, and of what is made again, against the bytes
 * that go to the device and to the drive. Of equal ways the first is taken: two-pass, on the
 * device, records before activations.
 */
#include "src/base/err.h"
#include "src/run/open.h"

/* A machine of which nothing is known: operations a second; bytes a second of copies both ways
 * and of its drive. */
#define GPU_FLOPS   50e12
#define CPU_FLOPS   100e9
#define LINK_BYTES  20e9
#define DRIVE_BYTES 3e9

struct way {
    enum tr_parked parked; /* F32: clipping is deferred */
    int apart;             /* updates run on the cpu */
    enum tr_keep keep;
    enum tr_frames frames; /* FIT or SPILL, and `kept` with it; unused where an option names them */
    int32_t kept;
};

struct search {
    struct tr_run *run;
    const struct tr_figures *figures; /* or NULL */
    const struct tr_batch *batch;
    int clips;     /* the clip method is to be chosen */
    struct way at; /* what is placed */
    int at_best;   /* of the way just tried: no other clip method can be faster */
    /* The fastest: every step durable (or whatever is not to be chosen); and not every step. */
    struct way way[2];
    double seconds[2]; /* of a step; 0: there is none */
};

static int is_same(const struct way *a, const struct way *b)
{
    return a->parked == b->parked && a->apart == b->apart && a->keep == b->keep &&
           a->frames == b->frames && a->kept == b->kept;
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
    run->frames = w->frames;
    run->keep = w->kept;
    s->at = *w;
    return r < 0 ? r : run_place_anew(run);
}

/* Operations of the backward passes for every parameter and token: two for each of both gradients,
 * two more where activations are made again. */
static double backward_work(const struct tr_run *run, const struct tr_prediction *p)
{
    const struct tr_plan *plan = &run->plan;
    const struct tr_model *m = run->model;
    int twice = plan->in.norm && !plan->parked && !plan->in.group && !m->parked;
    double made_again = 1 - (double)plan->keep / (double)m->config.layers;

    return (twice ? 2 : 1) * (4 + 2 * made_again) * (double)m->n_params * (double)p->tokens;
}

/* Seconds of a step, or without figures of what differs between the ways. */
static double weigh(const struct search *s, const struct tr_prediction *p)
{
    const struct tr_run *run = s->run;
    const struct tr_model *m = run->model;
    double flops = run->choice.cuda ? GPU_FLOPS : CPU_FLOPS, copied;

    if (s->figures)
        return tr_prediction_seconds(p);
    copied = (double)p->sim.copied_bytes;
    if (run->apart) /* gradients one way, weights both */
        copied += (double)m->n_trained * (4 + 2 * (double)tr_dtype_size(m->dtype));
    return backward_work(run, p) / flops + copied / LINK_BYTES +
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

static void take_faster(struct search *s, const struct way *w, double seconds)
{
    int i = w->keep == TR_KEEP_CHECKPOINT;

    if (s->seconds[i] > 0 && s->seconds[i] <= seconds)
        return;
    s->seconds[i] = seconds;
    s->way[i] = *w;
}

/* Activations are never chosen to be written to a drive, which wears. */
static int wears(const struct tr_run *run)
{
    uint32_t n = tr_plan_scratch(&run->plan), i = tr_plan_boundaries(&run->plan);

    while (i < n && !run->scratch[i].spills)
        i++;
    return i < n;
}

/* Seconds of a step, which is left placed this way; 0: it cannot be gone, or, as what cannot be
 * predicted is not chosen for it, not be known. */
static int try_one(struct search *s, const struct way *w, struct tr_prediction *p, double *seconds)
{
    int r = place(s, w);

    *seconds = 0;
    if (r < 0)
        return r == -ENOMEM ? 0 : r;
    if (lacks_disk(s) || (w->frames == TR_FRAMES_SPILL && wears(s->run)) ||
        run_predict(s->run, s->figures, s->batch, p) < 0)
        return 0;
    *seconds = weigh(s, p);
    return 0;
}

/* Could it pay to make less again and load more? Not where the device waits for loads as it is for
 * most of the time. */
static int may_keep_more(const struct search *s, const struct tr_prediction *p)
{
    const struct tr_plan *plan = &s->run->plan;

    return plan->in.frames == TR_FRAMES_FIT && plan->keep < plan->in.model->config.layers &&
           (!p->timed || p->arithmetic > p->sim.seconds / 2);
}

/* Numbers of blocks from `least`, which is known, to `most`. */
struct valley {
    struct way way;
    int32_t least, most, at; /* at: the best so far */
    double lowest;
};

static int step_to(struct search *s, struct valley *v, int32_t kept)
{
    struct tr_prediction p;
    double seconds;
    int r;

    v->way.kept = kept;
    r = try_one(s, &v->way, &p, &seconds);
    if (seconds > 0 && seconds < v->lowest) {
        v->lowest = seconds;
        v->at = kept;
    }
    return r;
}

/* The more blocks keep their activations the less is made again, until loads are what a step waits
 * for. So there is one valley, and steps that are halved find its ground, to an eighth of its
 * width. */
static int search_valley(struct search *s, struct valley *v)
{
    int32_t width = v->most - v->least;
    int r = 0;

    for (int32_t step = width / 2; step > 0 && step >= width / 8 && r == 0; step /= 2) {
        int32_t middle = v->at;

        for (int32_t k = middle - step; k <= middle + step && r == 0; k += 2 * step)
            if (k > v->least && k < v->most)
                r = step_to(s, v, k);
    }
    return r;
}

/* First on the device alone, from all the blocks that have room there back to those that have it
 * beside the records; then in host memory, where the device's is not the same. That takes homes
 * from records, which are read from the drive instead: for less than a fiftieth it is not done. */
static int try_kept(struct search *s, struct way *w, double *seconds)
{
    int32_t least = s->run->plan.keep, layers = s->run->model->config.layers;
    struct valley v = {.way = *w, .least = least, .at = least, .lowest = *seconds};
    int r = step_to(s, &v, layers);

    v.most = s->run->plan.keep;
    v.at = v.at == layers ? v.most : least;
    if (r == 0)
        r = search_valley(s, &v);
    if (v.lowest < *seconds)
        w->kept = v.at;
    *seconds = v.lowest;
    if (r < 0 || v.at == layers || s->run->device_info.host_visible)
        return r;
    v = (struct valley){.way = *w, .most = layers, .lowest = 0.98 * *seconds};
    v.way.frames = TR_FRAMES_SPILL;
    r = step_to(s, &v, layers);
    if (r == 0)
        r = search_valley(s, &v);
    if (v.at > 0) {
        *w = v.way;
        w->kept = v.at;
        *seconds = v.lowest;
    }
    return r;
}

/* All gradients stay on the device, no activation is made again, and nothing that moves is waited
 * for: where seconds are not known, nothing moves. */
static int is_at_best(const struct search *s, const struct tr_prediction *p)
{
    const struct tr_plan *plan = &s->run->plan;

    return plan->parked && plan->keep == plan->in.model->config.layers &&
           (p->timed ? p->sim.seconds <= 1.01 * p->arithmetic
                     : !p->sim.copied_bytes && !p->sim.read_bytes && !p->sim.written_bytes);
}

static int try_way(struct search *s, struct way w)
{
    struct tr_prediction p;
    double seconds;
    int r = try_one(s, &w, &p, &seconds);

    s->at_best = seconds > 0 && is_at_best(s, &p);
    if (r == 0 && seconds > 0 && may_keep_more(s, &p))
        r = try_kept(s, &w, &seconds);
    if (r == 0 && seconds > 0)
        take_faster(s, &w, seconds);
    return r;
}

/* Where all gradients have room on the device, none is made twice and none leaves it. That may be
 * room for activations, though, all of which are made again then: so both ways are tried. */
static int try_clips(struct search *s, struct way w)
{
    int r = try_way(s, w);

    if (r < 0 || !s->clips || s->at_best)
        return r;
    w.parked = TR_PARKED_F32;
    return try_way(s, w);
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
    return both || s->clips || s->run->plan.in.frames == TR_FRAMES_FIT ||
           (run_may_update(s->run, 0) && run_may_update(s->run, 1));
}

int run_choose(struct tr_run *run, const struct tr_figures *figures, const struct tr_batch *batch,
               int weigh_durability)
{
    const struct tr_train_params *p = &run->params;
    struct way before = {run->model->parked, run->apart, p->durability, run->frames, run->keep};
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
