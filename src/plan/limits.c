/* SPDX-License-Identifier: Apache-2.0
 *
 * How far a plan is from its limits: the smallest device that would do, and the smallest batch
 * whose arithmetic hides all that moves.
 */
#include <errno.h>
#include <math.h>
#include <string.h>

#include "src/base/mem.h"
#include "src/plan/play.h"
#include "src/plan/predict.h"
#include "src/run/run.h"

static int fits_so(const struct tr_run *run, const struct tr_model *m, uint64_t arena, int apart)
{
    struct tr_plan_params p = run_plan_asked(run);
    struct tr_plan *plan = tr_alloc(TR_MEM_MISC, sizeof(*plan));
    int r = plan ? 0 : -ENOMEM;

    p.model = m;
    p.apart = apart;
    p.host_budget = run_host_room(run, apart);
    p.budget = arena;
    if (r == 0)
        r = tr_plan_make(plan, &p);
    if (r == 0 && apart && plan->host_bytes > p.host_budget)
        r = -ENOMEM;
    tr_free(TR_MEM_MISC, plan);
    return r == 0;
}

static int fits(const struct tr_run *run, const struct tr_model *m, uint64_t arena)
{
    return (run_may_update(run, 0) && fits_so(run, m, arena, 0)) ||
           (run_may_update(run, 1) && fits_so(run, m, arena, 1));
}

/* Whole pages: between none, which never fits, and so many, which do. */
static uint64_t least_arena(const struct tr_run *run, const struct tr_model *m, uint64_t arena)
{
    uint64_t low = 0, high = arena / TR_STORE_ALIGN;

    while (low + 1 < high) {
        uint64_t mid = low + (high - low) / 2;

        if (fits(run, m, mid * TR_STORE_ALIGN))
            high = mid;
        else
            low = mid;
    }
    return high * TR_STORE_ALIGN;
}

/* With less memory than deferred clipping takes another way would have been chosen. */
static uint64_t least_device(const struct tr_run *run)
{
    uint64_t least = least_arena(run, run->model, run->plan.peak);
    struct tr_model *m = NULL;

    if (run->clip_chosen && tr_model_park(&m, run->model, TR_PARKED_NONE) == 0 &&
        fits(run, m, least))
        least = least_arena(run, m, least);
    tr_model_close(m);
    return least + run->device_info.workspace_bytes;
}

/* The step of so many times the tokens: what grows with them is arithmetic and the scratch, for
 * which there are as many bytes of slots and homes as before: more of it goes to disk. What moves
 * of the model stays the same. */
struct grown {
    const struct play *play;
    double *seconds;
    struct tr_span *spans;
    unsigned char *in_host;
    struct tr_slot_pool pools[TR_SLOT_POOLS];
    struct tr_stripes stripes;
};

static void free_grown(struct grown *g)
{
    tr_free(TR_MEM_MISC, g->seconds);
    tr_free(TR_MEM_MISC, g->spans);
    tr_free(TR_MEM_MISC, g->in_host);
    tr_stripes_free(&g->stripes);
}

static int open_grown(struct grown *g, const struct play *y)
{
    const struct tr_stripes *from = y->p.scratch_stripes;

    *g = (struct grown){.play = y};
    g->seconds = tr_alloc_array(TR_MEM_MISC, y->p.n, sizeof(*g->seconds));
    g->spans = tr_alloc_array(TR_MEM_MISC, y->p.n_spans, sizeof(*g->spans));
    g->in_host = tr_alloc(TR_MEM_MISC, y->p.n_spans);
    if (from)
        g->stripes = *from;
    g->stripes.stripe = from ? tr_alloc_array(TR_MEM_MISC, from->n, sizeof(*from->stripe)) : NULL;
    return g->seconds && g->spans && g->in_host && (!from || g->stripes.stripe) ? 0 : -ENOMEM;
}

static uint64_t times(uint64_t bytes, double scale)
{
    return (uint64_t)((double)bytes * scale);
}

/* Places grow with what lies there, or a span would seem to reach behind its last stripe. */
static void grow_scratch(struct grown *g, double scale)
{
    const struct tr_sim_params *p = &g->play->p;

    memcpy(g->spans, p->spans, p->n_spans * sizeof(*g->spans));
    for (uint32_t i = p->n_spans - p->n_scratch; i < p->n_spans; i++) {
        uint64_t end = p->spans[i].offset + p->spans[i].bytes;

        g->spans[i].offset = times(p->spans[i].offset, scale);
        g->spans[i].bytes = times(end, scale) - g->spans[i].offset;
    }
    for (uint32_t i = 0; i < g->stripes.n; i++)
        g->stripes.stripe[i] =
            (struct tr_stripe){.from = times(p->scratch_stripes->stripe[i].from, scale),
                               .folder = p->scratch_stripes->stripe[i].folder};
    if (g->stripes.n)
        g->stripes.bytes = times(p->scratch_stripes->bytes, scale);
}

/* The first of those that have homes keep them. */
static void grow_homes(struct grown *g)
{
    const struct tr_sim_params *p = &g->play->p;
    uint64_t room = 0;

    memcpy(g->in_host, p->in_host, p->n_spans);
    for (uint32_t i = p->n_spans - p->n_scratch; i < p->n_spans; i++)
        room += p->in_host[i] ? p->spans[i].bytes : 0;
    for (uint32_t i = p->n_spans - p->n_scratch; i < p->n_spans; i++) {
        g->in_host[i] = p->in_host[i] && g->spans[i].bytes <= room;
        room -= g->in_host[i] ? g->spans[i].bytes : 0;
    }
}

/* No fewer than a visit of a block has at once. */
static void grow_slots(struct grown *g, double scale)
{
    memcpy(g->pools, g->play->pools, sizeof(g->pools));
    for (int i = TR_SLOTS_BOUNDARY; i < TR_SLOT_POOLS; i++) {
        uint32_t n = g->pools[i].n_slots, least = n < 2 ? n : 2;

        n = (uint32_t)fmin(n / scale, 2.0 * n);
        g->pools[i].n_slots = n < least ? least : n;
    }
}

/* Is that step at most 3 % longer than its arithmetic? */
static int hides(struct grown *g, double scale, double arithmetic)
{
    struct tr_sim_params p = g->play->p;
    struct tr_sim_result result;

    for (uint32_t i = 0; i < p.n; i++)
        g->seconds[i] = p.seconds[i] * scale;
    grow_scratch(g, scale);
    grow_homes(g);
    grow_slots(g, scale);
    p.most = TR_SIM_STEPS;
    p.seconds = g->seconds;
    p.spans = g->spans;
    p.in_host = g->in_host;
    p.pools = g->pools;
    if (g->stripes.n)
        p.scratch_stripes = &g->stripes;
    return tr_simulate(&p, &result) == 0 && result.seconds <= 1.03 * scale * arithmetic;
}

/* Placement being what it is, from so many times the tokens on; 0: never. Still more of them may be
 * too many again, for what is saved of them goes to disk: so the least is looked for from below. */
static double find_scale(struct grown *g, double arithmetic)
{
    double low, high = 1.0 / 1024;

    while (!hides(g, high, arithmetic))
        if ((high *= 2) > 1024)
            return 0;
    low = high / 2;
    while (high / low > 1.02) {
        double mid = sqrt(low * high);

        if (hides(g, mid, arithmetic))
            high = mid;
        else
            low = mid;
    }
    return high;
}

static int fits_tokens(const struct tr_run *run, double tokens)
{
    struct tr_plan_params p = run_plan_asked(run);
    struct tr_plan *plan;
    int fits;

    if (tokens > INT32_MAX / 2 || !(plan = tr_alloc(TR_MEM_MISC, sizeof(*plan))))
        return 0;
    p.batch_tokens = (int32_t)ceil(tokens);
    fits = tr_plan_make(plan, &p) == 0;
    tr_free(TR_MEM_MISC, plan);
    return fits;
}

static int find_hides(const struct tr_run *run, const struct play *y, struct tr_prediction *out)
{
    struct grown g;
    int r = open_grown(&g, y);

    if (r == 0)
        out->hides_from = find_scale(&g, out->arithmetic) * (double)out->tokens;
    out->hides_fits = out->hides_from > 0 && fits_tokens(run, out->hides_from);
    free_grown(&g);
    return r;
}

int run_predict_limits(struct tr_run *run, const struct tr_figures *figures,
                       const struct tr_batch *batch, struct tr_prediction *out)
{
    struct play y;
    int r = 0;

    out->least_device = least_device(run);
    if (!figures)
        return 0;
    r = play_open(&y, run, figures, batch);
    if (r == 0)
        r = find_hides(run, &y, out);
    play_close(&y);
    return r;
}
