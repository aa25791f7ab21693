/* SPDX-License-Identifier: Apache-2.0
 *
 * The choice of the host tier: within its budget, and with as few loads from disk as the best
 * possible cache of that size would need, which knows the whole future and may exchange what it
 * holds at every load. Shown on steps of 4 to 30 blocks with 2 to 5 device slots. A choice that
 * keeps the first blocks, which the device slots hold over the step's boundary, must lose.
 *
 * Block inputs beside parameters: no other set of spans of that many bytes saves the disk more, and
 * none that saves as much saves more writes. A choice by loads alone must lose.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "offload/schedule.h"
#include "src/plan/tier.h"

#define BLOCKS 30
#define STEPS  6
#define BYTES  8192u

struct step {
    struct tr_span spans[BLOCKS];
    struct tr_visit visits[2 * BLOCKS];
    struct tr_layout layout;
    struct tr_visits list;
    struct tr_slot_pool pool;
    uint32_t loads[STEPS * 2 * BLOCKS], n_loads,
        last; /* spans in order; where the last step begins */
};

static void open_step(struct step *s, uint32_t blocks, uint32_t slots)
{
    memset(s, 0, sizeof(*s));
    for (uint32_t i = 0; i < blocks; i++) {
        s->spans[i].bytes = BYTES;
        s->visits[i] = (struct tr_visit){.n_spans = 1, .span = {i}};
        s->visits[2 * blocks - 1 - i] = (struct tr_visit){.n_spans = 1, .span = {i}, .changed = 1};
    }
    s->layout = (struct tr_layout){.spans = s->spans, .n_spans = blocks};
    s->list = (struct tr_visits){.spans = s->visits, .n = 2 * blocks, .forward = blocks};
    s->pool = (struct tr_slot_pool){.slot_bytes = BYTES, .n_slots = slots};
}

/* The loads of several steps in a row. */
static void play(struct step *s)
{
    uint32_t holds[BLOCKS];

    for (uint32_t i = 0; i < s->pool.n_slots; i++)
        holds[i] = TR_NONE;
    for (int step = 0; step < STEPS; step++) {
        struct tr_schedule_params p = {.visits = s->visits,
                                       .n = s->list.n,
                                       .next = s->visits,
                                       .n_next = s->list.n,
                                       .spans = s->spans,
                                       .n_spans = s->layout.n_spans,
                                       .pools = &s->pool,
                                       .n_pools = 1,
                                       .holds = holds};
        struct tr_schedule made;

        assert_int_equal(tr_schedule_make(&made, &p), 0);
        s->last = s->n_loads;
        for (uint32_t i = 0; i < made.n_loads; i++) {
            s->loads[s->n_loads++] = made.loads[i].span;
            holds[made.loads[i].slot] = made.loads[i].span;
        }
        tr_schedule_free(&made);
    }
}

static uint32_t next_load(const struct step *s, uint32_t after, uint32_t span)
{
    for (uint32_t i = after + 1; i < s->n_loads; i++)
        if (s->loads[i] == span)
            return i;
    return s->n_loads;
}

/* Disk reads of the step before the last (whose future is known) with the best cache of `room`. */
static uint32_t best_reads(const struct step *s, uint32_t room, uint32_t begin, uint32_t end)
{
    unsigned char held[BLOCKS] = {0};
    uint32_t n = 0, reads = 0;

    for (uint32_t i = 0; i < end; i++) {
        uint32_t farthest = s->loads[i];

        if (held[s->loads[i]])
            continue;
        reads += i >= begin;
        held[s->loads[i]] = 1;
        if (n++ < room)
            continue;
        for (uint32_t b = 0; b < s->layout.n_spans; b++)
            if (held[b] && next_load(s, i, b) > next_load(s, i, farthest))
                farthest = b;
        held[farthest] = 0;
        n--;
    }
    return reads;
}

static uint32_t static_reads(const struct step *s, const unsigned char *in_host)
{
    uint32_t reads = 0;

    for (uint32_t i = s->last; i < s->n_loads; i++)
        reads += !in_host[s->loads[i]];
    return reads;
}

static void check(uint32_t blocks, uint32_t slots, uint32_t room)
{
    struct step s;
    unsigned char in_host[BLOCKS], first[BLOCKS] = {0};
    struct tr_tier_params p = {.visits = &s.list,
                               .spans = s.spans,
                               .n_spans = blocks,
                               .pools = &s.pool,
                               .n_pools = 1,
                               .budget = room * BYTES + BYTES / 2};
    uint32_t per_step, chosen = 0;
    int64_t bytes;

    open_step(&s, blocks, slots);
    play(&s);
    per_step = s.n_loads - s.last;
    bytes = tr_tier_choose(&p, in_host);
    assert_true(bytes >= 0 && (uint64_t)bytes <= p.budget);
    for (uint32_t i = 0; i < blocks; i++)
        chosen += in_host[i];
    assert_int_equal(bytes, chosen * BYTES);
    assert_int_equal(static_reads(&s, in_host),
                     best_reads(&s, room, s.last - per_step, s.n_loads - per_step));
    memset(first, 1, room);
    if (room > 0 && slots > 2 && blocks > room + 2 * slots)
        assert_true(static_reads(&s, first) > static_reads(&s, in_host));
}

static void static_choice_is_the_best(void **state)
{
    (void)state;
    for (uint32_t blocks = 4; blocks <= BLOCKS; blocks++)
        for (uint32_t slots = 2; slots <= 5; slots++)
            for (uint32_t room = 0; room < blocks; room += 1 + blocks / 8)
                check(blocks, slots, room);
}

/* ---- block inputs beside parameters ---- */

#define FEW  4
#define MANY (2 * FEW + 1) /* spans: parameters of FEW blocks, then the inputs */

struct both {
    struct tr_span spans[MANY];
    struct tr_visit visits[3 * FEW + 2];
    struct tr_visits list;
    struct tr_slot_pool pools[2];
    uint32_t loads[MANY], saves[MANY]; /* in a step that follows another */
};

static struct tr_visit block_visit(uint32_t block, int forward, int changed)
{
    struct tr_visit v = {
        .n_spans = 2, .span = {block, FEW + block, FEW + block + 1}, .changed = (uint32_t)changed};

    if (forward) {
        v.n_spans = 3;
        v.changed = v.fresh = 4;
    }
    return v;
}

static void open_both(struct both *s, int backwards, uint32_t slots)
{
    uint32_t n = 0, holds[2 * MANY];
    struct tr_schedule_params p = {
        .visits = s->visits, .next = s->visits, .spans = s->spans, .n_spans = MANY, .holds = holds};

    memset(s, 0, sizeof(*s));
    for (uint32_t i = 0; i < MANY; i++)
        s->spans[i] = (struct tr_span){.bytes = BYTES, .pool = i >= FEW};
    s->visits[n++] = (struct tr_visit){.n_spans = 1, .span = {FEW}, .changed = 1, .fresh = 1};
    for (uint32_t i = 0; i < FEW; i++)
        s->visits[n++] = block_visit(i, 1, 0);
    for (int pass = 0; pass < backwards; pass++)
        for (uint32_t i = FEW; i-- > 0;)
            s->visits[n++] = block_visit(i, 0, pass + 1 == backwards);
    s->list = (struct tr_visits){.spans = s->visits, .n = n};
    s->pools[0] = s->pools[1] = (struct tr_slot_pool){.slot_bytes = BYTES, .n_slots = slots};
    p.n = p.n_next = n;
    p.n_scratch = FEW + 1;
    p.pools = s->pools;
    p.n_pools = 2;
    for (uint32_t i = 0; i < 2 * slots; i++)
        holds[i] = TR_NONE;
    for (int step = 0; step < 2; step++) {
        struct tr_schedule made;

        memset(s->loads, 0, sizeof(s->loads));
        memset(s->saves, 0, sizeof(s->saves));
        assert_int_equal(tr_schedule_make(&made, &p), 0);
        for (uint32_t i = 0; i < made.n_loads; i++) {
            s->loads[made.loads[i].span] += !made.loads[i].fresh;
            holds[made.loads[i].slot] = made.loads[i].span;
        }
        for (uint32_t v = 0; v < n; v++)
            for (uint32_t k = 0; k < s->visits[v].n_spans; k++)
                s->saves[s->visits[v].span[k]] += made.saved[v] >> k & 1;
        tr_schedule_free(&made);
    }
}

/* What this set of spans saves: all traffic first, then writes. */
static uint32_t saved_by(const struct both *s, uint32_t set)
{
    uint32_t sum = 0;

    for (uint32_t i = 0; i < MANY; i++)
        if (set >> i & 1)
            sum += 100 * (s->loads[i] + s->saves[i]) + s->saves[i];
    return sum;
}

static void check_both(int backwards, uint32_t slots, uint32_t room, int *by_loads_loses)
{
    struct both s;
    unsigned char tier[MANY];
    uint32_t set = 0, best = 0, by_loads = 0;
    struct tr_tier_params p = {.visits = &s.list,
                               .spans = s.spans,
                               .n_spans = MANY,
                               .n_scratch = FEW + 1,
                               .pools = s.pools,
                               .n_pools = 2,
                               .budget = room * BYTES};

    open_both(&s, backwards, slots);
    assert_true(tr_tier_choose(&p, tier) <= (int64_t)p.budget);
    for (uint32_t i = 0; i < MANY; i++) {
        set |= (uint32_t)(tier[i] == TR_TIER_HOST) << i;
        assert_int_equal(tier[i] == TR_TIER_SPILL, s.saves[i] && tier[i] != TR_TIER_HOST);
    }
    for (uint32_t other = 0; other < 1u << MANY; other++)
        if ((uint32_t)__builtin_popcount(other) <= room && saved_by(&s, other) > best)
            best = saved_by(&s, other);
    assert_int_equal(saved_by(&s, set), best);
    for (uint32_t most = 3; most > 0; most--)
        for (uint32_t i = 0; i < MANY; i++)
            if (s.loads[i] == most && (uint32_t)__builtin_popcount(by_loads) < room)
                by_loads |= 1u << i;
    *by_loads_loses |= saved_by(&s, by_loads) < best;
}

static void block_inputs_are_weighed(void **state)
{
    int by_loads_loses = 0;

    (void)state;
    for (int backwards = 1; backwards <= 2; backwards++)
        for (uint32_t slots = 2; slots <= FEW; slots++)
            for (uint32_t room = 0; room <= MANY; room++)
                check_both(backwards, slots, room, &by_loads_loses);
    assert_true(by_loads_loses);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(static_choice_is_the_best),
                                       cmocka_unit_test(block_inputs_are_weighed)};

    return cmocka_run_group_tests(tests, NULL, NULL);
}
