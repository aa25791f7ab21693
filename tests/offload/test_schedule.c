/* SPDX-License-Identifier: Apache-2.0
 *
 * The schedule: legal (played step by step), minimal (against the best of all schedules, found by
 * trying every one), and of the shape that the forward and backward passes ask for. In a pool that
 * spares: minimal among the schedules that drop no more of what the visit before used than they
 * must, which one that does not spare fails. Scratch
 * besides: every byte that a visit reads is the one that was made, by way of what has been saved,
 * and no save can be left out. A change is not written where, and only where, another one of the
 * step follows in the same slot.
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
    int spare;
    uint32_t known[16][1 << MAX_SPANS];
};

static uint32_t set_of(const struct tr_visit *v)
{
    uint32_t set = 0;

    for (uint32_t k = 0; k < v->n_spans; k++)
        set |= 1u << v->span[k];
    return set;
}

/* How many of the spans of the visit before have to go for visit v. */
static uint32_t must_drop(const struct tr_visit *visits, uint32_t v, uint32_t room)
{
    uint32_t both =
        v ? (uint32_t)__builtin_popcount(set_of(&visits[v - 1]) | set_of(&visits[v])) : 0;

    return both > room ? both - room : 0;
}

static int may_drop(const struct search *s, uint32_t v, uint32_t dropped)
{
    if (!s->spare || v == 0)
        return 1;
    dropped &= set_of(&s->visits[v - 1]);
    return (uint32_t)__builtin_popcount(dropped) <= must_drop(s->visits, v, s->room);
}

static uint32_t least(struct search *s, uint32_t v, uint32_t held)
{
    uint32_t need, best = UINT32_MAX, missing;

    if (v == s->n)
        return 0;
    if (s->known[v][held])
        return s->known[v][held] - 1;
    need = set_of(&s->visits[v]);
    missing = (uint32_t)__builtin_popcount(need & ~held);
    /* Every subset of what is held and not needed now may be dropped. */
    for (uint32_t keep = held & ~need;; keep = (keep - 1) & held & ~need) {
        uint32_t after = keep | need;

        if ((uint32_t)__builtin_popcount(after) <= s->room && may_drop(s, v, held & ~after)) {
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

/* Spans of a pool that shares another's slots are loaded as if they were of that one. */
static void compare_shared(const struct tr_schedule *expected, const struct tr_schedule_params *p)
{
    struct tr_slot_pool pools[2] = {p->pools[0], {.slot_bytes = 4096, .shares = 1}};
    struct tr_schedule_params shared = *p;
    struct tr_schedule s;

    shared.pools = pools;
    shared.n_pools = 2;
    for (uint32_t i = 1; i < MAX_SPANS; i += 2)
        spans[i].pool = 1;
    assert_ok(tr_schedule_make(&s, &shared));
    for (uint32_t i = 1; i < MAX_SPANS; i += 2)
        spans[i].pool = 0;
    assert_int_equal(s.n_loads, expected->n_loads);
    assert_memory_equal(s.loads, expected->loads, s.n_loads * sizeof(*s.loads));
    tr_schedule_free(&s);
}

static uint32_t search_least(const struct tr_visit *visits, uint32_t n, uint32_t room,
                             uint32_t held, int spare)
{
    static struct search search;

    memset(search.known, 0, sizeof(search.known));
    search.visits = visits;
    search.n = n;
    search.room = room;
    search.spare = spare;
    return least(&search, 0, held);
}

/* The first `room` of the set, the others empty. */
static void fill_holds(uint32_t *holds, uint32_t room, uint32_t held)
{
    for (uint32_t i = 0; i < room; i++)
        holds[i] = TR_NONE;
    holds[room] = TR_NONE - 1;
    for (uint32_t i = 0, at = 0; i < MAX_SPANS && at < room; i++)
        if (held >> i & 1)
            holds[at++] = i;
}

/* Spans of the visit before that the schedule drops without need. */
static uint32_t not_spared(const struct tr_schedule *s, const struct tr_schedule_params *p,
                           const uint32_t *holds_before)
{
    uint32_t holds[MAX_SLOTS], room = p->pools[0].n_slots, l = 0, wrong = 0;

    memcpy(holds, holds_before, room * sizeof(*holds));
    for (uint32_t v = 0; v < p->n; v++) {
        uint32_t before = v ? set_of(&p->visits[v - 1]) : 0, dropped = 0, must;

        for (; l < s->n_loads && s->loads[l].visit == v; l++) {
            uint32_t *slot = &holds[s->loads[l].slot];

            dropped += *slot < MAX_SPANS && (before >> *slot & 1);
            *slot = s->loads[l].span;
        }
        must = must_drop(p->visits, v, room);
        wrong += dropped > must ? dropped - must : 0;
    }
    return wrong;
}

static struct spared {
    uint32_t differ, wrong, bounds; /* what sparing changes, and how often it was bounded */
} spared;

/* One slot less, or as many as the widest visit takes, where any visit still has room for all. */
static void check_bound(const struct tr_visit *visits, uint32_t n, uint32_t room, uint32_t held,
                        uint32_t loads)
{
    uint32_t most = 1;

    for (uint32_t v = 0; v < n; v++)
        most = visits[v].n_spans > most ? visits[v].n_spans : most;
    if (room < 2 * most)
        return;
    while ((uint32_t)__builtin_popcount(held) > room - most)
        held &= held - 1;
    assert_true(loads <= search_least(visits, n, room - most, held, 0));
    spared.bounds++;
}

static void compare(const struct tr_visit *visits, uint32_t n, uint32_t room, uint32_t held)
{
    struct tr_slot_pool pool = {NULL, 4096, room};
    uint32_t holds[MAX_SLOTS + 1], loads[2];
    struct tr_schedule_params p = params(visits, n, &pool, 1, holds);
    struct tr_schedule s;

    for (pool.spare = 0; pool.spare < 2; pool.spare++) {
        uint32_t wrong;

        fill_holds(holds, room, held);
        assert_ok(tr_schedule_make(&s, &p));
        compare_shared(&s, &p);
        wrong = not_spared(&s, &p, holds);
        assert_true(!pool.spare || !wrong);
        spared.wrong += wrong > 0;
        loads[pool.spare] = play(&s, &p, holds);
        assert_int_equal(loads[pool.spare], search_least(visits, n, room, held, pool.spare));
        tr_schedule_free(&s);
    }
    spared.differ += loads[1] > loads[0];
    check_bound(visits, n, room, held, loads[1]);
}

/* After the comparisons: a schedule that does not spare would have been caught by them, both by
 * what it drops and by how much it loads. */
static void sparing_is_seen(void **state)
{
    (void)state;
    print_message("%u dropped what is spared, %u load less, %u bounds\n", spared.wrong,
                  spared.differ, spared.bounds);
    assert_true(spared.wrong > 1000);
    assert_true(spared.differ > 1000);
    assert_true(spared.bounds > 10000);
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

/* Optimizer state: each span once a step, in the same order. With a slot for each but a few,
 * sparing loads as much in a long run as one slot less would, and no load waits for the visit
 * before. */
static uint32_t loads_of_state(uint32_t n, uint32_t room, int spare, int *waits)
{
    struct tr_visit v[32];
    struct tr_slot_pool pool = {.slot_bytes = 4096, .n_slots = room, .spare = spare};
    uint32_t holds[33], loads = 0;
    struct tr_schedule_params p = params(v, n, &pool, 1, holds);

    for (uint32_t i = 0; i < n; i++)
        v[i] = (struct tr_visit){.n_spans = 1, .span = {i}, .changed = 1};
    p.next = v;
    p.n_next = n;
    for (uint32_t i = 0; i <= room; i++)
        holds[i] = i < room ? TR_NONE : TR_NONE - 1;
    for (uint32_t step = 0; step < 40; step++) {
        struct tr_schedule s;

        assert_ok(tr_schedule_make(&s, &p));
        loads += play(&s, &p, holds);
        for (uint32_t i = 0; i < s.n_loads; i++)
            *waits |= s.loads[i].after && s.loads[i].after == s.loads[i].visit;
        tr_schedule_free(&s);
    }
    return loads;
}

static void state_is_spared(void **state)
{
    (void)state;
    for (uint32_t n = 4; n <= 16; n++)
        for (uint32_t room = 2; room < n; room++) {
            int waits = 0, others_wait = 0;
            uint32_t loads = loads_of_state(n, room, 1, &waits);

            assert_true(loads >= loads_of_state(n, room, 0, &others_wait));
            assert_true(others_wait && !waits);
            assert_true(loads <= loads_of_state(n, room - 1, 0, &others_wait));
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

/* ---- scratch ---- */

#define N_SCRATCH 6

/* A visit of the scratch spans in `read` that changes those in `changed` and makes those in
 * `fresh`.
 */
static struct tr_visit scratch_visit(uint32_t read, uint32_t changed, uint32_t fresh)
{
    struct tr_visit v = {0};

    for (uint32_t i = 0; i < N_SCRATCH; i++) {
        if (!((read | changed | fresh) >> i & 1))
            continue;
        v.changed |= ((changed | fresh) >> i & 1) << v.n_spans;
        v.fresh |= (fresh >> i & 1) << v.n_spans;
        v.span[v.n_spans++] = 64 - N_SCRATCH + i;
    }
    return v;
}

static struct tr_schedule_params scratch_params(const struct tr_visit *v, uint32_t n,
                                                const struct tr_slot_pool *pool,
                                                const uint32_t *holds)
{
    struct tr_schedule_params p = params(v, n, pool, 1, holds);

    p.n_scratch = N_SCRATCH;
    return p;
}

/* What is where: versions, counted up by each change. */
struct bytes {
    uint32_t in_slot[MAX_SLOTS], saved[N_SCRATCH], newest[N_SCRATCH], moved;
};

static void load(struct bytes *b, const struct tr_load *l)
{
    b->in_slot[l->slot] = l->fresh ? 0 : b->saved[l->span - (64 - N_SCRATCH)];
    b->moved += !l->fresh;
}

/* Plays the schedule with versions in the place of bytes, a save leaving out the `lost`-th. 1:
 * every visit has found the newest of all it uses, but of what it makes. */
static int play_bytes(const struct tr_schedule *s, const struct tr_schedule_params *p,
                      struct bytes *b, uint32_t lost)
{
    uint32_t l = 0, version = 0, saves = 0;
    int right = 1;

    memset(b, 0, sizeof(*b));
    for (uint32_t v = 0; v < p->n; v++) {
        const struct tr_visit *visit = &p->visits[v];

        for (; l < s->n_loads && s->loads[l].visit == v; l++)
            load(b, &s->loads[l]);
        for (uint32_t k = 0; k < visit->n_spans; k++) {
            uint32_t i = visit->span[k] - (64 - N_SCRATCH);
            uint32_t slot = s->slot[v * TR_VISIT_SPANS + k];

            if (!(visit->fresh >> k & 1))
                right &= b->in_slot[slot] == b->newest[i];
            if (visit->changed >> k & 1)
                b->in_slot[slot] = b->newest[i] = ++version;
            if (!(s->saved[v] >> k & 1))
                continue;
            assert_true(visit->changed >> k & 1);
            b->moved++;
            if (saves++ != lost)
                b->saved[i] = b->in_slot[slot];
        }
    }
    return right;
}

static uint32_t count_saves(const struct tr_schedule *s)
{
    uint32_t n = 0;

    for (uint32_t v = 0; v < s->n_visits; v++)
        n += (uint32_t)__builtin_popcount(s->saved[v]);
    return n;
}

/* The fewest loads, or loads and saves, from visit v on, by trying every choice. `held` and
 * `dirty`: what is in slots, and of that, what is nowhere else. */
struct scratch_search {
    const struct tr_visit *visits;
    uint32_t n, room, weight; /* of a save; a load is 1 */
    uint32_t known[17][1 << N_SCRATCH][1 << N_SCRATCH];
};

static uint32_t bits_of(const struct tr_visit *v, uint32_t which)
{
    uint32_t bits = 0;

    for (uint32_t k = 0; k < v->n_spans; k++)
        bits |= (which >> k & 1) << (v->span[k] - (64 - N_SCRATCH));
    return bits;
}

/* Those of `set` that are read before they are made again. */
static uint32_t alive(const struct scratch_search *s, uint32_t v, uint32_t set)
{
    uint32_t alive = 0;

    for (; v < s->n; v++) {
        uint32_t fresh = bits_of(&s->visits[v], s->visits[v].fresh);

        alive |= bits_of(&s->visits[v], ~s->visits[v].fresh) & set;
        set &= ~fresh;
    }
    return alive;
}

static uint32_t fewest(struct scratch_search *s, uint32_t v, uint32_t held, uint32_t dirty)
{
    const struct tr_visit *visit = &s->visits[v];
    uint32_t need, loads, others, best = UINT32_MAX;

    if (v == s->n)
        return 0;
    if (s->known[v][held][dirty])
        return s->known[v][held][dirty] - 1;
    need = bits_of(visit, UINT32_MAX);
    loads = (uint32_t)__builtin_popcount(bits_of(visit, ~visit->fresh) & ~held);
    others = held & ~need;
    for (uint32_t keep = others;; keep = (keep - 1) & others) {
        uint32_t saves = alive(s, v, others & ~keep & dirty), after = keep | need;

        if ((uint32_t)__builtin_popcount(after) <= s->room) {
            uint32_t now = (dirty & after) | bits_of(visit, visit->changed);
            uint32_t all = loads + s->weight * (uint32_t)__builtin_popcount(saves);

            all += fewest(s, v + 1, after, now);
            best = all < best ? all : best;
        }
        if (!keep)
            break;
    }
    s->known[v][held][dirty] = best + 1;
    return best;
}

/* Right bytes, the fewest loads, and no save without which the bytes would be right as well.
 * Returns what is moved. */
static uint32_t check_scratch(const struct tr_visit *v, uint32_t n, uint32_t room)
{
    struct tr_slot_pool pool = {NULL, 4096, room};
    uint32_t holds[MAX_SLOTS + 1], moved;
    struct tr_schedule_params p = scratch_params(v, n, &pool, holds);
    static struct scratch_search search;
    struct tr_schedule s;
    struct bytes bytes;

    for (uint32_t i = 0; i < room; i++) /* what an earlier step has left */
        holds[i] = i & 1 ? 64 - N_SCRATCH + i : TR_NONE;
    assert_ok(tr_schedule_make(&s, &p));
    for (uint32_t i = 0; i < n; i++)
        assert_int_equal(s.again[i], 0);
    assert_true(play_bytes(&s, &p, &bytes, UINT32_MAX));
    moved = bytes.moved;
    for (uint32_t lost = 0; lost < count_saves(&s); lost++)
        assert_false(play_bytes(&s, &p, &bytes, lost));
    memset(search.known, 0, sizeof(search.known));
    search.visits = v;
    search.n = n;
    search.room = room;
    search.weight = 0;
    assert_int_equal(moved - count_saves(&s), fewest(&search, 0, 0, 0));
    tr_schedule_free(&s);
    return moved;
}

static uint32_t fewest_moves(const struct tr_visit *v, uint32_t n, uint32_t room)
{
    static struct scratch_search search;

    memset(search.known, 0, sizeof(search.known));
    search.visits = v;
    search.n = n;
    search.room = room;
    search.weight = 1;
    return fewest(&search, 0, 0, 0);
}

/* Visits that make, change and read anything that has been made before, in any order. */
static void scratch_random(void **state)
{
    uint64_t rng = 9;
    uint32_t moved = 0;

    (void)state;
    for (int round = 0; round < 3000; round++) {
        struct tr_visit v[14];
        uint32_t n = 2 + rng_below(&rng, 13), room = 3 + rng_below(&rng, 2), made = 0;

        for (uint32_t i = 0; i < n; i++) {
            uint32_t a = 1u << rng_below(&rng, N_SCRATCH), b = 1u << rng_below(&rng, N_SCRATCH);
            uint32_t c = 1u << rng_below(&rng, N_SCRATCH), fresh = rng_below(&rng, 3) ? 0 : a;

            fresh |= (a | b | c) & ~made;
            made |= a | b | c;
            v[i] = scratch_visit(b, c, fresh);
        }
        moved += check_scratch(v, n, room);
    }
    assert_true(moved > 1000);
}

/* ---- changes of the store ---- */

static int is_replaced(const struct tr_schedule *s, uint32_t slot, uint32_t visit)
{
    for (uint32_t i = 0; i < s->n_loads; i++)
        if (s->loads[i].slot == slot && s->loads[i].visit == visit)
            return 1;
    return 0;
}

/* Is what (v, k) changes changed once more before it is replaced in its slot? */
static int follows(const struct tr_schedule *s, const struct tr_schedule_params *p, uint32_t v,
                   uint32_t k)
{
    uint32_t span = p->visits[v].span[k], slot = s->slot[v * TR_VISIT_SPANS + k];

    for (uint32_t w = v + 1; w < p->n && !is_replaced(s, slot, w); w++)
        for (uint32_t j = 0; j < p->visits[w].n_spans; j++)
            if (p->visits[w].span[j] == span && p->visits[w].changed >> j & 1)
                return 1;
    return 0;
}

/* Any visits of spans of the store, durable every step or not, and what earlier ones have left. */
static void changed_again(void **state)
{
    uint64_t rng = 21;
    int last = 0, again = 0;

    (void)state;
    for (int round = 0; round < 3000; round++) {
        struct tr_slot_pool pool = {NULL, 4096, 2 + rng_below(&rng, 3)};
        uint32_t n = 2 + rng_below(&rng, 11), holds[] = {0, 1, 2, 3};
        unsigned char newer[] = {1, 0, 1, 0};
        struct tr_visit v[12];
        struct tr_schedule_params p = params(v, n, &pool, 1, holds);
        struct tr_schedule s;

        p.lazy = (int)rng_below(&rng, 2);
        p.newer = p.lazy ? newer : NULL;
        for (uint32_t i = 0; i < n; i++) {
            uint32_t a = rng_below(&rng, 5), b = (a + 1 + rng_below(&rng, 4)) % 5;

            v[i] = (struct tr_visit){2, {a, b}, .changed = rng_below(&rng, 4)};
        }
        assert_ok(tr_schedule_make(&s, &p));
        for (uint32_t i = 0; i < n; i++)
            for (uint32_t k = 0; k < TR_VISIT_SPANS; k++) {
                int changed = k < 2 && v[i].changed >> k & 1;

                assert_int_equal(s.again[i] >> k & 1, changed && follows(&s, &p, i, k));
                again += s.again[i] >> k & 1;
                last += changed && !(s.again[i] >> k & 1);
            }
        tr_schedule_free(&s);
    }
    assert_true(again > 1000 && last > 1000);
}

/* The steps of a model: forward, where each visit reads one boundary and makes the next; backward,
 * perhaps twice (a norm is measured first), perhaps with a last look at the end (a tied table). */
static uint32_t boundary_visits(struct tr_visit *v, uint32_t layers, int backwards, int tied)
{
    uint32_t n = 0;

    v[n++] = scratch_visit(0, 0, 1); /* two slices of the embedding */
    v[n++] = scratch_visit(0, 1, 0);
    for (uint32_t l = 0; l < layers; l++)
        v[n++] = scratch_visit(1u << l, 0, 2u << l);
    v[n++] = scratch_visit(1u << layers, 0, 0);
    for (int i = 0; i < backwards; i++) {
        v[n++] = scratch_visit(1u << layers, 0, 0);
        for (uint32_t l = layers; l-- > 0;)
            v[n++] = scratch_visit(1u << l, 0, 0);
    }
    if (tied)
        v[n++] = scratch_visit(1u << layers, 0, 0);
    return n;
}

/* No schedule of such a step moves fewer bytes, but for one save where the norm is measured first
 * and the table is tied: of several schedules with the fewest loads, only the search finds the one
 * that drops something saved already. With s slots all but s - 1 of the blocks' inputs go out and
 * come back (the first of the slots at the turn holds the output of the last block), and with a
 * slot for each nothing is moved. A forward pass alone moves nothing, whatever the slots. */
static void scratch_of_a_step(void **state)
{
    struct tr_visit v[32];

    (void)state;
    for (uint32_t layers = 1; layers < N_SCRATCH - 1; layers++)
        for (uint32_t room = 2; room <= layers + 1; room++) {
            uint32_t n = boundary_visits(v, layers, 1, 0), moved, best;

            assert_int_equal(check_scratch(v, n, room), 2 * (layers + 1 - room));
            assert_int_equal(fewest_moves(v, n, room), 2 * (layers + 1 - room));
            assert_int_equal(check_scratch(v, boundary_visits(v, layers, 0, 0), room), 0);
            for (int tied = 0; tied < 2; tied++)
                for (int backwards = 1; backwards < 3; backwards++) {
                    n = boundary_visits(v, layers, backwards, tied);
                    if (n > 16)
                        continue;
                    moved = check_scratch(v, n, room);
                    best = fewest_moves(v, n, room);
                    assert_in_range(moved, best, best + (tied && backwards == 2));
                }
        }
}

static void scratch_refusals(void **state)
{
    struct tr_slot_pool pool = {NULL, 4096, 2};
    uint32_t holds[2] = {60, TR_NONE};
    struct tr_visit v[2] = {scratch_visit(0, 0, 1), scratch_visit(3, 0, 0)};
    struct tr_schedule_params p = scratch_params(v, 2, &pool, holds);
    struct tr_schedule s;

    (void)state;
    expect_error(tr_schedule_make(&s, &p), -EINVAL, "before it is made");
    v[1].fresh = 2; /* and says nothing of a change */
    expect_error(tr_schedule_make(&s, &p), -EINVAL, "fresh");
    for (uint32_t fresh = 0; fresh < 2; fresh++) { /* a span of the store may be either */
        v[1] = (struct tr_visit){.n_spans = 1, .span = {3}, .changed = 1, .fresh = fresh};
        assert_ok(tr_schedule_make(&s, &p));
        assert_int_equal(s.loads[0].fresh, 1);
        assert_int_equal(s.loads[1].fresh, fresh);
        tr_schedule_free(&s);
    }
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
        cmocka_unit_test(minimal_small),    cmocka_unit_test(minimal_random),
        cmocka_unit_test(sparing_is_seen),  cmocka_unit_test(state_is_spared),
        cmocka_unit_test(steady_state),     cmocka_unit_test(room_to_prefetch),
        cmocka_unit_test(scratch_random),   cmocka_unit_test(scratch_of_a_step),
        cmocka_unit_test(scratch_refusals), cmocka_unit_test(changed_again),
        cmocka_unit_test(refusals),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
