/* SPDX-License-Identifier: Apache-2.0
 *
 * Where everything of a run is: the visits of a step, what the host tier holds of their spans, and
 * the smallest host budget that does. Nothing is allocated for it yet but the tables.
 */
#include "src/run/run.h"

#include "src/base/err.h"
#include "src/checkpoint/source.h"
#include "src/plan/tier.h"

#define STAGING_LEAST (1u << 20)   /* sixteen chunks of 64 KiB */
#define HOST_REST     (256u << 10) /* paths, metrics, a batch of few tokens */
#define WHOLE_CHUNKS  (64u << 10)  /* sixteen chunks of whole pages */
#define MORE_TABLES   (1u << 20)   /* visits and spans, made after the plan */

void run_name_pools(const struct tr_run *run, struct tr_slot_pool pools[TR_SLOT_POOLS])
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

    run_name_pools(run, pools);
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
    uint64_t bytes = tr_mem_host_peak() + HOST_REST + run_buffer_bytes(run) + run_rope_bytes(run);

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

    run_name_pools(run, pools);
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
