/* SPDX-License-Identifier: Apache-2.0
 *
 * Trying a choice means placing all buffers again (arena.c) and looking at the sum. First comes
 * what streams: whole blocks where two of them fit, so that one is on its way while the other
 * computes, else their parts one by one, all through slots of the largest part's size. The other
 * choices are made in the order in which memory buys most: a second and third slot (overlap), block
 * inputs that stay (of all that can stay they alone save writes too, and drives wear), one
 * micro-batch (fewer passes over the weights' panels), then records that stay (no reads), then all
 * gradients until the global norm is known (no second backward), then activations that stay (no
 * recompute). Whether some of these had better come before the records, or pass the time in host
 * memory, hangs on the machine: enum tr_frames says it (src/run/choose.c).
 */
#include "src/plan/plan_parts.h"

#include <string.h>

#include "src/base/err.h"
#include "src/base/mem.h"
#include "src/model/freeze.h"

static int32_t min32(int32_t a, int32_t b)
{
    return a < b ? a : b;
}

/* The first block that the backward pass goes through. */
static int32_t backward_from(const struct tr_plan *p)
{
    int32_t layer = tr_lowest(p->in.model).layer;

    return layer > 0 ? layer : 0;
}

static int has_room(const struct tr_plan *p)
{
    return p->peak <= p->in.budget && (!p->in.apart || p->host_bytes <= p->in.host_budget);
}

static int fits(struct tr_plan *p)
{
    plan_place(p);
    return has_room(p);
}

/* The first pool of those of a block's parts that this one is among; -1: it is of no part. */
static int first_of_parts(int pool)
{
    static const int first[] = {TR_SLOTS_BLOCK, TR_SLOTS_BLOCK_STATE, TR_SLOTS_BLOCK_PARKED};

    for (size_t i = 0; i < sizeof(first) / sizeof(first[0]); i++)
        if (pool >= first[i] && pool < first[i] + TR_PARTS)
            return first[i];
    return -1;
}

int tr_plan_pools_with(int pool)
{
    return first_of_parts(pool) == pool ? TR_PARTS : 1;
}

/* Block inputs that are there at once, at most: from that of the lowest block that is gone through
 * backwards on. */
static uint32_t live_boundaries(const struct tr_plan *p)
{
    int32_t n = (int32_t)tr_plan_boundaries(p) - backward_from(p);

    return n > 2 ? (uint32_t)n : 2;
}

/* How many spans of each pool there are, and the largest. */
static void count_spans(struct tr_plan *p)
{
    const struct tr_layout *l = &p->in.model->layout;

    memset(p->spans, 0, sizeof(p->spans));
    memset(p->slot_bytes, 0, sizeof(p->slot_bytes));
    for (uint32_t i = 0; i < l->n_spans; i++) {
        int pool = (int)l->spans[i].pool;
        int used = p->in.train || pool < TR_SLOTS_BLOCK_STATE || pool == TR_SLOTS_ADAPTER;

        pool = tr_plan_pool(p, pool);
        p->spans[pool] += (uint32_t)used; /* forward passes leave a run's state where it is */
        p->slot_bytes[pool] = plan_max(p->slot_bytes[pool], l->spans[i].bytes);
    }
    plan_lay_frame(&p->kept_frame, p, (uint64_t)p->in.batch_tokens, 0);
    p->spans[TR_SLOTS_FRAME] = (uint32_t)p->keep;
    p->slot_bytes[TR_SLOTS_FRAME] = plan_aligned(p->kept_frame.bytes);
    p->spans[TR_SLOTS_BOUNDARY] = p->in.train ? live_boundaries(p) : 2; /* forward: in and out */
    p->slot_bytes[TR_SLOTS_BOUNDARY] =
        plan_aligned((uint64_t)p->in.batch_tokens * (uint64_t)p->in.model->config.hidden *
                     tr_dtype_size(p->in.model->dtype));
}

static void set_slots(struct tr_plan *p, int pool, int n_pools, uint32_t slots)
{
    for (int i = pool; i < pool + n_pools; i++)
        p->slots[i] = slots < p->spans[i] ? slots : p->spans[i];
}

/* Of pools whose slots come and go together: the most of any. They have equally many, but where
 * some have no state at all. */
static uint32_t most(const uint32_t count[TR_SLOT_POOLS], int pool, int n_pools)
{
    uint32_t n = 0;

    for (int i = pool; i < pool + n_pools; i++)
        n = count[i] > n ? count[i] : n;
    return n;
}

/* Raises the slots of n_pools pools to at most `want` while all fits. */
static void grow(struct tr_plan *p, int pool, int n_pools, uint32_t want)
{
    uint32_t low = most(p->slots, pool, n_pools), high = want;

    while (low < high) { /* the largest count that fits */
        uint32_t mid = low + (high - low + 1) / 2;

        set_slots(p, pool, n_pools, mid);
        if (fits(p))
            low = mid;
        else
            high = mid - 1;
    }
    set_slots(p, pool, n_pools, low);
}

static void grow_overlap(struct tr_plan *p)
{
    for (uint32_t depth = 2; depth <= 3; depth++)
        for (int i = 0; i < TR_SLOT_POOLS; i += tr_plan_pools_with(i)) {
            uint32_t spans = most(p->spans, i, tr_plan_pools_with(i));

            grow(p, i, tr_plan_pools_with(i), spans < depth ? spans : depth);
        }
}

static void grow_micro(struct tr_plan *p)
{
    int32_t before = p->micro_tokens, grain = p->in.grain_tokens;

    if (p->in.micro_tokens)
        return;
    p->micro_tokens = p->in.batch_tokens;
    while (p->micro_tokens > before && !fits(p))
        p->micro_tokens = p->micro_tokens > before + grain ? p->micro_tokens - grain : before;
}

static void grow_residents(struct tr_plan *p)
{
    static const int order[] = {TR_SLOTS_NORM,        TR_SLOTS_NORM_STATE,   TR_SLOTS_BLOCK,
                                TR_SLOTS_BLOCK_STATE, TR_SLOTS_TABLE,        TR_SLOTS_TABLE_STATE,
                                TR_SLOTS_NORM_PARKED, TR_SLOTS_BLOCK_PARKED, TR_SLOTS_TABLE_PARKED};

    for (size_t i = 0; i < sizeof(order) / sizeof(order[0]); i++)
        if (!tr_plan_is_host_pool(p, order[i]))
            grow(p, order[i], tr_plan_pools_with(order[i]),
                 most(p->spans, order[i], tr_plan_pools_with(order[i])));
}

/* What is left is too small for a block more, but perhaps not for a part of one. */
static void grow_rest(struct tr_plan *p)
{
    for (int i = 0; i < TR_SLOT_POOLS; i++)
        if (!tr_plan_is_host_pool(p, i))
            grow(p, i, 1, p->spans[i]);
}

void tr_plan_grow_host(struct tr_plan *p, uint64_t bytes)
{
    p->in.host_budget = p->host_bytes + bytes;
    for (int i = TR_SLOTS_BLOCK_STATE; i <= TR_SLOTS_NORM_STATE; i += tr_plan_pools_with(i))
        grow(p, i, tr_plan_pools_with(i), most(p->spans, i, tr_plan_pools_with(i)));
    plan_place(p);
}

/* A table that is swept twice needs its gradients made but once where all of them have room. */
static void grow_held(struct tr_plan *p)
{
    if (!p->in.train || p->in.model->parked || p->in.group ||
        p->in.model->state != TR_STATE_ADALOMO || !tr_trains_table(p->in.model))
        return;
    p->held = 1;
    p->held = fits(p);
}

/* With every gradient kept until the norm is known the backward pass runs once, not twice. */
static void grow_parked(struct tr_plan *p)
{
    if (!p->in.norm || p->in.model->parked || p->in.group)
        return;
    p->parked = 1;
    p->parked = fits(p);
}

static void keep_on_device(struct tr_plan *p, int32_t keep)
{
    p->keep = keep;
    p->spans[TR_SLOTS_FRAME] = p->slots[TR_SLOTS_FRAME] = (uint32_t)keep;
}

/* To at most `most` blocks, none of which spills. */
static void grow_kept(struct tr_plan *p, int32_t most)
{
    int32_t low = p->keep, high = min32(most, p->in.model->config.layers - backward_from(p));

    if (p->in.frames != TR_FRAMES_FIT || !p->in.train)
        return;
    while (low < high) {
        int32_t mid = low + (high - low + 1) / 2;

        keep_on_device(p, mid);
        if (fits(p))
            low = mid;
        else
            high = mid - 1;
    }
    keep_on_device(p, low);
}

/* So many by name: none spills, if there is room. */
static void grow_frames(struct tr_plan *p)
{
    uint32_t before = p->slots[TR_SLOTS_FRAME];

    if (p->in.frames != TR_FRAMES_FIRST)
        return;
    p->slots[TR_SLOTS_FRAME] = p->spans[TR_SLOTS_FRAME];
    if (!fits(p))
        p->slots[TR_SLOTS_FRAME] = before;
}

static int32_t clamp_micro(const struct tr_plan_params *in)
{
    int32_t m = in->micro_tokens > in->grain_tokens ? in->micro_tokens : in->grain_tokens;

    return m < in->batch_tokens ? m : in->batch_tokens;
}

/* The smallest micro-batches have the smallest activations, but where there is only one the weight
 * gradients are smaller: whichever takes less. */
static int fits_in_micro(struct tr_plan *p)
{
    uint64_t small;

    p->micro_tokens = clamp_micro(&p->in);
    plan_place(p);
    if (p->in.micro_tokens)
        return has_room(p);
    small = p->peak;
    p->micro_tokens = p->in.batch_tokens;
    plan_place(p);
    if (small < p->peak)
        p->micro_tokens = clamp_micro(&p->in);
    return fits(p);
}

/* The least that works: `slots` slots of each kind of span, or what there is of the kind. */
static int fits_with(struct tr_plan *p, int by_parts, uint32_t slots)
{
    p->by_parts = by_parts;
    count_spans(p);
    for (int i = 0; i < TR_SLOT_POOLS; i++)
        set_slots(p, i, 1, first_of_parts(i) >= 0 ? slots : 1);
    p->slots[TR_SLOTS_ADAPTER] = p->spans[TR_SLOTS_ADAPTER];
    /* What a block reads and what it makes; no part of it does both. */
    p->slots[TR_SLOTS_BOUNDARY] = by_parts && p->in.train ? 1 : 2;
    return fits_in_micro(p);
}

/* Whole blocks need the fewest loads, but one that has to go before the next can come leaves the
 * device waiting: then parts. Their stages go through all tokens of the step, so with many small
 * micro-batches a single block may be the smaller of the two. */
static int choose_streams(struct tr_plan *p, uint64_t *smallest)
{
    int blocks = p->in.streams != TR_STREAMS_PARTS, parts = p->in.streams != TR_STREAMS_BLOCKS;

    *smallest = UINT64_MAX;
    if (blocks && parts && fits_with(p, 0, 2))
        return 1;
    if (parts) {
        if (fits_with(p, 1, 1))
            return 1;
        *smallest = p->peak;
    }
    if (blocks) {
        if (fits_with(p, 0, 1))
            return 1;
        *smallest = p->peak < *smallest ? p->peak : *smallest;
    }
    return 0;
}

/* Slots of state are the smallest where they hold a matrix's. */
static void take_least_host(struct tr_plan *p)
{
    fits_with(p, p->in.streams != TR_STREAMS_BLOCKS, 1);
    if (p->peak > p->in.budget)
        fits_with(p, 0, 1);
}

static int refuse_device(const struct tr_plan_params *p, uint64_t smallest)
{
    return tr_error(-ENOMEM,
                    "the device budget is too small: %llu bytes (%.1f MiB) are given, the smallest "
                    "that would do is %llu (%.1f MiB); raise --device-memory or lower --batch-size "
                    "or --seq-len",
                    (unsigned long long)(p->budget + p->workspace),
                    (double)(p->budget + p->workspace) / 1048576,
                    (unsigned long long)(smallest + p->workspace),
                    (double)(smallest + p->workspace) / 1048576);
}

int tr_plan_make(struct tr_plan *plan, const struct tr_plan_params *p)
{
    uint64_t smallest;
    int found;

    memset(plan, 0, sizeof(*plan));
    plan->in = *p;
    if (p->frames != TR_FRAMES_FIT)
        plan->keep = min32(p->keep, p->model->config.layers - backward_from(plan));
    if (p->group >= p->model->config.layers + 2) { /* all in one: exact */
        plan->in.group = 0;
        plan->parked = 1;
    }
    found = choose_streams(plan, &smallest);
    plan->least = smallest;
    if (!found && smallest > p->budget)
        return refuse_device(p, smallest);
    if (!found) /* and nothing grows */
        take_least_host(plan);
    if (tr_lora_freezes(&p->model->lora)) /* adapters' gradients are small, a second pass is not */
        grow_parked(plan);
    grow_frames(plan);
    grow(plan, TR_SLOTS_BOUNDARY, 1, 2); /* before all else: one is saved, the other is made */
    grow_overlap(plan);
    grow(plan, TR_SLOTS_BOUNDARY, 1, plan->spans[TR_SLOTS_BOUNDARY]);
    grow_micro(plan);
    grow_kept(plan, p->keep);
    grow_residents(plan);
    grow_parked(plan);
    grow_held(plan);
    grow_kept(plan, INT32_MAX);
    grow_rest(plan);
    plan_place(plan);
    return 0;
}

int tr_plan_is_host_pool(const struct tr_plan *plan, int pool)
{
    return plan->in.apart && pool >= TR_SLOTS_BLOCK_STATE && pool <= TR_SLOTS_NORM_STATE;
}

int tr_plan_pool(const struct tr_plan *plan, int pool)
{
    int first = plan->by_parts ? first_of_parts(pool) : -1;

    return first < 0 ? pool : first;
}

int tr_plan_spares(int pool)
{
    return pool >= TR_SLOTS_BLOCK_STATE && pool < TR_SLOTS_BOUNDARY;
}

uint32_t tr_plan_boundaries(const struct tr_plan *plan)
{
    return (uint32_t)plan->in.model->config.layers + 1;
}

uint32_t tr_plan_scratch(const struct tr_plan *plan)
{
    return tr_plan_boundaries(plan) + (uint32_t)plan->keep;
}

struct tr_span *tr_plan_spans(const struct tr_plan *plan, uint32_t *n_spans)
{
    const struct tr_layout *l = &plan->in.model->layout;
    uint32_t frames = l->n_spans + tr_plan_boundaries(plan);
    uint32_t n = l->n_spans + tr_plan_scratch(plan);
    struct tr_span *spans = tr_alloc_array(TR_MEM_MISC, n, sizeof(*spans));

    if (!spans)
        return NULL;
    memcpy(spans, l->spans, l->n_spans * sizeof(*spans));
    for (uint32_t i = l->n_spans; i < n; i++) {
        uint32_t pool = i < frames ? TR_SLOTS_BOUNDARY : TR_SLOTS_FRAME;

        spans[i] = (struct tr_span){.pool = pool, .bytes = plan->slot_bytes[pool]};
    }
    *n_spans = n;
    return spans;
}

int tr_plan_keeps(const struct tr_plan *plan, int layer)
{
    return layer >= plan->in.model->config.layers - plan->keep;
}

int tr_plan_remakes(const struct tr_plan *plan, int layer)
{
    return plan->by_parts && !tr_plan_keeps(plan, layer);
}
