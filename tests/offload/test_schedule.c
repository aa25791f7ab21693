/* SPDX-License-Identifier: Apache-2.0
 *
 * The schedule: legal (played step by step), minimal (against the best of all schedules, found by
 * trying every one), and of the shape that the forward and backward passes ask for.
 */
#include <stdlib.h>
#include <string.h>

#include "offload/schedule.h"
#include "offload/slots.h"
#include "tests/offload/harness.h"

#define MAX_SPANS 8
#define MAX_SLOTS 6

static struct tr_span spans[64];

static struct tr_schedule_params params(const struct tr_visit *v, uint32_t n,
                                        const struct tr_slot_pool *pools, uint32_t n_pools,
                                        const uint32_t *holds)
{
    return (struct tr_schedule_params){.visits = v,
                                       .n = n,
                                       .spans = spans,
                                       .n_spans = 64,
                                       .pools = pools,
                                       .n_pools = n_pools,
                                       .holds = holds};
}

/* Plays a schedule: fails the test unless every visit finds its spans where it is told, and no load
 * may begin before the visits are over that use what it drops. holds becomes what is left. */
static uint32_t play(const struct tr_schedule *s, const struct tr_schedule_params *p,
                     uint32_t *holds)
{
    uint32_t l = 0, last_use[64] = {0};

    for (uint32_t v = 0; v < p->n; v++) {
        for (; l < s->n_loads && s->loads[l].visit == v; l++) {
            const struct tr_load *load = &s->loads[l];

            for (uint32_t i = 0; i < 64 && holds[i] != TR_NONE - 1; i++)
                assert_int_not_equal(holds[i], load->span); /* never twice at once */
            assert_int_equal(load->after, last_use[load->slot]);
            holds[load->slot] = load->span;
        }
        for (uint32_t k = 0; k < p->visits[v].n_spans; k++) {
            uint32_t slot = s->slot[v * TR_VISIT_SPANS + k];

            assert_int_equal(holds[slot], p->visits[v].span[k]);
            last_use[slot] = v + 1;
        }
    }
    assert_int_equal(l, s->n_loads);
    return s->n_loads;
}

/* The least number of loads from visit v on, by trying every choice; what is held is a set. `known`
 * keeps 1 + the answers of earlier questions. */
struct search {
    const struct tr_visit *visits;
    uint32_t n, room;
    uint32_t known[16][1 << MAX_SPANS];
};

static uint32_t least(struct search *s, uint32_t v, uint32_t held)
{
    uint32_t need = 0, best = UINT32_MAX, missing;

    if (v == s->n)
        return 0;
    if (s->known[v][held])
        return s->known[v][held] - 1;
    for (uint32_t k = 0; k < s->visits[v].n_spans; k++)
        need |= 1u << s->visits[v].span[k];
    missing = (uint32_t)__builtin_popcount(need & ~held);
    /* Every subset of what is held and not needed now may be dropped. */
    for (uint32_t keep = held & ~need;; keep = (keep - 1) & held & ~need) {
        uint32_t after = keep | need;

        if ((uint32_t)__builtin_popcount(after) <= s->room) {
            uint32_t rest = least(s, v + 1, after);

            if (rest + missing < best)
                best = rest + missing;
        }
        if (!keep)
            break;
    }
    s->known[v][held] = best + 1;
    return best;
}

static void compare(const struct tr_visit *visits, uint32_t n, uint32_t room, uint32_t held)
{
    struct tr_slot_pool pool = {NULL, 4096, room};
    uint32_t holds[MAX_SLOTS + 1];
    struct tr_schedule_params p = params(visits, n, &pool, 1, holds);
    static struct search search;
    struct tr_schedule s;

    memset(search.known, 0, sizeof(search.known));
    search.visits = visits;
    search.n = n;
    search.room = room;
    for (uint32_t i = 0; i < room; i++)
        holds[i] = TR_NONE;
    holds[room] = TR_NONE - 1;
    for (uint32_t i = 0, at = 0; i < MAX_SPANS && at < room; i++)
        if (held >> i & 1)
            holds[at++] = i;
    assert_ok(tr_schedule_make(&s, &p));
    assert_int_equal(play(&s, &p, holds), least(&search, 0, held));
    tr_schedule_free(&s);
}

/* All sequences of single-span visits of 4 spans up to length 7, two and three slots. */
static void minimal_small(void **state)
{
    struct tr_visit v[7];

    (void)state;
    for (uint32_t n = 1; n <= 7; n++) {
        for (uint32_t code = 0; code < 1u << 2 * n; code++) {
            for (uint32_t i = 0; i < n; i++)
                v[i] = (struct tr_visit){.n_spans = 1, .span = {code >> 2 * i & 3}};
            for (uint32_t room = 2; room <= 3; room++)
                compare(v, n, room, n & 1 ? 0 : 3);
        }
    }
}

/* Random visits of one to three spans out of eight. */
static void minimal_random(void **state)
{
    uint64_t rng = 5;

    (void)state;
    for (int round = 0; round < 3000; round++) {
        struct tr_visit v[10];
        uint32_t n = 1 + rng_below(&rng, 10), room = 3 + rng_below(&rng, 3), held = 0;

        for (uint32_t i = 0; i < n; i++) {
            v[i] = (struct tr_visit){.n_spans = 1 + rng_below(&rng, 3)};
            for (uint32_t k = 0; k < v[i].n_spans; k++) {
                int again = 1;

                while (again) {
                    v[i].span[k] = rng_below(&rng, MAX_SPANS);
                    again = 0;
                    for (uint32_t j = 0; j < k; j++)
                        again |= v[i].span[j] == v[i].span[k];
                }
            }
        }
        while ((uint32_t)__builtin_popcount(held) < rng_below(&rng, room + 1))
            held |= 1u << rng_below(&rng, MAX_SPANS);
        compare(v, n, room, held);
    }
}

/* Forward and backward over n blocks. */
static uint32_t step_visits(struct tr_visit *v, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++) {
        v[i] = (struct tr_visit){.n_spans = 1, .span = {i}};
        v[2 * n - 1 - i] = (struct tr_visit){.n_spans = 1, .span = {i}, .changed = 1};
    }
    return 2 * n;
}

/* In the steady state a step of n blocks and s slots loads 2 (n - s) spans, for what lies at the
 * turn and at the boundary of steps stays; all resident, none. The steady state repeats itself. */
static void steady_state(void **state)
{
    struct tr_visit v[64];
    uint32_t holds[33], loads = 0;

    (void)state;
    for (uint32_t n = 2; n <= 16; n++) {
        for (uint32_t room = 1; room <= n; room++) {
            struct tr_slot_pool pool = {NULL, 4096, room};
            struct tr_schedule_params p = params(v, step_visits(v, n), &pool, 1, holds);

            p.next = p.visits;
            p.n_next = p.n;
            for (uint32_t i = 0; i <= room; i++)
                holds[i] = i < room ? TR_NONE : TR_NONE - 1;
            for (int step = 0; step < 4; step++) {
                struct tr_schedule s;

                assert_ok(tr_schedule_make(&s, &p));
                loads = play(&s, &p, holds);
                if (step)
                    assert_int_equal(loads, 2 * (n - room));
                tr_schedule_free(&s);
            }
        }
    }
}

/* Loads can begin early: with s slots, the block needed at visit v of the forward pass goes where
 * the block of visit v - s was, not where the last one is still being computed. */
static void room_to_prefetch(void **state)
{
    struct tr_visit v[64];
    uint32_t holds[5] = {TR_NONE, TR_NONE, TR_NONE, TR_NONE, TR_NONE - 1};
    struct tr_slot_pool pool = {NULL, 4096, 4};
    struct tr_schedule_params p = params(v, step_visits(v, 16), &pool, 1, holds);
    struct tr_schedule s;

    (void)state;
    p.next = p.visits;
    p.n_next = p.n;
    assert_ok(tr_schedule_make(&s, &p));
    for (uint32_t i = 4; i < s.n_loads; i++)
        assert_int_equal(s.loads[i].after, s.loads[i].visit - 3);
    tr_schedule_free(&s);
}

static void refusals(void **state)
{
    struct tr_visit v = {.n_spans = 2, .span = {1, 1}};
    uint32_t holds[3] = {TR_NONE, TR_NONE, TR_NONE};
    struct tr_slot_pool pools[2] = {{NULL, 4096, 1}, {NULL, 4096, 1}};
    struct tr_schedule_params p = params(&v, 1, pools, 1, holds);
    struct tr_schedule s;

    (void)state;
    expect_error(tr_schedule_make(&s, &p), -EINVAL, "twice");
    v.span[1] = 2;
    expect_error(tr_schedule_make(&s, &p), -ENOSPC, "1 slots of pool 0");
    spans[2].pool = 1;
    expect_error(tr_schedule_make(&s, &p), -EINVAL, "pool");
    p.n_pools = 2;
    assert_ok(tr_schedule_make(&s, &p));
    assert_int_equal(s.n_loads, 2);
    tr_schedule_free(&s);
    v.span[1] = 64;
    expect_error(tr_schedule_make(&s, &p), -EINVAL, "span 64");
    v.n_spans = TR_VISIT_SPANS + 1;
    expect_error(tr_schedule_make(&s, &p), -EINVAL, "at most");
    spans[2].pool = 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(minimal_small), cmocka_unit_test(minimal_random),
        cmocka_unit_test(steady_state),  cmocka_unit_test(room_to_prefetch),
        cmocka_unit_test(refusals),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
