/* SPDX-License-Identifier: Apache-2.0 */
#include "src/plan/predict.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "src/base/err.h"
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
                                 .update = run->pass.update};
    int r = 0;

    pass.update.names =
        tr_alloc_array(TR_MEM_MISC, (size_t)run->model->n_tensors, sizeof(*pass.update.names));
    if (!pass.update.names)
        return -ENOMEM;
    pass.update.t = 1;
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

static enum tr_durability durability_of(const struct tr_run *run)
{
    return run->params.durability == TR_KEEP_NONE         ? TR_DURABLE_NONE
           : run->params.durability == TR_KEEP_CHECKPOINT ? TR_DURABLE_CHECKPOINT
                                                          : TR_DURABLE_STEP;
}

struct play {
    struct tr_sim_params p;
    struct tr_slot_pool pools[TR_SLOT_POOLS];
    double *seconds, *scaled, *beside;
    uint32_t *after;
    unsigned char *pass;
    struct tr_stripes stripes, spills; /* of a store that is still to be made */
};

static void close_play(struct play *y)
{
    tr_free(TR_MEM_MISC, y->seconds);
    tr_free(TR_MEM_MISC, y->scaled);
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

static int open_play(struct play *y, struct tr_run *run, const struct tr_figures *figures,
                     const struct tr_batch *batch)
{
    const struct tr_visits *v = &run->visits;
    static char ground[1]; /* slots are counted, never touched */
    int r;

    memset(y, 0, sizeof(*y));
    for (int i = 0; i < TR_SLOT_POOLS; i++) {
        int slots_of = tr_plan_pool(&run->plan, i);

        y->pools[i] = (struct tr_slot_pool){.base = ground,
                                            .n_slots = run->plan.slots[i],
                                            .host = tr_plan_is_host_pool(&run->plan, i),
                                            .shares = slots_of == i ? 0 : (uint32_t)slots_of + 1,
                                            .spare = tr_plan_spares(i)};
    }
    y->seconds = tr_alloc_array(TR_MEM_MISC, v->n, sizeof(double));
    y->scaled = tr_alloc_array(TR_MEM_MISC, v->n, sizeof(double));
    y->beside = tr_alloc_array(TR_MEM_MISC, v->n, sizeof(double));
    y->after = tr_alloc_array(TR_MEM_MISC, v->n, sizeof(*y->after));
    y->pass = tr_alloc(TR_MEM_MISC, v->n);
    if (!y->seconds || !y->scaled || !y->beside || !y->after || !y->pass)
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
                                  .durability = durability_of(run),
                                  .rates = rates_of(figures)};
    r = place_stripes(y, run, figures);
    if (r < 0)
        return r;
    return visit_seconds(run, figures, batch, &(struct seconds){y->seconds, y->beside});
}

/* Where every span has a home the engine needs no other memory on the way. */
static int all_at_home(const struct tr_run *run)
{
    uint32_t n = 0;

    while (n < run->n_spans && run->in_host[n])
        n++;
    return n == run->n_spans;
}

static uint64_t parked_bytes(const struct tr_layout *l)
{
    uint64_t bytes = 0;

    for (uint32_t i = 0; i < l->n_spans; i++)
        bytes += l->spans[i].pool >= TR_SLOTS_BLOCK_PARKED && l->spans[i].pool < TR_SLOTS_ADAPTER
                     ? l->spans[i].bytes
                     : 0;
    return bytes;
}

static void fill_memory(const struct tr_run *run, struct tr_prediction *out)
{
    int generations = run->params.durability == TR_KEEP_NONE ? 1 : 2;

    out->device_bytes = run->plan.peak + run->device_info.workspace_bytes;
    out->staging_bytes = all_at_home(run) ? 0 : run->staging_bytes;
    out->tier_bytes = run->tier_bytes;
    out->apart = run->plan.in.apart;
    out->apart_bytes = run->plan.host_bytes;
    out->least_host = run_least_host(run);
    out->buffer_bytes = run_buffer_bytes(run);
    out->disk_bytes =
        (uint64_t)generations * tr_layout_bytes(&run->model->layout) + run->spill_bytes;
    out->parked_disk_bytes = (uint64_t)generations * parked_bytes(&run->model->layout);
    out->spill_disk_bytes = run->spill_bytes;
    out->spill_host_bytes = run->spill_host_bytes;
}

/* The steps behind those that are played anyway, with a commit before them and without. */
static int play_commit(const struct play *y, struct tr_prediction *out)
{
    struct tr_sim_params p = y->p;
    struct tr_sim_result without, with;
    int r;

    if (p.durability != TR_DURABLE_CHECKPOINT || !out->timed)
        return 0;
    p.steps = TR_SIM_STEPS;
    if ((r = tr_simulate(&p, &without)) < 0)
        return r;
    p.commit_after = TR_PREDICT_STEPS;
    if ((r = tr_simulate(&p, &with)) < 0)
        return r;
    out->after_commit = with.step_seconds[TR_PREDICT_STEPS];
    for (int i = TR_PREDICT_STEPS; i < TR_SIM_STEPS; i++)
        out->commit_extra += with.step_seconds[i] - without.step_seconds[i];
    return 0;
}

/* Of a long path the end, which tells more. */
static void name_drives(const struct tr_figures *f, struct tr_prediction *out)
{
    for (uint32_t i = 0; f && i < f->n_drives; i++) {
        const char *name = f->drive[i].folder;
        size_t n = strlen(name), room = sizeof(out->drive[i]) - 1;

        strcpy(out->drive[i], n > room ? name + n - room : name);
    }
    if (!f)
        return;
    out->strangers = f->strangers;
    out->n_folders = f->n_folders;
    memcpy(out->drive_of, f->drive_of, sizeof(out->drive_of));
}

int run_predict(struct tr_run *run, const struct tr_figures *figures, const struct tr_batch *batch,
                struct tr_prediction *out)
{
    struct play y;
    int r;

    memset(out, 0, sizeof(*out));
    run_set_update(run);
    fill_memory(run, out);
    out->timed = figures != NULL;
    out->tokens = batch->n_tokens;
    out->commit_every = run->params.durability == TR_KEEP_STEP ? 1
                        : run->params.durability == TR_KEEP_CHECKPOINT
                            ? run->params.checkpoint_every
                            : 0;
    snprintf(out->machine, sizeof(out->machine), "%s", figures ? figures->name : "");
    r = open_play(&y, run, figures, batch);
    y.p.steps = TR_PREDICT_STEPS;
    if (r == 0)
        r = tr_simulate(&y.p, &out->sim);
    if (r == 0)
        r = play_commit(&y, out);
    if (r == 0)
        r = run_predict_settle(run, y.pools, out->settle);
    for (uint32_t i = 0; r == 0 && i < y.p.n; i++)
        out->arithmetic += y.seconds[i];
    name_drives(figures, out);
    tr_prediction_name_limit(out);
    close_play(&y);
    return r;
}

static uint64_t read_in(uint64_t first, uint64_t last, uint64_t total, int64_t steps)
{
    if (steps <= 1)
        return steps == 1 ? first : 0;
    return steps < TR_PREDICT_STEPS ? total - last
                                    : total + (uint64_t)(steps - TR_PREDICT_STEPS) * last;
}

uint64_t tr_prediction_read(const struct tr_prediction *p, int64_t steps)
{
    const struct tr_sim_result *s = &p->sim;

    return read_in(s->first_read_bytes, s->read_bytes, s->total_read_bytes, steps);
}

static uint64_t written_in(const uint64_t written[TR_SIM_STEPS], uint64_t last, int64_t steps)
{
    uint64_t bytes = 0;

    for (int64_t k = 0; k < TR_PREDICT_STEPS && k < steps; k++)
        bytes += written[k];
    if (steps > TR_PREDICT_STEPS)
        bytes += (uint64_t)(steps - TR_PREDICT_STEPS) * last;
    return bytes;
}

uint64_t tr_prediction_written(const struct tr_prediction *p, int64_t steps)
{
    return written_in(p->sim.written, p->sim.written_bytes, steps);
}

struct tr_drive_bytes tr_prediction_drive(const struct tr_prediction *p, uint32_t drive,
                                          int64_t steps)
{
    const struct tr_sim_drive *d = &p->sim.drive[drive];

    return (struct tr_drive_bytes){
        read_in(d->first_read_bytes, d->read_bytes, d->total_read_bytes, steps),
        written_in(d->written, d->written_bytes, steps)};
}

/* The step (from 1) that was played, or the last one, which stands for all behind it: from 0. */
static int64_t played(int64_t step)
{
    if (step < 1)
        return 0;
    return (step < TR_PREDICT_STEPS ? step : TR_PREDICT_STEPS) - 1;
}

uint64_t tr_prediction_kept(const struct tr_prediction *p, int64_t step)
{
    return p->sim.kept[played(step)];
}

const struct tr_settle_bytes *tr_prediction_settle(const struct tr_prediction *p, int64_t steps)
{
    return &p->settle[played(steps)];
}

double tr_prediction_seconds(const struct tr_prediction *p)
{
    double extra = p->commit_every ? p->commit_extra / (double)p->commit_every : 0;

    return p->sim.seconds + extra;
}

double tr_prediction_wear(const struct tr_prediction *p)
{
    double commit = p->commit_every ? (double)p->sim.kept_bytes / (double)p->commit_every : 0;

    return (double)p->sim.written_bytes + commit;
}

double tr_prediction_drive_wear(const struct tr_prediction *p, uint32_t drive)
{
    const struct tr_sim_drive *d = &p->sim.drive[drive];

    return (double)d->written_bytes +
           (p->commit_every ? (double)d->kept_bytes / (double)p->commit_every : 0);
}

double tr_prediction_life(const struct tr_prediction *p, const double life[TR_STORE_FOLDERS])
{
    double least = 0;

    for (uint32_t d = 0; life && d < p->sim.n_drives; d++) {
        double wear = tr_prediction_drive_wear(p, d);
        double steps = wear > 0 ? life[life[1] > 0 ? d : 0] / wear : 0;

        if (steps > 0 && (!(least > 0) || steps < least))
            least = steps;
    }
    return least;
}

/* ---- limits ---- */

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

/* Is a step whose arithmetic takes `scale` times as long at most 3 % longer than it? */
static int hides(struct play *y, double scale, double arithmetic)
{
    struct tr_sim_params p = y->p;
    struct tr_sim_result result;

    for (uint32_t i = 0; i < p.n; i++)
        y->scaled[i] = y->seconds[i] * scale;
    p.seconds = y->scaled;
    return tr_simulate(&p, &result) == 0 && result.seconds <= 1.03 * scale * arithmetic;
}

/* Arithmetic grows with the tokens, what moves does not: placement being what it is, so many times
 * the tokens would do. */
static double find_scale(struct play *y, double arithmetic)
{
    double low = 1.0 / 1024, high = 1024;

    if (!hides(y, high, arithmetic))
        return 0;
    while (high / low > 1.02) {
        double mid = sqrt(low * high);

        if (hides(y, mid, arithmetic))
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

int run_predict_limits(struct tr_run *run, const struct tr_figures *figures,
                       const struct tr_batch *batch, struct tr_prediction *out)
{
    struct play y;
    int r = 0;

    out->least_device = least_device(run);
    if (!figures)
        return 0;
    r = open_play(&y, run, figures, batch);
    if (r == 0)
        out->hides_from = find_scale(&y, out->arithmetic) * (double)out->tokens;
    out->hides_fits = out->hides_from > 0 && fits_tokens(run, out->hides_from);
    close_play(&y);
    return r;
}

/* ---- a batch without data ---- */

static void fill_batch(struct tr_batch *b, int32_t *at, float *weight, int64_t row_tokens,
                       int32_t grain_tokens)
{
    int32_t *grain = at, *row = grain + b->n_rows + 1;
    int32_t *ids = row + b->n_rows + 1;

    for (int32_t i = 0; i < b->n_rows; i++) {
        row[i + 1] = row[i] + (int32_t)row_tokens;
        if (row[i + 1] - grain[b->n_grains] >= grain_tokens)
            grain[++b->n_grains] = row[i + 1];
    }
    if (grain[b->n_grains] < b->n_tokens)
        grain[++b->n_grains] = b->n_tokens;
    b->grain_start = grain;
    b->row_start = b->doc_start = row;
    b->ids = b->targets = b->position = ids; /* zeros, which are never looked at */
    b->weight = weight;
    b->weight_sum = 1;
}

int tr_predict_batch(int64_t rows, int64_t row_tokens, int32_t grain_tokens, struct tr_batch *batch)
{
    size_t n = (size_t)(rows * row_tokens);
    int32_t *at = tr_alloc_array(TR_MEM_BATCH, 2 * (size_t)rows + 2 + n, sizeof(*at));
    float *weight = tr_alloc_array(TR_MEM_BATCH, n, sizeof(*weight));

    memset(batch, 0, sizeof(*batch));
    if (!at || !weight) {
        tr_free(TR_MEM_BATCH, at);
        tr_free(TR_MEM_BATCH, weight);
        return -ENOMEM;
    }
    batch->n_tokens = (int32_t)n;
    batch->n_rows = batch->n_docs = (int32_t)rows;
    fill_batch(batch, at, weight, row_tokens, grain_tokens);
    return 0;
}

void tr_predict_batch_free(struct tr_batch *batch)
{
    tr_free(TR_MEM_BATCH, (void *)batch->grain_start);
    tr_free(TR_MEM_BATCH, (void *)batch->weight);
}
