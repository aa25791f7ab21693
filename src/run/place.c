/* SPDX-License-Identifier: Apache-2.0
 *
 * Where everything of a run is: the visits of a step, what the host tier holds of their spans, and
 * the smallest host budget that does. Nothing is allocated for it yet but the tables.
 */
#include "src/run/open.h"

#include "src/base/err.h"
#include "src/checkpoint/source.h"
#include "src/plan/tier.h"

#define STAGING_LEAST (1u << 20)   /* sixteen chunks of 64 KiB */
#define HOST_REST     (256u << 10) /* paths, metrics, a batch of few tokens */
#define WHOLE_CHUNKS  (64u << 10)  /* sixteen chunks of whole pages */
#define MORE_TABLES   (1u << 20)   /* visits and spans, made after the plan */

struct tr_slot_pool run_pool(const struct tr_run *run, int pool)
{
    int slots_of = tr_plan_pool(&run->plan, pool);

    return (struct tr_slot_pool){.n_slots = run->plan.slots[pool],
                                 .shares = slots_of == pool ? 0 : (uint32_t)slots_of + 1,
                                 .host = tr_plan_is_host_pool(&run->plan, pool),
                                 .spare = tr_plan_spares(pool)};
}

void run_name_pools(const struct tr_run *run, struct tr_slot_pool pools[TR_SLOT_POOLS])
{
    char *arena = run->device->ops->arena(run->device);

    for (int i = 0; i < TR_SLOT_POOLS; i++) {
        pools[i] = run_pool(run, i);
        pools[i].base = (pools[i].host ? run->host : arena) + run->plan.pool[i].offset;
        pools[i].slot_bytes = run->plan.slot_bytes[i];
    }
}

/* Where everything is that is in no slot: given bytes of host memory, and the disk. */
static int choose_tiers(struct tr_run *run, uint64_t host_bytes)
{
    uint32_t scratch = tr_plan_scratch(&run->plan), first = run->n_spans - scratch;
    struct tr_slot_pool pools[TR_SLOT_POOLS];
    struct tr_tier_params p = {.visits = &run->visits,
                               .spans = run->spans,
                               .n_spans = run->n_spans,
                               .n_scratch = scratch,
                               .pools = pools,
                               .n_pools = TR_SLOT_POOLS,
                               .budget = host_bytes,
                               .lazy = run->params.durability != TR_KEEP_STEP,
                               .scratch_first = run->frames == TR_FRAMES_SPILL};
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

/* Host memory that updates on the cpu take beside slots of state and buffers. */
static uint64_t apart_bytes(const struct tr_run *run, int apart)
{
    return apart ? run_cpu_bytes(run) : 0;
}

/* Before the visits are made their tables can only be guessed. */
uint64_t run_host_room(const struct tr_run *run, int apart)
{
    uint64_t least =
        run->least_host ? run->least_host : tr_mem_host_now() + MORE_TABLES + STAGING_LEAST;
    uint64_t used = least + apart_bytes(run, apart);

    return run->params.host_memory > used ? run->params.host_memory - used : 0;
}

static uint32_t n_folders(const struct tr_run *run)
{
    struct tr_folders f = {.n = 0};
    int r = run->params.store ? tr_folders_parse(&f, run->params.store) : 0;
    uint32_t n = r == 0 && f.n ? f.n : 1;

    tr_folders_free(&f);
    return n;
}

/* Of the making of the store, of the import and of the export, never two of them. A new run has one
 * of their buffers already. */
static uint64_t copying_bytes(const struct tr_run *run)
{
    const struct tr_model *m = run->model;
    uint64_t copying =
        tr_layout_piece_room(&m->layout) + (run->import && !m->master ? 0 : TR_SOURCE_CHUNK);
    uint64_t making = run->import ? tr_store_create_bytes(n_folders(run)) : 0;

    return copying > making ? copying : making;
}

/* Where time decides how many blocks keep their activations, as many as there are. */
static uint32_t most_frames(const struct tr_run *run)
{
    return (uint32_t)(run->params.recompute == TR_RECOMPUTE_AUTO ? run->model->config.layers
                                                                 : run->plan.keep);
}

/* A slot for every span, each as large as the largest: no plan has more. */
static struct tr_slot_pool most_slots(const struct tr_run *run)
{
    const struct tr_plan *plan = &run->plan;
    struct tr_slot_pool most = {.n_slots = 0};

    for (int i = 0; i < TR_SLOT_POOLS; i++) {
        most.n_slots += i == TR_SLOTS_FRAME ? most_frames(run) : plan->spans[i];
        if (plan->slot_bytes[i] > most.slot_bytes)
            most.slot_bytes = plan->slot_bytes[i];
    }
    return most;
}

/* Of this plan; or where the host's size decides about the plan, of any. */
static uint64_t table_bytes(const struct tr_run *run)
{
    const struct tr_plan *plan = &run->plan;
    const uint64_t *bytes = plan->slot_bytes;
    uint32_t boundaries = tr_plan_boundaries(plan), frames = most_frames(run);
    struct tr_slot_pool pools[TR_SLOT_POOLS];
    struct tr_table_sizes sizes = {.layout = &run->model->layout,
                                   .pools = pools,
                                   .n_pools = TR_SLOT_POOLS,
                                   .n_scratch = boundaries + frames,
                                   .scratch_pieces =
                                       boundaries * tr_pieces_of(bytes[TR_SLOTS_BOUNDARY]) +
                                       frames * tr_pieces_of(bytes[TR_SLOTS_FRAME]),
                                   .visits = run->visits.n,
                                   .staged = !run->device_info.host_visible};

    run_name_pools(run, pools);
    pools[TR_SLOTS_FRAME].n_slots = frames;
    if (plan->in.apart) {
        pools[0] = most_slots(run);
        sizes.n_pools = 1;
    }
    return tr_offload_table_bytes(&sizes);
}

/* The smallest host budget: what has been taken, most of it by the data, and what is to come:
 * buffers to copy with, tables, and where the host does not see the device's memory, buffers on the
 * way there. */
static uint64_t least_host(const struct tr_run *run)
{
    const struct tr_model *m = run->model;
    uint64_t bytes = tr_mem_host_peak() + HOST_REST + run_buffer_bytes(run) + run_rope_bytes(run);

    bytes += table_bytes(run) + (uint64_t)m->n_tensors * sizeof(uint32_t);
    if (run->plan.in.train)
        bytes += tr_store_table_bytes(&m->layout) + copying_bytes(run);
    return tr_round_up(bytes + (run->device_info.host_visible ? 0 : STAGING_LEAST), TR_STORE_ALIGN);
}

static uint64_t least_with(const struct tr_run *run, const struct tr_plan *plan)
{
    int apart = plan->in.apart;

    return run->least_host + apart_bytes(run, apart) + (apart ? plan->host_bytes : 0);
}

/* What has been chosen by time leaves the least that would do as it was. */
struct tr_plan_params run_plan_asked(const struct tr_run *run)
{
    struct tr_plan_params p = run->plan.in;

    p.group = run_clip_group(run); /* one of all is none to the plan itself */
    if (p.frames != TR_FRAMES_FIRST) {
        p.frames = TR_FRAMES_FIT;
        p.keep = 0;
    }
    return p;
}

/* Updates on the cpu by name take slots of state, of which there is a least, too. */
uint64_t run_least_host(const struct tr_run *run)
{
    struct tr_plan_params p = run_plan_asked(run);
    struct tr_plan *plan;
    uint64_t least = 0;

    if (run_may_update(run, 0))
        return run->least_host;
    if (!(plan = tr_alloc(TR_MEM_MISC, sizeof(*plan))))
        return 0;
    p.host_budget = 0;
    if (tr_plan_make(plan, &p) == 0)
        least = least_with(run, plan);
    tr_free(TR_MEM_MISC, plan);
    return least;
}

/* Who only reads a model has no budget of the host's to raise. */
static const char *host_advice(const struct tr_run *run)
{
    if (run->host_left)
        return "lower --device-memory, which leaves it that";
    return run->plan.in.train ? "raise --host-memory" : "other programs must leave it that";
}

/* -EAGAIN: with fewer slots of state it may do, for when these were planned what else there is had
 * to be guessed. */
static int check_host(const struct tr_run *run)
{
    const struct tr_plan *plan = &run->plan;
    uint64_t given = run->params.host_memory, least = least_with(run, plan);

    if (given >= least)
        return 0;
    if (plan->in.apart && plan->in.host_budget > run_host_room(run, 1))
        return -EAGAIN;
    return tr_error(-ENOMEM,
                    "the host budget is too small: %llu bytes are given, the smallest that would "
                    "do for the data, tables%s and buffers is %llu (%.1f MiB); %s",
                    (unsigned long long)given, plan->in.apart ? ", slots of state" : "",
                    (unsigned long long)least, (double)least / 1048576, host_advice(run));
}

/* First what updates need where they run on the cpu, then staging and homes, and with what is left
 * more slots for state: what it saves goes to the drive least often. A host-visible device's memory
 * is host memory: a tier beside it would only be a copy. */
static int place_host(struct tr_run *run)
{
    struct tr_plan *plan = &run->plan;
    uint64_t left;
    int r = check_host(run);

    if (r < 0)
        return r;
    if (run->device_info.host_visible)
        return choose_tiers(run, 0);
    left = run->params.host_memory - least_with(run, plan) + STAGING_LEAST;
    run->staging_bytes = staging_bytes(left);
    left -= run->staging_bytes;
    if ((r = choose_tiers(run, left)) == 0 && plan->in.apart)
        tr_plan_grow_host(plan, left - run->tier_bytes);
    return r;
}

/* Of the plan; or the most that one may have whose host is smaller or larger. */
static int make_visits(struct tr_run *run, int most)
{
    struct tr_visits_params p = {.model = run->model,
                                 .train = run->plan.in.train,
                                 .norm_pass = run->plan.in.norm,
                                 .group = run->plan.in.group,
                                 .parked = run->plan.parked && !most,
                                 .by_parts = run->plan.by_parts || most,
                                 .keep = most ? 0 : run->plan.keep,
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

static void free_visits(struct tr_run *run)
{
    tr_visits_free(&run->visits);
    tr_visits_free(&run->plain);
    tr_visits_free(&run->settle);
}

static int make_spans(struct tr_run *run)
{
    run->spans = tr_plan_spans(&run->plan, &run->n_spans);
    run->scratch = tr_alloc_array(TR_MEM_MISC, tr_plan_scratch(&run->plan), sizeof(*run->scratch));
    run->in_host = tr_alloc(TR_MEM_MISC, run->n_spans);
    return run->spans && run->scratch && run->in_host ? 0 : -ENOMEM;
}

/* Another way to clip is weighed within the least host budget of the first. With updates on the cpu
 * that one's tables are the largest that there may be, so that it hangs on no budget of the host.
 */
static int place(struct tr_run *run)
{
    int most = !run->least_host && run->plan.in.apart;
    int r = make_visits(run, most);

    if (r < 0 || (r = make_spans(run)) < 0)
        return r;
    if (!run->least_host)
        run->least_host = least_host(run);
    if (most) {
        free_visits(run);
        r = make_visits(run, 0);
    }
    return r < 0 ? r : place_host(run);
}

int run_place(struct tr_run *run)
{
    int r = place(run);

    return r == -EAGAIN ? run_place_anew(run) : r;
}

void run_unplace(struct tr_run *run)
{
    free_visits(run);
    tr_free(TR_MEM_MISC, run->in_host);
    tr_free(TR_MEM_MISC, run->spans);
    tr_free(TR_MEM_MISC, run->scratch);
    run->in_host = NULL;
    run->spans = NULL;
    run->scratch = NULL;
    tr_stripes_free(&run->spills);
    run->spill_bytes = run->spill_host_bytes = 0;
}
