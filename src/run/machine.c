/* SPDX-License-Identifier: Apache-2.0
 *
 * The machine of a run: device, offload engine, and what the pass needs beside the plan. Opened
 * when store, model table and plan stand; closed in reverse order.
 */
#include "src/run/run.h"

#include <string.h>
#include <xxhash.h>

#include "src/base/err.h"
#include "src/base/pages.h"
#include "src/base/sysmem.h"
#include "src/checkpoint/source.h"
#include "src/plan/tier.h"

#define STAGING_LEAST (1u << 20)   /* sixteen chunks of 64 KiB */
#define HOST_REST     (256u << 10) /* paths, metrics, a batch of few tokens */
#define WHOLE_CHUNKS  (64u << 10)  /* sixteen chunks of whole pages */
#define MORE_TABLES   (1u << 20)   /* visits and spans, made after the plan */

static uint64_t resolve_share(uint64_t bytes, uint64_t by_default, uint64_t free_bytes)
{
    if (!bytes)
        bytes = by_default;
    if (!(bytes & TR_SHARE(0)))
        return bytes;
    return (uint64_t)((double)free_bytes * (double)(bytes & ~TR_SHARE(0)) / 100e3);
}

/* A budget beyond what there is would be kept only until the kernel ends the run for it. */
static int check_there_is(const char *option, uint64_t asked, uint64_t most)
{
    return asked <= most ? 0
                         : tr_error(-EINVAL, "%s: %llu bytes are more than the %llu there are",
                                    option, (unsigned long long)asked, (unsigned long long)most);
}

int run_check_memory(const struct tr_run *run, uint64_t device, uint64_t host)
{
    int r = check_there_is("--device-memory", run->params.device_memory, device);

    return r < 0 ? r : check_there_is("--host-memory", run->params.host_memory, host);
}

int run_resolve_memory(struct tr_run *run)
{
    struct tr_train_params *p = &run->params;
    uint64_t device, host;
    int r = tr_free_memory(&host);

    if (r < 0 || (r = tr_devices_free(&run->choice, &device)) < 0)
        return r;
    p->device_memory =
        resolve_share(p->device_memory, run->choice.cuda ? TR_SHARE(90) : TR_SHARE(80), device);
    p->host_memory = resolve_share(p->host_memory, TR_SHARE(80), host);
    return 0;
}

static int is_all_f32(const struct tr_model *m)
{
    int all = 1;

    for (int32_t i = 0; i < m->n_tensors; i++)
        all &= m->tensors[i].dtype == TR_F32;
    return all;
}

static int place_pages(const struct tr_run *run)
{
    struct tr_folders f = {.n = 0};
    int r = run->params.store ? tr_folders_parse(&f, run->params.store) : 0;

    if (r == 0)
        tr_pages_place(run->choice.cuda, f.path[0]);
    tr_folders_free(&f);
    return r;
}

/* Homes of all that is stored, as much again for updates beside the GPU, and the buffers on the
 * way. Whether gradients are parked may be chosen later: they are counted. */
uint64_t run_most_pinned(const struct tr_run *run, uint64_t host_bytes)
{
    const struct tr_model *m = run->model;
    uint64_t parked = m->parked == TR_PARKED_NONE ? 4 * m->n_trained : 0;
    uint64_t most = 2 * (tr_layout_bytes(&m->layout) + parked) + TR_STAGING_BYTES;

    return most < host_bytes ? most : host_bytes;
}

int run_open_device(struct tr_run *run)
{
    uint64_t most = tr_most_memory();
    int r = run_check_memory(run, run->choice.cuda ? UINT64_MAX : most, most);

    if (r < 0 || (r = place_pages(run)) < 0)
        return r;
    r = tr_devices_open(
        &run->device, &run->choice,
        &(struct tr_device_params){.memory_bytes = run->params.device_memory,
                                   .host_bytes = run_most_pinned(run, tr_installed_memory()),
                                   .threads = (int)run->params.threads,
                                   .f32_only = is_all_f32(run->model),
                                   .delay_seed = run->params.delay_seed});
    if (r < 0)
        return r;
    run->device->ops->info(run->device, &run->device_info);
    return 0;
}

static uint64_t rope_bytes(const struct tr_run *run)
{
    return (uint64_t)run->plan.in.positions * (uint64_t)run->model->config.head_dim * sizeof(float);
}

static int copy_rope_tables(struct tr_run *run)
{
    const struct tr_plan *plan = &run->plan;
    int64_t n = plan->in.positions, half = run->model->config.head_dim / 2;
    float *cos = tr_alloc_array(TR_MEM_BATCH, (size_t)n, 2 * (size_t)half * sizeof(float));
    float *sin = cos + n * half;
    char *arena = run->pass.arena;
    size_t bytes = (size_t)(n * half) * sizeof(float);
    int r;

    if (!cos)
        return -ENOMEM;
    if ((r = tr_rope_tables(&run->model->config, n, cos, sin)) == 0 &&
        (r = run->device->ops->copy_in(run->device, TR_STREAM_COMPUTE, arena + plan->cos.offset,
                                       cos, bytes)) == 0 &&
        (r = run->device->ops->copy_in(run->device, TR_STREAM_COMPUTE, arena + plan->sin.offset,
                                       sin, bytes)) == 0)
        r = run->device->ops->sync(run->device, TR_STREAM_COMPUTE);
    tr_free(TR_MEM_BATCH, cos);
    return r;
}

static int hash_names(struct tr_run *run)
{
    uint32_t *names = tr_alloc_array(TR_MEM_MISC, (size_t)run->model->n_tensors, sizeof(*names));

    if (!names)
        return -ENOMEM;
    for (int32_t i = 0; i < run->model->n_tensors; i++) {
        const char *name = run->model->tensors[i].name;

        names[i] = (uint32_t)XXH3_64bits(name, strlen(name));
    }
    run->pass.update.names = names;
    if (!run->model->lora.trains_base)
        return 0;
    run->pass.adapter.measured = tr_alloc(TR_MEM_MISC, run->plan.sumsq.bytes / 8 + 1);
    return run->pass.adapter.measured ? 0 : -ENOMEM;
}

void run_set_update(struct tr_run *run)
{
    const struct tr_train_params *p = &run->params;
    struct tr_update *u = &run->pass.update;

    u->optimizer = p->optimizer;
    u->weight_decay = (float)p->weight_decay;
    u->clip_value = (float)p->clip_value;
    u->beta1 = p->optimizer == TR_OPT_SGD ? p->momentum : p->beta1;
    u->beta2 = p->beta2;
    u->eps = (float)p->eps;
    u->rounding = p->rounding == TR_ROUNDING_STOCHASTIC ? TR_ROUND_STOCHASTIC : TR_ROUND_NEAREST;
    u->seed = (uint32_t)p->seed;
    run->pass.adapter.is = run->model->lora.trains_base;
    run->pass.adapter.optimizer = p->lora_optimizer;
    run->pass.adapter.beta1 = p->lora_optimizer == TR_OPT_SGD ? p->momentum : p->beta1;
    run->pass.drop = p->lora_dropout > 0 ? (float)p->lora_dropout : 0;
}

static void name_pools(const struct tr_run *run, struct tr_slot_pool pools[TR_SLOT_POOLS])
{
    char *arena = run->device->ops->arena(run->device);

    for (int i = 0; i < TR_SLOT_POOLS; i++) {
        int slots_of = tr_plan_pool(&run->plan, i), host = tr_plan_is_host_pool(&run->plan, i);

        pools[i] =
            (struct tr_slot_pool){.base = (host ? run->host : arena) + run->plan.pool[i].offset,
                                  .host = host,
                                  .slot_bytes = run->plan.slot_bytes[i],
                                  .n_slots = run->plan.slots[i],
                                  .shares = slots_of == i ? 0 : (uint32_t)slots_of + 1,
                                  .spare = tr_plan_spares(i)};
    }
}

/* Where everything is that is in no slot: given bytes of host memory, and the disk. */
static int choose_tiers(struct tr_run *run, uint64_t host_bytes)
{
    uint32_t boundaries = tr_plan_boundaries(&run->plan), first = run->n_spans - boundaries;
    struct tr_slot_pool pools[TR_SLOT_POOLS];
    struct tr_tier_params p = {.visits = &run->visits,
                               .spans = run->spans,
                               .n_spans = run->n_spans,
                               .n_scratch = boundaries,
                               .pools = pools,
                               .n_pools = TR_SLOT_POOLS,
                               .budget = host_bytes,
                               .lazy = run->params.durability != TR_KEEP_STEP};
    int64_t bytes;

    name_pools(run, pools);
    bytes = tr_tier_choose(&p, run->in_host);
    if (bytes < 0)
        return (int)bytes;
    run->tier_bytes = (uint64_t)bytes;
    for (uint32_t i = 0; i < run->n_spans; i++) {
        enum tr_tier tier = (enum tr_tier)run->in_host[i];

        run->in_host[i] = tier == TR_TIER_HOST;
        if (i < first)
            continue;
        run->scratch[i - first] =
            (struct tr_scratch){run->spans[i].pool, run->spans[i].bytes, tier == TR_TIER_SPILL};
        run->spans[i].offset = tier == TR_TIER_SPILL ? run->spill_bytes : 0;
        run->spill_bytes += tier == TR_TIER_SPILL ? run->spans[i].bytes : 0;
        run->spill_host_bytes += tier == TR_TIER_HOST ? run->spans[i].bytes : 0;
    }
    return 0;
}

/* Up to half of what is left. */
static uint64_t staging_bytes(uint64_t left)
{
    uint64_t half = left / 2;

    return half > TR_STAGING_BYTES ? TR_STAGING_BYTES
           : half < STAGING_LEAST  ? STAGING_LEAST
                                   : half / WHOLE_CHUNKS * WHOLE_CHUNKS;
}

/* Before the visits are made their tables can only be guessed. */
uint64_t run_host_room(const struct tr_run *run)
{
    uint64_t used =
        run->least_host ? run->least_host - STAGING_LEAST : tr_mem_host_now() + MORE_TABLES;
    uint64_t left = run->params.host_memory > used ? run->params.host_memory - used : 0;

    used = staging_bytes(left) + (run->apart ? run_cpu_bytes(run) : 0);
    return left > used ? left - used : 0;
}

/* First what updates need, then homes, and with what is left more slots for state: what it saves
 * goes to the drive least often. */
static int place_apart(struct tr_run *run)
{
    struct tr_plan *plan = &run->plan;
    uint64_t room = run_host_room(run), needed = plan->host_bytes;
    int r;

    plan->in.host_budget = room;
    plan->in.host_used = run->params.host_memory - room;
    if (room < needed)
        return tr_plan_refuse_host(plan);
    r = choose_tiers(run, room - needed);
    if (r == 0)
        tr_plan_grow_host(plan, room - needed - run->tier_bytes);
    return r;
}

/* The smallest host budget: what has been taken, most of it by the data, and what is to come: the
 * buffers of the import and of the export (never both), of which a new run has one already, tables,
 * and where the host does not see the device's memory, buffers on the way there. */
static uint64_t least_host(const struct tr_run *run, const struct tr_slot_pool *pools)
{
    const struct tr_model *m = run->model;
    struct tr_table_sizes sizes = {.layout = &m->layout,
                                   .pools = pools,
                                   .n_pools = TR_SLOT_POOLS,
                                   .n_scratch = tr_plan_boundaries(&run->plan),
                                   .scratch_bytes = run->plan.slot_bytes[TR_SLOTS_BOUNDARY],
                                   .visits = run->visits.n,
                                   .staged = !run->device_info.host_visible};
    uint64_t bytes = tr_mem_host_peak() + HOST_REST + run_buffer_bytes(run) + rope_bytes(run);

    bytes += tr_offload_table_bytes(&sizes) + (uint64_t)m->n_tensors * sizeof(uint32_t);
    if (run->plan.in.train)
        bytes += tr_store_table_bytes(&m->layout) + tr_layout_piece_room(&m->layout) +
                 (run->import && !run->model->master ? 0 : TR_SOURCE_CHUNK);
    return tr_round_up(bytes + (sizes.staged ? STAGING_LEAST : 0), TR_STORE_ALIGN);
}

/* A host-visible device's memory is host memory: a tier beside it would only be a copy. */
static int place_host(struct tr_run *run)
{
    struct tr_slot_pool pools[TR_SLOT_POOLS];
    uint64_t given = run->params.host_memory;

    name_pools(run, pools);
    if (!run->least_host) /* another way to clip is weighed within the same */
        run->least_host = least_host(run, pools);
    if (given < run->least_host)
        return tr_error(
            -ENOMEM,
            "the host budget is too small: %llu bytes are given, the smallest that would "
            "do for the data, tables and buffers is %llu (%.1f MiB); raise --host-memory",
            (unsigned long long)given, (unsigned long long)run->least_host,
            (double)run->least_host / 1048576);
    if (run->device_info.host_visible)
        return choose_tiers(run, 0);
    given -= run->least_host - STAGING_LEAST; /* what is left for staging and homes */
    run->staging_bytes = staging_bytes(given);
    if (run->plan.in.apart)
        return place_apart(run);
    return choose_tiers(run, given - run->staging_bytes);
}

static int make_visits(struct tr_run *run)
{
    struct tr_visits_params p = {.model = run->model,
                                 .train = run->plan.in.train,
                                 .norm_pass = run->plan.in.norm,
                                 .group = run->plan.in.group,
                                 .parked = run->plan.parked,
                                 .by_parts = run->plan.by_parts,
                                 .keep = run->plan.keep,
                                 .apart = run->plan.in.apart};
    int r = tr_visits_make(&run->visits, &p);

    if (r < 0 || !p.train || !run->model->parked)
        return r;
    p.train = 0;
    if ((r = tr_visits_make(&run->plain, &p)) < 0)
        return r;
    p.settle = 1;
    return tr_visits_make(&run->settle, &p);
}

int run_place(struct tr_run *run)
{
    int r = make_visits(run);

    if (r < 0)
        return r;
    run->spans = tr_plan_spans(&run->plan, &run->n_spans);
    run->scratch =
        tr_alloc_array(TR_MEM_MISC, tr_plan_boundaries(&run->plan), sizeof(*run->scratch));
    run->in_host = tr_alloc(TR_MEM_MISC, run->n_spans);
    if (!run->spans || !run->scratch || !run->in_host)
        return -ENOMEM;
    return place_host(run);
}

void run_unplace(struct tr_run *run)
{
    tr_visits_free(&run->visits);
    tr_visits_free(&run->plain);
    tr_visits_free(&run->settle);
    tr_free(TR_MEM_MISC, run->in_host);
    tr_free(TR_MEM_MISC, run->spans);
    tr_free(TR_MEM_MISC, run->scratch);
    run->in_host = NULL;
    run->spans = NULL;
    run->scratch = NULL;
    tr_stripes_free(&run->spills);
    run->spill_bytes = run->spill_host_bytes = 0;
}

int run_open_offload(struct tr_run *run)
{
    static const enum tr_io_kind io[] = {
        [TR_IO_BEST] = TR_IO_AUTO, [TR_IO_RING] = TR_IO_URING, [TR_IO_POOL] = TR_IO_THREADS};
    static const enum tr_durability durability[] = {[TR_KEEP_AUTO] = TR_DURABLE_STEP,
                                                    [TR_KEEP_STEP] = TR_DURABLE_STEP,
                                                    [TR_KEEP_CHECKPOINT] = TR_DURABLE_CHECKPOINT,
                                                    [TR_KEEP_NONE] = TR_DURABLE_NONE};
    struct tr_slot_pool pools[TR_SLOT_POOLS];
    int r = run_deal_out_spills(run, tr_store_stripes(run->store), &run->spills);

    name_pools(run, pools);
    if (r < 0)
        return r;
    return tr_offload_open(
        &run->offload,
        &(struct tr_offload_params){.store = run->store,
                                    .device = run->device,
                                    .pools = pools,
                                    .n_pools = TR_SLOT_POOLS,
                                    .io = io[run->params.io],
                                    .durability = durability[run->params.durability],
                                    .prefetch = (uint32_t)run->params.prefetch,
                                    .staging_bytes = run->staging_bytes,
                                    .in_host = run->in_host,
                                    .scratch = run->scratch,
                                    .n_scratch = tr_plan_boundaries(&run->plan),
                                    .scratch_stripes = run->spills.n ? &run->spills : NULL,
                                    .serial = run->params.serial});
}

/* What a step reads back lies in pinned memory, so that its copies wait for nobody. */
static size_t nll_bytes(const struct tr_run *run)
{
    return tr_round_up((size_t)run->plan.in.batch_tokens * sizeof(float), TR_STORE_ALIGN);
}

static size_t sumsq_bytes(const struct tr_run *run)
{
    return tr_round_up(run->plan.sumsq.bytes + 1, TR_STORE_ALIGN);
}

uint64_t run_buffer_bytes(const struct tr_run *run)
{
    return nll_bytes(run) + sumsq_bytes(run);
}

int run_start_machine(struct tr_run *run)
{
    int r;

    run->pass.device = run->device;
    run->pass.model = run->model;
    run->pass.plan = &run->plan;
    run->pass.arena = run->device->ops->arena(run->device);
    run->nll = run->device->ops->host_alloc(run->device, nll_bytes(run));
    run->sumsq = run->device->ops->host_alloc(run->device, sumsq_bytes(run));
    if (!run->nll || !run->sumsq)
        return -ENOMEM;
    if ((r = run_mark_arena(run)) < 0 || (r = hash_names(run)) < 0 ||
        (r = copy_rope_tables(run)) < 0 || (run->plan.in.apart && (r = run_open_apart(run)) < 0))
        return r;
    run_set_update(run);
    return run_open_offload(run);
}

void run_close_offload(struct tr_run *run)
{
    if (run->device) /* what is queued still uses the slots */
        run->device->ops->sync(run->device, TR_STREAM_COMPUTE);
    tr_offload_close(run->offload);
    run->offload = NULL;
    run->begun = RUN_NOTHING;
}

void run_stop_machine(struct tr_run *run)
{
    run_close_offload(run); /* what is queued uses the batch, too */
    run_unplace(run);
    run_close_apart(run);
    tr_pass_free(&run->pass);
    tr_free(TR_MEM_MISC, run->pass.update.names);
    tr_free(TR_MEM_MISC, run->pass.adapter.measured);
    if (run->nll)
        run->device->ops->host_free(run->device, run->nll, nll_bytes(run));
    if (run->sumsq)
        run->device->ops->host_free(run->device, run->sumsq, sumsq_bytes(run));
    if (run->device)
        run->device->ops->close(run->device);
    run->nll = NULL;
    run->sumsq = NULL;
    run->device = NULL;
}
