/* SPDX-License-Identifier: Apache-2.0 */
#include "src/plan/play.h"

#include <errno.h>
#include <string.h>

#include "src/base/mem.h"
#include "src/plan/counter.h"
#include "src/run/run.h"
#include "src/train/apart.h"

/* ---- seconds of each visit ---- */

/* A device that counts, and beside it the cpu that updates, where it does. */
struct counters {
    struct tr_counter *device, *cpu;
    struct tr_figures *figures; /* the cpu's */
    struct tr_apart *apart;
};

static void close_counters(struct counters *c)
{
    tr_apart_close(c->apart);
    if (c->cpu)
        c->cpu->device.ops->close(&c->cpu->device);
    if (c->device)
        c->device->device.ops->close(&c->device->device);
    tr_free(TR_MEM_MISC, c->figures);
}

/* On the cpu updates take the time of their bytes. */
static int open_cpu(struct counters *c, const struct tr_run *run, const struct tr_figures *figures)
{
    struct tr_device_info info = {.arena_bytes = TR_STORE_ALIGN};
    int r;

    c->figures = tr_alloc(TR_MEM_MISC, sizeof(*c->figures));
    if (!c->figures)
        return -ENOMEM;
    for (int row = 0; row < TR_COST_ROWS; row++)
        for (int w = 0; w < TR_WIDTHS; w++)
            c->figures->cost[row][w][TR_TERM_WORK] =
                1 / (row >= TR_COST_ADAMW_8BIT   ? figures->update_8bit
                     : row >= TR_COST_ADAMW_BF16 ? figures->update_bf16
                                                 : figures->update);
    if ((r = tr_counter_open(&c->cpu, c->figures, &info)) < 0)
        return r;
    return tr_apart_open(&c->apart, &(struct tr_apart_params){.device = &c->device->device,
                                                              .cpu = &c->cpu->device,
                                                              .plan = &run->plan,
                                                              .memory = c->device->arena});
}

static int open_counters(struct counters *c, const struct tr_run *run,
                         const struct tr_figures *figures)
{
    struct tr_device_info info = run->device_info;
    int r;

    info.arena_bytes = run->plan.peak;
    r = tr_counter_open(&c->device, figures, &info);
    return r == 0 && run->plan.in.apart ? open_cpu(c, run, figures) : r;
}

/* Seconds of each visit: of compute, and of the cpu before it with all copies to it; those are not
 * on the device's way. */
struct seconds {
    double *compute, *beside;
};

static int count_visit(struct counters *c, struct tr_pass_state *pass,
                       const struct tr_pass_visit *v, const struct seconds *at)
{
    double before = c->device->seconds, until = c->device->out_until;
    double updated = c->cpu ? c->cpu->seconds : 0;
    uint64_t out = c->device->out_bytes;
    int r = tr_pass_run(pass, v);

    *at->compute = c->device->seconds - before;
    *at->beside = 0;
    if (!c->cpu || v->unit.work != TR_WORK_UPDATE)
        return r;
    c->device->out_until = until;
    *at->beside = c->cpu->seconds - updated;
    *at->beside += (double)(c->device->out_bytes - out) / c->device->figures->out;
    return r;
}

static int count_visits(struct tr_run *run, struct counters *c, const struct tr_batch *batch,
                        const struct seconds *seconds)
{
    struct tr_pass_state pass = {.device = &c->device->device,
                                 .model = run->model,
                                 .plan = &run->plan,
                                 .arena = c->device->arena,
                                 .apart = c->apart,
                                 .update = run->pass.update,
                                 .adapter = run->pass.adapter,
                                 .dropout = run->pass.drop};
    int r = 0;

    pass.update.names =
        tr_alloc_array(TR_MEM_MISC, (size_t)run->model->n_tensors, sizeof(*pass.update.names));
    if (!pass.update.names)
        return -ENOMEM;
    pass.update.t = 1;
    pass.adapter.measured = NULL;
    r = tr_pass_batch(&pass, batch, 1);
    for (uint32_t i = 0; i < run->visits.n && r == 0; i++) {
        struct tr_pass_visit v = {.unit = run->visits.units[i], .spans = &run->visits.spans[i]};
        struct seconds at = {&seconds->compute[i], &seconds->beside[i]};

        for (uint32_t k = 0; k < TR_VISIT_SPANS; k++) /* where they lie does not matter here */
            v.at[k] = c->device->arena;
        if (i == 0 || v.unit.pass != run->visits.units[i - 1].pass)
            pass.n_sumsq = 0;
        r = count_visit(c, &pass, &v, &at);
    }
    tr_pass_free(&pass);
    tr_free(TR_MEM_MISC, pass.update.names);
    return r;
}

static int visit_seconds(struct tr_run *run, const struct tr_figures *figures,
                         const struct tr_batch *batch, const struct seconds *seconds)
{
    struct counters c = {0};
    int r = figures ? open_counters(&c, run, figures) : 0;

    if (r == 0 && figures)
        r = count_visits(run, &c, batch, seconds);
    close_counters(&c);
    return r;
}

/* An update beside the device waits for the visit that has left its gradients; where none has, for
 * all that were before it, but gradients that the store has kept are there. */
static uint32_t update_after(const struct tr_run *run, uint32_t i)
{
    const struct tr_unit_visit *u = run->visits.units, *v = &u[i];

    for (uint32_t k = i; k-- > 0;)
        if (u[k].leaves && u[k].work == v->place && u[k].index == v->index &&
            u[k].from == v->from && u[k].sweep == v->sweep)
            return k + 1;
    return run->model->parked == TR_PARKED_F32 ? 0 : i;
}

/* ---- the step ---- */

_Static_assert(TR_PASS_UPDATE == TR_SIM_PASSES - 1, "the simulator knows passes by number");

static struct tr_sim_rates rates_of(const struct tr_figures *f)
{
    struct tr_sim_rates r = {.n_drives = 0};

    if (!f)
        return r;
    r = (struct tr_sim_rates){
        .drive = {{.alone = {f->read, f->write, f->mixed}, .flush = f->flush}},
        .n_drives = f->n_drives,
        .hash = f->hash,
        .in = f->in,
        .out = f->out,
        .both = f->both,
        .drag = f->cuda ? 0 : f->drag};
    for (uint32_t i = 0; i < f->n_drives; i++)
        r.drive[i] = f->drive[i].rates;
    return r;
}

void play_close(struct play *y)
{
    tr_free(TR_MEM_MISC, y->seconds);
    tr_free(TR_MEM_MISC, y->beside);
    tr_free(TR_MEM_MISC, y->after);
    tr_free(TR_MEM_MISC, y->pass);
    tr_stripes_free(&y->stripes);
    tr_stripes_free(&y->spills);
}

/* What each folder of the store has, or would have. */
static int place_stripes(struct play *y, struct tr_run *run, const struct tr_figures *f)
{
    struct tr_stripes *spills = run->store ? &run->spills : &y->spills;
    int r = 0;

    if (!f || f->n_folders < 2)
        return 0;
    y->p.stripes = run->store ? tr_store_stripes(run->store) : &y->stripes;
    if (!run->store)
        r = run_deal_out(run, f, &y->stripes);
    if (r == 0)
        r = run_deal_out_spills(run, y->p.stripes, spills);
    y->p.scratch_stripes = spills->n ? spills : NULL;
    y->p.drive_of = f->drive_of;
    return r;
}

int play_open(struct play *y, struct tr_run *run, const struct tr_figures *figures,
              const struct tr_batch *batch)
{
    const struct tr_visits *v = &run->visits;
    static char ground[1]; /* slots are counted, never touched */
    int r;

    memset(y, 0, sizeof(*y));
    for (int i = 0; i < TR_SLOT_POOLS; i++) {
        y->pools[i] = run_pool(run, i);
        y->pools[i].base = ground;
    }
    y->seconds = tr_alloc_array(TR_MEM_MISC, v->n, sizeof(double));
    y->beside = tr_alloc_array(TR_MEM_MISC, v->n, sizeof(double));
    y->after = tr_alloc_array(TR_MEM_MISC, v->n, sizeof(*y->after));
    y->pass = tr_alloc(TR_MEM_MISC, v->n);
    if (!y->seconds || !y->beside || !y->after || !y->pass)
        return -ENOMEM;
    for (uint32_t i = 0; i < v->n; i++) {
        y->pass[i] = (unsigned char)v->units[i].pass;
        if (run->plan.in.apart && v->units[i].work == TR_WORK_UPDATE)
            y->after[i] = update_after(run, i);
    }
    y->p = (struct tr_sim_params){.visits = v->spans,
                                  .n = v->n,
                                  .seconds = y->seconds,
                                  .beside = y->beside,
                                  .after = y->after,
                                  .pass = y->pass,
                                  .spans = run->spans,
                                  .n_spans = run->n_spans,
                                  .n_scratch = tr_plan_scratch(&run->plan),
                                  .pools = y->pools,
                                  .n_pools = TR_SLOT_POOLS,
                                  .in_host = run->in_host,
                                  .staged = !run->device_info.host_visible,
                                  .staging_bytes = run->staging_bytes,
                                  .prefetch = (uint32_t)run->params.prefetch,
                                  .serial = run->params.serial,
                                  .durability = run_durability(run),
                                  .rates = rates_of(figures)};
    r = place_stripes(y, run, figures);
    if (r < 0)
        return r;
    return visit_seconds(run, figures, batch, &(struct seconds){y->seconds, y->beside});
}
